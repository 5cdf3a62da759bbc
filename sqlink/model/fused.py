"""Convolutions fused with the following operations, in one pass over memory.

    x ── convolution ──(+ plus)── ReLU ──> out
    features ── convolution ──> scale, shift;  normed ──(* 1 + scale)──(+ shift)──> out

Without gradients, a CPU computes each line in passes of oneDNN, which adds, multiplies and
rectifies results at once. Otherwise the layers run one after another; the results are equal except
for rounding.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

_POINTWISE = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_ADDING = getattr(torch.ops.mkldnn, "_convolution_pointwise_", None)
"""The in-place variant, which overwrites the summand."""
_HELD: WeakKeyDictionary[nn.Module, list[tuple[Tensor, Tensor | None]]] = WeakKeyDictionary()
"""Weight and bias in bfloat16 of layers that may keep them, from their first use on."""


def fusable(x: Tensor) -> bool:
    """Say whether operations on x may be fused."""
    return (
        not torch.is_grad_enabled()
        and _get_current_dispatch_mode() is None  # modes that count or fake operations need layers
        and x.is_cpu
        and x.dtype in ((torch.float32, torch.bfloat16) if _in_bfloat16() else (torch.float32,))
        and _POINTWISE is not None
        and torch.backends.mkldnn.is_available()
        and torch._C._get_mkldnn_enabled()
        and (_in_bfloat16() or not torch.is_autocast_enabled("cpu"))
    )


def _in_bfloat16() -> bool:
    """Say whether convolutions are computed in bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def as_computed(x: Tensor) -> Tensor:
    """Convert to the precision that convolutions are computed in."""
    return x.bfloat16() if _in_bfloat16() else x


def hold_weights(network: nn.Module) -> None:
    """Let convolutions keep their weights in bfloat16, from the first time they are computed in it.

    For networks whose weights do not change any more.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            _HELD[layer] = []


def _weights(layer: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias in the precision that convolutions are computed in."""
    if not _in_bfloat16():
        return layer.weight, layer.bias
    held = _HELD.get(layer)
    if held:
        return held[0]
    found = layer.weight.bfloat16(), None if layer.bias is None else layer.bias.bfloat16()
    if held is not None:
        held.append(found)
    return found


def convolved(
    layer: nn.Conv2d, x: Tensor, plus: Tensor | None = None, relu: bool = False
) -> Tensor:
    """Compute `layer(x)`, plus `plus` of the same shape, rectified if `relu`."""
    if fusable(x) and layer.padding_mode == "zeros" and layer.padding != "valid":
        assert _POINTWISE is not None
        if isinstance(layer.padding, str):  # "same"
            sizes = zip(layer.kernel_size, layer.dilation, strict=True)
            padding = [dilation * (size - 1) // 2 for size, dilation in sizes]
        else:
            padding = list(layer.padding)
        how = padding, layer.stride, layer.dilation, layer.groups
        weight, bias = _weights(layer)
        x, after = as_computed(x), "relu" if relu else None
        out: Tensor
        if plus is None:
            out = _POINTWISE(x, weight, bias, *how, after or "none", [], "")
        else:
            plus = as_computed(plus)
            out = _POINTWISE.binary(x, plus, weight, bias, *how, "add", 1.0, after, [], None)
        return out
    y: Tensor = layer(x)
    if plus is not None:
        y = plus + y
    return F.relu(y) if relu else y


def modulated(layer: nn.Conv2d, features: Tensor, normed: Tensor) -> Tensor:
    """Scale and shift normed, [N, C, h, w], by the 2 C outputs of a 1x1 layer on features."""
    if not fusable(features):
        scale, shift = layer(features).chunk(2, dim=1)
        return torch.addcmul(normed + shift, normed, scale)
    assert _POINTWISE is not None
    assert _ADDING is not None
    assert layer.bias is not None
    how = layer.padding, layer.stride, layer.dilation, layer.groups
    features, normed = as_computed(features), as_computed(normed)
    scale, shift = as_computed(layer.weight).chunk(2)
    more, bias = layer.bias.chunk(2)
    more, bias = as_computed(more + 1), as_computed(bias)
    y = _POINTWISE.binary(features, normed, scale, more, *how, "mul", 1.0, None, [], None)
    done: Tensor = _ADDING.binary(y, features, shift, bias, *how, "add", 1.0, None, [], None)
    return done


def silu(x: Tensor) -> Tensor:
    """Compute SiLU of an x that is not used again: in place if no gradient is needed."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class GroupNorm(nn.GroupNorm):
    """A group norm that gives bfloat16 where convolutions are computed in it and operations may be
    fused; sums are in float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x, [N, C, ...]."""
        if not (fusable(x) and _in_bfloat16()):
            return super().forward(x)
        x = as_computed(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)
