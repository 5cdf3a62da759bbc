"""PSNR over the RGB samples of a picture.

The values equal those of torchmetrics, whose import takes seconds.
"""

from __future__ import annotations

from torch import Tensor

from sqlink.metrics.base import check_pair, register

PSNR_CEILING = 100.0
"""PSNR of equal pictures in dB, so that means over pictures stay finite. One sample of a 360x480
picture that differs by 1/255 gives 105 dB: a larger PSNR carries no information.
"""


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio, peak 1, over all samples of a picture.

    images, reference: [N, 3, H, W] in [0, 1]. Returns float64 [N], dB, at most PSNR_CEILING.

    >>> import torch
    >>> psnr(torch.full((1, 3, 16, 16), 0.6), torch.full((1, 3, 16, 16), 0.5)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    check_pair("PSNR", images, reference)
    error = (images.double() - reference.double()).square()
    # Two means: threads would share the sum of a single one.
    mean = error.mean(dim=(2, 3)).mean(dim=1)
    return (-10 * mean.log10()).clamp(max=PSNR_CEILING)


@register("psnr")
class Psnr:
    """`psnr` as a column of results."""

    name = "psnr"
    unit = "dB"
    higher_is_better = True

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        return psnr(images, reference).cpu()
