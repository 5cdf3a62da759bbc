"""Wherever its tasks run, and whatever dies on the way, a sweep comes to the same table."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from experiments.sweep.executors.base import TRIES, Execution
from experiments.sweep.runner import run_sweep
from experiments.sweep.store import read_parquet, read_results
from experiments.sweep.tasks import cut
from sqlink.data import open_dataset
from sqlink.data.pictures import save_picture
from sqlink.errors import ConfigError, MissingExtraError, SQLinkError

Same = Callable[[Path, Path], None]

SWEEP = """
data: {{name: folder, options: {{root: {root}}}}}
codecs: [jpeg2000, jpeg]
rates: {{bpp: [0.8, 1.5, 2.5]}}
channels: {{lossy: iid, bursty: bursts}}
conditions: {{loss: [0.05, 0.2]}}
realisations: 5
metrics: [psnr]
examples: 2
batch_size: 2
"""

RUN = (
    "import sys; from experiments.sweep.executors.base import Execution;"
    "from experiments.sweep.runner import run_sweep;"
    "run_sweep(sys.argv[1], sys.argv[2], progress=False,"
    " execution=Execution(sys.argv[3], None if sys.argv[3] == 'in-process' else 2))"
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of five small scenes of two sizes."""
    folder = tmp_path_factory.mktemp("sweep")
    for n, (height, width) in enumerate([(48, 64)] * 4 + [(64, 48)]):
        (sample,) = open_dataset("streets", seed=n, count=1, height=height, width=width)
        save_picture(sample.image, folder / f"{n}.png")
    path = folder / "sweep.yaml"
    path.write_text(SWEEP.format(root=folder), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its results, of one undisturbed run in this process."""
    return run_sweep(sweep, tmp_path_factory.mktemp("whole"), progress=False)


def _pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def _identical(same: Same, folder: Path, whole: Path) -> None:
    """The same table, no row lost or doubled, the same pictures, the same summary."""
    same(folder, whole)
    rows = read_results(folder).to_pylist()
    keys = [(row["point"], row["picture_key"], row["realisation"]) for row in rows]
    assert len(set(keys)) == len(keys) == 2 * 3 * 2 * 2 * 5 * 5
    assert _pictures(folder) == _pictures(whole)
    ours, theirs = (read_parquet(one / "summary.parquet") for one in (folder, whole))
    assert ours.column_names == theirs.column_names
    assert ours.num_rows == theirs.num_rows


def test_processes_come_to_the_same_table(
    sweep: Path, whole: Path, same: Same, tmp_path: Path
) -> None:
    folder = run_sweep(sweep, tmp_path / "out", progress=False, execution=Execution("processes", 2))
    _identical(same, folder, whole)


def test_tasks_name_every_encoding_of_every_picture_once() -> None:
    for workers in (1, 2, 7):
        for count in (1, 3, 50):
            tasks = cut([(n,) for n in range(count)], 6, (2, 9), 8, workers)
            named = [(n, e) for task in tasks for n in task.pictures for e in task.encodings]
            assert len(set(named)) == len(named) == 6 * count
            assert {task.realisations for task in tasks} == {(2, 9)}
            assert len(tasks) >= min(4 * workers, 6 * count) or workers == 1
    runs = cut([(0, 1, 2), (3, 4)], 2, (0, 1), 8, 3)
    assert {task.pictures for task in runs} == {(0, 1, 2), (3, 4)}


def _children(pid: int) -> list[int]:
    """Processes that a process started and that compute for it."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [n for n in map(int, found) if b"spawn_main" in _command(n)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _started(sweep: Path, folder: Path, executor: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, str(sweep), str(folder), executor]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def _wait(process: subprocess.Popen[str], folder: Path, parts: int) -> None:
    """Until so many part files are there."""
    while len(list(folder.glob("parts/*.parquet"))) < parts:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("executor", "seed"), [("in-process", 1), ("processes", 2), ("processes", 3)]
)
def test_killed_at_any_moment_and_resumed_is_an_undisturbed_run(
    executor: str, seed: int, sweep: Path, whole: Path, same: Same, tmp_path: Path
) -> None:
    """SQLINK_KILLS moments, one in CI, of each executor."""
    dice, folder = random.Random(seed), tmp_path / "broken"
    for _ in range(int(os.environ.get("SQLINK_KILLS", "1"))):
        with _started(sweep, folder, executor) as process:
            _wait(process, folder, 1)
            time.sleep(dice.random())
            workers = _children(process.pid) if process.poll() is None else []
            process.kill()
        # Workers do not outlive the process that has the folder.
        end = time.monotonic() + 60
        while any(b"spawn_main" in _command(pid) for pid in workers):
            assert time.monotonic() < end
            time.sleep(0.02)
    run_sweep(sweep, folder, progress=False)
    _identical(same, folder, whole)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_dies_takes_nothing_with_it(
    sweep: Path, whole: Path, same: Same, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    with _started(sweep, folder, "processes") as process:
        _wait(process, folder, 1)
        os.kill(_children(process.pid)[0], signal.SIGKILL)
        _, said = process.communicate(timeout=1200)
    assert process.returncode == 0, said
    assert "a worker died" in said
    assert "Traceback" not in said
    _identical(same, folder, whole)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sends SIGINT to a process group")
def test_ctrl_c_ends_the_workers_and_keeps_their_rows(
    sweep: Path, whole: Path, same: Same, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {RUN}"
    command = [sys.executable, "-c", code, str(sweep), str(folder), "processes"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        _wait(process, folder, 1)
        workers = _children(process.pid)
        begun = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=1200)
    assert time.monotonic() - begun < 60
    assert process.returncode == -signal.SIGINT
    assert said.count("Traceback") <= 1, said  # the interpreter's own; the command line has none
    assert not any(b"spawn_main" in _command(pid) for pid in workers)
    run_sweep(sweep, folder, progress=False)
    _identical(same, folder, whole)


def test_an_error_of_a_worker_is_its_one_line(sweep: Path, tmp_path: Path) -> None:
    text = sweep.read_text().replace("bursty: bursts", "gone: {trace: {file: gone.csv}}")
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gone\.csv"):
        run_sweep(path, tmp_path / "out", progress=False, execution=Execution("processes", 1))


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (Execution("procesess"), "--executor procesess: did you mean 'processes'"),
        (Execution("processes", 0), "--workers 0: give 1 or more"),
        (
            Execution("in-process", 2),
            "--workers: --executor in-process takes none, processes and ray do",
        ),
        (
            Execution("processes", address="auto"),
            "--address: --executor processes takes none, ray does",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    execution: Execution, message: str, sweep: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_sweep(sweep, tmp_path / "out", progress=False, execution=execution)
    assert not (tmp_path / "out").exists()


def test_without_ray_one_line_says_how_to_have_it(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install sqlink\[ray\]"):
        run_sweep(sweep, tmp_path / "out", progress=False, execution=Execution("ray"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster of three nodes on this machine, a core each."""
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default: starved on a busy machine
    ray = pytest.importorskip("ray", reason="needs the package ray: pip install sqlink[ray]")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    try:
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    except Exception as error:  # Ray's own, of no other type
        if "timed out" not in str(error):
            raise
        pytest.skip(f"Ray does not start on so busy a machine: {error}")
    try:
        for _ in range(2):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        ray.shutdown()
        cluster.shutdown()


class StandIn(types.ModuleType):
    """As much of Ray as the executor calls, in this process: an actor runs when it is waited for.

    dies: calls of actors before which one is lost for good.
    """

    def __init__(self, cores: int = 3, dies: int | None = None) -> None:
        super().__init__("ray")
        self.cores, self.dies, self.calls = cores, dies, 0
        self.exceptions = types.ModuleType("ray.exceptions")
        for name in ("RayTaskError", "RayActorError", "WorkerCrashedError", "NodeDiedError"):
            setattr(self.exceptions, name, type(name, (Exception,), {"cause": None}))
        self.options: dict[str, object] = {}
        self.killed: list[object] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, address: str, **_: object) -> None:
        if address != "auto":
            raise ConnectionError("nobody is there")

    def shutdown(self) -> None:
        self.calls = -1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cores)}

    def put(self, value: object) -> object:
        return value

    def kill(self, actor: object) -> None:
        self.killed.append(actor)

    def remote(self, **options: object) -> Callable[[type], object]:
        self.options = options

        def of(kind: type) -> object:
            def made(*arguments: object) -> object:
                actor = kind(*arguments)
                calls = {
                    name: types.SimpleNamespace(remote=partial(self.reference, actor, name))
                    for name in ("begin", "run")
                }
                return types.SimpleNamespace(**calls)

            return types.SimpleNamespace(remote=made)

        return of

    def reference(self, actor: object, name: str, *arguments: object) -> Callable[[], object]:
        return lambda: getattr(actor, name)(*arguments)

    def wait(self, references: list[object], num_returns: int) -> tuple[list[object], list[object]]:
        return references[-num_returns:], references[:-num_returns]  # not in their order

    def get(self, reference: Callable[[], object]) -> object:
        self.calls += 1
        if self.calls == self.dies:
            raise self.exceptions.RayActorError("the actor died")
        try:
            return reference()
        except SQLinkError as error:
            wrapped = self.exceptions.RayTaskError(f"Traceback ...\n{error}")
            wrapped.cause = error
            raise wrapped from error


def _standing_in(monkeypatch: pytest.MonkeyPatch, **options: int) -> StandIn:
    ray = StandIn(**options)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ray.exceptions)
    return ray


def test_workers_of_a_cluster_send_their_files_home(
    sweep: Path, whole: Path, same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = _standing_in(monkeypatch)
    folder = tmp_path / "out"
    run_sweep(sweep, folder, progress=False, execution=Execution("ray", 2))
    _identical(same, folder, whole)
    assert ray.options == {
        "num_cpus": 1,
        "num_gpus": 0,
        "max_restarts": -1,
        "max_task_retries": TRIES,
    }
    assert len(ray.killed) == 2
    before = _pictures(folder)
    run_sweep(sweep, folder, progress=False, execution=Execution("ray"))
    assert _pictures(folder) == before


def test_a_cluster_that_fails_keeps_the_rows_and_says_one_line(
    sweep: Path, whole: Path, same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    _standing_in(monkeypatch, dies=6)
    with pytest.raises(ConfigError, match="died 4 times with the same task") as error:
        run_sweep(sweep, folder, progress=False, execution=Execution("ray"))
    assert "\n" not in str(error.value)
    assert list(folder.glob("parts/*.parquet"))
    _standing_in(monkeypatch, cores=0)
    with pytest.raises(ConfigError, match="the Ray cluster at auto has no CPU"):
        run_sweep(sweep, folder, progress=False, execution=Execution("ray"))
    _standing_in(monkeypatch)
    with pytest.raises(ConfigError, match="--address local: no Ray cluster answers"):
        run_sweep(sweep, folder, progress=False, execution=Execution("ray", address="local"))
    run_sweep(sweep, folder, progress=False)
    _identical(same, folder, whole)


def _actors() -> list[int]:
    """Processes of Ray that run tasks of a sweep just now."""
    found = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    return [int(path.name) for path in found if _command(int(path.name)).startswith(b"ray::RayW")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_three_nodes_of_ray_come_to_the_same_table_though_a_worker_dies(
    sweep: Path, whole: Path, same: Same, cluster: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    killed: list[int] = []

    def kill() -> None:
        while not list(folder.glob("parts/*.parquet")):
            time.sleep(0.01)
        killed.append(_actors()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    run_sweep(sweep, folder, progress=False, execution=Execution("ray", address=cluster))
    killer.join(timeout=5)
    assert killed
    _identical(same, folder, whole)


def test_an_address_that_does_not_answer_is_said_in_one_line(sweep: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the package ray: pip install sqlink[ray]")
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for address, message in (
            (f"127.0.0.1:{port}", "no Ray cluster answers"),
            ("nowhere", "give auto, local, HOST:PORT"),
        ):
            with pytest.raises(ConfigError, match=message) as error:
                run_sweep(
                    sweep, tmp_path / "out", progress=False, execution=Execution("ray", 1, address)
                )
            assert "\n" not in str(error.value)
