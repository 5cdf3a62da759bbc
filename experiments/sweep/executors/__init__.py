"""Where the tasks of a sweep run: in this process, in processes of this machine, on a Ray cluster.

    Runner ── tasks ──> Executor ── outcomes, as they come ──> Runner
                          │
                       Worker, Worker, ...   each writes part files of its own

`base` says what an executor is; `executor` makes one by name. A module of an executor has
`OPTIONS`, those of `workers` and `address` that it takes, and `start`, which returns it; a line in
`BUILT_IN` gives it a name.
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
"""Name -> the module that holds the executor."""


class _Module(Protocol):
    """What a module of an executor holds."""

    OPTIONS: Sequence[str]

    def start(
        self, execution: Execution, setup: Setup, own: Callable[[], Worker]
    ) -> AbstractContextManager[Executor]: ...


def check(execution: Execution) -> None:
    """Raise ConfigError where the executor is unknown, or options do not go together."""
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

    Raises ConfigError as `check` does, MissingExtraError without Ray, and SQLinkError where a
    cluster does not answer.
    """
    check(execution)
    return _module(execution.name).start(execution, setup, own)


def _module(name: str) -> _Module:
    return cast(_Module, import_module(BUILT_IN[name]))
