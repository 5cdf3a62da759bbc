"""A loss on the features of `tx`: what the transmitter's segmenter sees in two pictures.

    rebuilt, original ── 1/4, 1/8 and 1/16 of the segmenter ─┬─ |difference| of the features
                                                             └─ and of their local mean and spread

It complements LPIPS, whose network has seen a thousand classes but few streets, and replaces it
where LPIPS's files are not there. What falls on a place no decoder can know at a hundredth of a
bit, but how much of it there is about the place it can: the local moments ask for that. Source:
Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV
2016, as a relative L1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.metrics.lpips import LPIPS
from sqlink.segmentation.pyramid import Pyramid

CELL = 64
"""Pixels a side of the windows whose moments are compared."""


def features_loss(
    found: tuple[Tensor, ...],
    wanted: tuple[Tensor, ...],
    strides: tuple[int, ...] = (4, 8, 16),
    weight: Tensor | None = None,
    realisations: int = 1,
) -> Tensor:
    """Compute the relative L1 of features [N, C, h, w], and of their means and standard deviations
    in windows of 64 pixels: half and half, a mean over the levels. 0 if they are equal.

    strides: pixels of the picture for a place of each level; weight: float32 [N, H, W] that the
    differences place by place, not the moments, are multiplied by. realisations: with 2, every two
    of `found` are of one picture, and half of what lies between them is taken off: see
    `energy_score`.
    """
    distances = []
    for f, w, stride in zip(found, wanted, strides, strict=True):
        scale = w.abs().mean().clamp(min=1e-6)
        window = min(CELL // stride, *f.shape[-2:])
        (mean, spread), (true_mean, true_spread) = _moments(f, window), _moments(w, window)
        moments = (mean - true_mean).abs().mean() + (spread - true_spread).abs().mean()
        difference = _weighted((f - w).abs().mean(1), weight)
        if realisations == 2:
            apart = (f[0::2] - f[1::2]).abs().mean(1)
            difference = difference - _weighted(apart, None if weight is None else weight[0::2]) / 2
        distances.append((difference + moments) / (2 * scale))
    return torch.stack(distances).mean()


def _weighted(x: Tensor, weight: Tensor | None) -> Tensor:
    """Average [N, h, w], weighted by float32 [N, H, W] scaled to its size."""
    if weight is not None:
        x = x * F.adaptive_avg_pool2d(weight, (x.shape[1], x.shape[2]))
    return x.mean()


def energy_score(
    lpips: LPIPS,
    found: list[Tensor],
    wanted: list[Tensor],
    weight: Tensor | None = None,
    realisations: int = 2,
    root: bool = False,
) -> Tensor:
    """Compute the mean LPIPS from the original, less half of that between the two realisations of a
    picture if there are two.

    Without the second part, the best texture for a place where the original cannot be known is one
    fixed compromise, drawn wherever the tokens are alike: a hatching. With it, and `root`, no
    distribution of pictures scores better than the original's own. found: LPIPS's taps of 2N
    pictures, every two of one crop; wanted: of the original, twice each. Source: Gneiting, Raftery,
    "Strictly proper scoring rules, prediction, and estimation", JASA 2007; as a loss, Gritsenko et
    al., "A spectral energy distance for parallel speech synthesis", NeurIPS 2020.
    """
    distance = lpips.between(found, wanted, weight, root).mean()
    if realisations == 1:
        return distance
    one, other = [t[0::2] for t in found], [t[1::2] for t in found]
    half = None if weight is None else weight[0::2]
    return distance - lpips.between(one, other, half, root).mean() / 2


def _moments(x: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of each channel in windows that overlap by half."""
    step = max(1, window // 2)
    mean = F.avg_pool2d(x, window, step)
    square = F.avg_pool2d(x.square(), window, step)
    return mean, (square - mean.square()).clamp(min=0).add(1e-6).sqrt()


class SegmenterFeatures(nn.Module):
    """float32 [N, 3, H, W] in [0, 1] twice, H and W multiples of 16, to one distance >= 0."""

    def __init__(self, network: Pyramid) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        images: Tensor,
        reference: Tensor,
        weight: Tensor | None = None,
        realisations: int = 1,
    ) -> Tensor:
        """Compute the distance, differentiable in `images`; weight and realisations as in
        `features_loss`.
        """
        with torch.no_grad():
            wanted = self.network.features(reference)
        found = self.network.features(images)
        return features_loss(found, wanted, weight=weight, realisations=realisations)
