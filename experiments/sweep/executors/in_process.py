"""The executor in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

from experiments.sweep.executors.base import Execution, Setup
from experiments.sweep.progress import Advance
from experiments.sweep.tasks import Outcome, Task
from experiments.sweep.worker import Worker

OPTIONS: tuple[str, ...] = ()


def start(execution: Execution, setup: Setup, own: Callable[[], Worker]) -> InProcess:
    """Return the executor with the worker of this process."""
    return InProcess(own())


class InProcess(AbstractContextManager["InProcess"]):
    """An executor that runs the tasks one after another in this process."""

    workers = 1

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def run(self, tasks: Sequence[Task], advance: Advance) -> Iterator[Outcome]:
        """Run the tasks; see `Executor`. advance: is called after every encoding, not only every
        task.
        """
        for task in tasks:
            yield self._worker.run(task, advance)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.cache.trim()
