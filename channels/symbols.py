"""Symbol channels: complex symbols in, what a receiver that knows the channel sees of them out.

    y = h x + n,  E|x|^2 = E|h|^2 = 1,  E|n|^2 = N0 = 10^(-snr_db / 10)

SNR is the mean Es/N0 in dB. The receiver knows h and N0 and divides by h, which leaves the symbol
under noise of variance N0 / |h|^2: bitwise LLRs lose nothing by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.random import Streams
from channels.ranges import choice
from channels.registry import Registry

SNR_RANGE_DB = (-60.0, 100.0)


@dataclass(frozen=True)
class Observation:
    """What the receiver sees of N x P packets of S symbols.

    symbols: complex64 [N, P, S], equalised. noise_variance: float32 [N, P, 1], E|noise|^2 on them.
    gain: float32 [N, P], |h|^2 of each packet.
    """

    symbols: Tensor
    noise_variance: Tensor
    gain: Tensor


@runtime_checkable
class SymbolChannel(Protocol):
    """Anything that carries complex symbols."""

    name: str

    def apply(self, symbols: Tensor, snr_db: Tensor, randomness: Streams) -> Observation:
        """symbols: complex64 [N, P, S], E|x|^2 = 1. snr_db: float64 [N]. randomness: N keys.

        What a packet meets depends on its link and its slot alone, not on P, S or the batch.
        """
        ...


SYMBOL_CHANNELS: Registry[SymbolChannel] = Registry("symbol channel", "sqlink.symbol_channels")
register = SYMBOL_CHANNELS.register


def _noise(shape: torch.Size, randomness: Streams) -> Tensor:
    """complex64 [N, P, S], E|n|^2 = 1, one stream a packet."""
    links, slots, length = shape
    draws = randomness.child("noise").split(slots).complex_normal(length, dtype=torch.complex64)
    return draws.reshape(links, slots, length)


def _noise_variance(snr_db: Tensor) -> Tensor:
    """float32 [N, 1, 1] of float64 [N]."""
    return torch.pow(10.0, -snr_db / 10).to(torch.float32)[:, None, None]


@register("awgn")
class Awgn:
    """White Gaussian noise and nothing else: h = 1."""

    name = "awgn"

    def apply(self, symbols: Tensor, snr_db: Tensor, randomness: Streams) -> Observation:
        """Add noise; see `SymbolChannel.apply`."""
        variance = _noise_variance(snr_db).expand(*symbols.shape[:2], 1)
        noisy = symbols + torch.sqrt(variance) * _noise(symbols.shape, randomness)
        return Observation(noisy, variance, torch.ones_like(variance[..., 0]))


@register("rayleigh")
class Rayleigh:
    """Flat Rayleigh block fading: h is complex Gaussian, E|h|^2 = 1, and constant over a block.

    coherence: "packet", a new h for each packet, or "picture", one h for all packets of a link.
    The receiver knows h perfectly; the transmitter knows only the mean SNR.
    """

    name = "rayleigh"

    def __init__(self, coherence: str = "packet") -> None:
        self.coherence = choice(self.name, "coherence", coherence, ("packet", "picture"))

    def apply(self, symbols: Tensor, snr_db: Tensor, randomness: Streams) -> Observation:
        """Fade and add noise; see `SymbolChannel.apply`."""
        slots = symbols.shape[1]
        blocks = 1 if self.coherence == "picture" else slots
        h = randomness.child("fading").complex_normal(blocks, dtype=torch.complex64)
        h = h.expand(-1, slots)[..., None]  # [N, P, 1]
        gain = h.real.square() + h.imag.square()
        variance = _noise_variance(snr_db)
        noise = torch.sqrt(variance) * _noise(symbols.shape, randomness)
        return Observation((h * symbols + noise) / h, variance / gain, gain[..., 0])
