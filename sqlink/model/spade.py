"""Spatially-adaptive normalisation and the features of the map that steer it.

    x ── group norm (no affine) ──(*)(1 + gamma)──(+) beta ── out
    map features ── [conv3x3 ── ReLU] ── conv ──> gamma, beta, one value a place and channel

Source: Park et al., "Semantic image synthesis with spatially-adaptive normalization", CVPR 2019;
as a group norm in SQ-GAN (arXiv 2502.09520).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def one_hot_map(segmentation: Tensor, num_classes: int) -> Tensor:
    """int64 [N, H, W] class ids to float32 [N, num_classes + 1, H, W]; any other id is the null
    class.

    >>> one_hot_map(torch.tensor([[[0, 255]]]), 2)[0, :, 0].tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    known = (segmentation >= 0) & (segmentation < num_classes)
    ids = torch.where(known, segmentation, num_classes)
    classes = torch.arange(num_classes + 1, device=ids.device).view(1, -1, 1, 1)
    return (ids.unsqueeze(1) == classes).to(torch.float32)


def unshuffled_map(segmentation: Tensor, num_classes: int, factor: int) -> Tensor:
    """`pixel_unshuffle(one_hot_map(segmentation, num_classes), factor)`, made in one go.

    int64 [N, H, W] to float32 [N, (num_classes + 1) * factor**2, H / factor, W / factor].
    """
    known = (segmentation >= 0) & (segmentation < num_classes)
    ids = torch.where(known, segmentation, num_classes)
    n, height, width = ids.shape
    cells = ids.reshape(n, height // factor, factor, width // factor, factor)
    cells = cells.permute(0, 1, 3, 2, 4).reshape(n, height // factor, width // factor, factor**2)
    channels = cells * factor**2 + torch.arange(factor**2, device=ids.device)
    size = (*channels.shape[:3], (num_classes + 1) * factor**2)
    out = torch.zeros(size, device=ids.device).scatter_(3, channels, 1.0)
    return out.permute(0, 3, 1, 2)


class SpadeNorm(nn.Module):
    """Group norm whose scale and shift come, place by place, from features of the map.

    hidden: width of a 3x3 convolution of this norm's own on the features; 0 for none (the features
    are shared by a level then, and one 1x1 convolution reads them).
    """

    def __init__(self, channels: int, groups: int, label_channels: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(groups, channels), channels, eps=1e-6, affine=False)
        if hidden:
            self.modulation: nn.Module = nn.Sequential(
                nn.Conv2d(label_channels, hidden, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(hidden, 2 * channels, 3, padding=1),
            )
        else:
            self.modulation = nn.Conv2d(label_channels, 2 * channels, 1)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x: [N, C, h, w]; labels: [N, L, h, w]."""
        scale, shift = self.modulation(labels).chunk(2, dim=1)
        normed: Tensor = self.norm(x)
        return torch.addcmul(normed + shift, normed, scale)


class LabelPyramid(nn.Module):
    """Features of a map at every resolution of a decoder, finest first.

    With `width` 0: the one-hot map, resized by nearest neighbour. Else: the finest level is
    pixel-unshuffled, so that no thin class is lost, and each coarser one is a strided convolution
    of the level before.
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
        """segmentation: int64 [N, H, W]. Returns [N, channels, H/f, W/f] for f = stem, 2 stem,
        ...
        """
        if self.finest is None:
            factors = [self.stem * 2**level for level in range(self.levels)]
            return [one_hot_map(segmentation[:, ::f, ::f], self.num_classes) for f in factors]
        cells = unshuffled_map(segmentation, self.num_classes, self.stem)
        features = [F.relu(self.finest(cells))]
        for layer in self.coarser:
            features.append(F.relu(layer(features[-1])))
        return features
