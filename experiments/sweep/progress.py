"""Progress of a sweep: a bar for people, JSON lines for batch systems, or nothing."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, str], None]
"""Function that advances by a number of rows and says what is being done."""

KINDS = ("bar", "json", "none")


@contextlib.contextmanager
def progress(kind: str, total: int) -> Iterator[Advance]:
    """Show the progress of `total` rows on standard error; kind: one of KINDS.

    A line of JSON has `rows`, `total`, `seconds` since the start and `doing`.
    """
    if kind != "bar":
        yield _lines(total) if kind == "json" else silent
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("starting", total=total)

        def advance(rows: int, what: str) -> None:
            bar.update(task, advance=rows, description=what)

        yield advance


def _lines(total: int) -> Advance:
    done, start = 0, time.monotonic()

    def advance(rows: int, what: str) -> None:
        nonlocal done
        done += rows
        seconds = round(time.monotonic() - start, 3)
        line = {"rows": done, "total": total, "seconds": seconds, "doing": what}
        print(json.dumps(line), file=sys.stderr, flush=True)

    return advance


def silent(rows: int, what: str) -> None:
    """Show nothing; see `Advance`."""
