"""MS-SSIM of RGB pictures: five scales, an 11x11 Gaussian window of sigma 1.5.

Source: Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment",
Asilomar 2003, with its exponents, as torchmetrics computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqlink.metrics.base import check_pair, check_size, register

MIN_SIDE = 176
"""Shortest side in pixels: below it the coarsest of the five scales is smaller than the window."""

_BATCH = 8


def ms_ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Return the multi-scale structural similarity, at most 1.

    images, reference: [N, 3, H, W] in [0, 1]. Returns float64 [N]. A negative mean contrast of a
    scale counts as 0. Raises DataError if a side is below MIN_SIDE pixels: fewer scales would be
    another measure.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    check_pair("MS-SSIM", images, reference)
    check_size(MsSsim(), images)
    scores = [
        multiscale_structural_similarity_index_measure(
            ours.float(), theirs.float(), data_range=1.0, normalize="relu", reduction="none"
        ).reshape(-1)
        for ours, theirs in zip(images.split(_BATCH), reference.split(_BATCH), strict=True)
    ]
    return torch.cat(scores).double() if scores else images.new_zeros(0, dtype=torch.float64)


@register("ms_ssim")
class MsSsim:
    """`ms_ssim` as a column of results."""

    name = "ms_ssim"
    unit = ""
    higher_is_better = True
    lowest, highest = 0.0, 1.0

    def unavailable(self, height: int, width: int) -> str | None:
        if min(height, width) >= MIN_SIDE:
            return None
        return (
            f"MS-SSIM has five scales and needs at least {MIN_SIDE} pixels a side; "
            f"got {width}x{height}"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        return ms_ssim(images, reference).cpu()
