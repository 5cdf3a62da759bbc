"""What every analogue codec is: pictures to complex symbols, and equalised symbols to pictures.

    images [N, 3, H, W] ── encode ──> symbols [N, k], mean |s|² = 1 a picture
    equalised symbols, their noise variances ── decode ──> Decoded

No packet is lost and nothing is refused: a bad channel gives a bad picture, never an outage.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from channels.registry import Registry
from sqlink.analogue import BUILT_IN
from sqlink.codecs.base import Decoded


@runtime_checkable
class SymbolCodec(Protocol):
    """Pictures to symbols and back."""

    name: str
    carries_map: bool
    """Whether a segmentation map comes out of `decode`; an analogue codec has none so far."""

    def most_symbols(self, height: int, width: int) -> int:
        """Return the most complex symbols that a picture of H×W can be sent in."""
        ...

    def encode(self, images: Tensor, symbols: int, snr_db: Tensor) -> Tensor:
        """Encode pictures of one size to complex64 [N, symbols]; the mean of |s|² is 1 for each.

        images: float32 [N, 3, H, W] in [0, 1]. snr_db: float [N], mean Es/N0 in dB, which is what
        the sender knows of the channel. Raises ConfigError if there are more symbols than
        `most_symbols`, or none.
        """
        ...

    def decode(
        self, received: Tensor, noise_variance: Tensor, snr_db: Tensor, height: int, width: int
    ) -> Decoded:
        """Rebuild pictures of H×W; any finite symbols give a picture.

        received: complex64 [N, symbols], equalised. noise_variance: float32 [N, symbols], E|noise|²
        on each, as the receiver knows it. snr_db: as at the sender.
        """
        ...


SYMBOL_CODECS: Registry[SymbolCodec] = Registry("analogue codec", "sqlink.symbol_codecs", BUILT_IN)
register = SYMBOL_CODECS.register
