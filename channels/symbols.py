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

    symbols: complex64 [N, P, S], equalised. noise_variance: float32 [N, P, 1] or [N, P, S],
    E|noise|^2 on them. gain: float32 [N, P], the mean of |h|^2 over each packet.
    """

    symbols: Tensor
    noise_variance: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Timing:
    """When packets are on the air.

    picture: int64 [N, P], which picture of a link's sequence each belongs to, not falling along P.
    start_s: float64 [N, P], seconds at which each packet's first symbol is sent.
    attempt: 0 for the first transmission, 1, 2 ... for repetitions of the same packets (HARQ).
    """

    picture: Tensor
    start_s: Tensor
    attempt: int = 0

    @classmethod
    def together(cls, links: int, slots: int, device: torch.device | str = "cpu") -> Timing:
        """One picture a link, everything at 0 s, the first attempt."""
        picture = torch.zeros(links, slots, dtype=torch.int64, device=device)
        return cls(picture, picture.to(torch.float64))


@runtime_checkable
class SymbolChannel(Protocol):
    """Anything that carries complex symbols."""

    name: str

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """symbols: complex64 [N, P, S], E|x|^2 = 1. snr_db: float64 [N]. randomness: N keys.

        What a packet meets depends on its link, its slot, its timing and the packets of its link
        before it, not on those after it nor on the batch. Another attempt of a packet meets other
        noise, and another fade where the channel's coherence is shorter than the wait.
        """
        ...


SYMBOL_CHANNELS: Registry[SymbolChannel] = Registry("symbol channel", "sqlink.symbol_channels")
register = SYMBOL_CHANNELS.register


def _attempt(name: str, attempt: int) -> str:
    """Name of the draws of one attempt."""
    return f"{name}:{attempt}" if attempt else name


def _noise(shape: torch.Size, randomness: Streams, attempt: int) -> Tensor:
    """complex64 [N, P, S], E|n|^2 = 1, one stream a packet and attempt."""
    links, slots, length = shape
    streams = randomness.child(_attempt("noise", attempt)).split(slots)
    draws = streams.complex_normal(length, dtype=torch.complex64)
    return draws.reshape(links, slots, length)


def _noise_variance(snr_db: Tensor) -> Tensor:
    """float32 [N, 1, 1] of float64 [N]."""
    return torch.pow(10.0, -snr_db / 10).to(torch.float32)[:, None, None]


@register("awgn")
class Awgn:
    """White Gaussian noise and nothing else: h = 1."""

    name = "awgn"

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """Add noise; see `SymbolChannel.apply`."""
        variance = _noise_variance(snr_db).expand(*symbols.shape[:2], 1)
        noisy = symbols + torch.sqrt(variance) * _noise(symbols.shape, randomness, timing.attempt)
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

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Streams, timing: Timing
    ) -> Observation:
        """Fade and add noise; see `SymbolChannel.apply`."""
        h = self._fades(randomness, timing)[..., None]  # [N, P, 1]
        gain = h.real.square() + h.imag.square()
        variance = _noise_variance(snr_db)
        noise = torch.sqrt(variance) * _noise(symbols.shape, randomness, timing.attempt)
        return Observation((h * symbols + noise) / h, variance / gain, gain[..., 0])

    def _fades(self, randomness: Streams, timing: Timing) -> Tensor:
        """complex64 [N, P]: h of each packet; a picture's first packets need no later ones."""
        slots = timing.picture.shape[1]
        if self.coherence == "packet":
            streams = randomness.child(_attempt("fading", timing.attempt))
            return streams.complex_normal(slots, dtype=torch.complex64)
        pictures = int(timing.picture.max()) + 1 if timing.picture.numel() else 1
        h = randomness.child("fading").complex_normal(pictures, dtype=torch.complex64)
        return h.gather(1, timing.picture)
