"""Distortion of pixels: PSNR and MS-SSIM.

Both are defined picture by picture over the RGB samples in [0, 1]; a set of pictures is summarised
by the mean over its pictures.

Sources: Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment",
Asilomar 2003 (five scales, 11x11 Gaussian window of sigma 1.5, their exponents), as torchmetrics
computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqlink.errors import DataError
from sqlink.metrics.base import check_pair, register

PSNR_CEILING = 100.0
"""dB; given to equal pictures, so that means over pictures stay finite. One sample of a 360x480
picture that is off by 1/255 gives 105 dB: a larger PSNR says nothing more."""

MS_SSIM_MIN_SIDE = 176
"""Pixels: below it the coarsest of the five scales is smaller than the window."""

_BATCH = 8


def psnr(images: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, peak 1, over all samples of a picture.

    images, reference: [N, 3, H, W] in [0, 1]. Returns float64 [N], dB, at most PSNR_CEILING.

    >>> psnr(torch.full((1, 3, 16, 16), 0.6), torch.full((1, 3, 16, 16), 0.5)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    check_pair("PSNR", images, reference)
    error = (images.double() - reference.double()).square().mean(dim=(1, 2, 3))
    return (-10 * torch.log10(error)).clamp(max=PSNR_CEILING)


def ms_ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Multi-scale structural similarity, at most 1.

    images, reference: [N, 3, H, W] in [0, 1]. Returns float64 [N]. A negative mean contrast of a
    scale counts as 0. Raises DataError below MS_SSIM_MIN_SIDE pixels a side: fewer scales would be
    another measure.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    check_pair("MS-SSIM", images, reference)
    reason = MsSsim().unavailable(images.shape[2], images.shape[3])
    if reason is not None:
        raise DataError(reason)
    scores = [
        multiscale_structural_similarity_index_measure(
            ours.float(), theirs.float(), data_range=1.0, normalize="relu", reduction="none"
        ).reshape(-1)
        for ours, theirs in zip(images.split(_BATCH), reference.split(_BATCH), strict=True)
    ]
    return torch.cat(scores).double() if scores else images.new_zeros(0, dtype=torch.float64)


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


@register("ms_ssim")
class MsSsim:
    """`ms_ssim` as a column of results."""

    name = "ms_ssim"
    unit = ""
    higher_is_better = True

    def unavailable(self, height: int, width: int) -> str | None:
        if min(height, width) >= MS_SSIM_MIN_SIDE:
            return None
        return (
            f"MS-SSIM has five scales and needs at least {MS_SSIM_MIN_SIDE} pixels a side; "
            f"got {width}x{height}"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        return ms_ssim(images, reference).cpu()
