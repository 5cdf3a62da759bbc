"""E_x and E_s: from a picture or a one-hot map to the latent grid.

    x ── unshuffle ── conv ──(+ SemPE)── [blocks ── halve] per level ── attention ── norm ── z

Source: VQ-GAN's encoder (Esser et al., CVPR 2021) with SQ-GAN's semantic pre-embedding (SemPE:
conv3x3 - ReLU - conv1x1 of the map, added to the picture's first features; arXiv 2502.09520).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.model.fused import GroupNorm, convolved, silu
from sqlink.model.residual import Downsample, ResidualBlock, SelfAttention
from sqlink.model.spade import Cells


class SemanticPreEmbedding(nn.Module):
    """SemPE: the contribution of the map to the picture's first features."""

    def __init__(self, label_channels: int, hidden: int, outputs: int, stem: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            label_channels * stem**2, hidden, 3 if stem == 1 else 1, padding="same"
        )
        self.conv2 = nn.Conv2d(hidden, outputs, 1)

    def forward(self, cells: Cells) -> Tensor:
        """Embed cells of stem x stem pixels of L classes. Returns [N, outputs, H/stem, W/stem]."""
        return convolved(self.conv2, F.relu(cells.through(self.conv1)))


class Encoder(nn.Module):
    """An encoder: [N, inputs, H, W], unshuffled by `stem`, to [N, channels[-1], H/f, W/f].

    f = stem * 2 ** (levels - 1).
    """

    def __init__(
        self,
        inputs: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        stem: int,
        groups: int,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs * stem**2, channels[0], kernel, padding="same")
        levels: list[nn.Module] = []
        for level, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            if level:
                levels.append(Downsample(channels[level - 1], width))
            levels += [ResidualBlock(width, width, groups) for _ in range(count)]
        self.levels = nn.Sequential(*levels)
        self.attention = SelfAttention(channels[-1], groups)
        self.norm_out = GroupNorm(min(groups, channels[-1]), channels[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(channels[-1], channels[-1], 1)

    def forward(self, x: Tensor | Cells, pre_embedding: Tensor | None = None) -> Tensor:
        """Encode x: [N, inputs * stem**2, H/stem, W/stem], or cells of stem x stem pixels.

        pre_embedding: [N, channels[0], H/stem, W/stem], added to the first features, or None.
        """
        if isinstance(x, Cells):
            h = x.through(self.conv_in)
        else:
            h = convolved(self.conv_in, x, plus=pre_embedding)
        h = self.attention(self.levels(h))
        return convolved(self.conv_out, silu(self.norm_out(h)))
