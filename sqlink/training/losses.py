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
    """Compute the class-weighted cross-entropy, a mean by weight; 0 if no pixel has any.

    logits: [N, C, H, W]; segmentation: int64 [N, H, W], 255 left out; weights: [C] in [0, 1].
    """
    total = F.cross_entropy(
        logits.float(), segmentation, weights, ignore_index=NO_LABEL, reduction="sum"
    )
    table = torch.cat((weights, weights.new_zeros(1)))
    return total / table[segmentation.clamp(max=len(weights))].sum().clamp(min=_LEAST)


def image_loss(images: Tensor, reference: Tensor, segmentation: Tensor, weights: Tensor) -> Tensor:
    """Compute the class-weighted L1 per channel, a mean by weight; 0 if no pixel has any.

    images, reference: [N, 3, H, W]; segmentation: int64 [N, H, W]; weights: [C] in [0, 1]. Void
    pixels weigh as the least relevant class does.
    """
    table = torch.cat((weights, weights.min().view(1)))
    weight = table[segmentation.clamp(max=len(weights))]
    error = (images - reference).abs().mean(1)
    return (error * weight).sum() / weight.sum().clamp(min=_LEAST)


def colour_loss(images: Tensor, reference: Tensor, cell: int = 8) -> Tensor:
    """Compute the L1 of the mean colour of cells of 8x8 pixels, in luma and, twice as heavy, in
    chroma.

    The eye, and a segmenter, forgive a lost texture sooner than a car of the wrong colour. Chroma
    as in ITU-R BT.601, unscaled: blue and red less luma.
    """
    error = F.avg_pool2d(images - reference, cell)
    luma = 0.299 * error[:, 0] + 0.587 * error[:, 1] + 0.114 * error[:, 2]
    chroma = (error[:, 0] - luma).abs() + (error[:, 2] - luma).abs()
    return luma.abs().mean() + 2 * chroma.mean()


SPECTRUM_BLOCK, SPECTRUM_POOL = 16, 5
"""Pixels a side of the blocks that are transformed, half of it apart, and blocks a side that a
spectrum is a mean of: 48 pixels.
"""

_UNSEEN = (2 / 255) ** 2
"""Mean square of a texture that no one sees."""


def spectrum_loss(images: Tensor, reference: Tensor) -> Tensor:
    """Compute the L1 between the logarithms of local power spectra of luma, frequencies weighted by
    1/f.

    Which strokes make up foliage no decoder can know at a hundredth of a bit, but a spectrum it
    can: where the original has a texture without direction, this forbids a hatching that LPIPS is
    content with. A spectrum is the mean over 48x48 pixels, so that noise can meet it. images,
    reference: [N, 3, H, W] in [0, 1], sides of 16 or more. In nats of power.
    """
    found, wanted = _log_spectra(images), _log_spectra(reference)
    rows = torch.fft.fftfreq(SPECTRUM_BLOCK, device=images.device).view(-1, 1)
    columns = torch.fft.rfftfreq(SPECTRUM_BLOCK, device=images.device).view(1, -1)
    weight = (rows.square() + columns.square()).sqrt().reciprocal()
    weight[0, 0] = 0.0  # the mean: other losses' business
    weight[:, 1:-1] *= 2  # each stands for its mirror image too
    error = (found - wanted).abs().mean((0, 2, 3))
    loss: Tensor = (error * weight.reshape(-1)).sum() / weight.sum()
    return loss


def _log_spectra(images: Tensor) -> Tensor:
    """Convert [N, 3, H, W] to log power [N, frequencies, h, w]."""
    size = SPECTRUM_BLOCK
    luma = 0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    blocks = luma.float().unfold(1, size, size // 2).unfold(2, size, size // 2)
    window = torch.hann_window(size, device=images.device)
    window = window.view(-1, 1) * window
    blocks = (blocks - blocks.mean((3, 4), keepdim=True)) * window
    spectrum = torch.view_as_real(torch.fft.rfft2(blocks)).square().sum(-1)
    power = spectrum.flatten(3).permute(0, 3, 1, 2) / window.square().sum()
    pool = min(SPECTRUM_POOL, *power.shape[2:])
    return F.avg_pool2d(power, pool, 2).add(_UNSEEN).log()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the hinge loss of a discriminator on its verdicts."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def unit_power(features: Tensor, reference: Tensor) -> Tensor:
    """Divide `features` by the root mean square of `reference`, [N, C, h, w] both."""
    return features / reference.square().mean().add(1e-12).sqrt()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Compute the mean L1 between the discriminator's features of the fake and of the real
    picture.
    """
    distances = [(f - r.detach()).abs().mean() for f, r in zip(fake, real, strict=True)]
    return torch.stack(distances).mean()
