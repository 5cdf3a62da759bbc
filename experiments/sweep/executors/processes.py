"""Workers in processes of this machine.

The rows of a worker that dies are kept in part files, and another worker gets its task. Workers end
when the sweep's process ends, in whatever way: each watches a pipe whose other end only that
process holds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from functools import lru_cache
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Protocol

import torch

from experiments.sweep.executors.base import TRIES, Execution, Setup, devices
from experiments.sweep.finishing import say
from experiments.sweep.progress import Advance, silent
from experiments.sweep.tasks import Outcome, Task
from experiments.sweep.worker import Worker
from sqlink.errors import ConfigError
from sqlink.runtime.malloc import keep_freed_memory
from sqlink.runtime.precision import full_precision
from sqlink.wording import counted


class Names(Protocol):
    """A queue between processes."""

    def get(self) -> str: ...

    def put(self, obj: str) -> None: ...


OPTIONS = ("workers",)


def start(execution: Execution, setup: Setup, own: Callable[[], Worker]) -> Processes:
    """Return the executor with `execution.workers` workers."""
    return Processes(setup, execution.workers)


class Processes(AbstractContextManager["Processes"]):
    """An executor of several processes, each with a share of the machine's cores and GPUs.

    workers: by default one per GPU, or one per core.
    """

    def __init__(self, setup: Setup, workers: int | None = None) -> None:
        on_gpu = setup.sweep.device.startswith("cuda")
        self._cores = _cores()
        self.workers = workers or max(1, torch.cuda.device_count() if on_gpu else self._cores)
        self._setup = setup
        self._pool: ProcessPoolExecutor | None = None
        self._held: Connection | None = None

    def run(self, tasks: Sequence[Task], advance: Advance) -> Iterator[Outcome]:
        """Run the tasks; see `Executor`. Raises ConfigError if workers die repeatedly."""
        left = {task.number: task for task in tasks}
        deaths = 0
        while left:
            pool = self._pool = self._pool or self._started()
            try:
                futures: list[Future[Outcome]] = [pool.submit(_run, one) for one in left.values()]
                for future in as_completed(futures):
                    outcome = future.result()
                    del left[outcome.task.number]
                    deaths = 0
                    advance(outcome.rows, outcome.label)
                    yield outcome
            except BrokenProcessPool:
                deaths += 1
                self._stop()
                if deaths > TRIES:
                    raise ConfigError(
                        f"workers died {deaths} times in a row without finishing a task, most "
                        "likely out of memory: take fewer --workers or a smaller batch_size; "
                        "finished rows are kept"
                    ) from None
                say(f"a worker died: {counted(len(left), 'task')} left to do")

    def _started(self) -> ProcessPoolExecutor:
        """Start the workers, with the data that they are built from; they then wait for tasks."""
        context = multiprocessing.get_context("spawn")
        names = context.SimpleQueue()
        for device in devices(self._setup.sweep, self.workers):
            names.put(device)
        watched, self._held = context.Pipe(duplex=False)
        threads = max(1, self._cores // self.workers)
        return ProcessPoolExecutor(
            self.workers, context, _begin, (self._setup, names, threads, watched)
        )

    def _stop(self) -> None:
        """End the workers, also in the middle of a task."""
        pool, held, self._pool, self._held = self._pool, self._held, None, None
        if held is not None:
            held.close()
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()


def _cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_begun: list[tuple[Setup, str]] = []
"""In a worker's process: the data that it is built from, and its device."""


def _begin(setup: Setup, names: Names, threads: int, watched: Connection) -> None:
    """Prepare a worker's process, before its first task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process of the sweep stops its workers
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()
    keep_freed_memory()
    torch.set_num_threads(threads)
    _begun.append((setup, names.get()))


def _end_with(watched: Connection) -> None:
    """End this process as soon as the other end of the pipe is closed."""
    watched.poll(None)
    os._exit(1)


@lru_cache(maxsize=1)
def _worker() -> Worker:
    """Return the worker of this process, built at its first task, which then reports errors."""
    ((setup, device),) = _begun
    return setup.worker(device, setup.folder, say)


def _run(task: Task) -> Outcome:
    """Run a task in a worker's process."""
    with torch.inference_mode(), full_precision():
        worker = _worker()
        outcome = worker.run(task, silent)
        worker.cache.trim()
        return outcome
