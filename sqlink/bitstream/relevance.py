"""Which tokens are sent: the most relevant ones, by SAMM's score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.tables import IndexTable, cluster_codebook, count_contexts, count_indices

Ints = NDArray[np.int64]


def ranks(scores: NDArray[np.float32]) -> Ints:
    """Rank of each place by its score, 0 the highest, ties in raster order.

    scores: float32 [..., h, w]; returns int64 of that shape, ranked within each grid.

    >>> ranks(np.array([[0.1, 0.9], [0.9, 0.2]], dtype=np.float32)).tolist()
    [[3, 0], [1, 2]]
    """
    flat = scores.reshape(*scores.shape[:-2], -1)
    descending = np.argsort(-flat, axis=-1, kind="stable")
    return np.argsort(descending, axis=-1).reshape(scores.shape)


def keep(indices: Ints, rank: Ints, count: int) -> Ints:
    """Indices of the `count` places of lowest rank, -1 elsewhere; shapes [..., h, w]."""
    return np.where(rank < count, indices, -1)


def layers(rank: Ints, count: int, number: int) -> Ints:
    """The layer, 0..number-1, of each of the `count` places kept: equal shares by rank."""
    return np.clip(rank * number // max(count, 1), 0, number - 1)


def fit_table(
    indices: Iterable[Ints],
    scores: Iterable[NDArray[np.float32]],
    codes: int,
    codebook: NDArray[np.float32] | None = None,
    fractions: Sequence[float] = (0.2, 0.35, 0.5, 0.8),
    clusters: int = 32,
) -> IndexTable:
    """A stream's count table from what a model says of training pictures.

    indices: int64 and scores: float32, of every place: arrays [N, h, w], or lists of arrays
    [..., h, w] where grids differ; counted are those that are kept at each of `fractions`.
    codebook: float32 [codes, d], whose k-means clusters serve as contexts; None leaves them out.
    """
    kept = [
        keep(part, ranks(score), max(1, round(f * part.shape[-2] * part.shape[-1])))
        for part, score in zip(indices, scores, strict=True)
        for f in fractions
    ]
    counts = count_indices(np.concatenate([part.ravel() for part in kept]), codes)
    if codebook is None:
        return IndexTable(counts)
    labels = cluster_codebook(codebook, clusters)
    return IndexTable(counts, labels, count_contexts(kept, labels))
