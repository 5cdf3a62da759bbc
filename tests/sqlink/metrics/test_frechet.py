"""The Fréchet distance is that of Gaussians, adds up, and is tapped from the judge's own run."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from sqlink.errors import ConfigError
from sqlink.metrics.bootstrap import interval, paired_difference
from sqlink.metrics.frechet import frechet, frechet_of_sums, moments, pool, tapped
from sqlink.segmentation.builtin import BuiltIn
from sqlink.segmentation.ground_truth import fill_unlabelled
from sqlink.segmentation.unet import UNet


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


def test_it_is_a_statistic_of_the_bootstrap() -> None:
    clean = gaussian(5, 24 * 40, 5).reshape(24, 1, 40, 5)
    noise = np.random.default_rng(6).normal(size=clean.shape)
    near, far = (
        np.stack((moments(clean + scale * noise), moments(clean)), axis=2) for scale in (0.3, 1.0)
    )
    found = interval(near, frechet_of_sums, seed=1, blocks=np.arange(24) // 3, resamples=50)
    assert found.low < found.estimate < found.high
    assert found.blocks == 8
    apart = paired_difference(far, near, frechet_of_sums, seed=1, resamples=50)
    assert 0 < apart.low < apart.estimate < apart.high


@pytest.mark.parametrize(
    ("height", "width", "cells"), [(360, 480, 48), (256, 512, 32), (16, 16, 1), (100, 40, 2)]
)
def test_cells_are_of_64_pixels_whatever_the_picture(height: int, width: int, cells: int) -> None:
    padded = [-(-side // 32) * 2 for side in (height, width)]
    assert pool(torch.rand(3, 7, *padded), height, width).shape == (3, cells, 7)


def test_padding_has_no_part_in_a_cell() -> None:
    features = torch.zeros(1, 1, 8, 8)  # 128x128, of which 100x100 are picture
    features[:, :, 7:, :] = features[:, :, :, 7:] = 1
    assert float(pool(features, 100, 100).max()) == 0


def test_the_judges_own_run_leaves_its_features_whatever_the_batch() -> None:
    torch.manual_seed(0)
    judge = BuiltIn("judge", UNet((8, 8, 8, 8, 8)), chunk=2)
    images = torch.rand(3, 3, 64, 96)
    with tapped(judge) as tap:
        seen = judge.segment(images)
    assert torch.equal(seen, judge.segment(images))
    cells = tap.cells(3, 64, 96)
    assert cells.shape == (3, 2, 8)
    with tapped(judge) as tap:
        judge.segment(images[2:])
    torch.testing.assert_close(tap.cells(1, 64, 96), cells[2:], rtol=0, atol=1e-6)
    assert not judge.network.sixteenth._forward_hooks  # type: ignore[union-attr]


def test_another_segmenter_is_refused_in_one_line() -> None:
    class Other:
        name = "other"

        def segment(self, images: torch.Tensor) -> torch.Tensor:
            return fill_unlabelled(images[:, 0].long())

    with (
        pytest.raises(ConfigError, match=r"'other' has no features.*use `judge: judge`"),
        tapped(Other()),
    ):
        pass
