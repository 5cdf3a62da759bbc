"""Isolation of third-party decoders: one persistent subprocess with time and memory limits.

    decode_in_worker(target, data) ── request ──> worker: import target, target(data)
            uint8 [H, W, 3]        <── reply ───  or DataError if it failed, hung, grew or crashed

A decoder of compressed pictures is native code that reads bytes which a channel may have damaged.
In the worker it may crash, hang or exhaust memory: the caller gets a DataError of one line, and the
next request starts a new worker. `target` is `module:function`, a function from bytes to uint8 [H,
W, 3]; its module is imported once per worker, and should import quickly.

Every message is a length-prefixed JSON header and raw bytes, so nothing that comes back from a
decoder is ever executed:

    u32 length of header (big-endian) | header, JSON with "bytes": n | n bytes

A request {"target", "time_limit_s"} + data is answered by {"loaded": true} once the target is
imported (the clock of the time limit starts there), then by {"shape": [H, W, 3]} + pixels or by
{"error": line, "kind": name of an exception}.

The worker has its own process session, so that Ctrl-C in the terminal only reaches the parent. It
ends when its standard input closes, and an alarm ends it if the parent dies while a decoder hangs.
POSIX only (Linux, macOS); on systems without a limit on address space, only time is limited.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from sqlink import errors
from sqlink.errors import DataError, SQLinkError

Pixels = npt.NDArray[np.uint8]

DEFAULT_TIME_LIMIT_S = 10.0
DEFAULT_MEMORY_LIMIT = 3 << 30
"""Bytes of address space that a decoder may use in addition to the worker with its target loaded.
"""
START_LIMIT_S = 120.0
"""Time limit for starting Python and importing a target on a busy machine."""
_ALARM_SLACK_S = 5
_MAX_HEADER = 1 << 16
_PREFIX = struct.Struct(">I")
_ROOT = Path(__file__).resolve().parents[2]
_BOOT = (
    "import sys; sys.path.append({root!r}); from sqlink.codecs.worker import serve; serve({limit})"
)


class _WorkerLostError(Exception):
    """The worker closed its end of the pipe."""


class _TimeLimitError(Exception):
    """No answer came in time."""


def _message(header: dict[str, Any], data: bytes = b"") -> bytes:
    head = json.dumps({**header, "bytes": len(data)}).encode()
    return _PREFIX.pack(len(head)) + head + data


class Worker:
    """A subprocess that runs decode functions; it is started at the first request and restarted if
    lost.

    >>> with Worker() as worker:
    ...     worker.decode("builtins:bytes", b"no picture")
    Traceback (most recent call last):
    ...
    sqlink.errors.DataError: decoder builtins:bytes gave no uint8 picture [H, W, 3]
    """

    def __init__(self, memory_limit: int = DEFAULT_MEMORY_LIMIT) -> None:
        """Make a worker. memory_limit: bytes of address space that a decoder may add."""
        self.memory_limit = memory_limit
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the subprocess, None if none runs."""
        return self._process.pid if self._process is not None else None

    def close(self) -> None:
        """End the subprocess; the next request starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._owner != os.getpid():
            _close_pipes(process)
            return
        if process.poll() is None:
            process.kill()
        _close_pipes(process)
        process.wait()

    def decode(
        self, target: str, data: bytes, time_limit_s: float = DEFAULT_TIME_LIMIT_S
    ) -> Pixels:
        """Run `target(data)`, which returns uint8 [H, W, 3]. See `decode_in_worker`."""
        with self._lock:
            try:
                return self._decode(target, data, time_limit_s)
            except SQLinkError:
                raise
            except BaseException:
                # An interrupted exchange leaves an unread answer in the pipe.
                self.close()
                raise

    def _decode(self, target: str, data: bytes, time_limit_s: float) -> Pixels:
        request = _message({"target": target, "time_limit_s": time_limit_s}, data)
        try:
            self._load(request)
        except _WorkerLostError:
            # The worker may have died since the last request, so this is not an error of the data.
            self.close()
            try:
                self._load(request)
            except (_WorkerLostError, _TimeLimitError) as error:
                self.close()
                raise DataError(
                    f"the decoder's worker process does not start ({target}); "
                    "is there memory and a free process left?"
                ) from error
        except _TimeLimitError as error:
            self.close()
            raise DataError(
                f"decoder {target} was not ready within {START_LIMIT_S:g} s; "
                "is the machine overloaded?"
            ) from error
        try:
            header, body = self._receive(time.monotonic() + time_limit_s)
        except _TimeLimitError as error:
            self.close()
            raise DataError(
                f"decoder {target} took more than {time_limit_s:g} s on {len(data)} bytes; "
                "they are damaged or the picture is too large"
            ) from error
        except _WorkerLostError as error:
            process = self._process
            self.close()
            code = process.returncode if process is not None else None
            raise DataError(
                f"decoder {target} crashed on {len(data)} bytes (exit {code}); they are damaged"
            ) from error
        if "error" in header:
            if header.get("kind") == "MemoryError":
                self.close()
            raise _error(header)
        return _pixels(target, header, body)

    def _load(self, request: bytes) -> None:
        """Send a request and wait until its target is imported."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except OSError as error:
            raise _WorkerLostError from error
        header, _ = self._receive(time.monotonic() + START_LIMIT_S)
        if "error" in header:
            raise _error(header)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner != os.getpid():
            # A forked process shares the pipes of its parent's worker and must not use them.
            self.close()
        if self._process is None:
            boot = _BOOT.format(root=str(_ROOT), limit=self.memory_limit)
            threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", boot],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **threads},
            )
            self._owner = os.getpid()
        return self._process

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytes]:
        (length,) = _PREFIX.unpack(self._read(_PREFIX.size, deadline))
        if length > _MAX_HEADER:
            raise _WorkerLostError
        try:
            header = json.loads(self._read(length, deadline))
            size = header["bytes"]
        except (ValueError, KeyError, TypeError) as error:
            raise _WorkerLostError from error
        if not isinstance(size, int) or not 0 <= size <= self.memory_limit:
            raise _WorkerLostError
        return header, self._read(size, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        """Read exactly `size` bytes of the worker's answer before `deadline` (monotonic
        seconds).
        """
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        got = bytearray()
        while len(got) < size:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left):
                raise _TimeLimitError
            chunk = os.read(descriptor, min(size - len(got), 1 << 20))
            if not chunk:
                raise _WorkerLostError
            got += chunk
        return bytes(got)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _error(header: dict[str, Any]) -> Exception:
    """Make the exception for an error answer."""
    line, kind = str(header["error"]), str(header.get("kind"))
    if kind == "ImportError":
        return ImportError(line)
    known = getattr(errors, kind, None) if kind in errors.__all__ else None
    if isinstance(known, type) and issubclass(known, SQLinkError):
        return known(line)
    return DataError(line)


def _pixels(target: str, header: dict[str, Any], body: bytes) -> Pixels:
    shape = header.get("shape")
    if (
        not isinstance(shape, list)
        or len(shape) != 3
        or not all(isinstance(n, int) and n > 0 for n in shape)
        or shape[2] != 3
        or shape[0] * shape[1] * 3 != len(body)
    ):
        raise DataError(f"decoder {target} gave no uint8 picture [H, W, 3]")
    return np.frombuffer(body, np.uint8).reshape(shape).copy()


_shared = Worker()
atexit.register(_shared.close)


def decode_in_worker(
    target: str, data: bytes, time_limit_s: float = DEFAULT_TIME_LIMIT_S
) -> Pixels:
    """Run the decode function `module:function` on `data` in the process-wide worker.

    Returns its picture, uint8 [H, W, 3]. time_limit_s: seconds of wall clock from the moment the
    function is imported. A SQLinkError of the function is raised unchanged. Raises DataError for
    any other exception, for a crash, and if the function exceeds its time or memory limit;
    ImportError if there is no such function.
    """
    return _shared.decode(target, data, time_limit_s)


# The functions below run in the worker.


def serve(memory_limit: int) -> None:
    """Answer requests on standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Native libraries may print to standard output, which must not mix with the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = sys.stdin.buffer
    loaded: dict[str, Callable[[bytes], Pixels]] = {}
    while True:
        prefix = requests.read(_PREFIX.size)
        if len(prefix) < _PREFIX.size:
            return
        header = json.loads(requests.read(_PREFIX.unpack(prefix)[0]))
        data = requests.read(header["bytes"])
        target = header["target"]
        try:
            if target not in loaded:
                _limit_memory(None)
                loaded[target] = _import(target)
                _limit_memory(memory_limit)
        except Exception as error:
            _answer(answers, {"error": f"no decoder {target}: {error}", "kind": "ImportError"})
            continue
        _answer(answers, {"loaded": True})
        signal.alarm(int(header["time_limit_s"]) + _ALARM_SLACK_S)
        try:
            picture = np.asarray(loaded[target](data))
            if picture.dtype != np.uint8 or picture.ndim != 3:
                raise DataError(f"decoder {target} gave no uint8 picture [H, W, 3]")
            reply, body = {"shape": list(picture.shape)}, picture.tobytes()
        except Exception as error:
            reply, body = _failure(target, error, memory_limit), b""
        signal.alarm(0)
        _answer(answers, reply, body)


def _import(target: str) -> Callable[[bytes], Pixels]:
    module, _, name = target.partition(":")
    function: Callable[[bytes], Pixels] = getattr(importlib.import_module(module), name)
    return function


def _failure(target: str, error: Exception, memory_limit: int) -> dict[str, Any]:
    if isinstance(error, MemoryError):
        line = f"decoder {target} needs more than {memory_limit >> 20} MiB; the bytes are damaged"
    elif isinstance(error, SQLinkError):
        line = str(error)
    else:
        said = str(error).strip().splitlines()
        line = f"decoder {target} failed: {said[0] if said else type(error).__name__}"
    return {"error": line[:1000], "kind": type(error).__name__}


def _limit_memory(limit: int | None) -> None:
    """Limit the growth of the address space to `limit` bytes; None for no limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if limit is None or not statm.exists():
        soft = hard
    else:
        soft = int(statm.read_text().split()[0]) * resource.getpagesize() + limit
        if hard != resource.RLIM_INFINITY:
            soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _answer(answers: BinaryIO, header: dict[str, Any], data: bytes = b"") -> None:
    answers.write(_message(header, data))
    answers.flush()
