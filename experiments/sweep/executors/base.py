"""What an executor is, and what its workers are built from."""

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
"""Workers that may die in a row, without a task being finished, before a sweep gives up."""


@dataclass(frozen=True)
class Execution:
    """Where a sweep runs.

    name: one of `executors.BUILT_IN`. workers: how many; None for what the machine or cluster has.
    address: of a Ray cluster, `auto` for the one that this machine belongs to.
    """

    name: str = "in-process"
    workers: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class Setup:
    """What a worker in another process is built from.

    name: of the sweep's file, for errors. folder: of the results. grid: digest of the points, which
    a worker must find, too. done, examples: rows, and names of kept pictures, that are there.
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

        Raises SQLinkError as the sweep itself would, and ConfigError where what is installed here
        makes other points of the sweep than where it was started.
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
    """Hash all points of a worker's sweep into one text."""
    return digest([point.hash for point in worker.points])


class Executor(Protocol):
    """Runs tasks. A task whose worker dies is run again by another."""

    workers: int
    """How many tasks run at once."""

    def run(self, tasks: Sequence[Task], advance: Advance) -> Iterator[Outcome]:
        """Yield the outcome of every task, in any order; its rows are in the results' folder then.

        Raises SQLinkError of a task, once those that run beside it have ended or were stopped.
        """
        ...


def devices(sweep: Sweep, workers: int) -> list[str]:
    """List the device of each worker: of `cuda`, all GPUs in turn.

    >>> from experiments.sweep.schema import parse_sweep
    >>> sweep = parse_sweep("{data: streets, codecs: jpeg, rates: {bpp: 1}, channel: lossless}")
    >>> devices(sweep, 2)
    ['cpu', 'cpu']
    """
    count = torch.cuda.device_count()
    if sweep.device != "cuda" or not count:
        return [sweep.device] * workers
    return [f"cuda:{n % count}" for n in range(workers)]
