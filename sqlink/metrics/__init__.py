"""What is measured: distortion of pixels, perceptual distance, and what is still understood."""

from __future__ import annotations

from typing import Any

from sqlink.metrics.base import METRICS, Metric


def load_metric(name: str, **options: Any) -> Metric:
    """The picture metric called `name`: psnr, ms_ssim, lpips, or one of an installed package.

    Raises ConfigError, naming the nearest one, if there is none of that name or
    it has no such option.

    >>> load_metric("psnr").unit
    'dB'
    """
    return METRICS.make(name, options)


__all__ = ["METRICS", "Metric", "load_metric"]
