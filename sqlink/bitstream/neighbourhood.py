"""Neighbours of each place of a grid that `context_model` uses, and the passes of a stream.

    pass of each place (4x4 tiles)      0  8  2 10
                                       12  4 14  6
                                        3 11  1  9
                                       15  7 13  5

In a single stream, places are coded pass by pass. Each pass is spread evenly over the picture, so
that a stream that is cut gives a coarser sampling of the picture, not its upper part. No other
place of a 5x5 window belongs to the pass of its centre: a whole pass is coded at once, with every
neighbour of an earlier pass as context.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import AROUND, LEVELS, UNDER

PASSES = 16
_TILE = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])


@dataclass(frozen=True)
class Window:
    """Windows of a grid of P places, in raster order.

    around: int64 [P, 24] and under: int64 [P, 9], the neighbours' places; P stands for outside.
    bands: int64 [P, 2], 0..15, of row and column. passes: int64 [P], 0..15.
    """

    around: NDArray[np.int64]
    under: NDArray[np.int64]
    bands: NDArray[np.int64]
    passes: NDArray[np.int64]


@lru_cache(maxsize=32)
def window(height: int, width: int) -> Window:
    """Return the windows of a grid of height x width places.

    >>> window(3, 3).under[0].tolist()
    [9, 9, 9, 9, 0, 1, 9, 3, 4]
    """
    row, column = np.divmod(np.arange(height * width), width)
    arrays = (
        _neighbours(row, column, height, width, AROUND),
        _neighbours(row, column, height, width, UNDER),
        np.stack([row * LEVELS // height, column * LEVELS // width], axis=1),
        _TILE[row % 4, column % 4],
    )
    for array in arrays:
        array.setflags(write=False)
    return Window(*arrays)


def _neighbours(
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    height: int,
    width: int,
    steps: tuple[tuple[int, int], ...],
) -> NDArray[np.int64]:
    """Return int64 [P, len(steps)]: the places that many steps away, P where outside."""
    down, right = np.array(steps).T
    rows, columns = row[:, None] + down, column[:, None] + right
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return np.where(inside, rows * width + columns, height * width)
