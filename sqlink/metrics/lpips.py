"""LPIPS: perceptual distance by deep features, on SqueezeNet 1.1, AlexNet or VGG16.

    images in [0, 1] ──> [-1, 1], shifted, scaled ──> network ──> 7 taps (squeeze) or 5 (alex, vgg)
    each tap: unit length over channels, squared difference, weighted over channels, mean over space
    LPIPS = sum of the taps, [N]; 0 for equal pictures, lower is better

`lpips` is the variant on SqueezeNet, `lpips_alex` and `lpips_vgg` the others; their numbers cannot
be compared. The same module is a metric (float32) and a training loss (differentiable, bfloat16 on
request). The linear heads come with torchmetrics, the networks from torchvision's files.

Sources: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", CVPR 2018, eq. 1, version 0.1 of the heads.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sqlink.errors import DataError
from sqlink.metrics.base import check_pair, register
from sqlink.metrics.published import FOLDER_VARIABLES, checked, read
from sqlink.metrics.trunks import TRUNKS
from sqlink.runtime.threads import placed

FOLDER_VARIABLE = FOLDER_VARIABLES[0]
"""Environment variable with the folder of the networks."""

HEADS_FILE = "lpips-v0.1-{net}-heads.safetensors"
"""A converted file of heads, used if it is beside the network; otherwise that of torchmetrics."""

_HEADS_DIGESTS = {
    "squeeze": "ab10969bbb93f23a3fbcb749c51aaeba4fd7fef578bcfe74bbbbce99e687e46d",
    "alex": "f00b902361a5bd565e7378369168e9650bd8b5bdd66f46cd14c7266429c9f4f2",
    "vgg": "0503aba3e327a845cc4508e507ffcdfabf60e34cbd87f46e40a071b21e81e3db",
}
_NORM_EPSILON = 1e-8
_BATCH = 8
_KEPT_BYTES = 1 << 29
"""Size of the cache of reference features in bytes: 14 pictures of 480x360 (squeeze)."""


def too_small(height: int, width: int, net: str = "squeeze") -> str | None:
    """Return the reason why LPIPS is not defined at this size, or None."""
    side = TRUNKS[net].min_side
    if min(height, width) >= side:
        return None
    owner = "LPIPS" if net == "squeeze" else f"LPIPS ({net})"
    return f"{owner} needs at least {side} pixels a side; got {width}x{height}"


class LPIPS(nn.Module):
    """LPIPS v0.1, frozen.

    features: the convolutional part of the network called `net` in `trunks.TRUNKS`. heads: float32
    [1, C, 1, 1] for each of its taps.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, features: nn.Sequential, heads: Sequence[Tensor], net: str = "squeeze"
    ) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.features = features
        self.heads = nn.ParameterList(head.detach().clone() for head in heads)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> LPIPS:
        """Stay frozen, whatever the enclosing module does."""
        return super().train(False)

    def forward(self, images: Tensor, reference: Tensor, autocast: bool = False) -> Tensor:
        """Return LPIPS of N pairs.

        images, reference: float [N, 3, H, W], RGB in [0, 1]. Returns float32 [N]. Differentiable in
        both; an input without gradient keeps no graph. autocast: run the convolutions in bfloat16
        (for training); without it they run in float32 even inside an autocast region. Raises
        DataError if the shapes differ or a side is too short.
        """
        check_pair("LPIPS", images, reference)
        reason = too_small(images.shape[2], images.shape[3], self.net)
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
        """Return LPIPS of N pairs, float32 [N], from the `taps` of both.

        For losses: weight, float32 [N, H, W], multiplies the distance at each place; root: take the
        square root at each place first, which makes the distance a metric.
        """
        total = ours[0].new_zeros(ours[0].shape[0])
        for head, a, b in zip(self.heads, ours, theirs, strict=True):
            distance = ((a - b).square() * head).sum(dim=1)  # [N, h, w]
            if root:
                distance = (distance + _NORM_EPSILON).sqrt()
            if weight is not None:
                distance = distance * functional.adaptive_avg_pool2d(weight, distance.shape[1:])
            # Of one number, threads would share a sum.
            total = total + distance.mean(dim=2).mean(dim=1)
        return total

    def taps(self, images: Tensor, autocast: bool = False) -> list[Tensor]:
        """Return the taps of [N, 3, H, W], float32 [N, C, h, w] each, of unit length over C."""
        x = (images.float() * 2 - 1 - self.shift) / self.scale
        taps = []
        wanted = TRUNKS[self.net].taps
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=autocast):
            for index, layer in enumerate(self.features):
                x = layer(x)
                if index in wanted:
                    taps.append(x)
        return [_unit(tap.float()) for tap in taps]


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + _NORM_EPSILON)


def load_lpips(folder: Path | str | None = None, net: str = "squeeze") -> LPIPS:
    """Load LPIPS on the network `net` ("squeeze", "alex", "vgg") with its published weights.

    folder: that of torchvision's file (see `trunks.TRUNKS`); by default as for `published.find`.
    Raises WeightsError, naming the file and its source, if it is missing or not the published one.
    """
    owner = "LPIPS" if net == "squeeze" else f"LPIPS ({net})"
    trunk = TRUNKS[net]
    features = trunk.load(owner, folder)
    beside = None if folder is None else Path(folder) / HEADS_FILE.format(net=net)
    if beside is None or not beside.is_file():
        beside = Path(str(files("torchmetrics"))) / f"functional/image/lpips_models/{net}.pth"
    named = {
        f"lin{i}.model.1.weight": torch.zeros(1, width, 1, 1)
        for i, width in enumerate(trunk.channels)
    }
    heads = checked(owner, beside, read(beside), named, _HEADS_DIGESTS[net])
    return LPIPS(features, list(heads.values()), net)


class Lpips:
    """`LPIPS` as a column of results, on the device of its pictures.

    The features of the last references are cached, as a sweep measures a picture many times.

    folder: as for `load_lpips`. Raises WeightsError as that function does.
    """

    unit = ""
    higher_is_better = False
    lowest, highest = 0.0, math.inf

    def __init__(self, folder: Path | str | None = None, *, net: str = "squeeze") -> None:
        self.name = "lpips" if net == "squeeze" else f"lpips_{net}"
        self.network = load_lpips(folder, net)
        self._known: OrderedDict[bytes, list[Tensor]] = OrderedDict()

    def unavailable(self, height: int, width: int) -> str | None:
        return too_small(height, width, self.network.net)

    @torch.no_grad()
    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        check_pair("LPIPS", images, reference)
        network = placed(self.network, images.device)
        reason = self.unavailable(*images.shape[2:])
        if reason is not None:
            raise DataError(reason)
        scores = []
        for ours, theirs in zip(images.split(_BATCH), reference.split(_BATCH), strict=True):
            known = self._references(theirs)
            # One at a time, so that the references need not be concatenated: taps are large.
            taps = zip(*(tap.split(1) for tap in network.taps(ours)), strict=True)
            scores += [
                network.between(a, b).double().cpu() for a, b in zip(taps, known, strict=True)
            ]
        return torch.cat(scores)

    def _references(self, reference: Tensor) -> list[list[Tensor]]:
        """Return the taps of N pictures, [1, C, h, w] each, from a cache of the last ones."""
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


@register("lpips")
def lpips(folder: Path | str | None = None) -> Lpips:
    """Make LPIPS on SqueezeNet 1.1."""
    return Lpips(folder)


@register("lpips_alex")
def lpips_alex(folder: Path | str | None = None) -> Lpips:
    """Make LPIPS on AlexNet."""
    return Lpips(folder, net="alex")


@register("lpips_vgg")
def lpips_vgg(folder: Path | str | None = None) -> Lpips:
    """Make LPIPS on VGG16."""
    return Lpips(folder, net="vgg")
