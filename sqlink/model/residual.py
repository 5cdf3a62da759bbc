"""The blocks of a VQ-GAN: residual block, self-attention, halving and doubling of resolution.

Source: Esser, Rombach, Ommer, "Taming transformers for high-resolution image synthesis", CVPR 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.model.fused import GroupNorm, convolved, silu
from sqlink.model.spade import SpadeNorm


class ResidualBlock(nn.Module):
    """Two times norm - SiLU - conv3x3, added to the input; the norms are SPADE if `labels` > 0."""

    def __init__(
        self, inputs: int, outputs: int, groups: int, labels: int = 0, spade_hidden: int = 0
    ) -> None:
        super().__init__()

        def norm(channels: int) -> nn.Module:
            if labels:
                return SpadeNorm(channels, groups, labels, spade_hidden)
            return GroupNorm(min(groups, channels), channels, eps=1e-6)

        self.norm1, self.conv1 = norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Transform x, [N, inputs, h, w], to [N, outputs, h, w]; labels: [N, L, h, w] for SPADE."""
        condition = () if labels is None else (labels,)
        y = convolved(self.conv1, silu(self.norm1(x, *condition)))
        return convolved(self.conv2, silu(self.norm2(y, *condition)), plus=self.skip(x))


class SelfAttention(nn.Module):
    """Attention of every place to every other, heads of 64 channels or fewer, added to the input.

    `weights` scales the contribution of each place to the others (the demasker's mask).
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.norm = GroupNorm(min(groups, channels), channels, eps=1e-6)
        self.project_in = nn.Conv2d(channels, 3 * channels, 1)
        self.project_out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project_out.weight)

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Attend over x, [N, C, h, w]; weights: [N, h * w] in (0, 1] or None. Returns the shape of
        x.
        """
        n, c, h, w = x.shape
        rows = convolved(self.project_in, self.norm(x)).permute(0, 2, 3, 1)  # in memory order
        qkv = rows.reshape(n, h * w, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # [N, heads, h*w, C/heads]
        bias = None
        if weights is not None:
            bias = torch.log(weights).to(q.dtype)[:, None, None, :]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y = y.transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return convolved(self.project_out, y, plus=x)


class Downsample(nn.Conv2d):
    """A 3x3 convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """A doubling of the resolution, then a 3x3 convolution, or the reverse if `conv_first`.

    smooth: bilinear, else nearest neighbour. Nearest neighbour leaves steps between places of the
    coarser grid, which reveal the position in a place to later layers, so that textures repeat with
    the grid; bilinear interpolation does not.
    """

    def __init__(
        self, inputs: int, outputs: int, smooth: bool = False, conv_first: bool = False
    ) -> None:
        super().__init__()
        self.mode = "bilinear" if smooth else "nearest"
        self.conv_first = conv_first
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Double [N, inputs, h, w] to [N, outputs, 2h, 2w]."""
        if self.conv_first:
            return self._doubled(self.conv(x))
        out: Tensor = self.conv(self._doubled(x))
        return out

    def _doubled(self, x: Tensor) -> Tensor:
        align = False if self.mode == "bilinear" else None
        return F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=align)
