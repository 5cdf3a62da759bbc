"""The protocol of executors, and the data that workers are built from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from experiments.sweep.cache import Cache
from experiments.sweep.components import Components
from experiments.sweep.grid import digest
from experiments.sweep.progress import Advance
from experiments.sweep.schema import Sweep
from experiments.sweep.store import Done, Store
from experiments.sweep.tasks import Outcome, Task
from experiments.sweep.worker import Worker
from sqlink.errors import ConfigError

TRIES = 3
"""Number of consecutive deaths of workers, without a finished task, after which a sweep stops."""


@dataclass(frozen=True)
class Execution:
    """Where a sweep runs.

    name: one of `executors.BUILT_IN`. workers: number of workers; None for one per core or GPU.
    address: of a Ray cluster, `auto` for the one that this machine belongs to.
    """

    name: str = "in-process"
    workers: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class Setup:
    """Data that a worker in another process is built from.

    name: of the sweep's file, for errors. folder: of the results. grid: digest of the points, which
    must be equal in a worker. done, examples: finished rows, and names of existing kept pictures.
    cache: its folder, and limit in bytes.
    """

    sweep: Sweep
    name: str
    folder: Path
    grid: str
    done: Done
    examples: frozenset[str]
    cache: Path | None
    limit: int

    def worker(self, device: str, folder: Path, say: Callable[[str], None]) -> Worker:
        """Build a worker that writes to `folder`.

        Raises SQLinkError as the sweep itself would, and ConfigError if the software or files here
        give other points than on the machine where the sweep was started.
        """
        sweep = self.sweep.model_copy(update={"device": device})
        components = Components.of(sweep, self.name)
        store = Store.of_worker(folder)
        cache = Cache(self.cache, self.limit, say)
        worker = Worker(sweep, components, store, self.done, cache, say, self.examples)
        if grid_digest(worker) != self.grid:
            raise ConfigError(
                f"{self.name}: a worker on {platform.node()} has other weights, files or "
                "versions than where the sweep was started: install the same there"
            )
        return worker


def grid_digest(worker: Worker) -> str:
    """Hash all points of a worker's sweep to a text."""
    return digest([point.hash for point in worker.points])


class Executor(Protocol):
    """Protocol of executors. If a worker dies, another one runs its task again."""

    workers: int
    """Number of tasks that run at once."""

    def run(self, tasks: Sequence[Task], advance: Advance) -> Iterator[Outcome]:
        """Yield the outcome of every task, in any order, once its rows are in the results folder.

        If a task raises SQLinkError, this is raised once the other running tasks have ended or
        stopped.
        """
        ...


def devices(sweep: Sweep, workers: int) -> list[str]:
    """List the device of each worker; `cuda` stands for all GPUs in turn.

    >>> from experiments.sweep.schema import parse_sweep
    >>> sweep = parse_sweep("{data: streets, codecs: jpeg, rates: {bpp: 1}, channel: lossless}")
    >>> devices(sweep, 2)
    ['cpu', 'cpu']
    """
    count = torch.cuda.device_count()
    if sweep.device != "cuda" or not count:
        return [sweep.device] * workers
    return [f"cuda:{n % count}" for n in range(workers)]
