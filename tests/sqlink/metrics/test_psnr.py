"""PSNR against closed forms, and metrics by name."""

from __future__ import annotations

import math

import pytest
import torch

from sqlink.errors import ConfigError, DataError
from sqlink.metrics import BUILT_IN, METRICS, Metric, load_metric
from sqlink.metrics.psnr import PSNR_CEILING, psnr
from tests.sqlink.metrics.conftest import noisy, scene


def test_psnr_of_a_constant_offset_is_its_square() -> None:
    reference = torch.full((2, 3, 20, 30), 0.5)
    images = reference + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(images, reference).tolist() == pytest.approx([20.0, 40.0], abs=1e-4)


def test_psnr_is_per_picture_and_float64() -> None:
    reference = scene(24, 32, n=3)
    images = noisy(reference, 0.1)
    expected = [
        -10 * math.log10(float(((a - b).double().numpy() ** 2).mean()))
        for a, b in zip(images, reference, strict=True)
    ]
    result = psnr(images, reference)
    assert result.dtype == torch.float64
    assert result.tolist() == pytest.approx(expected, abs=1e-6)


def test_psnr_is_that_of_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio

    images, reference = torch.rand(2, 5, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    theirs = peak_signal_noise_ratio(
        images.double(), reference.double(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    torch.testing.assert_close(psnr(images, reference), theirs, rtol=1e-6, atol=0)
    assert psnr(images[:0], reference[:0]).shape == (0,)


def test_psnr_of_equal_pictures_is_the_ceiling() -> None:
    reference = scene(16, 16)
    assert psnr(reference, reference).tolist() == [PSNR_CEILING]


def test_metrics_go_by_name() -> None:
    assert set(BUILT_IN) <= set(METRICS.names())
    metric = load_metric("psnr")
    assert isinstance(metric, Metric)
    assert metric(torch.full((1, 3, 16, 16), 0.6), torch.full((1, 3, 16, 16), 0.5)).item() == (
        pytest.approx(20, abs=1e-4)
    )
    with pytest.raises(ConfigError, match="did you mean 'psnr'"):
        load_metric("pnsr")
    with pytest.raises(ConfigError, match="metric 'task_miou' has no option 'tasks': did you mean"):
        load_metric("task_miou", tasks="driving")


def test_pictures_of_different_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="one shape"):
        psnr(torch.zeros(1, 3, 16, 16), torch.zeros(2, 3, 16, 16))
