"""The kernel distance against double loops, and without a block against leaving it out."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from sqlink.metrics.jackknife import Floats
from sqlink.metrics.kernel_distance import KernelDistance


class _Pixels:
    name = "pixels"

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    def vectors(self, images: Tensor) -> Tensor:
        return images.flatten(2)


METRIC = KernelDistance("kd", _Pixels())


def _by_loops(ours: Floats, theirs: Floats) -> float:
    def k(a: Floats, b: Floats) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    m = len(ours)
    own = sum(k(ours[i], ours[j]) for i in range(m) for j in range(m) if i != j)
    others = sum(k(theirs[i], theirs[j]) for i in range(m) for j in range(m) if i != j)
    both = sum(k(ours[i], theirs[j]) for i in range(m) for j in range(m))
    return (own + others) / (m * (m - 1)) - 2 * both / m**2


def _sets(seed: int, n: int = 24, d: int = 5) -> tuple[Floats, Floats]:
    randomness = np.random.default_rng(seed)
    clean = randomness.normal(size=(n, d))
    return clean + 0.4 + 0.3 * randomness.normal(size=(n, d)), clean


def test_it_is_the_sum_over_pairs_and_without_each_block() -> None:
    ours, theirs = _sets(1)
    block = np.arange(24) // 5
    found = METRIC.distance([ours], theirs, block)
    assert found.estimate == pytest.approx(_by_loops(ours, theirs))
    for g in range(5):
        kept = block != g
        assert found.without[g] == pytest.approx(_by_loops(ours[kept], theirs[kept]))


def test_equal_sets_are_a_little_below_0() -> None:
    ours, _ = _sets(3)
    found = METRIC.distance([ours], ours, np.zeros(24, np.int64)).estimate
    assert found == pytest.approx(_by_loops(ours, ours))
    assert found < 0


def test_realisations_are_averaged() -> None:
    (one, theirs), (other, _) = _sets(1), _sets(2)
    both = METRIC.distance([one, other], theirs, np.zeros(24, np.int64)).estimate
    assert both == pytest.approx((_by_loops(one, theirs) + _by_loops(other, theirs)) / 2)


def test_it_is_unbiased_for_few_vectors() -> None:
    found = []
    for seed in range(400):
        randomness = np.random.default_rng(seed)
        a, b = randomness.normal(size=(2, 8, 3))
        found.append(METRIC.distance([a], b, np.zeros(8, np.int64)).estimate)
    assert abs(np.mean(found)) < 3 * np.std(found) / 20


def test_it_agrees_with_torch_fidelity() -> None:
    module = pytest.importorskip("torch_fidelity.metric_kid")
    ours, theirs = _sets(4, n=40, d=16)
    cubic = {
        "kid_kernel_poly_degree": 3,
        "kid_kernel_poly_gamma": None,
        "kid_kernel_poly_coef0": 1,
    }
    pairs = ((ours, ours), (ours, theirs), (theirs, theirs))
    expected = module.mmd2(*(module.kernel_poly(a, b, **cubic) for a, b in pairs))
    found = METRIC.distance([ours], theirs, np.zeros(40, np.int64)).estimate
    assert found == pytest.approx(float(expected))


def test_single_vectors_have_none() -> None:
    one = np.ones((1, 4))
    assert np.isnan(METRIC.distance([one], one, np.zeros(1, np.int64)).estimate)
