"""Atomic writing of files: a file is written completely or not at all.

with whole_file(path) as aside:
    aside.write_bytes(content)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUFFIX = ".aside"
"""Suffix of a file while it is being written; a file left with it can be deleted."""


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a path in the folder of `path` to write to, and rename it to `path` at the end.

    Readers see the old file or the new one, never a part of it. If the block raises, the old file
    stays. durable: flush the bytes to the disk before renaming, so that a power cut also leaves
    either the old or the new file. Raises OSError if the folder cannot be written to.
    """
    aside = path.with_name(f".{secrets.token_hex(8)}{SUFFIX}")
    try:
        yield aside
        if durable:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
