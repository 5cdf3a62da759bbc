"""The order in which a grid's places are sent: short runs of a row, the runs far apart.

    raster runs     0 1 | 2 3 | 4 5 | ...        (two runs a row here)
    sending order   0 5 2 7 4 ...                any stretch of it is spread over the whole picture

A packet covers a stretch of this order. Within a run the left neighbour is known and serves as
context. Runs follow each other in a golden-ratio sequence: every stretch, wherever it starts, is
spread nearly evenly over the picture (three-distance theorem), so that the tokens of a lost packet
are surrounded by those of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RUN = 16
"""Largest number of places in a run."""
_GOLDEN = 2654435769  # 2^32 divided by the golden ratio


@dataclass(frozen=True)
class Order:
    """The sending order of a grid.

    places: int64 [h*w], raster position of each place in sending order. offsets: int64 [h*w], the
    number of places before it in its run.
    """

    places: NDArray[np.int64]
    offsets: NDArray[np.int64]


@lru_cache(maxsize=64)
def sending_order(height: int, width: int) -> Order:
    """Return the order for a grid of height x width places, both at least 1.

    >>> sending_order(4, 2).places.tolist()
    [0, 1, 4, 5, 2, 3, 6, 7]
    """
    runs_per_row = -(-width // RUN)
    bounds = np.arange(runs_per_row + 1) * width // runs_per_row
    runs = height * runs_per_row
    keys = (np.arange(runs, dtype=np.uint64) * np.uint64(_GOLDEN)) & np.uint64(0xFFFFFFFF)
    sequence = np.empty(runs, dtype=np.int64)
    sequence[np.argsort(keys, kind="stable")] = np.arange(runs)
    row, column = np.divmod(sequence, runs_per_row)
    first = row * width + bounds[column]
    length = bounds[column + 1] - bounds[column]
    begins = np.cumsum(length) - length
    places = np.repeat(first - begins, length) + np.arange(height * width)
    offsets = np.arange(height * width) - np.repeat(begins, length)
    places.setflags(write=False)
    offsets.setflags(write=False)
    return Order(places, offsets)
