"""The path of rates: which fraction of each stream is sent, from the fewest bytes to the most.

    row 0   m_map, m_image, m_8, m_4, step      the fewest bytes
      :       fractions rise within a step, linearly from row to row
    row k   1,     1,       1,   1,   finest    everything

The map's and the picture's tokens are fractions of the base's grid, the refinements' fractions of
their units; a base alone has pairs (m_map, m_image). Weights bring a path for each aim, calibrated
by `sqlink.training.rate_allocation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlink.errors import ConfigError

AIMS = ("legible", "natural", "faithful")
"""What the transmitter spends its bytes for: the relevant classes as a segmenter sees them, LPIPS,
or squared error. Each ranks the refinement's units by its own gain and has its own path.
"""
Split = Sequence[Sequence[float]]
"""Rows of a path, as a user gives them."""
Rows = tuple[tuple[float, ...], ...]
"""Checked rows of a path."""

POINTS = 4096
"""Points of a path, evenly spaced over its rows, that a budget is fitted to, beside point 0."""
BASE_ROWS: Rows = ((0.03, 0.012), (0.25, 0.12), (0.35, 0.35), (0.45, 0.70), (1.0, 1.0))
"""The path (map, image) for weights that hold none."""
COARSEST_ROWS: Rows = (
    (0.03, 0.012, 0.0, 0.0, 0),
    (0.25, 0.12, 0.0, 0.0, 0),
    (0.35, 0.35, 0.05, 0.0, 0),
    (0.45, 0.70, 0.2, 0.0, 0),
    (0.8, 0.9, 0.5, 0.1, 0),
    (1.0, 1.0, 1.0, 0.6, 0),
    (1.0, 1.0, 1.0, 1.0, 0),
)
"""The same with refinements, (map, image, 1/8, 1/4, step), at the coarsest step."""
_OF_A_STEP = (0.6, 1.0)
"""First and last kept fraction of the refinements at each finer step."""


@dataclass(frozen=True)
class PathPoints:
    """Kept tokens or units of every stream at points of a path, and the quantiser's step there.

    counts: int64 [n] for each stream. steps: int64 [n], indices.
    """

    counts: list[NDArray[np.int64]]
    steps: NDArray[np.int64]


@dataclass(frozen=True)
class RatePath:
    """A path of checked rows. streams: 2 of the base, or 4 with refinements."""

    rows: Rows
    streams: int

    def whole(self, places: int) -> PathPoints:
        """Return what points 0..POINTS keep of a picture of `places` base tokens."""
        return _whole(self, places)

    def at(self, points: NDArray[np.int64], places: int) -> PathPoints:
        """Return what some of the points 0..POINTS keep of a picture of `places` base tokens."""
        rows = np.array(self.rows)
        steps = rows[:, 4] if self.streams > 2 else np.zeros(len(rows))
        begin = np.flatnonzero(
            steps[:-1] == steps[1:]
        )  # there are no points between rows of two steps
        at = points / POINTS * len(begin)
        which = np.minimum(at.astype(np.int64), len(begin) - 1)
        first = begin[which]
        sizes = (places, places, places, 4 * places)
        least = (1, 1, 0, 0)
        counts = []
        for stream in range(self.streams):
            own = rows[:, stream]
            share = own[first] + (at - which) * (own[first + 1] - own[first])
            kept = np.rint(share * sizes[stream]).astype(np.int64)
            counts.append(np.maximum(least[stream], kept))
        return PathPoints(counts, steps[first].astype(np.int64))


@lru_cache(maxsize=32)
def _whole(path: RatePath, places: int) -> PathPoints:
    return path.at(np.arange(POINTS + 1), places)


def default_rows(refinements: int, steps: int) -> Rows:
    """Return the rows for weights that bring none; steps: number of the quantiser's steps."""
    if not refinements:
        return BASE_ROWS
    finer = ((1.0, 1.0, share, share, step) for step in range(1, steps) for share in _OF_A_STEP)
    return (*COARSEST_ROWS, *finer)


def checked_rows(split: Split, streams: int = 2, steps: int = 0) -> Rows:
    """Return a path's rows: rising fractions of every stream and, with refinements, one of `steps`
    quantiser's steps.

    Raises ConfigError for anything else.
    """
    try:
        points = tuple(tuple(float(share) for share in point) for point in split)
    except (TypeError, ValueError):
        points = ()
    width = streams + (streams > 2)
    if (
        len(points) < 2
        or any(len(point) != width for point in points)
        or not all(0 <= v <= 1 for point in points for v in point[:streams])
        or not all(min(point[:2]) > 0 for point in points)
    ):
        kinds = "pairs (map, image)" if streams == 2 else "rows (map, image, 1/8, 1/4, step)"
        raise ConfigError(f"split must be two or more {kinds} of fractions above 0, up to 1")
    if streams > 2 and any(point[-1] not in range(steps) for point in points):
        raise ConfigError(f"split's steps must be whole numbers from 0 to {steps - 1}")
    together = False
    for p, q in pairwise(points):
        same = p[streams:] == q[streams:]
        together |= same
        rising = all(a <= b for a, b in zip(p, q, strict=True))
        if not (rising if same else p[streams:] < q[streams:] and p[:2] <= q[:2]):
            raise ConfigError(
                "split's fractions must rise from row to row of a step, and its steps"
            )
    if not together:
        raise ConfigError("split must have two rows of one step")
    return points


def stored_rows(split: Any, streams: int, steps: int) -> dict[str, Rows]:
    """Return the rows of the path that weights bring, for every aim.

    Raises ConfigError if they are not valid.
    """
    by_aim = split if isinstance(split, dict) else dict.fromkeys(AIMS, split)
    missing = [aim for aim in AIMS if aim not in by_aim]
    if missing:
        raise ConfigError(f"no path for aim '{missing[0]}'")
    return {aim: checked_rows(by_aim[aim], streams, steps) for aim in AIMS}
