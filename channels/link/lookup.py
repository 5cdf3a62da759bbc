"""Packet errors drawn from measured block error rates, without decoding.

    |h|^2 of each packet ── Es/N0 of the packet ── table ── probability of loss ── one draw

The symbol channel must have one known gain per packet: AWGN, or block fading per packet or picture
with h known. Fading within a packet is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from channels.base import Packets
from channels.errors import ConfigError
from channels.fading.base import ONE_GAIN, Flat, Timing
from channels.link.bler_table import BlerTable, digest, tables_of
from channels.link.harq import Airtime
from channels.random import Randomness

if TYPE_CHECKING:
    from channels.link.coded import CodedLink

_GROUP_PACKETS = 1 << 15
"""Most packets drawn at once; links are divided into groups accordingly."""


class TableDraws:
    """Random losses of a coded link's packets, drawn from the table of its code.

    A delivered packet is correct. A packet has one draw for all SNRs and attempts: if it is
    delivered at one SNR, it is delivered at every higher one. With chase combining, the SNR of a
    packet is the sum of the SNRs of its attempts. Raises ConfigError if the link has no such table.
    """

    def __init__(self, link: CodedLink) -> None:
        if not isinstance(link.over, Flat):
            raise ConfigError(
                f"{link.name}: over={link.over.name} has no single known gain per packet, as "
                f"fidelity=lookup needs: use fidelity=full, or {ONE_GAIN.removeprefix('use ')}"
            )
        if link.harq is not None and link.harq.type != "chase":
            raise ConfigError(
                f"{link.name}: harq type='{link.harq.type}' must be chase with fidelity=lookup, "
                "whose table is of one code: use fidelity=full for incremental redundancy"
            )
        self._link = link
        self._table: BlerTable | None = None

    @property
    def table(self) -> BlerTable:
        """Return the error rates of the code, measured at first use."""
        if self._table is None:
            (self._table,) = tables_of([self._link], self._link.name)
        return self._table

    def content_hash(self) -> str:
        """Return the SHA-256 of the table."""
        return digest([self.table])

    def group(self, slots: int) -> int:
        """Return the number of links per group, for `slots` packets each."""
        return _GROUP_PACKETS // slots

    def send(self, packets: Packets, level: Tensor, randomness: Randomness) -> tuple[Tensor, ...]:
        """Draw the losses of one group of g links, with all attempts; see `BaseLink`."""
        link, over = self._link, self._link.over
        assert isinstance(over, Flat)
        present = packets.present
        draws = randomness.child("lookup").uniform(present.shape[1])  # [g, P]
        accepted = torch.zeros_like(present)
        attempts = torch.zeros_like(packets.lengths)
        delay = torch.zeros_like(packets.times_s)
        heard = torch.zeros_like(packets.times_s)
        elements, _ = link.occupied(packets.lengths)
        airtime = Airtime(link.symbol_rate_hz)
        ready = packets.times_s
        for attempt in range(1 if link.harq is None else link.harq.rounds):
            pending = present & ~accepted
            if not bool(pending.any()):
                break
            start, end = airtime.book(ready, elements * pending)
            timing = Timing(packets.groups, start, attempt)
            heard = heard + over.gains(randomness, timing).to(torch.float64) * pending
            rate = self.table.rate(level[:, None] + 10 * torch.log10(heard.clamp(min=1e-30)))
            accepted = accepted | (pending & (draws >= rate))
            attempts = attempts + pending
            delay = torch.where(pending, end - packets.times_s, delay)
            if link.harq is not None:
                ready = end + link.harq.round_trip_s
        count = attempts.sum(dim=1)
        mean = heard.sum(dim=1) / count.clamp(min=1)
        gain_db = torch.where(count > 0, 10 * torch.log10(mean.clamp(min=1e-30)), 0.0)
        return accepted, gain_db, attempts, delay
