"""Spatially-adaptive normalisation, and the features of the map that control it.

    x ── group norm (no affine) ──(*)(1 + gamma)──(+) beta ── out
    map features ── [conv3x3 ── ReLU] ── conv ──> gamma, beta, one value per place and channel

Source: Park et al., "Semantic image synthesis with spatially-adaptive normalization", CVPR 2019;
as a group norm in SQ-GAN (arXiv 2502.09520).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.model.fused import GroupNorm, as_computed, convolved, fusable, modulated


def one_hot_map(segmentation: Tensor, num_classes: int) -> Tensor:
    """Convert int64 [N, H, W] class ids to float32 [N, num_classes + 1, H, W]; any other id is the
    null class.

    >>> one_hot_map(torch.tensor([[[0, 255]]]), 2)[0, :, 0].tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    known = (segmentation >= 0) & (segmentation < num_classes)
    ids = torch.where(known, segmentation, num_classes)
    classes = torch.arange(num_classes + 1, device=ids.device).view(1, -1, 1, 1)
    return (ids.unsqueeze(1) == classes).to(torch.float32)


def unshuffled_map(segmentation: Tensor, num_classes: int, factor: int) -> Tensor:
    """Compute `pixel_unshuffle(one_hot_map(segmentation, num_classes), factor)` in one step.

    int64 [N, H, W] to float32 [N, (num_classes + 1) * factor**2, H / factor, W / factor].
    """
    return Cells.of(segmentation, num_classes, factor).dense


@dataclass(frozen=True)
class Cells:
    """A one-hot map in cells of factor x factor pixels, whose values are channels.

    ones: int32 [N, h, w, factor**2], for every pixel of a cell the channel that is 1, of classes *
    factor**2, including the null class.
    """

    ones: Tensor
    classes: int
    factor: int

    @classmethod
    def of(cls, segmentation: Tensor, num_classes: int, factor: int) -> Cells:
        """Make the cells of int64 [N, h * factor, w * factor]; see `unshuffled_map`."""
        known = (segmentation >= 0) & (segmentation < num_classes)
        ids = torch.where(known, segmentation, num_classes).to(torch.int32)
        n, height, width = ids.shape
        cells = ids.reshape(n, height // factor, factor, width // factor, factor)
        size = n, height // factor, width // factor, factor**2
        cells = cells.permute(0, 1, 3, 2, 4).reshape(size)
        pixels = torch.arange(factor**2, dtype=torch.int32, device=ids.device)
        ones = torch.add(pixels, cells, alpha=factor**2)
        return cls(ones, num_classes + 1, factor)

    @cached_property
    def dense(self) -> Tensor:
        """Return float32 [N, classes * factor**2, h, w], channels last."""
        size = (*self.ones.shape[:3], self.classes * self.factor**2)
        out = torch.zeros(size, device=self.ones.device).scatter_(3, self.ones.long(), 1.0)
        return out.permute(0, 3, 1, 2)

    def through(self, layer: nn.Conv2d) -> Tensor:
        """Apply a convolution to the one-hot values, [N, C, h, w].

        A 1x1 convolution (stride 1, one group) is computed as a sum of columns of its weights, one
        for each pixel of a cell.
        """
        if layer.kernel_size != (1, 1) or not fusable(layer.weight):
            out: Tensor = layer(self.dense)
            return out
        columns = layer.weight.flatten(1).t().contiguous()
        sums: Tensor = F.embedding_bag(self.ones.flatten(0, 2), columns, mode="sum")
        if layer.bias is not None:
            sums += layer.bias
        sums = as_computed(sums)
        return sums.reshape(*self.ones.shape[:3], layer.out_channels).permute(0, 3, 1, 2)

    def shares(self, side: int) -> Tensor:
        """Return the share of each class in squares of side x side cells, [N, classes, h/side,
        w/side].
        """
        n, height, width, pixels = self.ones.shape
        size = n, height // side, side, width // side, side * pixels
        squares = self.ones.reshape(size).transpose(2, 3).flatten(3).flatten(0, 2)
        columns = torch.eye(self.classes, device=squares.device).repeat_interleave(pixels, 0)
        sums = F.embedding_bag(squares, columns, mode="sum") / squares.shape[1]
        return sums.reshape(n, height // side, width // side, self.classes).permute(0, 3, 1, 2)


class SpadeNorm(nn.Module):
    """Group norm whose scale and shift come, place by place, from features of the map.

    hidden: width of this norm's own 3x3 convolution on the features; 0 for none (then a level
    shares its features, and each norm has one 1x1 convolution).
    """

    def __init__(self, channels: int, groups: int, label_channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = GroupNorm(min(groups, channels), channels, eps=1e-6, affine=False)
        if hidden:
            self.modulation: nn.Module = nn.Sequential(
                nn.Conv2d(label_channels, hidden, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(hidden, 2 * channels, 3, padding=1),
            )
        else:
            self.modulation = nn.Conv2d(label_channels, 2 * channels, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Normalise x: [N, C, h, w]; labels: [N, L, h, w]."""
        last = self.modulation
        if isinstance(last, nn.Sequential):
            labels, last = last[:-1](labels), last[-1]
        assert isinstance(last, nn.Conv2d)
        return modulated(last, labels, self.norm(x))


class LabelPyramid(nn.Module):
    """Features of a map at every resolution of a decoder, finest first.

    If `width` is 0, the features are the one-hot map, resized by nearest neighbour. Otherwise the
    finest level is pixel-unshuffled, so that no thin object is lost, and each coarser level is a
    strided convolution of the finer one.
    """

    def __init__(self, label_channels: int, stem: int, levels: int, width: int) -> None:
        super().__init__()
        self.stem = stem
        self.levels = levels
        self.num_classes = label_channels - 1
        self.channels = width or label_channels
        self.finest = nn.Conv2d(label_channels * stem**2, width, 1) if width else None
        self.coarser = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1)
            for _ in range(levels - 1 if width else 0)
        )

    def forward(self, segmentation: Tensor) -> list[Tensor]:
        """Embed segmentation, int64 [N, H, W]: [N, channels, H/f, W/f] for f = stem, 2 stem and so
        on.
        """
        if self.finest is None:
            factors = [self.stem * 2**level for level in range(self.levels)]
            return [one_hot_map(segmentation[:, ::f, ::f], self.num_classes) for f in factors]
        cells = Cells.of(segmentation, self.num_classes, self.stem)
        features = [F.relu(cells.through(self.finest))]
        for layer in self.coarser:
            assert isinstance(layer, nn.Conv2d)
            features.append(convolved(layer, features[-1], relu=True))
        return features
