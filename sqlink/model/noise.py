"""Noise for textures: the same on every device, in every run, and for every picture of a size.

Without noise, a decoder draws the same texture at every masked token, and foliage becomes a
lattice. Noise at every level, scaled per channel, breaks this repetition. Source: Karras et al., "A
style-based generator architecture", CVPR 2019, section 3.2; here the noise is a hash of the place,
so that decoding stays deterministic.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MASK = 0xFFFFFFFF

GAIN = 20.0
"""Factor of the learned scales, so that Adam's small steps bring in the noise within hundreds of
steps.
"""


def noise_field(height: int, width: int, device: torch.device, seed: int | Tensor = 0) -> Tensor:
    """Draw float32 [1, 1, height, width], or [N, 1, ...] for int64 seeds [N]: mean 0, variance 1.

    Uniform, from a 32-bit integer hash (Wellons, "Prospecting for hash functions", 2018) of row,
    column and seed.
    """
    rows = torch.arange(height, device=device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=device).view(1, 1, 1, -1)
    seeds = torch.as_tensor(seed, device=device).reshape(-1, 1, 1, 1)
    bits = _mix(_mix(_mix(seeds & _MASK) ^ rows) ^ columns)
    return (bits.to(torch.float64) / 2**31 - 1).mul(3**0.5).to(torch.float32)


def _mix(bits: Tensor) -> Tensor:
    """Apply a bijection of 32-bit integers, in int64, in which every bit depends on every other."""
    bits = ((bits ^ (bits >> 16)) * 0x21F0AAAD) & _MASK
    bits = ((bits ^ (bits >> 15)) * 0x735A2D97) & _MASK
    return bits ^ (bits >> 15)


class NoiseInjection(nn.Module):
    """A layer that adds noise, scaled per channel; the scales start at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, seed: int | Tensor = 0, strength: float = 1.0) -> Tensor:
        """Add noise to x, [N, channels, h, w].

        seed: one for all, or int64 [N]. strength: factor of the noise, 0 for none.
        """
        if strength == 0:
            return x
        height, width = x.shape[-2:]
        field = noise_field(height, width, x.device, seed).to(x.dtype)
        return torch.addcmul(x, strength * GAIN * self.scale.view(1, -1, 1, 1), field)
