"""D_s and D_x: from the demasked grid to a map, and to a picture conditioned on that map.

    z ── [blocks ── double, conv] per level ── [fine level] ── norm ── conv3x3 ── shuffle

Every norm of D_x is a SPADE norm on the *decoded* map, the only map at the receiver. Source:
VQ-GAN's decoder (Esser et al., CVPR 2021), conditioned as in SQ-GAN (arXiv 2502.09520).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.model.fused import GroupNorm, convolved, silu
from sqlink.model.noise import NoiseInjection
from sqlink.model.residual import ResidualBlock, SelfAttention, Upsample
from sqlink.model.spade import Cells, LabelPyramid, SpadeNorm


class Level(nn.Module):
    """The residual blocks of one resolution."""

    def __init__(
        self, width: int, blocks: int, groups: int, labels: int, spade_hidden: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResidualBlock(width, width, groups, labels, spade_hidden) for _ in range(blocks)
        )

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Decode x: [N, width, h, w]; labels: [N, L, h, w] if the norms are SPADE."""
        for block in self.blocks:
            x = block(x, labels)
        return x


class FineLevel(nn.Module):
    """A level at twice the finest resolution: one narrow residual block, conditioned on the map.

    Its output is shuffled up in 2x2 phases only, which leaves no visible grid.
    """

    def __init__(
        self, inputs: int, width: int, groups: int, label_channels: int, factor: int
    ) -> None:
        super().__init__()
        self.factor = factor
        self.num_classes = label_channels - 1
        self.narrow = nn.Conv2d(inputs, width, 1)
        self.labels = nn.Conv2d(label_channels * factor**2, width, 1) if label_channels else None
        self.block = ResidualBlock(width, width, groups, width if label_channels else 0)

    def forward(
        self,
        x: Tensor,
        segmentation: Tensor | None,
        noise: nn.Module | None,
        seed: int | Tensor,
        strength: float = 1.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Decode x: [N, inputs, h, w]; segmentation: int64 [N, H, W]. Returns [N, width, 2h, 2w]
        and the map's features there.
        """
        x = convolved(self.narrow, x)
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if noise is not None:
            x = noise(x, seed, strength)
        features = None
        if self.labels is not None and segmentation is not None:
            cells = Cells.of(segmentation, self.num_classes, self.factor)
            features = F.relu(cells.through(self.labels))
        return self.block(x, features), features


class Decoder(nn.Module):
    """A decoder: [N, channels[-1], h, w] -> [N, outputs, h * f, w * f]; SPADE if `label_channels` >
    0.
    """

    def __init__(
        self,
        outputs: int,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        stem: int,
        groups: int,
        label_channels: int = 0,
        label_width: int = 0,
        spade_hidden: int = 0,
        fine_width: int = 0,
        noise: bool = False,
        smooth: bool = False,
        conv_first: bool = False,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.pyramid = (
            LabelPyramid(label_channels, stem, len(channels), label_width)
            if label_channels
            else None
        )
        labels = self.pyramid.channels if self.pyramid else 0
        self.attention = SelfAttention(channels[-1], groups)
        self.levels = nn.ModuleList(
            Level(width, count, groups, labels, spade_hidden)
            for width, count in zip(channels, blocks, strict=True)
        )
        widths = channels + ((fine_width,) if fine_width else ())
        self.noises = nn.ModuleList(NoiseInjection(width) for width in widths if noise)
        self.upsamples = nn.ModuleList(
            Upsample(channels[level + 1], channels[level], smooth, conv_first)
            for level in range(len(channels) - 1)
        )
        self.fine: FineLevel | None = None
        width = channels[0]
        if fine_width:
            self.fine = FineLevel(width, fine_width, groups, label_channels, stem // 2)
            width, labels = fine_width, fine_width if labels else 0
        self.shuffle = stem // 2 if fine_width else stem
        self.norm_out: nn.Module = (
            SpadeNorm(width, groups, labels, 0 if fine_width else spade_hidden)
            if labels
            else GroupNorm(min(groups, width), width, eps=1e-6)
        )
        self.conv_out = nn.Conv2d(width, outputs * self.shuffle**2, 3, padding=1)
        _same_in_every_phase(self.conv_out, self.shuffle)

    def forward(
        self, z: Tensor, segmentation: Tensor | None = None, seed: int | Tensor = 0
    ) -> Tensor:
        """Decode z: [N, C, h, w]; segmentation: int64 [N, h * f, w * f] for D_x; seed: of the
        noise.
        """
        return F.pixel_shuffle(self._phases(z, segmentation, seed), self.shuffle)

    def likeliest(self, z: Tensor) -> Tensor:
        """Return the most likely class in each place, int64 [N, h * f, w * f]; no gradient."""
        # Pool over the classes of each phase of a place, in memory order.
        phases = self._phases(z, None, 0).permute(0, 2, 3, 1)
        n, height, width, channels = phases.shape
        classes = phases.reshape(
            n * height * width, channels // self.shuffle**2, 1, self.shuffle**2
        )
        classes = classes.permute(0, 3, 1, 2)
        _, best = F.max_pool2d(classes, (classes.shape[2], 1), return_indices=True)
        best = best.reshape(n, height, width, self.shuffle**2).permute(0, 3, 1, 2)
        return F.pixel_shuffle(best, self.shuffle).squeeze(1)

    def with_features(
        self, z: Tensor, segmentation: Tensor, seed: int | Tensor = 0, strength: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of the second finest and the finest level, and the output of
        `forward`.

        strength: factor of the noise.
        """
        kept: list[Tensor] = []
        out = F.pixel_shuffle(self._phases(z, segmentation, seed, strength, kept), self.shuffle)
        return kept[-2], kept[-1], out

    def _phases(
        self,
        z: Tensor,
        segmentation: Tensor | None,
        seed: int | Tensor,
        strength: float = 1.0,
        kept: list[Tensor] | None = None,
    ) -> Tensor:
        """Return all outputs of a place as channels, before the shuffle; append each level's
        features to `kept`.
        """
        features = None
        if self.pyramid is not None and segmentation is not None:
            features = self.pyramid(segmentation)
        x = self.attention(z)
        for level in reversed(range(len(self.levels))):
            condition = None if features is None else features[level]
            if len(self.noises):
                x = self.noises[level](x, seed, strength)
            x = self.levels[level](x, condition)
            if kept is not None:
                kept.append(x)
            if level:
                x = self.upsamples[level - 1](x)
        condition = None if features is None else features[0]
        if self.fine is not None:
            noise = self.noises[-1] if len(self.noises) else None
            x, condition = self.fine(x, segmentation, noise, seed, strength)
        x = self.norm_out(x) if condition is None else self.norm_out(x, condition)
        out: Tensor = self.conv_out(silu(x))
        return out


@torch.no_grad()
def _same_in_every_phase(layer: nn.Conv2d, shuffle: int) -> None:
    """Initialise a convolution before a shuffle as a nearest-neighbour upsampling, without a grid.

    Source: Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017 (ICNR).
    """
    layer.weight.copy_(layer.weight[:: shuffle**2].repeat_interleave(shuffle**2, 0))
    if layer.bias is not None:
        layer.bias.copy_(layer.bias[:: shuffle**2].repeat_interleave(shuffle**2, 0))
