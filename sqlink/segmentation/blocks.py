"""Building blocks of both segmentation networks: normalised convolutions, and resizing.

`ConvNorm` can be folded: batch normalisation with fixed statistics is an affine map per channel,
which the preceding convolution can include, exactly except for rounding. Shipped weights are
folded.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "relu6", "none"]


class ConvNorm(nn.Module):
    """A convolution, a batch normalisation and an activation.

    [N, cin, H, W] -> [N, cout, ⌈H/stride⌉, ⌈W/stride⌉]. frozen: keep the running statistics and
    normalise by them in training, too, which pretrained layers need on small batches; the
    normalisation then costs nothing, as it is applied to the kernel and not to the picture. same:
    pad as TensorFlow's SAME does for even sides (one more after than before if `stride` is 2).
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        act: Activation = "relu",
        frozen: bool = False,
        same: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.before = padding - 1 if same and stride == 2 else None
        self.conv = nn.Conv2d(
            cin,
            cout,
            kernel,
            stride,
            padding if self.before is None else 0,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm: nn.Module = nn.BatchNorm2d(cout, eps=eps)
        self.act = act
        self.frozen = frozen

    def forward(self, x: Tensor) -> Tensor:
        if self.before is not None:
            x = F.pad(x, (self.before, self.before + 1) * 2)
        if not isinstance(self.norm, nn.BatchNorm2d):
            x = cast(Tensor, self.conv(x))
        elif self.frozen or not self.training:
            kernel, bias = self.folded(self.norm)
            conv = self.conv
            padding = cast(tuple[int, int], conv.padding)
            x = F.conv2d(x, kernel, bias, conv.stride, padding, conv.dilation, conv.groups)
        else:
            x = cast(Tensor, self.norm(self.conv(x)))
        if self.act == "none":
            return x
        return F.relu(x, inplace=True) if self.act == "relu" else F.relu6(x, inplace=True)

    def folded(self, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        """Return kernel and bias of a single convolution that equals both layers."""
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a normalisation without running statistics cannot be folded")
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return self.conv.weight * gain.reshape(-1, 1, 1, 1), norm.bias - gain * norm.running_mean

    def fold(self) -> None:
        """Merge the normalisation into the convolution; the layer is then for evaluation only."""
        if isinstance(self.norm, nn.BatchNorm2d):
            with torch.no_grad():
                kernel, bias = self.folded(self.norm)
            self.conv.weight, self.conv.bias = nn.Parameter(kernel), nn.Parameter(bias)
            self.norm = nn.Identity()


def fold(network: nn.Module) -> nn.Module:
    """Fold every ConvNorm of a network in place, and set evaluation mode."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module.fold()
    return network.eval()


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Resize bilinearly to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
