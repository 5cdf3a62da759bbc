"""Where the tasks of a sweep run: in this process, in processes of this machine, on a Ray cluster.

    Runner ── tasks ──> Executor ── outcomes, as they come ──> Runner
                          │
                       Worker, Worker, ...   each writes part files of its own

`base` says what an executor is; `executor` makes one by name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from channels.registry import nearest
from experiments.sweep.executors.base import Execution, Executor, InProcess, Setup
from experiments.sweep.worker import Worker
from sqlink.errors import ConfigError

NAMES = ("in-process", "processes", "ray")


def check(execution: Execution) -> None:
    """Raises ConfigError where the executor is unknown, or options do not go together."""
    if execution.name not in NAMES:
        raise ConfigError(f"--executor {execution.name}: {nearest(execution.name, NAMES)}")
    if execution.workers is not None and execution.workers < 1:
        raise ConfigError(f"--workers {execution.workers}: give 1 or more")
    if execution.workers is not None and execution.name == "in-process":
        raise ConfigError("--workers: an executor in this process has one: add -e processes")
    if execution.address is not None and execution.name != "ray":
        raise ConfigError("--address: only --executor ray has an address: add it, or leave it out")


def executor(
    execution: Execution, setup: Setup, own: Callable[[], Worker]
) -> AbstractContextManager[Executor]:
    """Return an executor by name; own: the worker of this process.

    Raises ConfigError as `check` does, MissingExtraError without Ray, and SQLinkError where a
    cluster does not answer.
    """
    check(execution)
    if execution.name == "processes":
        from experiments.sweep.executors.processes import Processes

        return Processes(setup, execution.workers)
    if execution.name == "ray":
        from experiments.sweep.executors.ray_cluster import RayCluster

        return RayCluster(setup, execution.workers, execution.address or "auto")
    return InProcess(own())
