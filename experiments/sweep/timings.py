"""Time spent on the parts of a sweep, by codec, accumulated over interrupted runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Spent = Mapping[str, Mapping[str, float]]

ALL = "all"
"""Key, instead of a codec, of work done once per picture for all codecs."""

PARTS = {
    "load": "loaded",
    "prepare": "prepared",
    "encode": "encoded",
    "cross": "crossed",
    "decode": "decoded",
    "measure": "measured",
    "store": "stored",
}
"""Map from a timed part to the name of its count: pictures, or crossings of the channel for
`cross`, or rows for `store`. `load` reads or renders the pictures; `prepare` makes the map to send
and the judge's map of the original.
"""


class Timings:
    """Seconds and counts by codec, such as `encode_s` for `encoded` pictures; see PARTS.

    before: times of earlier runs of the same sweep.

    >>> timings = Timings({"bpg": {"encode_s": 2.0, "encoded": 4}})
    >>> with timings.measure("bpg", "encode", 2):
    ...     pass
    >>> timings.spent["bpg"]["encoded"]
    6
    """

    def __init__(self, before: Spent | None = None) -> None:
        self.spent: dict[str, dict[str, float]] = {
            codec: dict(values) for codec, values in (before or {}).items()
        }

    @classmethod
    def resumed(cls, folder: Path) -> Timings:
        """Return the times of earlier runs from the folder's manifest, if it has any."""
        try:
            found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return cls(found["compute"])
        except (OSError, ValueError, KeyError, AttributeError):
            return cls()

    @contextmanager
    def measure(self, codec: str, what: str, pictures: int) -> Iterator[None]:
        """Add the duration of the block to the time of `codec`; what: one of PARTS."""
        start = time.perf_counter()
        yield
        own = self.spent.setdefault(codec, {})
        taken = time.perf_counter() - start
        own[f"{what}_s"] = own.get(f"{what}_s", 0.0) + taken
        count = PARTS[what]
        own[count] = own.get(count, 0) + pictures

    def add(self, spent: Spent) -> None:
        """Add the times of a worker.

        >>> timings = Timings({"bpg": {"encoded": 4}})
        >>> timings.add({"bpg": {"encoded": 2}})
        >>> timings.spent["bpg"]["encoded"]
        6
        """
        for codec, values in spent.items():
            own = self.spent.setdefault(codec, {})
            for name, value in values.items():
                own[name] = own.get(name, 0) + value
