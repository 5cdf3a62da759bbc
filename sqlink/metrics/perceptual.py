"""LPIPS: how far apart two pictures look, measured between the features of a frozen network.

    images, reference [N,3,H,W] ── 2x-1, shift, scale ──> SqueezeNet 1.1 ──> 7 taps
    each tap: unit length over channels, squared difference, weighted over channels, mean over space
    LPIPS = sum of the taps, [N]; 0 for equal pictures, lower is better

The same module is a metric (float32) and a training loss (differentiable, bfloat16 on request).

Sources: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, eq. 1, version 0.1 of the heads; Iandola et al., "SqueezeNet",
arXiv:1602.07360, in the variant 1.1 that torchvision trained on ImageNet.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from sqlink.errors import DataError, WeightsError
from sqlink.metrics.base import check_pair, register

FEATURES_FILE = "squeezenet1_1-imagenet-features.safetensors"
HEADS_FILE = "lpips-v0.1-squeeze-heads.safetensors"
FOLDER_VARIABLE = "SQLINK_LPIPS"
"""Environment variable with the folder that holds both files."""

MIN_SIDE = 17
"""Pixels: below it the third pooling has nothing left to pool."""

_FEATURES_DIGEST = "4d2481f018a87b39d4c15b1436f14e1da1b231d14a04a29e0f866a8c2055c0be"
_HEADS_DIGEST = "ab10969bbb93f23a3fbcb749c51aaeba4fd7fef578bcfe74bbbbce99e687e46d"
_TAPS = (1, 4, 7, 9, 10, 11, 12)
_TAP_CHANNELS = (64, 128, 256, 384, 384, 512, 512)
_NORM_EPSILON = 1e-8
_BATCH = 8
_KEPT_BYTES = 1 << 29
"""Of features of references; 14 pictures of 480x360."""


class Fire(nn.Module):
    """SqueezeNet's block: squeeze by 1x1, then expand by 1x1 and 3x3 side by side.

    [N, channels, H, W] -> [N, 2 * expand, H, W].
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1))


def squeezenet_features() -> nn.Sequential:
    """The convolutional part of SqueezeNet 1.1, untrained, named as torchvision names it."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        pool(),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        pool(),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        pool(),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the file's own layout."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def too_small(height: int, width: int) -> str | None:
    """Why LPIPS is not defined at that size; None where it is."""
    if min(height, width) >= MIN_SIDE:
        return None
    return f"LPIPS needs at least {MIN_SIDE} pixels a side; got {width}x{height}"


class LPIPS(nn.Module):
    """LPIPS v0.1 on SqueezeNet 1.1, frozen, from the two files that hold its published weights.

    features: torchvision's `squeezenet1_1` (ImageNet) convolutions, keys `features.N...`.
    heads: the seven linear heads of LPIPS v0.1, keys `linI.model.1.weight`.
    Raises WeightsError if a file is missing, cannot be read, or does not hold those very weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: Path, heads: Path) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.features = squeezenet_features()
        self.heads = nn.ParameterList(torch.zeros(1, c, 1, 1) for c in _TAP_CHANNELS)
        names = {f"features.{name}": value for name, value in self.features.state_dict().items()}
        loaded = _read(features, names, _FEATURES_DIGEST)
        self.features.load_state_dict({k.removeprefix("features."): v for k, v in loaded.items()})
        expected = {f"lin{i}.model.1.weight": value for i, value in enumerate(self.heads)}
        for i, value in enumerate(_read(heads, expected, _HEADS_DIGEST).values()):
            self.heads[i].data.copy_(value)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stays frozen, whatever the module around it does."""
        return super().train(False)

    def forward(self, images: Tensor, reference: Tensor, autocast: bool = False) -> Tensor:
        """LPIPS of N pairs.

        images, reference: float [N, 3, H, W], RGB in [0, 1], H and W at least 17. Returns float32
        [N]. Differentiable in both; what needs no gradient keeps no graph. `autocast` runs the
        convolutions in bfloat16 (for training); without it they run in float32 even inside an
        autocast region. Raises DataError if the shapes differ or a side is too short.
        """
        check_pair("LPIPS", images, reference)
        reason = too_small(*images.shape[2:])
        if reason is not None:
            raise DataError(reason)
        return self.between(self.taps(images, autocast), self.taps(reference, autocast))

    def between(
        self,
        ours: Sequence[Tensor],
        theirs: Sequence[Tensor],
        weight: Tensor | None = None,
        root: bool = False,
    ) -> Tensor:
        """LPIPS of N pairs, float32 [N], from the `taps` of either.

        For losses: weight, float32 [N, H, W] that distances are multiplied by, place by place;
        root, whether to take each place's square root first, which makes them a metric.
        """
        total = ours[0].new_zeros(ours[0].shape[0])
        for head, a, b in zip(self.heads, ours, theirs, strict=True):
            distance = ((a - b).square() * head).sum(dim=1)  # [N, h, w]
            if root:
                distance = (distance + _NORM_EPSILON).sqrt()
            if weight is not None:
                distance = distance * functional.adaptive_avg_pool2d(weight, distance.shape[1:])
            total = total + distance.mean(dim=(1, 2))
        return total

    def taps(self, images: Tensor, autocast: bool = False) -> list[Tensor]:
        """The seven feature maps of [N, 3, H, W], float32 [N, C, h, w], of unit length over C."""
        x = (images.float() * 2 - 1 - self.shift) / self.scale
        taps = []
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=autocast):
            for index, layer in enumerate(self.features):
                x = layer(x)
                if index in _TAPS:
                    taps.append(x)
        return [_unit(tap.float()) for tap in taps]


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + _NORM_EPSILON)


def load_lpips(folder: Path | str | None = None) -> LPIPS:
    """LPIPS from the two files in `folder`, or else in the folder that SQLINK_LPIPS names.

    Raises WeightsError, saying which files and where they come from, if they are not there.
    """
    place = folder if folder is not None else os.environ.get(FOLDER_VARIABLE) or None
    if place is None:
        raise WeightsError(
            f"LPIPS has no weights: name the folder of {FEATURES_FILE} (torchvision's SqueezeNet "
            f"1.1, features) and {HEADS_FILE} (LPIPS v0.1 heads) in {FOLDER_VARIABLE}; "
            "docs/metrics.md says how to make them"
        )
    return LPIPS(Path(place) / FEATURES_FILE, Path(place) / HEADS_FILE)


@register("lpips")
class Lpips:
    """`LPIPS` as a column of results, on the device of the pictures it is given.

    The features of the last references are kept, as a sweep measures a picture many times.

    folder: as for `load_lpips`, which says what is raised where the weights are not there.
    """

    name = "lpips"
    unit = ""
    higher_is_better = False

    def __init__(self, folder: Path | str | None = None) -> None:
        self.network = load_lpips(folder)
        self._known: OrderedDict[bytes, list[Tensor]] = OrderedDict()

    def unavailable(self, height: int, width: int) -> str | None:
        return too_small(height, width)

    @torch.no_grad()
    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        check_pair("LPIPS", images, reference)
        network = self.network.to(images.device)
        reason = too_small(*images.shape[2:])
        if reason is not None:
            raise DataError(reason)
        scores = []
        for ours, theirs in zip(images.split(_BATCH), reference.split(_BATCH), strict=True):
            known = self._references(theirs)
            # One a time, as the references need not lie side by side: taps are large.
            taps = zip(*(tap.split(1) for tap in network.taps(ours)), strict=True)
            scores += [
                network.between(a, b).double().cpu() for a, b in zip(taps, known, strict=True)
            ]
        return torch.cat(scores)

    def _references(self, reference: Tensor) -> list[list[Tensor]]:
        """The taps of N pictures, [1, C, h, w] each, computed for those not seen of late."""
        keys = [
            hashlib.blake2b(
                f"{picture.device} {tuple(picture.shape)}".encode()
                + picture.cpu().contiguous().numpy().tobytes()
            ).digest()
            for picture in reference.float()
        ]
        missing = [n for n, key in enumerate(keys) if key not in self._known]
        missing = [n for n in missing if keys.index(keys[n]) == n]
        if missing:
            made = self.network.taps(reference[missing])
            for i, n in enumerate(missing):
                self._known[keys[n]] = [tap[i : i + 1].clone() for tap in made]
        for key in keys:
            self._known.move_to_end(key)
        found = [self._known[key] for key in keys]
        size = sum(tap.nbytes for tap in found[0])
        while len(self._known) * size > _KEPT_BYTES and len(self._known) > 0:
            self._known.popitem(last=False)
        return found


def _read(path: Path, expected: dict[str, Tensor], sha256: str) -> dict[str, Tensor]:
    """The tensors of `path` in the order of `expected`, checked by name, shape and digest."""
    try:
        tensors = cast("dict[str, Tensor]", load_file(path))
    except FileNotFoundError as error:
        raise WeightsError(
            f"LPIPS weights {path} not found; docs/metrics.md says how to make them"
        ) from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"LPIPS weights {path} cannot be read: {error}") from error
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in expected.items()}:
        raise WeightsError(
            f"LPIPS weights {path} hold other tensors than LPIPS (squeeze, v0.1) has; "
            "docs/metrics.md says how to make the file"
        )
    if digest(tensors) != sha256:
        raise WeightsError(
            f"LPIPS weights {path} are not the published ones (digest {digest(tensors)[:12]}, "
            f"expected {sha256[:12]}): figures made with them would not be LPIPS; docs/metrics.md "
            "says how to make the file"
        )
    return {name: tensors[name] for name in expected}
