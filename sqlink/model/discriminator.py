"""Discriminators: a semantic-aware PatchGAN on pixels, and one on the features of frozen networks.

The PatchGAN's eyes are turned to the classes that matter: where the exact look of a class does not
(vegetation, sky), the fake it is shown is blended towards the real picture, so that it spends
itself on the other classes. Sources: Isola et al., CVPR 2017 (PatchGAN); arXiv 2502.09520 (the
blend); Sauer et al., "Projected GANs converge faster", NeurIPS 2021 (features).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions with spectral norm; one verdict a patch."""

    def __init__(self, inputs: int, width: int = 48, layers: int = 3) -> None:
        super().__init__()
        widths = [inputs] + [width * 2**level for level in range(layers)]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1))
            for a, b in itertools.pairwise(widths)
        )
        self.verdict = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x: [N, inputs, H, W]. Returns verdicts [N, 1, H/8, W/8] and each layer's features."""
        features: list[Tensor] = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.verdict(x), features


class FeatureDiscriminator(nn.Module):
    """One small head on each feature map of frozen networks; it tells textures, not pixels.

    What a frozen network sees is a picture's statistics at a glance: a head on it learns in minutes
    what a discriminator from chance learns in hours. channels: of each map.
    """

    def __init__(self, channels: Sequence[int], width: int = 64) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral_norm(nn.Conv2d(count, width, 1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral_norm(nn.Conv2d(width, 1, 1)),
            )
            for count in channels
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """features: [N, channels[i], h, w] each. Returns verdicts [N, 1, h, w] of each."""
        return [head(x) for head, x in zip(self.heads, features, strict=True)]


def blend_towards_real(
    fake: Tensor, real: Tensor, segmentation: Tensor, classes: Sequence[int], share: float
) -> Tensor:
    """`fake` with `share` of `real` mixed in wherever `segmentation` is one of `classes`.

    fake, real: [N, C, H, W]; segmentation: int64 [N, H, W]; share in [0, 1]. Each pixel has one
    class, so no weight exceeds `share`.
    """
    chosen = torch.isin(segmentation, torch.tensor(classes, device=segmentation.device))
    weight = share * chosen.unsqueeze(1).to(fake.dtype)
    return fake + weight * (real - fake)
