"""What the networks are trained for.

Sources: class weights and the semantic-aware blend, arXiv 2502.09520; hinge loss, Lim & Ye 2017;
feature matching, Wang et al., "High-resolution image synthesis ... with conditional GANs", CVPR
2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.data.classes import NO_LABEL

_LEAST = 1e-6
"""Sum of weights below which a loss is 0: a crop may show nothing that matters."""


def map_loss(logits: Tensor, segmentation: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy, a mean by weight; 0 where no pixel has any.

    logits: [N, C, H, W]; segmentation: int64 [N, H, W], 255 left out; weights: [C] in [0, 1].
    """
    total = F.cross_entropy(
        logits.float(), segmentation, weights, ignore_index=NO_LABEL, reduction="sum"
    )
    table = torch.cat((weights, weights.new_zeros(1)))
    return total / table[segmentation.clamp(max=len(weights))].sum().clamp(min=_LEAST)


def image_loss(images: Tensor, reference: Tensor, segmentation: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted L1 per channel, a mean by weight; 0 where no pixel has any.

    images, reference: [N, 3, H, W]; segmentation: int64 [N, H, W]; weights: [C] in [0, 1]. Void
    pixels weigh as the least relevant class does.
    """
    table = torch.cat((weights, weights.min().view(1)))
    weight = table[segmentation.clamp(max=len(weights))]
    error = (images - reference).abs().mean(1)
    return (error * weight).sum() / weight.sum().clamp(min=_LEAST)


def colour_loss(images: Tensor, reference: Tensor, cell: int = 8) -> Tensor:
    """L1 of the mean colour of cells of 8x8 pixels, in luma and, twice as heavy, in chroma.

    The eye, and a segmenter, forgive a lost texture sooner than a car of the wrong colour. Chroma
    as in ITU-R BT.601, unscaled: blue and red less luma.
    """
    error = F.avg_pool2d(images - reference, cell)
    luma = 0.299 * error[:, 0] + 0.587 * error[:, 1] + 0.114 * error[:, 2]
    chroma = (error[:, 0] - luma).abs() + (error[:, 2] - luma).abs()
    return luma.abs().mean() + 2 * chroma.mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator on its verdicts."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def unit_power(features: Tensor, reference: Tensor) -> Tensor:
    """`features` over the root mean square of `reference`, [N, C, h, w] both."""
    return features / reference.square().mean().add(1e-12).sqrt()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean L1 between the discriminator's features of the fake and of the real picture."""
    distances = [(f - r.detach()).abs().mean() for f, r in zip(fake, real, strict=True)]
    return torch.stack(distances).mean()
