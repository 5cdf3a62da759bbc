"""Symbol channels: complex symbols in, what the receiver sees out.

    y = h x + n,  E|x|^2 = E|h|^2 = 1,  E|n|^2 = N0 = 10^(-snr_db / 10)

SNR is the mean Es/N0 in dB. A receiver that knows h and N0 divides by h, which leaves noise of
variance N0 / |h|^2 on the symbol. Bitwise LLRs lose nothing by that division.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.fading import BUILT_IN
from channels.random import Randomness
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

    group: int64 [N, P], the group of packets that each belongs to, never decreasing along P.
    start_s: float64 [N, P], seconds at which each packet's first symbol is sent.
    attempt: 0 for the first transmission, 1, 2 ... for repetitions of the same packets (HARQ).
    """

    group: Tensor
    start_s: Tensor
    attempt: int = 0

    @property
    def picture(self) -> Tensor:
        """`group` under its earlier name."""
        return self.group

    @classmethod
    def together(cls, links: int, slots: int, device: torch.device | str = "cpu") -> Timing:
        """Return the timing of one group a link, everything at 0 s, first attempt."""
        group = torch.zeros(links, slots, dtype=torch.int64, device=device)
        return cls(group, group.to(torch.float64))

    def draws(self, name: str) -> str:
        """Name of the random draws of this attempt; the first one's is `name`."""
        return f"{name}:{self.attempt}" if self.attempt else name


@runtime_checkable
class SymbolChannel(Protocol):
    """Carries complex symbols."""

    name: str

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Send symbols: complex64 [N, P, S] with E|x|^2 = 1, at snr_db, float64 [N]. randomness: N
        keys.

        What a packet meets depends on its link, its slot, its timing and the earlier packets of its
        link, not on later ones nor on the batch. Another attempt of a packet meets other noise, and
        another fade if the coherence is shorter than the wait; a state of `gilbert_elliott` stays.
        """
        ...


@runtime_checkable
class Flat(Protocol):
    """A symbol channel under which each packet meets one known |h|^2, whatever its length.

    Only such a channel has one instantaneous SNR per packet. A channel that fades within a packet,
    or whose receiver estimates h, has no `gains` and is not `Flat`.
    """

    def gains(self, randomness: Randomness, timing: Timing) -> Tensor:
        """Return float32 [N, P], the |h|^2 that `apply` uses with this randomness and timing."""
        ...


@runtime_checkable
class Piloted(Protocol):
    """A symbol channel that sends pilots, and so occupies more than a packet's data symbols.

    streams: data symbols that one element carries at once, 1 unless there are several transmit
    antennas.
    """

    streams: int

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Return the resource elements that a packet of so many data symbols occupies, and its
        pilots.
        """
        ...


@runtime_checkable
class Clocked(Protocol):
    """A symbol channel that changes with time, or a link that takes time.

    symbol_rate_hz: a link and the symbol channel under it share one; None: time does not matter.
    """

    symbol_rate_hz: float | None


@runtime_checkable
class Coherent(Protocol):
    """A symbol channel whose fade lasts for a `packet`, a `picture`, or so many symbols."""

    coherence: str | int


ONE_GAIN = (
    "use awgn, or rayleigh or rician with coherence packet or picture and csi perfect, or "
    "gilbert_elliott over one of them"
)
"""The `Flat` channels, named in errors."""


SYMBOL_CHANNELS: Registry[SymbolChannel] = Registry(
    "symbol channel", "sqlink.symbol_channels", BUILT_IN
)
register = SYMBOL_CHANNELS.register


def complex_noise(shape: torch.Size, randomness: Randomness, name: str) -> Tensor:
    """Draw complex64 [N, P, S] with E|n|^2 = 1, one stream a packet."""
    links, slots, length = shape
    streams = randomness.child(name).split(slots)
    draws = streams.complex_normal(length, dtype=torch.complex64)
    return draws.reshape(links, slots, length)


def noise_variance_of(snr_db: Tensor) -> Tensor:
    """Convert SNR in dB, float64 [N], to N0, float32 [N, 1, 1]."""
    return torch.pow(10.0, -snr_db / 10).to(torch.float32)[:, None, None]


def power(h: Tensor) -> Tensor:
    """Return |h|^2."""
    return h.real.square() + h.imag.square()
