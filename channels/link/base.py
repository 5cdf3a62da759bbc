"""The base class of links over symbol and bit channels: attempts, reception and ledger.

packets ── bits ── air (modem, symbol or bit channel) ── receive ── verdict ──> Reception
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception
from channels.config.checks import number
from channels.errors import ConfigError
from channels.fading.base import Clocked, Piloted, Timing
from channels.link.air import SymbolAir, air_over
from channels.link.harq import Airtime, Harq
from channels.random import Randomness

DEFAULT_PACKET_BYTES = 96


_GROUP_SYMBOLS = 1 << 20
"""Most symbols processed at once; links are divided into groups accordingly."""


SYMBOL_RATES_HZ = (1.0, 1e12)


@dataclass(frozen=True)
class Arrival:
    """The decoded bytes of R packets, uint8 [R, B], and whether the receiver accepts them.

    kept: float32 [R, L], sum of the LLRs of all attempts so far; None if no attempt can follow.
    """

    payload: Tensor
    accepted: Tensor
    kept: Tensor | None = None


def to_bits(payload: Tensor) -> Tensor:
    """Convert uint8 [R, B] to float32 [R, 8B], most significant bit first."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=payload.device)
    return ((payload[..., None] >> shifts) & 1).flatten(1).to(torch.float32)


def to_bytes(bits: Tensor) -> Tensor:
    """Convert float32 [R, 8B] to uint8 [R, B], most significant bit first."""
    weights = torch.pow(2.0, torch.arange(7, -1, -1, device=bits.device))
    octets = bits.reshape(len(bits), bits.shape[1] // 8, 8)
    return (octets * weights).sum(dim=-1).to(torch.uint8)


def resize(payload: Tensor, size: int) -> Tensor:
    """Cut uint8 [..., B] to [..., size], or pad it with zeros."""
    resized: Tensor = torch.nn.functional.pad(payload, (0, size - payload.shape[-1]))
    return resized


class BaseLink:
    """A base class of coded and uncoded links over a symbol or bit channel."""

    name = "link"

    def __init__(self, over: object, modulation: str | None, symbol_rate_hz: float | None) -> None:
        self._air = air_over(self.name, over, modulation)
        self.over = self._air.over
        self.modulation = self._air.modulation if isinstance(self._air, SymbolAir) else None
        self.order = self._air.order
        """Bits of one data symbol."""
        self.bits_per_symbol = self.order * self._air.streams
        """Bits of one channel use, which carries a data symbol of every stream."""
        self.needs = self._air.needs
        self.symbol_rate_hz = (
            None
            if symbol_rate_hz is None
            else number(self.name, "symbol_rate_hz", symbol_rate_hz, *SYMBOL_RATES_HZ)
        )
        own = self.over.symbol_rate_hz if isinstance(self.over, Clocked) else None
        if self.symbol_rate_hz is not None and own not in (None, self.symbol_rate_hz):
            raise ConfigError(
                f"{self.name}: symbol_rate_hz={self.symbol_rate_hz:.12g} must equal that "
                f"of over={self.over.name}, {own:.12g}"
            )
        self.harq: Harq | None = None

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets; reads the condition `snr_db`, mean Es/N0 in dB, [N], SNR_RANGE_DB.

        Over a bit channel it reads the condition of that channel instead. Raises ChannelError if a
        packet is too long, or if the condition is missing, NaN or out of range.
        """
        links, slots = packets.lengths.shape
        device = packets.device
        level = self._air.level(self.name, conditions, links, device)
        if len(randomness) != links:
            raise ValueError(f"{len(randomness)} random streams for {links} links")
        longest = int(packets.lengths.max()) if packets.lengths.numel() else 0
        apiece = int(self._occupied(torch.tensor([longest]))[0])
        group = max(1, self._group(max(1, slots), apiece))
        pieces = [
            self._send(
                packets.select(part),
                level[part],
                randomness.select(part).to(device),
            )
            for part in (slice(i, i + group) for i in range(0, max(links, 1), group))
        ]
        columns = (torch.cat(column) for column in zip(*pieces, strict=True))
        accepted, gain_db, attempts, delay, *payload = columns
        received, delivered, correct = self._verdict(packets, accepted, *payload)
        elements, pilots = self._occupied(packets.lengths)
        total = (elements * attempts).sum(dim=1)
        ledger = self._ledger(packets.lengths, attempts)
        if isinstance(self.over, Piloted):
            bits = self.bits_per_symbol
            symbols = (self._symbols(packets.lengths) * attempts).sum(dim=1)
            ledger["pilots"] = (pilots * attempts).sum(dim=1) * bits
            idle = total * bits - ledger["pilots"] - symbols * self.order
            ledger["padding"] = ledger["padding"] + idle
        statistics = self._air.statistics(level, gain_db)
        if self.harq is not None:
            count = packets.present.sum(dim=1).clamp(min=1)
            statistics["rounds"] = attempts.sum(dim=1).to(torch.float64) / count
        return Reception(
            packets=received,
            delivered=delivered,
            correct=correct,
            channel_uses=total,
            delay_s=delay.masked_fill(~delivered, torch.inf),
            ledger=ledger,
            statistics=statistics,
        )

    def _group(self, slots: int, uses: int) -> int:
        """Return the number of links per group, for `slots` packets per link of `uses` channel
        uses each.
        """
        return _GROUP_SYMBOLS // max(1, slots * uses)

    def _send(self, packets: Packets, level: Tensor, randomness: Randomness) -> tuple[Tensor, ...]:
        """Send one group of g links with all attempts.

        Returns what is accepted, bool [g, P], the mean gain in dB, float64 [g], the attempts, int64
        [g, P], the delay, float64 [g, P], and, if `_verdict` needs it, the payload, uint8 [g, P,
        B].
        """
        width = packets.payload.shape[-1]
        payload = torch.zeros_like(packets.payload)
        accepted = torch.zeros_like(packets.present)
        attempts = torch.zeros_like(packets.lengths)
        delay = torch.zeros_like(packets.times_s)
        gain = torch.zeros_like(level)
        elements, _ = self._occupied(packets.lengths)
        airtime = Airtime(self.symbol_rate_hz)
        ready = packets.times_s
        kept: Tensor | None = None
        for attempt in range(1 if self.harq is None else self.harq.rounds):
            pending = packets.present & ~accepted
            if not bool(pending.any()):
                break
            start, end = airtime.book(ready, elements * pending)
            some = pending.any(dim=1)
            sent = pending[some]
            timing = Timing(packets.groups[some], start[some], attempt)
            keys = randomness.select(some)
            with torch.no_grad(), torch.autocast(packets.device.type, enabled=False):
                bits = self._bits(packets.payload[pending], attempt)  # [R, L]
                rows, power = self._air.send(bits, sent, level[some], keys, timing)
                arrival = self._receive(rows, packets.lengths[pending], kept, attempt)
            payload[pending] = resize(arrival.payload, width)
            accepted[pending] = arrival.accepted
            attempts = attempts + pending
            delay = torch.where(pending, end - packets.times_s, delay)
            gain[some] += (power.to(torch.float64) * sent).sum(dim=1)
            if self.harq is not None:
                ready = end + self.harq.round_trip_s
                kept = None if arrival.kept is None else arrival.kept[~arrival.accepted]
        count = attempts.sum(dim=1)
        gain_db = torch.where(count > 0, 10 * torch.log10(gain / count.clamp(min=1)), 0.0)
        return accepted, gain_db, attempts, delay, payload

    _knows_the_truth = False

    def _verdict(
        self, packets: Packets, accepted: Tensor, *payload: Tensor
    ) -> tuple[Packets, Tensor, Tensor]:
        """Return received packets, delivered and correct, from the packets sent and the output of
        `_send`.
        """
        (bytes_received,) = payload
        width = packets.payload.shape[-1]
        used = torch.arange(width, device=packets.device) < packets.lengths[..., None]
        correct = ((bytes_received == packets.payload) | ~used).all(dim=-1) & packets.present
        delivered = accepted & (correct if self._knows_the_truth else packets.present)
        received = replace(packets, payload=bytes_received * used).keep(delivered)
        return received, delivered, correct

    def uses_per_packet(self, packet_bytes: int) -> int:
        """Return the largest number of channel uses of one packet; with HARQ, of all attempts.

        Raises ChannelError if the packet is too long.
        """
        attempts = 1 if self.harq is None else self.harq.rounds
        return attempts * int(self._occupied(torch.tensor([packet_bytes]))[0])

    def _occupied(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the resource elements of packets of some lengths, and their pilots, int64 each."""
        symbols = self._symbols(lengths)
        if not isinstance(self.over, Piloted):
            return symbols, torch.zeros_like(symbols)
        counts, which = symbols.unique(return_inverse=True)
        table = [self._air.occupied(count) if count else (0, 0) for count in counts.tolist()]
        pairs = torch.tensor(table, dtype=torch.int64, device=lengths.device).reshape(-1, 2)[which]
        return pairs[..., 0], pairs[..., 1]

    def _symbols(self, lengths: Tensor) -> Tensor:
        """Return the data symbols of packets of some lengths, int64; 0 for an empty slot."""
        raise NotImplementedError

    def _ledger(self, lengths: Tensor, attempts: Tensor) -> dict[str, Tensor]:
        """Return the ledger, int64 [N] for each kind of bits; the sum is data symbols x order."""
        raise NotImplementedError

    def _bits(self, payload: Tensor, attempt: int) -> Tensor:
        """Convert payloads, uint8 [R, B], to the bits sent, float32 [R, L], of whole symbols."""
        raise NotImplementedError

    def _receive(
        self, rows: tuple[Tensor, ...], lengths: Tensor, kept: Tensor | None, attempt: int
    ) -> Arrival:
        """Decode the channel's output for R packets of some lengths, int64 [R], to their bytes."""
        raise NotImplementedError
