"""5G polar codes (3GPP TS 38.212, clauses 5.3.1 and 5.4.1, uplink), by Sionna.

    bits [B, k] ── + CRC11, encode ──> coded bits [B, n] ── ... ──> LLR [B, n] ── list decoder ──┐
    bits [B, k] <── the likeliest path whose CRC11 holds <───────────────────────────────────────┘

The CRC11 belongs to the code: it selects one of the list's paths. The blocks of the standard are
short, so a message is divided into equal blocks. Rates below 1/5 repeat the word.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor

from channels.errors import ConfigError
from channels.fec.ldpc import FIRST, LOWEST_RATE, Holds, Layout, first_held, words_of
from channels.fec.sionna_isolation import untouched_random_state

DEFAULT_LIST_SIZE = 8
"""The list size in 3GPP's comparisons."""

CHECK_BITS = 11

_SMALLEST_BLOCK = 20
"""Smaller blocks have parity bits in the standard that Sionna does not support."""

_LARGEST_BLOCK = 1013
_LONGEST_WORD = 1088

_CHUNK_CPU = 16
_CHUNK_CUDA = 1024


def polar_layout(owner: str, bits: int, code_rate: float, bits_per_symbol: int) -> Layout:
    """Divide a packet into the smallest number of equal code blocks, each of whole symbols.

    code_rate: wanted k/n; k does not include the CRC11, so that a polar link takes as many symbols
    as an LDPC link of the same rate. Raises ConfigError if n has no room for the CRC11.

    >>> polar_layout("coded", 8 * 96 + 24, 0.5, 2)
    Layout(bits=792, blocks=2, k=396, n=792, words=1, check=11)
    """
    words = words_of(code_rate)
    blocks = 0
    while True:
        blocks += 1
        k = max(_SMALLEST_BLOCK, -(-bits // blocks))
        n = math.ceil(k / code_rate / words / bits_per_symbol - 1e-9) * bits_per_symbol
        if n <= _LONGEST_WORD and k <= _LARGEST_BLOCK:
            break
    if k + CHECK_BITS > n:
        highest = math.floor(1000 * k / (k + CHECK_BITS)) / 1000
        raise ConfigError(
            f"{owner}: code_rate={code_rate!r} must be from {LOWEST_RATE:g} to {highest:g} with "
            f"polar blocks of {k} bits and a CRC of {CHECK_BITS}"
        )
    return Layout(bits, blocks, k, n, words, CHECK_BITS)


class PolarCode:
    """A polar code on one device; `polar_code` returns a cached one."""

    def __init__(self, k: int, n: int, list_size: int, device: str) -> None:
        self.k, self.n = k, n
        with untouched_random_state(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            from sionna.phy.fec.polar import Polar5GDecoder, Polar5GEncoder

            self._encoder = Polar5GEncoder(
                k, n, precision="single", device=device, check_input=False
            )
            self._decoder = Polar5GDecoder(
                self._encoder, "SCL", list_size, precision="single", device=device
            )
        self.chunk = _CHUNK_CPU if device == "cpu" else _CHUNK_CUDA
        """Number of blocks to decode at once on this device."""
        self.fewest = self.chunk

    def encode(self, bits: Tensor, versions: Sequence[int] = FIRST) -> Tensor:
        """Encode bits, float32 [B, k] of 0 and 1, to V equal words, float32 [B, V n]."""
        coded: Tensor = self._encoder(bits)
        return coded.repeat(1, len(versions))

    def decode_until(
        self,
        llr: Tensor,
        iterations: int,
        every: int,
        holds: Holds,
        versions: Sequence[int] = FIRST,
        together: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Decode LLRs, float32 [B, n], log p(1)/p(0), in one pass; see `ldpc.Code.decode_until`."""
        return first_held(iter([self._decoder(llr)]), holds, together)


@lru_cache(maxsize=32)
def polar_code(k: int, n: int, list_size: int, device: str) -> PolarCode:
    """Return the polar code with k information bits and n coded bits, cached."""
    return PolarCode(k, n, list_size, device)
