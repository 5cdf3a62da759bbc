"""Progress of long work on one picture, on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlink.codecs.base import Codec


@contextlib.contextmanager
def search_shown(coder: Codec) -> Iterator[None]:
    """Show the passes of a codec's searches while in the context, if standard error is a
    terminal.
    """
    from sqlink.codecs.sqgan.codec import SQGANCodec

    if not isinstance(coder, SQGANCodec) or not coder.searches or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = "searching", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a file keeps its lines
    )
    with bar:
        task = bar.add_task("searching", total=None)

        def show(done: int, passes: int) -> None:
            if done == 1:  # another picture
                bar.reset(task, total=passes)
            bar.update(task, completed=done, total=passes)

        coder.tell_search(show)
        try:
            yield
        finally:
            coder.tell_search(None)
