"""Workers on the machines of a Ray cluster.

A worker is an actor with a core, or with a GPU where the sweep runs on CUDA. It writes to a folder
of its own machine and returns the files with each task, so that the machines need no shared disk.
If a worker or its machine dies, Ray starts another one and gives it the task again.

Each machine needs SQLink, and the pictures at the paths in the sweep's file.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import torch

from channels.atomic_write import whole_file
from experiments.sweep.executors.base import TRIES, Execution, Setup
from experiments.sweep.finishing import say
from experiments.sweep.progress import Advance, silent
from experiments.sweep.tasks import Outcome, Task
from experiments.sweep.worker import Worker
from sqlink.errors import ConfigError, MissingExtraError, SQLinkError, one_line
from sqlink.runtime.precision import full_precision

ANSWER_S = 5.0
"""Time in seconds within which the address of a cluster must answer."""

LOCAL = ("auto", "local")
"""Addresses that are names: the cluster of this machine, and a cluster for this sweep alone."""

Files = list[tuple[str, bytes]]
"""Paths below the results folder, and contents."""


OPTIONS = ("workers", "address")


def start(execution: Execution, setup: Setup, own: Callable[[], Worker]) -> RayCluster:
    """Return the executor on the cluster at the address. Raises what `RayCluster` raises."""
    return RayCluster(setup, execution.workers, execution.address or "auto")


class RayCluster(AbstractContextManager["RayCluster"]):
    """An executor of actors on the cluster at `address`; by default one per core or GPU.

    Raises MissingExtraError without Ray, ConfigError if the address does not answer or the cluster
    has no core or GPU.
    """

    def __init__(self, setup: Setup, workers: int | None = None, address: str = "auto") -> None:
        self._ray = _ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            connect(self._ray, address)
        self._folder = setup.folder
        on_gpu = setup.sweep.device.startswith("cuda")
        kind = "GPU" if on_gpu else "CPU"
        there = int(self._ray.cluster_resources().get(kind, 0))
        if not there:
            self.__exit__(None, None, None)
            raise ConfigError(f"the Ray cluster at {address} has no {kind}: start nodes with some")
        self.workers = min(workers or there, there)
        if workers is not None and workers > there:
            say(f"--workers {workers}: the Ray cluster has {there} {kind}s: going on with {there}")
        actor = self._ray.remote(
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else 0,
            max_restarts=-1,
            max_task_retries=TRIES,
        )(RayWorker)
        self._shared = self._ray.put(setup)  # kept alive: a restarted actor needs it
        self._actors = [actor.remote(self._shared, os.getcwd()) for _ in range(self.workers)]

    def run(self, tasks: Sequence[Task], advance: Advance) -> Iterator[Outcome]:
        """Run the tasks; see `Executor`. Raises ConfigError if workers die repeatedly."""
        waiting = deque(tasks)
        # An actor gets its first task once it has started: on a busy cluster some may start late.
        running = {actor.begin.remote(): actor for actor in self._actors}
        begun = dict.fromkeys(running, True)
        left = len(waiting)
        while left:
            (ready,), _ = self._ray.wait(list(running), num_returns=1)
            actor = running.pop(ready)
            answer = self._answer(ready)
            if waiting:
                running[actor.run.remote(waiting.popleft())] = actor
            if begun.pop(ready, False):
                continue
            outcome, files = answer
            for name, data in files:
                _write(self._folder / name, data)
            left -= 1
            advance(outcome.rows, outcome.label)
            yield outcome

    def _answer(self, reference: Any) -> Any:
        """Return the result of a call of an actor. Raises its error."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, SQLinkError):
                raise type(cause)(str(cause)) from None
            raise
        except (errors.RayActorError, errors.WorkerCrashedError, errors.NodeDiedError) as error:
            raise ConfigError(
                f"a worker on the Ray cluster died {TRIES + 1} times with the same task, most "
                "likely out of memory: take a smaller batch_size; finished rows are kept "
                f"({one_line(error)[:120]})"
            ) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in getattr(self, "_actors", ()):
            self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()


class RayWorker:
    """The actor on the cluster; cwd: folder of relative paths in the sweep's file."""

    def __init__(self, setup: Setup, cwd: str) -> None:
        if os.path.isdir(cwd):
            os.chdir(cwd)
        self._setup = setup
        torch.set_num_threads(1)

    def begin(self) -> None:
        """Build the worker. Raises SQLinkError if that fails on this machine."""
        with torch.inference_mode(), full_precision():
            assert self._worker

    def run(self, task: Task) -> tuple[Outcome, Files]:
        """Run a task; return its outcome and its files, with their paths in the results folder."""
        with torch.inference_mode(), full_precision():
            outcome = self._worker.run(task, silent)
            self._worker.cache.trim()
        folder = Path(self._home.name)
        files: Files = []
        for path in sorted(folder.glob("*/*")):
            files.append((path.relative_to(folder).as_posix(), path.read_bytes()))
            path.unlink()
        return outcome, files

    @cached_property
    def _home(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="sqlink-")

    @cached_property
    def _worker(self) -> Worker:
        setup = self._setup
        if setup.cache is not None:
            try:
                setup.cache.mkdir(parents=True, exist_ok=True)
            except OSError:  # a folder on the machine where the sweep was started
                setup = replace(setup, cache=None)
        device = "cuda" if setup.sweep.device.startswith("cuda") else setup.sweep.device
        return setup.worker(device, Path(self._home.name), say)


def connect(ray: Any, address: str) -> None:
    """Connect to a cluster. Raises ConfigError, one line, if the address does not answer."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    remedy = "start one with `ray start --head`, or name another --address"
    if address not in LOCAL:
        _knock(address, remedy)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers ({one_line(error)[:100]}): {remedy}"
        ) from error


def _knock(address: str, remedy: str) -> None:
    """Raise ConfigError if nothing listens at HOST:PORT or ray://HOST:PORT."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise ConfigError(f"--address {address}: give auto, local, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except OSError as error:
        raise ConfigError(
            f"--address {address}: no Ray cluster answers ({error.strerror or error}): {remedy}"
        ) from error


def _ray() -> Any:
    """Import the package. Raises MissingExtraError."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingExtraError(
            "--executor ray needs the package ray: pip install sqlink[ray]"
        ) from error
    return ray


def _write(path: Path, data: bytes) -> None:
    """Write a file, completely or not at all. Raises ConfigError."""
    try:
        path.parent.mkdir(exist_ok=True)
        with whole_file(path, durable=True) as aside:
            aside.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
