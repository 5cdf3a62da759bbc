"""What both ends know of how often indices occur: stored integer counts, never a network's output.

A stream's table has the counts of its codebook's indices (order 0) and, where the weights bring
them, counts given what stands left of a token: the cluster of the left neighbour's codebook vector,
"masked", or "unknown" (the run or the packet begins there). The tables travel in the weights file
as integer tensors, so that every machine builds the same probabilities.

    tables.{map,image}_counts           [J]        at least 1 each
    tables.{map,image}_clusters         [J]        cluster of an index, 0..K-1         (optional)
    tables.{map,image}_context_counts   [K+2, J]   rows: clusters, masked, unknown     (optional)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlink.errors import WeightsError

STREAMS = ("map", "image")
"""Names of the two streams, in the order in which they are sent."""
_SCALE = 16  # context counts are stored in sixteenths, so that smoothing stays an integer


@dataclass(frozen=True)
class IndexTable:
    """Counts of one stream. counts: int64 [J]; clusters: int64 [J] and contexts: int64 [K+2, J], or
    both None."""

    counts: NDArray[np.int64]
    clusters: NDArray[np.int64] | None = None
    contexts: NDArray[np.int64] | None = None
    models: list[Any] = field(init=False, repr=False, compare=False)
    """constriction's model of each row of `cost`."""
    cost: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """Bits of an index in a context: float64 [K+2, J], or [1, J] without contexts."""

    def __post_init__(self) -> None:
        rows = self.counts[None] if self.contexts is None else self.contexts
        probabilities = rows.astype(np.float64) / rows.sum(axis=1, keepdims=True)
        categorical = constriction.stream.model.Categorical
        object.__setattr__(self, "models", [categorical(p, perfect=False) for p in probabilities])
        object.__setattr__(self, "cost", -np.log2(probabilities))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and sent to workers as counts: constriction's models cannot be."""
        return IndexTable, (self.counts, self.clusters, self.contexts)

    @property
    def size(self) -> int:
        """J, entries of the codebook."""
        return int(self.counts.size)

    def context_of(
        self, indices: NDArray[np.int64], kept: NDArray[np.bool_], starts: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """The context row of every place, int64, for places in sending order.

        indices are read where kept; the first place of the arrays begins a packet.
        """
        if self.clusters is None:
            return np.zeros(indices.shape, dtype=np.int64)
        clusters = int(self.clusters.max()) + 1
        here = np.where(kept, self.clusters[np.where(kept, indices, 0)], clusters)
        left = np.concatenate([[clusters + 1], here[:-1]])
        return np.where(starts, clusters + 1, left)


@dataclass(frozen=True)
class Tables:
    """Both streams' tables."""

    map: IndexTable
    image: IndexTable

    def of(self, stream: int) -> IndexTable:
        """The table of stream 0 (map) or 1 (image)."""
        return self.image if stream else self.map

    def to_tensors(self) -> dict[str, Tensor]:
        """Integer tensors for the weights file, by the names given above."""
        tensors = {}
        for stream in STREAMS:
            table: IndexTable = getattr(self, stream)
            tensors[f"tables.{stream}_counts"] = _stored(table.counts)
            if table.clusters is not None and table.contexts is not None:
                tensors[f"tables.{stream}_clusters"] = _stored(table.clusters)
                tensors[f"tables.{stream}_context_counts"] = _stored(table.contexts)
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Tables:
        """Read them from a weights file. Raises WeightsError if they are missing or wrong."""
        return cls(*(_table(tensors, f"tables.{stream}") for stream in STREAMS))

    @classmethod
    def uniform(cls, map_codes: int, image_codes: int) -> Tables:
        """Tables for an untrained model: every index alike."""
        return cls(
            IndexTable(np.ones(map_codes, dtype=np.int64)),
            IndexTable(np.ones(image_codes, dtype=np.int64)),
        )


def count_indices(indices: NDArray[np.int64], codes: int) -> NDArray[np.int64]:
    """Order-0 counts, int64 [codes], at least 1 each, of indices of any shape, -1 for masked.

    >>> count_indices(np.array([0, 2, 2, -1]), 4).tolist()
    [2, 1, 3, 1]
    """
    return np.bincount(indices[indices >= 0].ravel(), minlength=codes).astype(np.int64) + 1


def cluster_codebook(vectors: NDArray[np.float32], clusters: int = 32) -> NDArray[np.int64]:
    """k-means of a codebook float32 [J, d]: the cluster of each entry, int64 [J].

    Starts from the entries farthest apart (each next the farthest from those chosen), so that it
    draws no random numbers.
    """
    points = vectors.astype(np.float64)
    clusters = min(clusters, len(points))
    distance = ((points - points.mean(axis=0)) ** 2).sum(axis=1)
    chosen = []
    for _ in range(clusters):
        chosen.append(int(distance.argmax()))
        to_new = ((points - points[chosen[-1]]) ** 2).sum(axis=1)
        distance = to_new if len(chosen) == 1 else np.minimum(distance, to_new)
    centres = points[chosen]
    label = np.zeros(len(points), dtype=np.int64)
    for _ in range(50):
        label = ((points[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
        moved = np.stack(
            [
                points[label == c].mean(axis=0) if (label == c).any() else centres[c]
                for c in range(clusters)
            ]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return label


def count_contexts(
    indices: Iterable[NDArray[np.int64]], clusters: NDArray[np.int64], smoothing: float = 32.0
) -> NDArray[np.int64]:
    """Counts given the left neighbour, int64 [K+2, J], from grids of indices int64 [..., h, w].

    -1 marks masked places. Every row is smoothed by `smoothing` occurrences spread as at order 0;
    the row "unknown" is order 0 itself.
    """
    kinds, codes = int(clusters.max()) + 1, len(clusters)
    prior = np.ones(codes, dtype=np.int64)
    counts = np.zeros((kinds + 1) * codes, dtype=np.int64)
    for grid in indices:
        prior += count_indices(grid, codes) - 1
        left = np.where(grid >= 0, clusters[np.maximum(grid, 0)], kinds)[..., :-1]
        here = grid[..., 1:]
        counts += np.bincount((left * codes + here)[here >= 0], minlength=counts.size)
    smooth = _SCALE * (counts.reshape(kinds + 1, codes) + smoothing * prior / prior.sum())
    rows = np.concatenate([smooth, _SCALE * prior[None].astype(np.float64)])
    counted: NDArray[np.int64] = np.rint(np.maximum(1.0, rows)).astype(np.int64)
    return counted


def _table(tensors: Mapping[str, Tensor], prefix: str) -> IndexTable:
    """One stream's table, checked."""
    counts = _integers(tensors, f"{prefix}_counts", 1)
    if counts is None:
        raise WeightsError(
            f"the weights have no {prefix}_counts: count indices and store the tables"
        )
    clusters = _integers(tensors, f"{prefix}_clusters", 1)
    contexts = _integers(tensors, f"{prefix}_context_counts", 2)
    if (clusters is None) != (contexts is None):
        raise WeightsError(f"{prefix}_clusters and {prefix}_context_counts come only together")
    if counts.size < 2 or counts.min() < 1:
        raise WeightsError(f"{prefix}_counts must be two or more counts of at least 1")
    if clusters is not None and contexts is not None:
        shape = (int(clusters.max()) + 3, counts.size)
        if clusters.shape != counts.shape or clusters.min() < 0 or contexts.shape != shape:
            raise WeightsError(f"{prefix}_clusters and {prefix}_context_counts do not fit together")
        if contexts.min() < 1:
            raise WeightsError(f"{prefix}_context_counts must be counts of at least 1")
    return IndexTable(counts, clusters, contexts)


def _stored(values: NDArray[np.int64]) -> Tensor:
    """Counts as int32, halved together until the largest fits."""
    while int(values.max()) > np.iinfo(np.int32).max:
        values = np.maximum(values // 2, 1)
    return torch.from_numpy(values.astype(np.int32))


def _integers(tensors: Mapping[str, Tensor], name: str, axes: int) -> NDArray[np.int64] | None:
    """A tensor of integers as an array, or None where there is none of that name."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if tensor.is_floating_point() or tensor.ndim != axes:
        raise WeightsError(f"{name} must be integers of {axes} axes")
    values: NDArray[np.int64] = tensor.cpu().numpy().astype(np.int64)
    return values
