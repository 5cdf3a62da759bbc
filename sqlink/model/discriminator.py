"""Discriminators: a semantic-aware one of patches, and one on the features of frozen networks.

The first one attends to relevant classes: in classes whose details do not matter (vegetation, sky),
its fake input is blended towards the real picture, so that it learns from the other classes.
Sources: Isola et al., CVPR 2017 (PatchGAN); arXiv 2502.09520 (the blend); Sauer et al., "Projected
GANs converge faster", NeurIPS 2021 (features).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from sqlink.model.spade import unshuffled_map

BLOCK, STEP = 4, 2
"""Side and step, in pixels, of the blocks whose cosine transform is the patch discriminator's
input.
"""

CELL = 4
"""Side of the cells of the map, its other input, in pixels."""


class PatchDiscriminator(nn.Module):
    """A discriminator of patches of about 40 pixels, on their whitened local cosine transform.

        images ── DCT 4x4, step 2, over spread ── conv3x3 ── halve ──(+ map)── halve ── conv3x3
                                                  all with spectral norm

    A picture's power falls with the square of the frequency, so a network on pixels first learns
    coarse structure and takes hours to detect hatching. If each band is divided by its own spread,
    the network sees both from the first step. Sources: Gal et al., "SWAGAN", ACM TOG 2021 (a
    discriminator on wavelets); Miyato et al., ICLR 2018 (spectral norm).
    """

    bands: Tensor

    def __init__(self, num_classes: int, width: int = 64) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("bands", _cosine_bands())
        cells = (num_classes + 1) * CELL**2
        self.fine = spectral_norm(nn.Conv2d(len(self.bands), width, 3, padding=1))
        self.middle = spectral_norm(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1))
        self.labels = spectral_norm(nn.Conv2d(cells, 2 * width, 1))
        self.coarse = spectral_norm(nn.Conv2d(2 * width, 3 * width, 4, stride=2, padding=1))
        self.verdict = spectral_norm(nn.Conv2d(3 * width, 1, 3, padding=1))

    @torch.no_grad()
    def whiten_by(self, images: Tensor, least: float = 1 / 255) -> None:
        """Set the spread of every band to that of real pictures, float32 [N, 3, H, W] in [0, 1].

        least: lower bound of a spread, such as that of noise.
        """
        self.bands.copy_(_cosine_bands())
        spread = self._transform(images).square().mean((0, 2, 3)).sqrt()
        self.bands.div_(spread.clamp(min=least).view(-1, 1, 1, 1))

    def _transform(self, images: Tensor) -> Tensor:
        padding = (BLOCK - STEP) // 2
        with torch.autocast(
            images.device.type, enabled=False
        ):  # float32: faint bands of bright pictures
            return F.conv2d(images.float() - 0.5, self.bands, stride=STEP, padding=padding)

    def forward(self, images: Tensor, segmentation: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Judge images, [N, 3, H, W] in [0, 1], with their segmentation, int64 [N, H, W].

        H and W are multiples of 8.

        Returns verdicts [N, 1, H/8, W/8] and each layer's features.
        """
        cells = unshuffled_map(segmentation, self.num_classes, CELL)
        fine = F.leaky_relu(self.fine(self._transform(images)), 0.2)
        middle = F.leaky_relu(self.middle(fine) + self.labels(cells), 0.2)
        coarse = F.leaky_relu(self.coarse(middle), 0.2)
        return self.verdict(coarse), [fine, middle, coarse]


def _cosine_bands() -> Tensor:
    """Return an orthonormal cosine transform of luma, red less luma and blue less luma (ITU-R
    BT.601), [3 * BLOCK**2, 3, BLOCK, BLOCK].
    """
    places = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi / BLOCK * (places + 0.5) * places.view(-1, 1)) * (2 / BLOCK) ** 0.5
    basis[0] /= 2**0.5
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    planes = torch.stack((luma, torch.eye(3).double()[0] - luma, torch.eye(3).double()[2] - luma))
    bands = torch.einsum("pc,uy,vx->puvcyx", planes, basis, basis)
    return bands.reshape(-1, 3, BLOCK, BLOCK).float()


class FeatureDiscriminator(nn.Module):
    """A discriminator with one small head on each feature map of frozen networks.

    The features summarise the statistics of a picture, so that a head learns in minutes what a
    discriminator from random weights learns in hours. channels: of each map.
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
        """Judge features: [N, channels[i], h, w] each. Returns verdicts [N, 1, h, w] of each."""
        return [head(x) for head, x in zip(self.heads, features, strict=True)]


def is_one_of(segmentation: Tensor, classes: Sequence[int]) -> Tensor:
    """Return where a map [...] holds one of `classes`, bool [...]."""
    return torch.isin(segmentation, torch.tensor(classes, device=segmentation.device))


def blend_towards_real(
    fake: Tensor, real: Tensor, segmentation: Tensor, classes: Sequence[int], share: float
) -> Tensor:
    """Mix `share` of `real` into `fake` wherever `segmentation` is one of `classes`.

    fake, real: [N, C, H, W]; segmentation: int64 [N, H, W]; share in [0, 1]. Each pixel has one
    class, so no weight exceeds `share`.
    """
    weight = share * is_one_of(segmentation, classes).unsqueeze(1).to(fake.dtype)
    return fake + weight * (real - fake)
