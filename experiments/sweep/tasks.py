"""The unit of work that an executor distributes: some pictures under some encodings.

    numbers of pictures ── cut ──> Task, Task, ... ── Worker.run ──> Outcome

A task names pictures by their numbers, so that only the worker that codes them loads them. Its rows
depend neither on the worker nor on how the sweep is divided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from experiments.sweep.timings import Spent

TASKS_A_WORKER = 4
"""Smallest number of tasks per worker, if there is enough work, so that all workers end at about
the same time.
"""


@dataclass(frozen=True)
class Task:
    """Pictures by their numbers; in a sequence, one whole run.

    number: the task's own, in the order of the pictures. encodings: numbers of the groups of points
    that share an encoding. realisations: first, and last plus one; earlier ones are finished.
    """

    number: int
    pictures: tuple[int, ...]
    encodings: tuple[int, ...]
    realisations: tuple[int, int]


@dataclass(frozen=True)
class Outcome:
    """Result of a task, once its rows are written.

    keys: number of the picture -> its key. rows: number of the task's rows, computed now or
    earlier. spent: seconds, as counted by `Timings`. hits: entries taken from the cache, by kind;
    misses: entries computed. notes: lines for the user. label: description for the progress bar.
    """

    task: Task
    keys: Mapping[int, str]
    rows: int
    spent: Spent = field(default_factory=dict)
    hits: Mapping[str, int] = field(default_factory=dict)
    misses: Mapping[str, int] = field(default_factory=dict)
    label: str = ""


def cut(
    groups: Sequence[Sequence[int]],
    encodings: int,
    realisations: tuple[int, int],
    batch_size: int,
    workers: int = 1,
) -> list[Task]:
    """Divide the work into tasks.

    groups: numbers of pictures that must stay together, in order. encodings: their number. With one
    worker a task is a batch with all encodings. With several, batches are made smaller until each
    worker has enough tasks, and then the encodings are divided, too.

    >>> [task.pictures for task in cut([[0], [1], [2]], 5, (0, 1), 2)]
    [(0, 1), (2,)]
    >>> [task.encodings for task in cut([[0], [1]], 4, (0, 1), 2, workers=1)]
    [(0, 1, 2, 3)]
    >>> len(cut([[0], [1]], 4, (0, 1), 2, workers=2))
    8
    """
    wanted = 1 if workers == 1 else TASKS_A_WORKER * workers
    longest = max((len(group) for group in groups), default=1)
    size = max(1, batch_size // longest) if longest == 1 else 1
    size = max(1, min(size, len(groups) // wanted if workers > 1 else size))
    batches = list(_runs(groups, size))
    pieces = 1 if not batches else min(encodings, math.ceil(wanted / len(batches)))
    if workers == 1:
        pieces = 1
    tasks: list[Task] = []
    for batch in batches:
        pictures = tuple(number for group in batch for number in group)
        for piece in range(pieces):
            of = tuple(range(encodings * piece // pieces, encodings * (piece + 1) // pieces))
            tasks.append(Task(len(tasks), pictures, of, realisations))
    return tasks


def _runs(groups: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[Sequence[int]]]:
    for start in range(0, len(groups), size):
        yield groups[start : start + size]
