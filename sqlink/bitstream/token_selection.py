"""Selection of the tokens that are sent: the most relevant ones, by SAMM's score."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_Whole = TypeVar("_Whole", bound=np.integer[Any])


def ranks(scores: NDArray[np.float32]) -> Ints:
    """Return the rank of each place by its score, 0 the highest, ties in raster order.

    scores: float32 [..., h, w]; returns int64 of that shape, ranked within each grid.

    >>> ranks(np.array([[0.1, 0.9], [0.9, 0.2]], dtype=np.float32)).tolist()
    [[3, 0], [1, 2]]
    """
    flat = scores.reshape(*scores.shape[:-2], -1)
    descending = np.argsort(-flat, axis=-1, kind="stable")
    return np.argsort(descending, axis=-1).reshape(scores.shape)


def keep(indices: NDArray[_Whole], rank: Ints, count: int) -> NDArray[_Whole]:
    """Return the indices of the `count` places of lowest rank, -1 elsewhere.

    rank: [..., h, w]; indices: likewise, or with digits of every place, [..., h, w, S].
    """
    there = (rank < count).reshape(rank.shape + (1,) * (indices.ndim - rank.ndim))
    return np.where(there, indices, indices.dtype.type(-1))


def layers(rank: Ints, count: int, number: int) -> Ints:
    """Return the layer, 0..number-1, of each of the `count` places kept: equal shares by rank."""
    return np.clip(rank * number // max(count, 1), 0, number - 1)
