"""EfficientNet-Lite without its last stage, the trunk of both segmenters.

    picture ─ stem ÷2 ─ 1/2 ─ 1/4 ─ 1/8 ─ 1/16 ─ 1/32
              inverted residuals of ReLU6, depthwise in the middle, no squeeze and excitation

Sources: Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML
2019; the Lite variants of the authors' repository (`lite/efficientnet_lite_builder.py`). Weights
from ImageNet are converted once by `sqlink.training.backbones`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from sqlink.segmentation.blocks import ConvNorm

EPS = 1e-3
"""Epsilon of the normalisations of the trunk."""

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and width of each stage of Lite0."""


@dataclass(frozen=True)
class Variant:
    """A size of the family. width, depth: multipliers of the widths and of the blocks per stage."""

    width: float
    depth: float


VARIANTS = {
    "efficientnet-lite0": Variant(1.0, 1.0),
    "efficientnet-lite1": Variant(1.0, 1.1),
    "efficientnet-lite2": Variant(1.1, 1.2),
}


def scaled_width(width: int, factor: float) -> int:
    """Multiply `width` by `factor`, rounded to a multiple of 8 that is at least 90 % of the
    product.

    >>> scaled_width(40, 1.1), scaled_width(24, 1.1)
    (48, 24)
    """
    wanted = width * factor
    found = max(8, int(wanted + 4) // 8 * 8)
    return found if found >= 0.9 * wanted else found + 8


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution and a 1x1 projection; adds the input if shapes
    agree.
    """

    def __init__(self, cin: int, cout: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = cin * expand
        self.expand: nn.Module = nn.Identity()
        if expand != 1:
            self.expand = ConvNorm(cin, wide, 1, act="relu6", frozen=True, eps=EPS)
        self.spread = ConvNorm(
            wide, wide, kernel, stride, groups=wide, act="relu6", frozen=True, same=True, eps=EPS
        )
        self.project = ConvNorm(wide, cout, 1, act="none", frozen=True, eps=EPS)
        self.skip = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        out = cast(Tensor, self.project(self.spread(self.expand(x))))
        return x + out if self.skip else out


class EfficientNetLite(nn.Module):
    """The trunk: float32 [N, 3, H, W] in [0, 1] -> features at 1/2 to 1/32.

    H and W are multiples of 32. variant: `efficientnet-lite0`, `-lite1` or `-lite2`. blocks: number
    of blocks to keep, all by default. widths: channels of the five levels returned, each from the
    last block of its scale.
    """

    def __init__(self, variant: str, blocks: int | None = None) -> None:
        super().__init__()
        size = VARIANTS[variant]
        self.stem = ConvNorm(3, 32, 3, 2, act="relu6", frozen=True, same=True, eps=EPS)
        built: list[nn.Module] = []
        scales: list[int] = []
        widths: list[int] = []
        before, scale = 32, 2
        for number, (repeats, kernel, stride, expand, wide) in enumerate(STAGES):
            width = scaled_width(wide, size.width)
            if number not in (
                0,
                len(STAGES) - 1,
            ):  # Lite does not scale the first and the last stage.
                repeats = math.ceil(size.depth * repeats)
            for step in (stride,) + (1,) * (repeats - 1):
                built.append(InvertedResidual(before, width, kernel, step, expand))
                scale *= step
                before = width
                scales.append(scale)
                widths.append(width)
        if blocks is not None:
            del built[blocks:], scales[blocks:], widths[blocks:]
        self.blocks = nn.ModuleList(built)
        self.last = [n for n, s in enumerate(scales) if n + 1 == len(scales) or scales[n + 1] != s]
        self.widths = tuple(widths[n] for n in self.last)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = cast(Tensor, self.stem((images - 127 / 255) / (128 / 255)))
        levels = []
        for number, block in enumerate(self.blocks):
            x = cast(Tensor, block(x))
            if number in self.last:
                levels.append(x)
        return levels
