"""What the networks are trained for.

Sources: class weights and the semantic-aware blend, arXiv 2502.09520; hinge loss, Lim & Ye 2017;
feature matching, Wang et al., "High-resolution image synthesis ... with conditional GANs", CVPR
2018.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.data.classes import NAMES

MAP_RELEVANCE = {
    "pole": 1.0,
    "sign": 1.0,
    "pedestrian": 0.85,
    "bicyclist": 0.85,
    "tree": 0.3,
    "sky": 0.2,
}
"""Weight of a class in the map's cross-entropy; every class not named has 0.5."""

IMAGE_RELEVANCE = {"pole": 1.0, "sign": 1.0, "pedestrian": 1.0, "bicyclist": 1.0}
"""Weight of a class in the picture's L1; every class not named has 0.5."""

BLENDED_CLASSES = ("sky", "tree")
"""Classes whose exact look the discriminator is told not to mind."""


def class_weights(relevance: dict[str, float], num_classes: int) -> Tensor:
    """float32 [num_classes]: the weight of each class id, 0.5 where nothing is said.

    Names are CamVid's; a model with other classes weighs them all alike.
    """
    if num_classes != len(NAMES):
        return torch.full((num_classes,), 0.5)
    return torch.tensor([relevance.get(name, 0.5) for name in NAMES])


def map_loss(logits: Tensor, segmentation: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted cross-entropy; logits [N, C, H, W], segmentation [N, H, W], 255 left out."""
    return F.cross_entropy(logits.float(), segmentation, weights, ignore_index=255)


def image_loss(images: Tensor, reference: Tensor, segmentation: Tensor, weights: Tensor) -> Tensor:
    """Class-weighted L1 per channel; void pixels weigh as the least relevant class does."""
    table = torch.cat((weights, weights.min().view(1)))
    weight = table[segmentation.clamp(max=len(weights))]
    error = (images - reference).abs().mean(1)
    return (error * weight).sum() / weight.sum()


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


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean L1 between the discriminator's features of the fake and of the real picture."""
    distances = [(f - r.detach()).abs().mean() for f, r in zip(fake, real, strict=True)]
    return torch.stack(distances).mean()
