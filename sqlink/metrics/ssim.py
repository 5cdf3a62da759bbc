"""SSIM of RGB pictures: an 11x11 Gaussian window of sigma 1.5, the mean over places and channels.

Source: Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
structural similarity", IEEE Trans. Image Process. 2004, computed by torchmetrics. The mean is over
the places where the whole window lies inside the picture, as in the source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqlink.metrics.base import check_pair, check_size, register

MIN_SIDE = 11
"""Shortest side in pixels: below it the window does not fit."""

_BATCH = 8


def ssim(images: Tensor, reference: Tensor) -> Tensor:
    """Return the structural similarity, at most 1.

    images, reference: [N, 3, H, W] in [0, 1]. Returns float64 [N]. Raises DataError if a side is
    below MIN_SIDE pixels.

    >>> picture = torch.rand(1, 3, 32, 32)
    >>> ssim(picture, picture).tolist()
    [1.0]
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_pair("SSIM", images, reference)
    check_size(Ssim(), images)
    scores = []
    for ours, theirs in zip(images.split(_BATCH), reference.split(_BATCH), strict=True):
        if len(ours) == 0:
            return images.new_zeros(0, dtype=torch.float64)
        _, places = structural_similarity_index_measure(
            ours.double(),
            theirs.double(),
            data_range=1.0,
            reduction="none",
            return_full_image=True,
        )
        edge = MIN_SIDE // 2
        inside = places[:, :, edge:-edge, edge:-edge]
        # Two means: threads would share the sum of a single one.
        scores.append(inside.mean(dim=(2, 3)).mean(dim=1))
    return torch.cat(scores)


@register("ssim")
class Ssim:
    """`ssim` as a column of results."""

    name = "ssim"
    unit = ""
    higher_is_better = True
    lowest, highest = -1.0, 1.0

    def unavailable(self, height: int, width: int) -> str | None:
        if min(height, width) >= MIN_SIDE:
            return None
        return f"SSIM needs at least {MIN_SIDE} pixels a side; got {width}x{height}"

    @torch.no_grad()
    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        return ssim(images, reference).cpu()
