"""The coded link without its decoder: packet errors drawn from measured block error rates.

    |h|^2 of each packet ── Es/N0 it meets ── table ── probability of loss ── one draw

It needs a symbol channel under which a packet meets one gain (AWGN, block fading a packet or a
picture, h known); fading within a packet is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import Packets, register
from channels.errors import ConfigError
from channels.fading.base import ONE_GAIN, Flat, Timing
from channels.fec.ldpc import DEFAULT_ITERATIONS, SCHEDULES
from channels.fec.polar import DEFAULT_LIST_SIZE
from channels.link.base import DEFAULT_PACKET_BYTES
from channels.link.bler_table import BlerTable, digest, tables_of
from channels.link.coded import CodedLink
from channels.link.harq import Airtime
from channels.random import Streams

_GROUP_PACKETS = 1 << 15
"""Packets drawn at once; more links than that go one group after another."""


@register("lookup")
class LookupLink(CodedLink):
    """`coded`, some thousand times faster: a packet is lost by the rate measured at its own SNR.

    The parameters are those of `coded`. over: a symbol channel of one known gain a packet. harq:
    chase combining alone, after which a packet counts as sent once at the sum of its SNRs. The
    table is measured by full decoding when it is first needed, unless it came with the package,
    and kept in $SQLINK_CACHE (~/.cache/sqlink).

    What is delivered is correct. A packet has one draw, which all SNRs and attempts share: what
    comes at one SNR comes at every higher one.
    """

    name = "lookup"

    def __init__(
        self,
        over: object = "awgn",
        modulation: str | None = None,
        code_rate: float = 0.5,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        crc: str = "crc24a",
        iterations: int = DEFAULT_ITERATIONS,
        schedule: str = SCHEDULES[0],
        code: str = "ldpc",
        list_size: int = DEFAULT_LIST_SIZE,
        input: str = "soft",
        harq: object = None,
        symbol_rate_hz: float | None = None,
    ) -> None:
        super().__init__(
            over=over,
            modulation=modulation,
            code_rate=code_rate,
            packet_bytes=packet_bytes,
            crc=crc,
            iterations=iterations,
            schedule=schedule,
            code=code,
            list_size=list_size,
            input=input,
            harq=harq,
            symbol_rate_hz=symbol_rate_hz,
        )
        if not isinstance(self.over, Flat):
            raise ConfigError(
                f"{self.name}: over={self.over.name} has no single known gain a packet; "
                f"use coded, or {ONE_GAIN.removeprefix('use ')}"
            )
        if self.harq is not None and self.harq.type != "chase":
            raise ConfigError(
                f"{self.name}: harq type='{self.harq.type}' must be chase: a table is of one code; "
                "use coded for incremental redundancy"
            )
        self._table: BlerTable | None = None

    @property
    def table(self) -> BlerTable:
        """The code's error rates; measured now if nobody did before."""
        if self._table is None:
            (self._table,) = tables_of([self], self.name)
        return self._table

    def content(self) -> str:
        """SHA-256 of the table."""
        return digest([self.table])

    def _group(self, slots: int, uses: int) -> int:
        return _GROUP_PACKETS // slots

    def _send(self, packets: Packets, level: Tensor, randomness: Streams) -> tuple[Tensor, ...]:
        """As `coded`, without symbols and payload."""
        over = self.over
        assert isinstance(over, Flat)
        present = packets.present
        draws = randomness.child("lookup").uniform(present.shape[1])  # [g, P]
        accepted = torch.zeros_like(present)
        attempts = torch.zeros_like(packets.lengths)
        delay = torch.zeros_like(packets.times_s)
        heard = torch.zeros_like(packets.times_s)
        elements, _ = self._occupied(packets.lengths)
        airtime = Airtime(self.symbol_rate_hz)
        ready = packets.times_s
        for attempt in range(1 if self.harq is None else self.harq.rounds):
            pending = present & ~accepted
            if not bool(pending.any()):
                break
            start, end = airtime.book(ready, elements * pending)
            timing = Timing(packets.pictures, start, attempt)
            heard = heard + over.gains(randomness, timing).to(torch.float64) * pending
            rate = self.table.rate(level[:, None] + 10 * torch.log10(heard.clamp(min=1e-30)))
            accepted = accepted | (pending & (draws >= rate))
            attempts = attempts + pending
            delay = torch.where(pending, end - packets.times_s, delay)
            if self.harq is not None:
                ready = end + self.harq.round_trip_s
        count = attempts.sum(dim=1)
        mean = heard.sum(dim=1) / count.clamp(min=1)
        gain_db = torch.where(count > 0, 10 * torch.log10(mean.clamp(min=1e-30)), 0.0)
        return accepted, gain_db, attempts, delay

    def _verdict(
        self, packets: Packets, accepted: Tensor, *payload: Tensor
    ) -> tuple[Packets, Tensor, Tensor]:
        return packets.keep(accepted), accepted, accepted
