"""WS-PSNR: PSNR of an equirectangular picture, with rows weighted by their area on the sphere.

Source: Sun, Lu, Yu, "Weighted-to-spherically-uniform quality evaluation for omnidirectional video",
IEEE Signal Process. Lett. 2017, eq. 2 and 3; over the RGB samples, whereas the source uses luma.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sqlink.metrics.base import check_pair, check_size, register
from sqlink.metrics.psnr import PSNR_CEILING


def ws_psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Return the PSNR, peak 1, of squared errors weighted by cos((j + 1/2 - H/2) π / H) in row j.

    images, reference: [N, 3, H, 2 H] in [0, 1], latitude from +90° at the top to -90°. Returns
    float64 [N], dB, at most PSNR_CEILING. Raises DataError for another shape.

    >>> a, b = torch.full((1, 3, 16, 32), 0.6), torch.full((1, 3, 16, 32), 0.5)
    >>> ws_psnr(a, b).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    check_pair("WS-PSNR", images, reference)
    check_size(WsPsnr(), images)
    height = images.shape[2]
    rows = torch.arange(height, dtype=torch.float64, device=images.device)
    weights = torch.cos((rows + 0.5 - height / 2) * (math.pi / height))
    errors = (images.double() - reference.double()).square().mean(dim=(1, 3))  # N×H
    return (-10 * torch.log10((errors * weights).sum(dim=1) / weights.sum())).clamp(
        max=PSNR_CEILING
    )


@register("ws_psnr")
class WsPsnr:
    """`ws_psnr` as a column of results."""

    name = "ws_psnr"
    unit = "dB"
    higher_is_better = True

    def unavailable(self, height: int, width: int) -> str | None:
        if width == 2 * height:
            return None
        return (
            "WS-PSNR is for equirectangular pictures of the whole sphere, twice as wide as high; "
            f"got {width}x{height}"
        )

    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        return ws_psnr(images, reference).cpu()
