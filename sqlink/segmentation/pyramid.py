"""`tx`: the transmitter's network, small enough to run inside the encoder.

    picture ─ EfficientNet-Lite0 ─┬─ 1/2 unshuffled, 1/4 ── fine ────── + ─ 1/4 ─ shuffle ─ logits
                                  ├─ 1/8 ──────────────── middle ── + ──┘                   at 1/2
                                  └─ 1/16, 1/32, mean ─── deep ─────┘

A feature pyramid (Lin et al., CVPR 2017) on a pretrained trunk without its last stage: levels are
added from coarse to fine, and the finest uses the features at 1/2, where poles are two pixels wide.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.data.classes import NUM_CLASSES
from sqlink.segmentation.blocks import ConvNorm, resize
from sqlink.segmentation.efficientnet import EfficientNetLite


class Pyramid(nn.Module):
    """Network of `tx`: [N, 3, H, W] in [0, 1] -> logits [N, 11, H/2, W/2].

    H and W are multiples of `stride`.
    """

    stride = 32
    variant = "efficientnet-lite0"

    def __init__(self, deep: int = 96, middle: int = 64, fine: int = 48) -> None:
        super().__init__()
        self.trunk = EfficientNetLite(self.variant, blocks=15)
        c2, c4, c8, c16, c32 = self.trunk.widths
        self.from32 = ConvNorm(c32, deep, 1, act="none")
        self.mean = nn.Conv2d(deep, deep, 1)
        self.from16 = ConvNorm(c16, deep, 1, act="none")
        self.deep = ConvNorm(deep, deep)
        self.from4 = ConvNorm(4 * c2 + c4, fine, 1)
        self.from8 = ConvNorm(c8, middle, 1, act="none")
        self.to8 = ConvNorm(deep, middle, 1, act="none")
        self.middle = ConvNorm(middle, middle)
        self.to4 = ConvNorm(middle, fine, 1, act="none")
        self.fine = ConvNorm(fine, fine)
        self.classify = nn.Conv2d(fine, 4 * NUM_CLASSES, 1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features that losses on this network compare.

        Their shapes are [N, 48, H/4, W/4], [N, 40, H/8, W/8] and [N, 96, H/16, W/16].
        """
        x2, x4, x8, x16, x32 = self.trunk(images)
        fine = self.from4(torch.cat([F.pixel_unshuffle(x2, 2), x4], dim=1))
        x32 = self.from32(x32)
        x32 = F.relu(x32 + self.mean(x32.mean(dim=(2, 3), keepdim=True)))
        deep = self.deep(F.relu(self.from16(x16) + resize(x32, x16)))
        return cast(Tensor, fine), x8, cast(Tensor, deep)

    def classes(self, fine: Tensor, middle: Tensor, deep: Tensor) -> Tensor:
        """Return the logits for `features`."""
        x = F.relu(self.from8(middle) + resize(self.to8(deep), middle))
        x = cast(Tensor, self.middle(x))  # N×64×H/8×W/8
        x = F.relu(fine + resize(self.to4(x), fine))  # N×48×H/4×W/4
        return F.pixel_shuffle(cast(Tensor, self.classify(self.fine(x))), 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(*self.features(images))
