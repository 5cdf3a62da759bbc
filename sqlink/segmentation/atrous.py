"""`judge`: the network that measures, of another architecture than the transmitter's.

    picture ─ EfficientNet-Lite2 ─┬─ 1/2 ──────────────────────────── concat ─ 1/2 ─ logits
                                  ├─ 1/4 ─────────────────── concat ──┘
                                  ├─ 1/8 ────────── concat ──┘
                                  └─ 1/16, 1/32 ─ atrous ┘

Atrous spatial pyramid pooling and a decoder that concatenates (Chen et al., "Encoder-decoder with
atrous separable convolution", ECCV 2018), on another pretrained trunk than that of `tx`, also
without its last blocks. Only metrics load it.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.data.classes import NUM_CLASSES
from sqlink.segmentation.blocks import ConvNorm, resize
from sqlink.segmentation.efficientnet import EfficientNetLite


class AtrousPooling(nn.Module):
    """Features at four dilations and of the whole picture: [N, cin, H, W] -> [N, cout, H, W]."""

    def __init__(self, cin: int, cout: int, hidden: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.near = ConvNorm(cin, hidden, 1)
        self.far = nn.ModuleList(
            nn.Sequential(ConvNorm(cin, cin, groups=cin, dilation=rate), ConvNorm(cin, hidden, 1))
            for rate in rates
        )
        self.mean = nn.Conv2d(cin, hidden, 1)
        self.merge = ConvNorm(hidden * (2 + len(rates)), cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        whole = F.relu(self.mean(x.mean(dim=(2, 3), keepdim=True)))
        parts = [self.near(x), *(far(x) for far in self.far), whole.expand(-1, -1, *x.shape[2:])]
        return cast(Tensor, self.merge(torch.cat(parts, dim=1)))


class Atrous(nn.Module):
    """Network of `judge`: [N, 3, H, W] in [0, 1] -> logits [N, 11, H/2, W/2].

    H and W are multiples of `stride`.
    """

    stride = 32
    variant = "efficientnet-lite2"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EfficientNetLite(self.variant, blocks=18)
        c2, c4, c8, c16, c32 = self.trunk.widths
        self.from32 = ConvNorm(c32, 72, 1)
        self.context = AtrousPooling(72 + c16, 96, 48, rates=(2, 4, 8))
        self.from8 = ConvNorm(c8, 32, 1)
        self.join8 = ConvNorm(96 + 32, 64)
        self.from4 = ConvNorm(c4, 24, 1)
        self.join4 = nn.Sequential(ConvNorm(64 + 24, 56), ConvNorm(56, 32, 1))
        self.join2 = ConvNorm(32 + c2, 24)
        self.classify = nn.Conv2d(24, NUM_CLASSES, 1)

    @property
    def sixteenth(self) -> nn.Module:
        """Last layer at 1/16 before the decoder, [N, 120, H/16, W/16]; `fd_judge` uses its
        output.
        """
        return self.trunk.blocks[self.trunk.last[3]]

    def forward(self, images: Tensor) -> Tensor:
        x2, x4, x8, x16, x32 = self.trunk(images)
        x = self.context(torch.cat([resize(self.from32(x32), x16), x16], dim=1))  # N×96×H/16
        x = self.join8(torch.cat([resize(x, x8), self.from8(x8)], dim=1))  # N×64×H/8×W/8
        x = self.join4(torch.cat([resize(x, x4), self.from4(x4)], dim=1))  # N×32×H/4×W/4
        x = self.join2(torch.cat([resize(x, x2), x2], dim=1))  # N×24×H/2×W/2
        return cast(Tensor, self.classify(x))
