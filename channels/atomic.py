"""Files that are written whole or not at all.

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
"""How the name of a file ends that is being written; one that is left over is of no use."""


@contextmanager
def whole_file(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a path in the folder of `path` to write to, and rename it to `path` at the end.

    Readers see the old file or the new one, never a part; where the block raises, the old one
    stays. durable: push the bytes to the disk before renaming, so that a power cut leaves one of
    both, too. Raises OSError where the folder cannot be written to.
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
