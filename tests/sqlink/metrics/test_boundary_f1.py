"""Boundary F1 against distances measured pair by pair."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from sqlink.data.classes import NO_LABEL
from sqlink.errors import ConfigError
from sqlink.metrics.boundary_f1 import BoundaryF1


def _blobs(seed: int, height: int, width: int) -> torch.Tensor:
    """A map of a few straight regions of three classes."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    cuts = torch.rand(2, 3, generator=generator)
    found = torch.zeros(height, width, dtype=torch.int64)
    for n, (a, b, c) in enumerate(cuts.tolist()):
        found[(a - 0.5) * (x - width * b) + (c - 0.5) * (y - height * b) > 0] += n + 1
    return found


def _edge(mask: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    found = set()
    for i, j in itertools.product(range(height), range(width)):
        sides = ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))
        if mask[i, j] and any(
            0 <= k < height and 0 <= m < width and not mask[k, m] for k, m in sides
        ):
            found.add((i, j))
    return found


def _by_pairs(seen: torch.Tensor, truth: torch.Tensor, reach: float) -> float:
    scores = []
    for c in range(11):
        ours, theirs = _edge((seen == c).numpy()), _edge((truth == c).numpy())
        if not theirs:
            continue

        def near(points: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
            hits = sum(any(math.dist(p, q) <= reach for q in others) for p in points)
            return hits / max(len(points), 1)

        precision, recall = near(ours, theirs), near(theirs, ours)
        both = precision + recall
        scores.append(2 * precision * recall / both if both else 0.0)
    return float(np.mean(scores))


@pytest.mark.parametrize("tolerance", [0.0075, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_one_picture_has_the_measure_of_its_source(seed: int, tolerance: float) -> None:
    height, width = 22, 30
    seen, truth = _blobs(seed, height, width), _blobs(seed + 10, height, width)
    metric = BoundaryF1(tolerance)
    found = float(metric.value(metric.counts(seen[None], truth[None])[0].double()))
    assert found == pytest.approx(_by_pairs(seen, truth, tolerance * math.hypot(height, width)))


def test_equal_maps_score_1_and_moved_ones_by_how_far() -> None:
    truth = torch.zeros(1, 60, 80, dtype=torch.int64)
    truth[:, :, 40:] = 3
    metric = BoundaryF1(0.02)  # 2 pixels
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.0)):
        seen = torch.zeros_like(truth)
        seen[:, :, 40 + shift :] = 3
        assert float(metric.value(metric.counts(seen, truth)[0].double())) == expected


def test_pixels_without_a_label_and_beside_one_have_no_part() -> None:
    truth = torch.zeros(1, 40, 40, dtype=torch.int64)
    truth[:, :, 20:] = NO_LABEL
    metric = BoundaryF1()
    assert int(metric.counts(torch.zeros_like(truth), truth).sum()) == 0
    assert math.isnan(float(metric.value(torch.zeros(11, 4, dtype=torch.float64))))


def test_a_tolerance_of_its_own_has_counts_of_its_own() -> None:
    assert BoundaryF1().kept == "boundary"
    assert BoundaryF1(0.02).kept == "boundary_0.02"
    with pytest.raises(ConfigError, match="tolerance=0 must lie between 0 and 1"):
        BoundaryF1(0)
