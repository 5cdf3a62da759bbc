"""Symbol channels: complex symbols in, what a receiver sees of them out.

    y = h x + n,  E|x|^2 = E|h|^2 = 1,  E|n|^2 = N0 = 10^(-snr_db / 10)

SNR is the mean Es/N0 in dB. A receiver that knows h and N0 divides by h, which leaves the symbol
under noise of variance N0 / |h|^2: bitwise LLRs lose nothing by that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.random import Streams
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

    def draws(self, name: str) -> str:
        """Name of the random draws of this attempt; the first one's is `name`."""
        return f"{name}:{self.attempt}" if self.attempt else name


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
        noise, and another fade where the channel's coherence is shorter than the wait; a state of
        `gilbert_elliott` stays.
        """
        ...


@runtime_checkable
class Flat(Protocol):
    """A symbol channel under which each packet meets one known |h|^2, whatever its length.

    Only such a channel is one of instantaneous SNR: an object that fades within a packet, or whose
    receiver errs about h, has no `gains` and is no `Flat`.
    """

    def gains(self, randomness: Streams, timing: Timing) -> Tensor:
        """float32 [N, P]: the |h|^2 that `apply` would use with this randomness and timing."""
        ...


@runtime_checkable
class Piloted(Protocol):
    """A symbol channel that sends pilots, and so occupies more than a packet's data symbols.

    streams: data symbols that one element carries at once, 1 but for several transmit antennas.
    """

    streams: int

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Of a packet of so many data symbols: elements occupied in all, and pilots among them."""
        ...


@runtime_checkable
class Clocked(Protocol):
    """A symbol channel that changes with time, at a symbol rate that the link above must share."""

    symbol_rate_hz: float


@runtime_checkable
class Coherent(Protocol):
    """A symbol channel whose fade lasts for a `packet`, a `picture`, or so many symbols."""

    coherence: str | int


ONE_GAIN = (
    "use awgn, or rayleigh or rician with coherence packet or picture and csi perfect, or "
    "gilbert_elliott over one of them"
)
"""What `Flat` channels there are, for errors."""


SYMBOL_CHANNELS: Registry[SymbolChannel] = Registry(
    "symbol channel",
    "sqlink.symbol_channels",
    {
        "awgn": "channels.fading.block",
        "cdl": "channels.fading.tdl_cdl",
        "gilbert_elliott": "channels.fading.shadowing",
        "jakes": "channels.fading.jakes",
        "rayleigh": "channels.fading.block",
        "rician": "channels.fading.block",
        "tdl": "channels.fading.tdl_cdl",
    },
)


register = SYMBOL_CHANNELS.register


def complex_noise(shape: torch.Size, randomness: Streams, name: str) -> Tensor:
    """complex64 [N, P, S], E|n|^2 = 1, one stream a packet."""
    links, slots, length = shape
    streams = randomness.child(name).split(slots)
    draws = streams.complex_normal(length, dtype=torch.complex64)
    return draws.reshape(links, slots, length)


def noise_variance_of(snr_db: Tensor) -> Tensor:
    """float32 [N, 1, 1] of float64 [N]."""
    return torch.pow(10.0, -snr_db / 10).to(torch.float32)[:, None, None]


def power(h: Tensor) -> Tensor:
    """|h|^2."""
    return h.real.square() + h.imag.square()
