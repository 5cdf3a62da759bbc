"""Hybrid ARQ: the redundancy versions of each attempt, and its time on the air.

    attempt 0 ──> CRC holds? ── yes ──> delivered
                      └── no ── round trip ──> attempt 1, its LLRs added to earlier ones ──> ...

Chase combining repeats the first word (Chase, "Code combining", IEEE Trans. Commun. 33, 1985);
incremental redundancy sends the redundancy versions 0, 2, 3, 1 of TS 38.212, clause 5.4.2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.config.checks import choice, integer, number
from channels.errors import ConfigError
from channels.fec.ldpc import VERSIONS
from channels.registry import check_options

TYPES = ("chase", "ir")


@dataclass(frozen=True)
class Harq:
    """The rules of retransmission for packets whose CRC fails.

    type: chase or ir. rounds: largest number of attempts, with the first one, 1 to 8. round_trip_s:
    time from the end of an attempt to the earliest start of the next one, 0 to 3600 seconds.
    """

    type: str = "ir"
    rounds: int = 4
    round_trip_s: float = 0.008

    @classmethod
    def from_spec(cls, owner: str, spec: object) -> Harq:
        """Make the rules from parameters. Raises ConfigError for an unknown key or a bad value.

        >>> Harq.from_spec("coded", {"type": "chase", "rounds": 2})
        Harq(type='chase', rounds=2, round_trip_s=0.008)
        """
        if not isinstance(spec, Mapping):
            raise ConfigError(
                f"{owner}: harq={spec!r} must be its parameters, as "
                "{type: ir, rounds: 4, round_trip_s: 0.008}"
            )
        known = [entry.name for entry in fields(cls)]
        check_options(f"{owner}: harq", map(str, spec), known)
        return cls(
            choice(owner, "harq type", spec.get("type", cls.type), TYPES),
            integer(owner, "harq rounds", spec.get("rounds", cls.rounds), 1, 8),
            number(owner, "harq round_trip_s", spec.get("round_trip_s", cls.round_trip_s), 0, 3600),
        )


@runtime_checkable
class Retransmits(Protocol):
    """A link that may send a packet several times. harq: None if it does not."""

    harq: Harq | None


def versions_of(attempt: int, words: int, type: str) -> tuple[int, ...]:
    """Return the redundancy versions of the `words` words that an attempt sends.

    >>> versions_of(0, 1, "ir"), versions_of(1, 1, "ir"), versions_of(1, 3, "ir")
    ((0,), (2,), (1, 0, 2))
    >>> versions_of(5, 2, "chase")
    (0, 2)
    """
    first = attempt * words if type == "ir" else 0
    return tuple(VERSIONS[(first + word) % len(VERSIONS)] for word in range(words))


@dataclass(frozen=True)
class _Busy:
    """The busy intervals of a link, and a clock that runs only between them.

    Interval i begins at free[i] + before[i] and ends at free[i] + after[i]; during it the clock
    shows free[i]. All are [N, P] and rise along P.
    """

    free: Tensor
    before: Tensor
    after: Tensor

    def clock(self, times: Tensor) -> Tensor:
        """Return the free time before `times`, [N, P]."""
        number = torch.searchsorted((self.free + self.before), times.contiguous(), right=True)
        last = (number - 1).clamp(min=0)
        since = torch.maximum(self.free.gather(1, last), times - self.after.gather(1, last))
        return torch.where(number > 0, since, times)

    def time(self, clock: Tensor, begin: bool) -> Tensor:
        """Return the last time at which the clock shows `clock`, or, if not `begin`, the first."""
        number = torch.searchsorted(self.free, clock.contiguous(), right=begin)
        passed = self.after.gather(1, (number - 1).clamp(min=0))
        return clock + torch.where(number > 0, passed, 0.0)


class Airtime:
    """The schedule of N links that each send one symbol after another.

    symbol_rate_hz: of each link; None: sending takes no time and no packet waits. A link sends the
    packets of an attempt in the order in which they are ready; of packets ready at the same time,
    the earlier slot is first. First attempts have priority over second attempts, and so on: a
    retransmission uses the time between them and is interrupted by them, so that the link is not
    idle during a round trip.
    """

    def __init__(self, symbol_rate_hz: float | None) -> None:
        self.symbol_rate_hz = symbol_rate_hz
        self._urgent: list[_Busy] = []

    def book(self, ready_s: Tensor, symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end of each packet of an attempt, seconds, float64 [N, P] each.

        ready_s: float64 [N, P], the earliest time at which each packet may be sent. symbols: int64
        [N, P], its length; 0: not sent. Call this once per attempt, in the order of attempts.
        """
        if self.symbol_rate_hz is None or not ready_s.numel():
            return ready_s, ready_s
        sent = symbols > 0
        order = torch.where(sent, ready_s, torch.inf).argsort(dim=1, stable=True)
        free = ready_s
        for busy in self._urgent:
            free = busy.clock(free)
        length = symbols.gather(1, order)
        total = length.cumsum(dim=1)  # integers: exact, independent of later packets
        before, after = (total - length) / self.symbol_rate_hz, total / self.symbol_rate_hz
        wanted = free.gather(1, order).masked_fill(length == 0, torch.inf)
        # A packet starts when it is ready and all earlier ones are sent.
        slack = (wanted - before).cummax(dim=1).values
        start, end = torch.maximum(slack + before, wanted), slack + after
        for busy in reversed(self._urgent):
            start, end = busy.time(start, begin=True), busy.time(end, begin=False)
        self._urgent.append(_Busy(slack, before, after))
        back = order.argsort(dim=1)
        return (
            torch.where(sent, start.gather(1, back), ready_s),
            torch.where(sent, end.gather(1, back), ready_s),
        )
