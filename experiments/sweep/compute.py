"""What coding took: seconds of encoding and decoding by codec, kept over interrupted runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Spent = Mapping[str, Mapping[str, float]]


class Compute:
    """Seconds and counts by codec: `encode_s` for `encoded` pictures, `decode_s` for `decoded`.

    before: what earlier runs of the same sweep took.

    >>> compute = Compute({"bpg": {"encode_s": 2.0, "encoded": 4}})
    >>> with compute.measure("bpg", "encode", 2):
    ...     pass
    >>> compute.spent["bpg"]["encoded"]
    6
    """

    def __init__(self, before: Spent | None = None) -> None:
        self.spent: dict[str, dict[str, float]] = {
            codec: dict(values) for codec, values in (before or {}).items()
        }

    @classmethod
    def resumed(cls, folder: Path) -> Compute:
        """Return what earlier runs took, as the folder's manifest says; nothing if it does
        not say.
        """
        try:
            found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return cls(found["compute"])
        except (OSError, ValueError, KeyError, AttributeError):
            return cls()

    @contextmanager
    def measure(self, codec: str, what: str, pictures: int) -> Iterator[None]:
        """Add the time that the block takes to what `codec` spent; what: `encode` or `decode`."""
        start = time.perf_counter()
        yield
        own = self.spent.setdefault(codec, {})
        taken = time.perf_counter() - start
        own[f"{what}_s"] = own.get(f"{what}_s", 0.0) + taken
        own[f"{what}d"] = own.get(f"{what}d", 0) + pictures
