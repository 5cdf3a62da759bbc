"""The two shipped segmenters, `tx` and `judge`, and the class that runs their networks.

    images [N, 3, H, W] ─ batches of `chunk`, the last one padded ─ pad by replication to the stride
    ─ network ─ bilinear to the padded size ─ cut back ─ argmax ─> maps [N, H, W]

`tx` makes the transmitter's map and may be used in losses; `judge` only measures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.errors import ConfigError, DataError, WeightsError
from sqlink.model.layout import channels_last
from sqlink.runtime.precision import full_precision
from sqlink.runtime.threads import placed
from sqlink.segmentation.atrous import Atrous
from sqlink.segmentation.base import register
from sqlink.segmentation.blocks import fold
from sqlink.segmentation.pyramid import Pyramid
from sqlink.weights.manifest import load

NETWORKS: dict[str, Callable[[], Pyramid | Atrous]] = {"tx": Pyramid, "judge": Atrous}
"""Map from a name to the network."""


class BuiltIn:
    """A network in evaluation mode, run in batches of one size: no map depends on other pictures.

    network: [n, 3, h, w] -> logits [n, 11, h/k, w/k], with h, w multiples of its `stride`. chunk:
    pictures in a batch; 1 is best on a CPU, more may be faster on a GPU.
    """

    def __init__(self, name: str, network: nn.Module, chunk: int = 1) -> None:
        if chunk < 1:
            raise ConfigError(f"segmenter {name}: chunk={chunk!r} must be 1 or more")
        self.name = name
        self.chunk = chunk
        self.network = network.eval()
        self.stride = int(getattr(network, "stride", 32))

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < 16:
            raise DataError(
                f"segmenter {self.name} takes pictures [N, 3, H, W] of at least 16x16, "
                f"got {list(images.shape)}"
            )

    def logits(self, images: Tensor) -> Tensor:
        """Return differentiable logits of one batch: float32 [N, 3, H, W] -> [N, 11, H, W].

        For losses. Unlike those of `segment`, its results may depend on the batch.
        """
        self._check(images)
        height, width = images.shape[-2:]
        padded = F.pad(
            images, (0, -width % self.stride, 0, -height % self.stride), mode="replicate"
        ).contiguous(memory_format=torch.channels_last)
        coarse: Tensor = self.network(padded)
        full = F.interpolate(coarse, padded.shape[-2:], mode="bilinear", align_corners=False)
        return full[:, :, :height, :width]

    @full_precision()
    @torch.inference_mode()
    def segment(self, images: Tensor) -> Tensor:
        """Segment images: float32 [N, 3, H, W] in [0, 1], any H, W >= 16, on any device.

        Returns int64 [N, H, W] class ids on the network's device. Raises DataError for another
        shape.
        """
        self._check(images)
        count = images.shape[0]
        maps = []
        for start in range(0, count, self.chunk):
            part = images[start : start + self.chunk].to(self.device, torch.float32)
            missing = self.chunk - part.shape[0]
            if missing:
                part = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)])
            maps.append(self.logits(part).argmax(dim=1)[: self.chunk - missing])
        found = torch.cat(maps) if maps else torch.zeros(0, *images.shape[-2:], dtype=torch.int64)
        return found.to(images.device)


def built_in(
    name: str, device: torch.device | str = "cpu", weights: str | Path | None = None, chunk: int = 1
) -> BuiltIn:
    """Load `tx` or `judge` with its shipped weights, or with a file of trained weights.

    Raises WeightsError if they are missing, damaged or those of another network.
    """
    loaded = load(weights if weights is not None else name, "segmenter")
    if loaded.metadata.get("network") != name:
        raise WeightsError(
            f"{weights or name} holds the network '{loaded.metadata.get('network', 'unknown')}', "
            f"not '{name}'"
        )
    network = fold(NETWORKS[name]())
    try:
        network.load_state_dict(loaded.tensors)
    except RuntimeError as error:
        raise WeightsError(
            f"{weights or name} does not fit the network '{name}': train it again"
        ) from error
    channels_last(placed(network.requires_grad_(False), device))
    return BuiltIn(name, network, chunk)


@register("tx")
def tx(
    device: torch.device | str = "cpu", weights: str | Path | None = None, chunk: int = 1
) -> BuiltIn:
    """Make the transmitter's segmenter."""
    return built_in("tx", device, weights, chunk)


@register("judge")
def judge(
    device: torch.device | str = "cpu", weights: str | Path | None = None, chunk: int = 1
) -> BuiltIn:
    """Make the segmenter that measures."""
    return built_in("judge", device, weights, chunk)
