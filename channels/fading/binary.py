"""Bit channels: bits in, LLRs out, one bit per channel use.

    binary symmetric   0 ── 1-p ── 0     a bit flips with probability p (crossover);
                         ╲ p ╱           LLR +-log((1-p)/p)
                       1 ── 1-p ── 1

    binary erasure     0 ── 1-e ── 0     a bit is lost with probability e (erasure), and the
                         ╲ e ── ?        receiver knows it; LLR 0
                       1 ── 1-e ── 1

Their capacities are 1 - H(p) and 1 - e bits per use (Cover and Thomas, Elements of Information
Theory, 2nd edition, clauses 7.1.4 and 7.1.5).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.base import Conditions
from channels.config.checks import condition, number
from channels.fading import BUILT_IN_FOR_BITS
from channels.fading.base import Timing
from channels.random import Randomness
from channels.registry import Registry

LARGEST_LLR = 20.0
"""Magnitude of the LLR of a bit known for certain, as in Sionna's LDPC decoder."""


@runtime_checkable
class BitChannel(Protocol):
    """A channel for bits."""

    name: str
    needs: tuple[str, ...]
    """Names of the conditions that `probability` reads."""

    def probability(self, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        """Return the error or erasure probability of each link, float64 [links].

        Raises ChannelError if a condition is missing or out of range.
        """
        ...

    def apply_bits(
        self, bits: Tensor, probability: Tensor, randomness: Randomness, timing: Timing
    ) -> Tensor:
        """Send bits, float32 [N, P, S] of 0 and 1, and return their LLRs, log p(1)/p(0).

        probability: float64 [N]. randomness: N keys. Returns float32 [N, P, S], 0 for a lost bit.
        The errors of a packet depend on its link, slot and attempt, not on later packets.
        """
        ...


BIT_CHANNELS: Registry[BitChannel] = Registry(
    "bit channel", "sqlink.bit_channels", BUILT_IN_FOR_BITS
)
register = BIT_CHANNELS.register


class _Memoryless:
    """A base class of memoryless channels, with one error or erasure probability per link."""

    name = "memoryless"
    parameter = "probability"

    def __init__(self, fixed: float | None) -> None:
        self.fixed = None if fixed is None else number(self.name, self.parameter, fixed, 0, 1)
        self.needs: tuple[str, ...] = (self.parameter,) if fixed is None else ()

    def probability(self, conditions: Conditions, links: int, device: torch.device) -> Tensor:
        """Return the probability of each link, float64 [links].

        Raises ChannelError if the condition is missing or outside 0..1.
        """
        if self.fixed is None:
            return condition(self.name, conditions, self.parameter, links, 0, 1, device)
        return torch.full((links,), self.fixed, dtype=torch.float64, device=device)

    def _hit(
        self, shape: torch.Size, probability: Tensor, randomness: Randomness, timing: Timing
    ) -> Tensor:
        """Draw the wrong or lost bits, bool [N, P, S]; one stream per packet and attempt."""
        links, slots, length = shape
        draws = randomness.child(timing.draws(self.parameter)).split(slots).uniform(length)
        return draws.reshape(links, slots, length) < probability[:, None, None]


@register("bsc")
class BinarySymmetric(_Memoryless):
    """Binary symmetric channel: bits flip with one probability, which the receiver knows.

    crossover: that probability, 0 to 1; None: read from the condition `crossover` [N]. Above 1/2
    the receiver inverts each bit; at 1/2 it obtains no information.
    """

    name = "bsc"
    parameter = "crossover"

    def __init__(self, crossover: float | None = None) -> None:
        super().__init__(crossover)

    def apply_bits(
        self, bits: Tensor, probability: Tensor, randomness: Randomness, timing: Timing
    ) -> Tensor:
        """Flip bits; see `BitChannel.apply_bits`."""
        turned = self._hit(bits.shape, probability, randomness, timing)
        magnitude = torch.logit(1 - probability).clamp(-LARGEST_LLR, LARGEST_LLR)  # [N]
        sign = (2 * bits - 1) * torch.where(turned, -1.0, 1.0)
        return sign * magnitude.to(torch.float32)[:, None, None]


@register("bec")
class BinaryErasure(_Memoryless):
    """Binary erasure channel: bits are lost with one probability, and the receiver knows which.

    erasure: that probability, 0 to 1; None: read from the condition `erasure` [N].
    """

    name = "bec"
    parameter = "erasure"

    def __init__(self, erasure: float | None = None) -> None:
        super().__init__(erasure)

    def apply_bits(
        self, bits: Tensor, probability: Tensor, randomness: Randomness, timing: Timing
    ) -> Tensor:
        """Erase bits; see `BitChannel.apply_bits`."""
        lost = self._hit(bits.shape, probability, randomness, timing)
        return LARGEST_LLR * (2 * bits - 1) * ~lost
