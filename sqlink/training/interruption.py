"""Ctrl-C during training: the current step is finished, and the run can save before it stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether the user asked the run to stop. asked: set by the first signal."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first SIGINT or SIGTERM in `asked`; raise KeyboardInterrupt at the second.

        The handlers before are put back at the end. In a thread other than the main one, which may
        set no handlers, signals stay as they are.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self.asked:
                raise KeyboardInterrupt
            self.asked = True

        before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
