"""The learning rate's schedule: a linear warm-up, then a cosine."""

from __future__ import annotations

import math


def warm_cosine(progress: float, step: int, warm_up: int, floor: float) -> float:
    """Return the learning rate as a share of its highest, in (0, 1].

    progress: of the run, 0 to 1. step: counted from 0. warm_up: steps of the linear rise. floor:
    share at the end of the run.

    >>> [round(warm_cosine(p, 10, 2, 0.02), 3) for p in (0.0, 0.5, 1.0)]
    [1.0, 0.51, 0.02]
    >>> warm_cosine(0.0, 0, 4, 0.02)
    0.25
    """
    warm = min(1.0, (step + 1) / max(1, warm_up))
    return warm * (floor + (1 - floor) / 2 * (1 + math.cos(math.pi * progress)))
