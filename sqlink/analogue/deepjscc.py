"""DeepJSCC as an analogue codec: any picture size, any number of symbols, one set of weights.

    k symbols = 16 whose phase carries the picture's scale, and k - 16 of coefficients

Pictures are padded to multiples of 32×32 pixels by repeating the edge. The padding is sent and
counted in k, the number of symbols sent, but H and W in CBR = k / (3 H W) are those of the picture.
The network, its power constraint and its noise are in `sqlink.model.deepjscc`.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.analogue.base import register
from sqlink.codecs.base import Decoded
from sqlink.errors import ConfigError, WeightsError
from sqlink.model.deepjscc import (
    PLACE,
    SCALE_SYMBOLS,
    DeepJSCC,
    DeepJSCCConfig,
    from_symbols,
    places,
    scale_symbols,
    sent_mask,
    to_symbols,
)
from sqlink.runtime.threads import side_by_side
from sqlink.weights.manifest import load

QUIETEST, NOISIEST = 1e-9, 1e6
"""Limits to which noise variances are clipped, so that sums stay finite."""


def load_network(weights: str | Path) -> tuple[DeepJSCC, str]:
    """Return the network of a weights file and the file's SHA-256.

    weights: a shipped name or a path. Raises WeightsError if the file cannot be read or its tensors
    do not fit its configuration.
    """
    loaded = load(weights, "deepjscc")
    try:
        network = DeepJSCC(DeepJSCCConfig.from_json(loaded.metadata["config"]))
        network.load_state_dict(loaded.tensors)
    except (ConfigError, KeyError, TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"{weights} has no DeepJSCC network that fits its configuration ({said}): "
            "train or save it again"
        ) from error
    return network.eval().requires_grad_(False), loaded.sha256


@register("deepjscc")
class DeepJSCCCodec:
    """The analogue codec `deepjscc`; see `SymbolCodec`.

    weights: a shipped name or a path. Raises WeightsError if they cannot be read.
    """

    name = "deepjscc"
    carries_map = False
    trained_on = ("psnr_db",)

    def __init__(self, weights: str | Path = "streets", device: torch.device | str = "cpu") -> None:
        network, self.weights_sha256 = load_network(weights)
        self.device = torch.device(device)
        self.network = network.to(self.device)

    def most_symbols(self, height: int, width: int) -> int:
        """Return the largest number of symbols; see `SymbolCodec.most_symbols`."""
        data = places(height, width) * self.network.config.coefficients // 2
        return data + min(SCALE_SYMBOLS, data // 7)

    def encode(self, images: Tensor, symbols: int, snr_db: Tensor) -> Tensor:
        """Encode pictures; see `SymbolCodec.encode`."""
        height, width = images.shape[2:]
        most = self.most_symbols(height, width)
        if not 1 <= symbols <= most:
            raise ConfigError(
                f"{self.name}: a picture of {width}x{height} takes 1 to {most} "
                f"symbols, not {symbols}"
            )
        parts = zip(self._parts(images), self._parts(snr_db), strict=True)
        return torch.cat(
            side_by_side(lambda part: self._encoded(part[0], symbols, part[1]), parts, self.device)
        )

    def _encoded(self, images: Tensor, symbols: int, snr_db: Tensor) -> Tensor:
        """Encode some of the pictures to symbols."""
        count, _, height, width = images.shape
        images = images.to(self.device)
        right, below = -width % PLACE, -height % PLACE
        padded = F.pad(images, (0, right, 0, below), mode="replicate")
        told = scale_symbols(symbols)
        data = torch.full((count,), symbols - told, device=self.device)
        with torch.no_grad():
            values, _, scale = self.network.encode(padded, snr_db.to(self.device), data)
        return torch.cat([scale[:, None].expand(-1, told), to_symbols(values, symbols - told)], 1)

    def decode(
        self, received: Tensor, noise_variance: Tensor, snr_db: Tensor, height: int, width: int
    ) -> Decoded:
        """Decode pictures; see `SymbolCodec.decode`."""
        rows = zip(
            self._parts(received), self._parts(noise_variance), self._parts(snr_db), strict=True
        )
        return Decoded(
            images=torch.cat(
                side_by_side(lambda row: self._decoded(*row, height, width), rows, self.device)
            ),
            segmentation=None,
            outage=torch.zeros(len(received), dtype=torch.bool, device=self.device),
        )

    def _parts(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the batches of the network: single rows on a CPU, else all rows in one."""
        size = 1 if self.device.type == "cpu" else max(1, len(rows))
        return tuple(rows[start : start + size] for start in range(0, len(rows), size))

    def _decoded(
        self, received: Tensor, noise_variance: Tensor, snr_db: Tensor, height: int, width: int
    ) -> Tensor:
        """Decode some rows of received symbols to pictures."""
        count, symbols = received.shape
        shape = (self.network.config.coefficients, -(-height // PLACE), -(-width // PLACE))
        finite = (received.isfinite() & ~noise_variance.isnan()).to(self.device)
        seen = torch.where(finite, received.to(self.device), 0.0)
        variance = torch.where(finite, noise_variance.to(self.device), NOISIEST)
        variance = variance.clamp(QUIETEST, NOISIEST)
        told = scale_symbols(symbols)
        data = torch.full((count,), symbols - told, device=self.device)
        trust = 1 / variance[:, :told]
        scale = (seen[:, :told] * trust).sum(1) / trust.sum(1).clamp(min=1 / NOISIEST)
        halves = variance[:, told:] / 2
        with torch.no_grad():
            pictures = self.network.decode(
                from_symbols(seen[:, told:], *shape),
                torch.where(
                    sent_mask(2 * data, *shape),
                    from_symbols(torch.complex(halves, halves), *shape),
                    math.inf,
                ),
                snr_db.to(self.device),
                scale,
                1 / trust.sum(1).clamp(min=1 / NOISIEST),
            )
        return pictures[:, :, :height, :width].nan_to_num().clamp(0, 1).float()
