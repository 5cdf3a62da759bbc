"""MS-SSIM against an independent computation in SciPy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor

from sqlink.errors import DataError
from sqlink.metrics import load_metric
from sqlink.metrics.ms_ssim import MIN_SIDE, ms_ssim
from tests.sqlink.metrics.conftest import noisy, scene

Array = npt.NDArray[np.float64]


def _window(a: Array) -> Array:
    """The 11x11 Gaussian of sigma 1.5, mirrored at the edges."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    return np.asarray(
        correlate1d(correlate1d(a, taps, axis=-2, mode="mirror"), taps, axis=-1, mode="mirror")
    )


def _ms_ssim_by_hand(x: Array, y: Array, crop_last: bool) -> float:
    """[3, H, W] in float64, scale by scale; Wang crops every scale to where the window fits."""
    score = 1.0
    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_x, mean_y = _window(x), _window(y)
        var_x, var_y = _window(x * x) - mean_x**2, _window(y * y) - mean_y**2
        cov = _window(x * y) - mean_x * mean_y
        term = (2 * cov + 0.03**2) / (var_x + var_y + 0.03**2)
        if scale == 4:
            term *= (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        if scale < 4 or crop_last:
            term = term[:, 5:-5, 5:-5]
        score *= max(float(term.mean()), 0.0) ** exponent
        h, w = x.shape[1] // 2, x.shape[2] // 2
        x, y = (a[:, : 2 * h, : 2 * w].reshape(3, h, 2, w, 2).mean(axis=(2, 4)) for a in (x, y))
    return score


@pytest.mark.parametrize("size", [(256, 512), (360, 480), (176, 201)])
def test_ms_ssim_equals_a_computation_by_hand(size: tuple[int, int]) -> None:
    reference = scene(*size)
    images = noisy(reference, 0.15)
    pair = (images[0].double().numpy(), reference[0].double().numpy())
    score = ms_ssim(images, reference).item()
    assert 0.3 < score < 0.98
    assert score == pytest.approx(_ms_ssim_by_hand(*pair, crop_last=False), abs=2e-5)
    assert score == pytest.approx(_ms_ssim_by_hand(*pair, crop_last=True), abs=0.02)


def test_ms_ssim_of_random_and_real_pairs(
    pairs: Callable[[int, int], tuple[Tensor, Tensor]],
) -> None:
    images, reference = pairs(176, 176)
    by_hand = [
        _ms_ssim_by_hand(x, y, crop_last=False)
        for x, y in zip(images.double().numpy(), reference.double().numpy(), strict=True)
    ]
    assert ms_ssim(images, reference).tolist() == pytest.approx(by_hand, abs=1e-4)


def test_ms_ssim_does_not_depend_on_the_batch() -> None:
    reference = scene(176, 192, n=10)
    images = torch.cat([noisy(r[None], 0.02 * (i + 1)) for i, r in enumerate(reference)])
    together = ms_ssim(images, reference)
    alone = [ms_ssim(images[i : i + 1], reference[i : i + 1]).item() for i in (0, 4, 9)]
    assert together[[0, 4, 9]].tolist() == pytest.approx(alone, abs=1e-6)
    assert together.tolist() == sorted(together.tolist(), reverse=True)
    assert ms_ssim(reference[:1], reference[:1]).item() == pytest.approx(1.0, abs=1e-6)


def test_ms_ssim_of_small_pictures_is_refused_with_the_reason() -> None:
    side = MIN_SIDE
    small = scene(side - 1, 300)
    with pytest.raises(DataError, match="at least 176 pixels a side; got 300x175"):
        ms_ssim(small, small)
    metric = load_metric("ms_ssim")
    assert metric.unavailable(side - 1, 300) is not None
    assert metric.unavailable(side, side) is None
