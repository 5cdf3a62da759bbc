"""What both segmentation networks are built of: convolutions, residual blocks, pooling.

`ConvNorm` can be folded: batch normalisation in evaluation mode is an affine map a channel and goes
into the convolution before it, exactly but for rounding. Shipped weights are folded ones.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Module):
    """Convolution, batch normalisation, and ReLU unless `act` is False.

    [N, cin, H, W] -> [N, cout, ⌈H/stride⌉, ⌈W/stride⌉].
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(
            cin, cout, kernel, stride, padding, dilation=dilation, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(cout)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = cast(Tensor, self.norm(self.conv(x)))
        return F.relu(x, inplace=self.norm.training) if self.act else x

    def fold(self) -> None:
        """Put the normalisation into the convolution; from here on for evaluation only."""
        if not isinstance(self.norm, nn.BatchNorm2d):
            return
        norm = self.norm
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a normalisation without running statistics cannot be folded")
        with torch.no_grad():
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            self.conv.weight.mul_(gain.reshape(-1, 1, 1, 1))
            self.conv.bias = nn.Parameter(norm.bias - gain * norm.running_mean)
        self.norm = nn.Identity()


def fold(network: nn.Module) -> nn.Module:
    """Fold every ConvNorm of a network, in place, and put it in evaluation mode."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    return network.eval()


class Residual(nn.Module):
    """x + f(x), where f is two 3x3 convolutions: [N, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(channels, channels), ConvNorm(channels, channels, act=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + cast(Tensor, self.body(x)))


class Gate(nn.Module):
    """Channels weighed by what the whole picture shows (squeeze and excitation, Hu et al. 2018)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * weights[:, :, None, None]


class Inverted(nn.Module):
    """Inverted residual, 5x5 depthwise in the middle (Sandler et al. 2018), gated if asked for."""

    def __init__(
        self, channels: int, expand: int = 2, dilation: int = 1, gated: bool = False
    ) -> None:
        super().__init__()
        wide = channels * expand
        self.widen = ConvNorm(channels, wide, 1)
        self.spread = ConvNorm(wide, wide, 5, groups=wide, dilation=dilation)
        self.gate = Gate(wide, channels // 4) if gated else nn.Identity()
        self.narrow = ConvNorm(wide, channels, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.narrow(self.gate(self.spread(self.widen(x)))))


class PyramidPooling(nn.Module):
    """Context of the picture and of its parts (Zhao et al. 2017): [N, C, H, W] -> the same."""

    def __init__(self, channels: int, hidden: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.bins = bins
        self.levels = nn.ModuleList(nn.Conv2d(channels, hidden, 1) for _ in bins)
        self.merge = ConvNorm(channels + hidden * len(bins), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for bins, level in zip(self.bins, self.levels, strict=True):
            pooled = F.relu(cast(Tensor, level(F.adaptive_avg_pool2d(x, bins))))
            parts.append(resize(pooled, x))
        return cast(Tensor, self.merge(torch.cat(parts, dim=1)))


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
