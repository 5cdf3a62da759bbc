"""`judge`: the network that measures, of another build than the transmitter's.

    picture ─ unshuffle ÷2 ─ 1/2 ─ 1/4 ──────────── concat ─ 1/4 ─ logits, shuffled ×2 ─ 1/2
                                    └ 1/8 ──────── concat ┘
                                       └ 1/16 ─── sum ┘
                                           └ 1/32 ┘   gated inverted residuals

A U-Net (Ronneberger et al., MICCAI 2015) of dense convolutions where pictures are large and
depthwise ones where they are small. 2.9 GMAC for 480x360. It is loaded by metrics alone.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.data.classes import NUM_CLASSES
from sqlink.segmentation.blocks import ConvNorm, Inverted, Residual, resize


class UNet(nn.Module):
    """[N, 3, H, W] in [0, 1], H and W multiples of `stride` -> logits [N, 11, H/2, W/2]."""

    stride = 32

    def __init__(self, widths: tuple[int, int, int, int, int] = (24, 48, 80, 128, 160)) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = widths
        self.entry = ConvNorm(12, c2)
        self.quarter = nn.Sequential(ConvNorm(c2, c4, stride=2), Residual(c4))
        self.eighth = nn.Sequential(ConvNorm(c4, c8, stride=2), Residual(c8))
        self.sixteenth = nn.Sequential(
            ConvNorm(c8, c16, stride=2), *(Inverted(c16, gated=True) for _ in range(3))
        )
        self.bottom = nn.Sequential(
            ConvNorm(c16, c32, stride=2), *(Inverted(c32, gated=True) for _ in range(3))
        )
        self.rise32 = ConvNorm(c32, c16, 1, act=False)
        self.join16 = nn.Sequential(Inverted(c16, gated=True), ConvNorm(c16, c8, 1))
        self.join8 = ConvNorm(2 * c8, 64)
        self.join4 = nn.Sequential(ConvNorm(64 + c4, c4), Residual(c4))
        self.classify = nn.Conv2d(c4, 4 * NUM_CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = F.pixel_unshuffle((images - 0.45) / 0.25, 2)  # N×12×H/2×W/2
        x4 = cast(Tensor, self.quarter(self.entry(x)))
        x8 = cast(Tensor, self.eighth(x4))
        x16 = cast(Tensor, self.sixteenth(x8))
        x32 = cast(Tensor, self.bottom(x16))
        x = cast(Tensor, self.join16(F.relu(x16 + resize(self.rise32(x32), x16))))  # N×80×H/16
        x = cast(Tensor, self.join8(torch.cat([resize(x, x8), x8], dim=1)))  # N×64×H/8×W/8
        x = cast(Tensor, self.join4(torch.cat([resize(x, x4), x4], dim=1)))  # N×48×H/4×W/4
        return F.pixel_shuffle(cast(Tensor, self.classify(x)), 2)  # N×11×H/2×W/2
