"""Decoders in the worker process: what they may do, the caller survives with one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sqlink.codecs.worker import Worker, decode_in_worker
from sqlink.errors import ConfigError, DataError

DECODERS = """
import ctypes, os, sys, time
import numpy as np
from sqlink.errors import ConfigError

def picture(data):
    print("noise on standard output")
    os.write(1, b"more noise")
    return np.frombuffer(data, np.uint8).reshape(2, -1, 3)

def pid(data):
    return np.frombuffer(os.getpid().to_bytes(3, "big"), np.uint8).reshape(1, 1, 3)

def hang(data):
    time.sleep(600)

def segfault(data):
    ctypes.string_at(0)

def hungry(data):
    return np.ones((1 << 31,), np.uint8)[:3].reshape(1, 1, 3)

def fail(data):
    raise RuntimeError("bad marker\\nand more lines")

def refuse(data):
    raise ConfigError("not like this")

def wrong(data):
    return np.zeros((2, 2), np.float32)
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("decoders")
    (folder / "decoders_under_test.py").write_text(DECODERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with Worker(memory_limit=1 << 29) as running:
            yield running


def run(worker: Worker, name: str, data: bytes = b"", **limits: float) -> np.ndarray:
    return worker.decode(f"decoders_under_test:{name}", data, **limits)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_returns_the_picture_that_the_function_makes(worker: Worker) -> None:
    data = bytes(range(256)) * 6 * 500
    expected = np.frombuffer(data, np.uint8).reshape(2, -1, 3)
    np.testing.assert_array_equal(run(worker, "picture", data), expected)


def test_runs_in_one_other_process_that_persists(worker: Worker) -> None:
    first, second = run(worker, "pid"), run(worker, "pid")
    assert int.from_bytes(first.tobytes(), "big") == worker.pid != os.getpid()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("segfault", r"crashed on 0 bytes \(exit -11\)"),
        ("hungry", "needs more than 512 MiB"),
        ("fail", "failed: bad marker$"),
        ("wrong", "no uint8 picture"),
    ],
)
def test_a_misbehaving_decoder_is_one_line_and_the_next_request_works(
    worker: Worker, name: str, line: str
) -> None:
    with pytest.raises(DataError, match=line):
        run(worker, name)
    assert run(worker, "picture", bytes(12)).shape == (2, 2, 3)


def test_a_decoder_that_hangs_is_stopped(worker: Worker) -> None:
    run(worker, "picture", bytes(12))
    pid = worker.pid
    start = time.monotonic()
    with pytest.raises(DataError, match=r"took more than 0\.2 s"):
        run(worker, "hang", time_limit_s=0.2)
    assert time.monotonic() - start < 5
    assert pid is not None
    assert gone(pid)
    assert run(worker, "picture", bytes(12)).shape == (2, 2, 3)


def test_a_users_error_comes_out_as_it_is(worker: Worker) -> None:
    with pytest.raises(ConfigError, match=r"^not like this$"):
        run(worker, "refuse")


def test_an_unknown_function_is_an_import_error(worker: Worker) -> None:
    with pytest.raises(ImportError, match="decoders_under_test:missing"):
        run(worker, "missing")


def test_a_worker_lost_between_requests_is_replaced(worker: Worker) -> None:
    run(worker, "picture", bytes(12))
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert run(worker, "picture", bytes(12)).shape == (2, 2, 3)
    assert worker.pid != pid


def test_an_interrupt_ends_the_request_and_the_worker_with_it(worker: Worker) -> None:
    run(worker, "picture", bytes(12))
    pid = worker.pid
    assert pid is not None
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            run(worker, "hang")
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert gone(pid)
    assert run(worker, "picture", bytes(12)).shape == (2, 2, 3)


def test_a_fork_starts_a_worker_of_its_own(worker: Worker) -> None:
    run(worker, "picture", bytes(12))
    pid = worker.pid
    child = os.fork()
    if child == 0:
        try:
            run(worker, "picture", bytes(12))
            other = worker.pid != pid
            worker.close()
            os._exit(0 if other else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert run(worker, "picture", bytes(12)).shape == (2, 2, 3)
    assert worker.pid == pid


@pytest.mark.parametrize("ending", ["", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left_when_the_parent_ends(tmp_path: Path, ending: str) -> None:
    (tmp_path / "decoders_under_test.py").write_text(DECODERS)
    code = (
        "import os; from sqlink.codecs import worker\n"
        "worker.decode_in_worker('decoders_under_test:picture', bytes(12))\n"
        f"print(worker._shared.pid, flush=True); {ending}"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
    pid = int(parent.stdout)
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert gone(pid)


def test_the_shared_worker_answers() -> None:
    with pytest.raises(DataError, match="gave no uint8 picture"):
        decode_in_worker("builtins:bytes", b"x")
