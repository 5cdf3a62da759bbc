"""The protocol of symbol channels: complex symbols in, equalised symbols out.

    y = h x + n,  E|x|^2 = E|h|^2 = 1,  E|n|^2 = N0 = 10^(-snr_db / 10)

SNR is the mean Es/N0 in dB. A receiver that knows h and N0 divides by h, which leaves noise of
variance N0 / |h|^2 on the symbol. Bitwise LLRs lose no information by that division.
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
    """The equalised symbols of N x P packets of S symbols, and the noise on them.

    symbols: complex64 [N, P, S]. noise_variance: float32 [N, P, 1] or [N, P, S], E|noise|^2 on the
    symbols. gain: float32 [N, P], the mean of |h|^2 over each packet.
    """

    symbols: Tensor
    noise_variance: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Timing:
    """The times at which packets are on the air, and their groups.

    group: int64 [N, P], number of the group that each packet belongs to; it never decreases along
        P.
    start_s: float64 [N, P], time at which each packet's first symbol is sent, seconds.
    attempt: 0 for the first transmission, 1, 2 ... for retransmissions (HARQ).
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
        """Return the timing of one group per link, all packets at 0 s, first attempt."""
        group = torch.zeros(links, slots, dtype=torch.int64, device=device)
        return cls(group, group.to(torch.float64))

    def draws(self, name: str) -> str:
        """Return the name of this attempt's random draws; that of the first attempt is `name`."""
        return f"{name}:{self.attempt}" if self.attempt else name


@runtime_checkable
class SymbolChannel(Protocol):
    """A channel for complex symbols."""

    name: str

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        """Send symbols, complex64 [N, P, S] with E|x|^2 = 1, at snr_db, float64 [N].

        randomness: N keys. The noise and the fade of a packet depend on its link, slot and timing
        and on the earlier packets of its link, but neither on later packets nor on the batch.
        Another attempt of a packet has other noise, and another fade if the coherence is shorter
        than the time between the attempts; the state of `gilbert_elliott` stays.
        """
        ...


@runtime_checkable
class Flat(Protocol):
    """A symbol channel with one known |h|^2 per packet, whatever the length of the packet.

    Only such a channel has one instantaneous SNR per packet. A channel that fades within a packet,
    or whose receiver estimates h, has no `gains` and is not `Flat`.
    """

    def gains(self, randomness: Randomness, timing: Timing) -> Tensor:
        """Return float32 [N, P], the |h|^2 that `apply` uses with this randomness and timing."""
        ...


@runtime_checkable
class Piloted(Protocol):
    """A symbol channel that sends pilots in addition to the data symbols of a packet.

    streams: data symbols that one resource element carries at once; above 1 only with several
    transmit antennas.
    """

    streams: int

    def occupied(self, symbols: int) -> tuple[int, int]:
        """Return the resource elements that `symbols` data symbols occupy, and their pilots."""
        ...


@runtime_checkable
class Clocked(Protocol):
    """A symbol channel that varies with time, or a link whose packets take time.

    symbol_rate_hz: symbols per second, equal for a link and its symbol channel; None: time has no
    effect.
    """

    symbol_rate_hz: float | None


@runtime_checkable
class Coherent(Protocol):
    """A symbol channel whose fade lasts for a packet, a picture, or a number of symbols."""

    coherence: str | int


ONE_GAIN = (
    "use awgn, or rayleigh or rician with coherence packet or picture and csi perfect, or "
    "gilbert_elliott over one of them"
)
"""How to obtain a `Flat` channel, for errors."""


SYMBOL_CHANNELS: Registry[SymbolChannel] = Registry(
    "symbol channel", "sqlink.symbol_channels", BUILT_IN
)
register = SYMBOL_CHANNELS.register


def complex_noise(shape: torch.Size, randomness: Randomness, name: str) -> Tensor:
    """Draw complex64 [N, P, S] with E|n|^2 = 1, one stream per packet."""
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
