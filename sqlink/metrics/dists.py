"""DISTS: similarity of structure and texture, on the features of VGG16.

    images in [0, 1] ──> ImageNet's mean and deviation ──> VGG16, pooling by Hann-weighted L2 norm
    ──> the picture and 5 taps; each channel: l = similarity of means, s = of covariance
    DISTS = 1 - Σ (α l + β s), [N]; 0 for equal pictures, lower is better

It tolerates texture that is resampled instead of copied. α and β come with torchmetrics, VGG16 from
torchvision's file.

Source: Ding, Ma, Wang, Simoncelli, "Image quality assessment: unifying structure and texture
similarity", IEEE TPAMI 2022, eq. 4 to 8, with the published weights.
"""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sqlink.metrics.base import check_pair, check_size, register
from sqlink.metrics.published import checked, read
from sqlink.metrics.trunks import TRUNKS

_WEIGHTS_DIGEST = "6c00384048057012be0722767d1fafab541c92524fd8f3f718dee1a8e4fc7dde"
_BATCH = 4
_EPSILON = 1e-6


class DISTS(nn.Module):
    """DISTS, frozen.

    features: VGG16's convolutional part. alpha, beta: float32 [1, 1475, 1, 1], weights of the
    channels of the picture and the taps.
    """

    shift: Tensor
    scale: Tensor
    hann: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, features: nn.Sequential, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("shift", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        taps = torch.hann_window(5, periodic=False)[1:-1]
        window = torch.outer(taps, taps)
        self.register_buffer("hann", (window / window.sum()).view(1, 1, 3, 3))
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", (alpha / total).flatten())
        self.register_buffer("beta", (beta / total).flatten())
        self.requires_grad_(False)
        self.eval()

    def taps(self, images: Tensor) -> list[Tensor]:
        """Return the picture itself and five feature maps, float32 [N, C, h, w] each."""
        x = images.float()
        found = [x]
        x = (x - self.shift) / self.scale
        for index, layer in enumerate(self.features):
            if isinstance(layer, nn.MaxPool2d):
                width = x.shape[1]
                window = self.hann.expand(width, 1, 3, 3)
                pooled = functional.conv2d(x.square(), window, stride=2, padding=1, groups=width)
                x = (pooled + 1e-12).sqrt()
            else:
                x = layer(x)
            if index in TRUNKS["vgg"].taps:
                found.append(x)
        return found

    def forward(self, images: Tensor, reference: Tensor) -> Tensor:
        """Return DISTS of N pairs, float64 [N]; images, reference: float [N, 3, H, W], RGB in [0,
        1].
        """
        structure, start = [], 0
        for a, b in zip(self.taps(images), self.taps(reference), strict=True):
            width = a.shape[1]
            a, b = a.double().flatten(2), b.double().flatten(2)  # N×C×places
            mean_a, mean_b = a.mean(dim=2), b.mean(dim=2)
            luminance = (2 * mean_a * mean_b + _EPSILON) / (mean_a**2 + mean_b**2 + _EPSILON)
            both = (a * b).mean(dim=2) - mean_a * mean_b
            spread = a.var(dim=2, unbiased=False) + b.var(dim=2, unbiased=False)
            likeness = (2 * both + _EPSILON) / (spread + _EPSILON)
            part = slice(start, start + width)
            structure.append((self.alpha[part] * luminance + self.beta[part] * likeness).sum(dim=1))
            start += width
        return 1 - torch.stack(structure).sum(dim=0)


def load_dists(folder: Path | str | None = None) -> DISTS:
    """Load DISTS with its published weights; folder: that of VGG16's file, see `published.find`.

    Raises WeightsError, naming the file and its source, if it is missing or not the published one.
    """
    features = TRUNKS["vgg"].load("DISTS", folder)
    path = Path(str(files("torchmetrics"))) / "functional/image/dists_models/weights.pt"
    shape = torch.zeros(1, 3 + sum(TRUNKS["vgg"].channels), 1, 1)
    weights = checked("DISTS", path, read(path), {"alpha": shape, "beta": shape}, _WEIGHTS_DIGEST)
    return DISTS(features, weights["alpha"], weights["beta"])


@register("dists")
class Dists:
    """`DISTS` as a column of results, on the device of its pictures.

    folder: as for `load_dists`. Raises WeightsError as that function does.
    """

    name = "dists"
    unit = ""
    higher_is_better = False
    lowest, highest = 0.0, math.inf

    def __init__(self, folder: Path | str | None = None) -> None:
        self.network = load_dists(folder)

    def unavailable(self, height: int, width: int) -> str | None:
        side = TRUNKS["vgg"].min_side
        if min(height, width) >= side:
            return None
        return f"DISTS needs at least {side} pixels a side; got {width}x{height}"

    @torch.no_grad()
    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        check_pair("DISTS", images, reference)
        check_size(self, images)
        network = self.network.to(images.device)
        pairs = zip(images.split(_BATCH), reference.split(_BATCH), strict=True)
        return torch.cat([network(ours, theirs).cpu() for ours, theirs in pairs])
