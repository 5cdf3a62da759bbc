"""Count tables: built from indices, carried in the weights, refused when wrong."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from sqlink.bitstream import (
    IndexTable,
    Tables,
    cluster_codebook,
    count_contexts,
    count_indices,
)
from sqlink.errors import WeightsError


def made() -> Tables:
    rng = np.random.default_rng(0)
    indices = rng.integers(-1, 32, (5, 8, 9))
    clusters = cluster_codebook(rng.normal(size=(32, 4)).astype(np.float32), 6)
    return Tables(
        IndexTable(count_indices(indices, 32)),
        IndexTable(count_indices(indices, 32), clusters, count_contexts(indices, clusters)),
    )


def test_they_come_back_from_tensors() -> None:
    tables = made()
    tensors = tables.to_tensors()
    assert all(not t.is_floating_point() for t in tensors.values())
    back = Tables.from_tensors(tensors)
    for stream in range(2):
        np.testing.assert_array_equal(back.of(stream).cost, tables.of(stream).cost)
    assert back.map.clusters is None
    np.testing.assert_array_equal(back.image.clusters, tables.image.clusters)


def test_they_can_be_copied_to_workers() -> None:
    copied = copy.deepcopy(made())
    np.testing.assert_array_equal(copied.image.cost, made().image.cost)
    assert len(copied.image.models) == len(made().image.models)


def test_counts_given_the_left_neighbour_are_counted() -> None:
    """In a picture of alternating 0 and 1 the row after 0's cluster is nearly all 1."""
    clusters = np.array([0, 1, 2])
    indices = np.tile(np.array([0, 1]), (1, 10, 20))
    counts = count_contexts(indices, clusters, smoothing=1.0)
    assert counts.shape == (5, 3)
    share = counts / counts.sum(axis=1, keepdims=True)
    assert share[0, 1] > 0.98
    assert share[1, 0] > 0.98
    assert counts.min() >= 1


def test_clusters_find_clouds() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 200)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    labels = cluster_codebook((centres[truth] + rng.normal(size=(200, 2))).astype(np.float32), 4)
    assert len({(a, b) for a, b in zip(truth.tolist(), labels.tolist(), strict=True)}) == 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tables.map_counts": None}, "tables.map_counts"),
        ({"tables.map_counts": torch.ones(32)}, "integers"),
        ({"tables.map_counts": torch.zeros(32, dtype=torch.int64)}, "at least 1"),
        ({"tables.image_clusters": None}, "together"),
        ({"tables.image_clusters": torch.full((32,), 40)}, "fit together"),
        ({"tables.image_context_counts": torch.ones(3, 32, dtype=torch.int64)}, "fit together"),
        ({"tables.image_context_counts": torch.zeros(8, 32, dtype=torch.int64)}, "at least 1"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(
    change: dict[str, torch.Tensor | None], says: str
) -> None:
    tensors = {**made().to_tensors(), **change}
    with pytest.raises(WeightsError, match=says) as caught:
        Tables.from_tensors({k: v for k, v in tensors.items() if v is not None})
    assert "\n" not in str(caught.value)
