"""`tx`: the transmitter's network, light enough to run inside the encoder.

    picture ─ stem ÷4 ─┬─ detail, one residual block at 1/4 ──────────────┐
                       └─ 1/8, two residual blocks ─┬─────────────────┐   │
                                                    └─ 1/16, inverted │   │
                                                       residuals,     │   │
                                                       pyramid pool ─ + ─ + ─ 1/4 ─ logits

After BiSeNet (Yu et al., ECCV 2018) and Fast-SCNN (Poudel et al., BMVC 2019): one shallow branch
for edges, one deep for context, pyramid pooling at its end. 1.5 GMAC for 480x360.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.data.classes import NUM_CLASSES
from sqlink.segmentation.blocks import ConvNorm, Inverted, PyramidPooling, Residual, resize


class TwoBranch(nn.Module):
    """[N, 3, H, W] in [0, 1], H and W multiples of `stride` -> logits [N, 11, H/4, W/4]."""

    stride = 16

    def __init__(self, detail: int = 40, middle: int = 72, deep: int = 128, head: int = 40) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNorm(3, 16, stride=2), ConvNorm(16, detail, stride=2))
        self.detail = Residual(detail)
        self.middle = nn.Sequential(
            ConvNorm(detail, middle, stride=2), Residual(middle), Residual(middle)
        )
        self.deep = nn.Sequential(
            ConvNorm(middle, deep, stride=2),
            Inverted(deep),
            Inverted(deep, dilation=2),
            Inverted(deep),
            Inverted(deep, dilation=2),
            PyramidPooling(deep, 32),
        )
        self.from_deep = ConvNorm(deep, head, 1, act=False)
        self.from_middle = ConvNorm(middle, head, 1, act=False)
        self.from_detail = ConvNorm(detail, head, 1, act=False)
        self.join = ConvNorm(head, head, 5, groups=head, act=False)
        self.mix = ConvNorm(head, head, 1)
        self.refine = ConvNorm(head, head)
        self.classify = nn.Conv2d(head, NUM_CLASSES, 1)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the branches see, [N, detail, H/4, W/4], [N, middle, H/8, W/8], [N, 32 + ..., H/16,
        W/16]: the losses that look through this network compare them.
        """
        x = cast(Tensor, self.stem((images - 0.45) / 0.25))  # N×40×H/4×W/4
        fine = cast(Tensor, self.detail(x))
        middle = cast(Tensor, self.middle(fine))  # N×72×H/8×W/8
        return fine, middle, cast(Tensor, self.deep(middle))

    def classes(self, fine: Tensor, middle: Tensor, deep: Tensor) -> Tensor:
        """Logits from `features`."""
        deep = cast(Tensor, self.from_deep(deep))  # N×40×H/16×W/16
        x = F.relu(cast(Tensor, self.from_middle(middle)) + resize(deep, middle))
        x = F.relu(cast(Tensor, self.from_detail(fine)) + resize(x, fine))  # N×40×H/4×W/4
        x = F.relu(x + cast(Tensor, self.mix(self.join(x))))
        return cast(Tensor, self.classify(self.refine(x)))

    def forward(self, images: Tensor) -> Tensor:
        return self.classes(*self.features(images))
