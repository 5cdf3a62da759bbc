"""Pairs of pictures for metrics, and networks of random weights in the place of torchvision's."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sqlink.metrics.trunks import TRUNKS, Trunk


def _random_pairs(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Noise over smooth waves, from next to nothing to more noise than picture."""
    generator = torch.Generator().manual_seed(11)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.rand(count, 3, 1, 1, generator=generator) * 6
    clean = 0.5 + 0.25 * torch.sin(x / 7 + phase) + 0.2 * torch.cos(y / 11 - phase)
    sigma = torch.logspace(-2.5, 0, count).view(-1, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=generator)
    return (clean + sigma * noise).clamp(0, 1), clean.clamp(0, 1)


def _real_pairs(shared: Path, count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Crops of CamVid's validation frames, and the same as JPEG of quality 5 to 90."""
    frames = sorted((shared / "data" / "camvid" / "val").glob("*.png"))[:count]
    if len(frames) < count:
        pytest.skip("CamVid's validation frames are not among the development data")
    received, originals = [], []
    for quality, path in zip(np.linspace(5, 90, count), frames, strict=True):
        with Image.open(path) as picture:
            crop = picture.convert("RGB").crop((80, 100, 80 + width, 100 + height))
        stored = io.BytesIO()
        crop.save(stored, "JPEG", quality=int(quality))
        with Image.open(stored) as again:
            for pixels, kept in ((again, received), (crop, originals)):
                kept.append(torch.from_numpy(np.asarray(pixels).copy()).permute(2, 0, 1) / 255)
    return torch.stack(received), torch.stack(originals)


def _random_trunk(net: str, seed: int = 5) -> nn.Sequential:
    """A network's convolutions with random weights that keep the scale of what goes through."""
    torch.manual_seed(seed)
    trunk: Trunk = TRUNKS[net]
    network = trunk.build()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@pytest.fixture(params=["random", "real"])
def pairs(request: pytest.FixtureRequest) -> Callable[[int, int], tuple[Tensor, Tensor]]:
    """A function of height and width to 50 random or 20 real pairs, received and original."""
    if request.param == "random":
        return lambda height, width: _random_pairs(50, height, width)
    shared: Path = request.getfixturevalue("shared")
    return lambda height, width: _real_pairs(shared, 20, height, width)


@pytest.fixture
def random_trunk() -> Callable[[str], nn.Sequential]:
    """A function of a network's name to its convolutions with random weights."""
    return _random_trunk


def scene(height: int, width: int, n: int = 1) -> Tensor:
    """Smooth waves, so that structure survives noise; [n, 3, height, width]."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.arange(3 * n).view(n, 3, 1, 1)
    return 0.5 + 0.25 * torch.sin(x / 9 + phase) + 0.2 * torch.cos(y / 13 - phase)


def noisy(images: Tensor, sigma: float, seed: int = 1) -> Tensor:
    """The pictures with white noise of standard deviation `sigma`, cut to [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    return (images + sigma * torch.randn(images.shape, generator=generator)).clamp(0, 1)
