"""The Fréchet distance is that of Gaussians, adds up, and agrees with SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from torch import Tensor

from sqlink.metrics.frechet import FrechetDistance, frechet, moments


class Pixels:
    """An extractor that nothing is asked of."""

    name = "pixels"

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    def vectors(self, images: Tensor) -> Tensor:
        return images.flatten(2)


def gaussian(seed: int, n: int, d: int) -> np.ndarray:
    """n vectors whose sample mean and covariance are no simple ones."""
    randomness = np.random.default_rng(seed)
    return randomness.normal(size=(n, d)) @ randomness.normal(size=(d, d)) + randomness.normal(
        size=d
    )


def test_it_is_the_closed_form_of_gaussians() -> None:
    a, b = gaussian(1, 500, 6), gaussian(2, 300, 6)
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(s @ t))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root)
    assert float(frechet(moments(a), moments(b))) == pytest.approx(expected, rel=1e-9)


def test_diagonal_gaussians_differ_by_their_means_and_deviations() -> None:
    unit = np.sqrt(3.0) * np.concatenate([np.eye(4), -np.eye(4)])  # covariance is diagonal
    a, b = unit * [1, 2, 3, 4], unit * [2, 2, 1, 4] + [0, 0, 0, 5]
    deviation = np.sqrt(3.0 * 2 / 7)  # of each coordinate of `unit`, n - 1 = 7
    expected = 25 + deviation**2 * ((1 - 2) ** 2 + (3 - 1) ** 2)
    assert float(frechet(moments(a), moments(b))) == pytest.approx(expected, rel=1e-9)


def test_moments_add_up_and_equal_sets_are_at_distance_0() -> None:
    vectors = gaussian(3, 120, 8)
    parts = moments(vectors.reshape(4, 30, 8))
    np.testing.assert_allclose(parts.sum(axis=0), moments(vectors))
    total = parts.sum(axis=0)
    assert float(frechet(total, total)) == pytest.approx(0, abs=1e-5 * np.trace(np.cov(vectors.T)))


def test_sets_smaller_than_their_dimension_have_a_distance_and_single_vectors_none() -> None:
    few = gaussian(4, 5, 9)
    assert float(frechet(moments(few), moments(few + 2))) == pytest.approx(36, rel=1e-6)
    assert np.isnan(frechet(moments(few[:1]), moments(few[:1])))


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_a_set_metric_agrees_with_scipy_with_all_blocks_and_without_each(n: int, d: int) -> None:
    clean = gaussian(5, n, d)
    received = [clean + scale * gaussian(6, n, d) for scale in (0.3, 0.5)]
    block = np.arange(n) // 5
    metric = FrechetDistance("fd", Pixels())

    def expected(kept: np.ndarray) -> float:
        a = np.concatenate([one[kept] for one in received])
        b = np.concatenate([clean[kept]] * 2)
        root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
        trace = np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * np.trace(np.real(root))
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + trace)

    found = metric.distance(received, clean, block)
    assert found.estimate == pytest.approx(expected(np.ones(n, bool)), rel=1e-4)
    for g in range(int(block.max()) + 1):
        assert found.without[g] == pytest.approx(expected(block != g), rel=1e-4)


def test_nothing_changed_is_a_distance_of_0_however_often() -> None:
    clean = gaussian(7, 30, 4)
    for d in (4, 200):
        vectors = np.tile(clean, (1, d // 4))
        found = FrechetDistance("fd", Pixels()).distance([vectors] * 3, vectors, np.arange(30) // 5)
        assert found.estimate == pytest.approx(0, abs=1e-4 * np.trace(np.cov(vectors.T)))
