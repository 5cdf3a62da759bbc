"""The protocol of analogue codecs: pictures to complex symbols and back.

    images [N, 3, H, W] ── encode ──> symbols [N, k], mean |s|² = 1 per picture
    equalised symbols, their noise variances ── decode ──> Decoded

No packet is lost and no picture is refused: a bad channel gives a bad picture, never an outage.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from channels.registry import Registry
from sqlink.analogue import BUILT_IN
from sqlink.codecs.base import Decoded


@runtime_checkable
class SymbolCodec(Protocol):
    """A codec of pictures to symbols and back."""

    name: str
    carries_map: bool
    """Whether `decode` returns a segmentation map; no built-in analogue codec does."""

    def most_symbols(self, height: int, width: int) -> int:
        """Return the largest number of complex symbols for a picture of H×W."""
        ...

    def encode(self, images: Tensor, symbols: int, snr_db: Tensor) -> Tensor:
        """Encode pictures of one size to complex64 [N, symbols]; the mean of |s|² is 1 for each.

        images: float32 [N, 3, H, W] in [0, 1]. snr_db: float [N], mean Es/N0 in dB, the only thing
        that the sender knows of the channel. Raises ConfigError if `symbols` is not from 1 to
        `most_symbols`.
        """
        ...

    def decode(
        self, received: Tensor, noise_variance: Tensor, snr_db: Tensor, height: int, width: int
    ) -> Decoded:
        """Decode N pictures of H×W; any finite symbols give a picture.

        received: complex64 [N, symbols], equalised. noise_variance: float32 [N, symbols], E|noise|²
        on each symbol, as the receiver knows it. snr_db: as for `encode`.
        """
        ...


SYMBOL_CODECS: Registry[SymbolCodec] = Registry("analogue codec", "sqlink.symbol_codecs", BUILT_IN)
register = SYMBOL_CODECS.register
