"""Modulation and demapping: BPSK and the QAM of 3GPP TS 38.211, clause 5.1, by Sionna.

bits [..., S*m] ── map ──> symbols [..., S], E|x|^2 = 1
symbols, noise variance ── demap ──> LLR = log p(bit 1) / p(bit 0), [..., S*m]
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from channels.fec.sionna_isolation import untouched_random_state

BITS_PER_SYMBOL = {"bpsk": 1, "qpsk": 2, "16qam": 4, "64qam": 6, "256qam": 8}

_DISTANCES = 1 << 22
"""Most symbol-to-point distances in memory during demapping (about 100 MB)."""


class Modem:
    """A constellation on one device; `modem` returns a cached one."""

    def __init__(self, modulation: str, device: str) -> None:
        self.bits_per_symbol = BITS_PER_SYMBOL[modulation]
        with untouched_random_state():
            from sionna.phy.mapping import Constellation, Demapper, Mapper

            kind = "pam" if self.bits_per_symbol == 1 else "qam"
            points = Constellation(kind, self.bits_per_symbol, precision="single", device=device)
            self._map = Mapper(constellation=points, precision="single", device=device)
            self._demap = Demapper("app", constellation=points, precision="single", device=device)

    def map(self, bits: Tensor) -> Tensor:
        """Map bits, float or integer [..., S*m] of 0 and 1, to symbols, complex64 [..., S]."""
        symbols: Tensor = self._map(bits)
        return symbols

    def demap(self, symbols: Tensor, noise_variance: Tensor) -> Tensor:
        """Return exact bitwise LLRs, log p(1)/p(0), float32 [..., S*m].

        symbols: complex64 [..., S]; noise_variance: float32, E|noise|^2, broadcasts to `symbols`.
        """
        flat = symbols.reshape(-1)
        noise = noise_variance.expand(symbols.shape).reshape(-1)
        step = _DISTANCES >> self.bits_per_symbol
        pieces = [
            self._demap(flat[i : i + step], noise[i : i + step]) for i in range(0, len(flat), step)
        ]
        llr = torch.cat(pieces) if pieces else noise.new_zeros(0)
        return llr.reshape(*symbols.shape[:-1], symbols.shape[-1] * self.bits_per_symbol)


@lru_cache(maxsize=32)
def modem(modulation: str, device: str) -> Modem:
    """Return the modem of a modulation (a key of BITS_PER_SYMBOL) on a device, cached."""
    return Modem(modulation, device)
