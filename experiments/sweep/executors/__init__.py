"""Executors run the tasks of a sweep: in this process, in several processes, on a Ray cluster.

    Runner ── tasks ──> Executor ── outcomes, as they come ──> Runner
                          │
                       Worker, Worker, ...   each writes part files of its own

`base` has the protocol of executors; `executor` makes one by name. The module of an executor has
`OPTIONS`, those of `workers` and `address` that it accepts, and `start`, which returns it; a line
in `BUILT_IN` gives it a name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Protocol, cast

from channels.registry import nearest
from experiments.sweep.executors.base import Execution, Executor, Setup
from experiments.sweep.worker import Worker
from sqlink.errors import ConfigError

BUILT_IN = {
    "in-process": "experiments.sweep.executors.in_process",
    "processes": "experiments.sweep.executors.processes",
    "ray": "experiments.sweep.executors.ray_cluster",
}
"""Map from a name to the module of the executor."""


class _Module(Protocol):
    """Protocol of the module of an executor."""

    OPTIONS: Sequence[str]

    def start(
        self, execution: Execution, setup: Setup, own: Callable[[], Worker]
    ) -> AbstractContextManager[Executor]: ...


def check(execution: Execution) -> None:
    """Raise ConfigError if the executor is unknown or does not accept an option."""
    name = execution.name
    if name not in BUILT_IN:
        raise ConfigError(f"--executor {name}: {nearest(name, list(BUILT_IN))}")
    if execution.workers is not None and execution.workers < 1:
        raise ConfigError(f"--workers {execution.workers}: give 1 or more")
    for option, value in (("workers", execution.workers), ("address", execution.address)):
        if value is not None and option not in _module(name).OPTIONS:
            able = [one for one in BUILT_IN if option in _module(one).OPTIONS]
            raise ConfigError(
                f"--{option}: --executor {name} takes none, {' and '.join(able)} "
                f"{'does' if len(able) == 1 else 'do'}: add it, or leave --{option} out"
            )


def executor(
    execution: Execution, setup: Setup, own: Callable[[], Worker]
) -> AbstractContextManager[Executor]:
    """Return an executor by name; own: the worker of this process.

    Raises ConfigError as `check` does, MissingExtraError without Ray, and SQLinkError if a cluster
    does not answer.
    """
    check(execution)
    return _module(execution.name).start(execution, setup, own)


def _module(name: str) -> _Module:
    return cast(_Module, import_module(BUILT_IN[name]))
