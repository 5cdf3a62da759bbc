"""A loss on the features of `tx`: what the transmitter's segmenter sees in two pictures.

    rebuilt, original ── 1/4, 1/8 and 1/16 of the segmenter ── mean |difference| / mean |original|

It stands beside LPIPS, whose network has seen a thousand classes but few streets, and in its place
where LPIPS's files are not there. Source: Johnson, Alahi, Fei-Fei, "Perceptual losses for real-time
style transfer and super-resolution", ECCV 2016, as a relative L1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sqlink.segmentation.two_branch import TwoBranch


def features_loss(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> Tensor:
    """Relative L1 of features, a mean over their levels: 0 where they are alike.

    >>> features_loss((torch.tensor([1.0, 3.0]),), (torch.tensor([1.0, 1.0]),)).item()
    1.0
    """
    distances = [
        (f - w).abs().mean() / w.abs().mean().clamp(min=1e-6)
        for f, w in zip(found, wanted, strict=True)
    ]
    return torch.stack(distances).mean()


class SegmenterFeatures(nn.Module):
    """float32 [N, 3, H, W] in [0, 1] twice, H and W multiples of 16, to one distance >= 0."""

    def __init__(self, network: TwoBranch) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """Differentiable in `images`."""
        with torch.no_grad():
            wanted = self.network.features(reference)
        return features_loss(self.network.features(images), wanted)
