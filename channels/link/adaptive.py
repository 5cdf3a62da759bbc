"""Link adaptation as in 5G: the SNR determines modulation and code rate of each packet.

SNR known to the transmitter ── inner loop: highest MCS with an error rate below the target ──┐
          ^── outer loop: ACKs and NACKs correct the SNR until the target is met ──────────────┤
packets ─────────────────────────────────────── coded with this MCS, over the symbol channel <─┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, register
from channels.config.checks import choice, condition, flag, integer, number
from channels.config.description import name_and_parameters
from channels.errors import ConfigError
from channels.fading.base import ONE_GAIN, SNR_RANGE_DB, Coherent, Flat, Timing
from channels.fading.binary import BIT_CHANNELS
from channels.fading.block import Awgn, Rayleigh, Rician
from channels.fading.shadowing import GilbertElliott
from channels.fec.ldpc import DEFAULT_ITERATIONS
from channels.link.base import DEFAULT_PACKET_BYTES, SYMBOL_RATES_HZ
from channels.link.bler_table import digest, tables_of
from channels.link.coded import FIDELITIES, CodedLink
from channels.link.harq import Airtime
from channels.link.mcs import mcs_table
from channels.random import Randomness

KNOWS = ("mean", "instantaneous")
MOST_MARGIN_DB = 30.0

_Feedback = Callable[[int, Tensor], Tensor]
"""Returns which packets of a slot were delivered, bool [N, 1], from the slot and the MCS chosen so
far, int64 [N, P].
"""


class _Tally:
    """One reception, collected from the transmissions of different slots of the same links."""

    def __init__(self, packets: Packets) -> None:
        self.packets = packets
        self.payload = torch.zeros_like(packets.payload)
        self.lengths = torch.zeros_like(packets.lengths)
        self.delivered = torch.zeros_like(packets.present)
        self.correct = torch.zeros_like(packets.present)
        self.delay_s = torch.full_like(packets.times_s, torch.inf)
        self.uses = torch.zeros_like(packets.lengths[:, 0], dtype=torch.int64)
        self.ledger: dict[str, Tensor] = {}

    def add(self, part: Reception, links: Tensor, slots: slice, sent: Tensor) -> None:
        """Add the transmission of K slots of some links, int64 [R].

        part: its reception, [R, K]. sent: bool [R, K], the slots with a packet.
        """
        pairs = (
            (self.payload, part.packets.payload),
            (self.lengths, part.packets.lengths),
            (self.delivered, part.delivered),
            (self.correct, part.correct),
            (self.delay_s, part.delay_s),
        )
        for mine, other in pairs:
            here = sent if other.ndim == 2 else sent[..., None]
            mine[links, slots] = torch.where(here, other, mine[links, slots])
        self.uses[links] += part.channel_uses
        for name, bits in part.ledger.items():
            self.ledger.setdefault(name, torch.zeros_like(self.uses))[links] += bits

    def reception(self, on_air_s: Tensor, statistics: Mapping[str, Tensor]) -> Reception:
        """Return the reception of all slots.

        on_air_s: float64 [N, P], seconds from the offer of each packet to its last symbol.
        """
        return Reception(
            packets=replace(self.packets, payload=self.payload, lengths=self.lengths),
            delivered=self.delivered,
            correct=self.correct,
            channel_uses=self.uses,
            delay_s=self.delay_s + on_air_s,
            ledger=self.ledger,
            statistics=statistics,
        )


_BY_SLOT = (Awgn, Rayleigh, Rician)
"""Symbol channels whose noise and packet fading are drawn by slot and do not depend on time."""


@dataclass(frozen=True)
class _OneSlot(Randomness):
    """The streams of links for the packet of one slot that is sent without the earlier packets.

    Numbered sub-streams and complex normal draws, one per slot, begin at that slot, except in the
    children `whole`. The channels of `_BY_SLOT` need no other draws.
    """

    slot: int
    whole: tuple[str, ...]

    def to(self, device: torch.device | str) -> Randomness:
        return replace(self, keys=super().to(device).keys)

    def select(self, index: Tensor | Sequence[int] | slice) -> Randomness:
        return replace(self, keys=super().select(index).keys)

    def child(self, name: str) -> Randomness:
        child = super().child(name)
        return child if name in self.whole else replace(self, keys=child.keys)

    def split(self, count: int, start: int = 0) -> Randomness:
        return Randomness(self.keys).split(count, self.slot + start)

    def integers(self, count: int, start: int = 0) -> Tensor:
        raise NotImplementedError("a slot's draws are complex normal, or those of its sub-streams")

    def complex_normal(
        self, count: int, start: int = 0, dtype: torch.dtype = torch.complex128
    ) -> Tensor:
        return Randomness(self.keys).complex_normal(count, self.slot + start, dtype)


@register("adaptive")
class AdaptiveLink:
    """A coded link that chooses an MCS for each packet.

    over: a symbol channel with one known gain per packet. table: `qam64`, `qam256` or `qam64-low`
        (TS 38.214, 5.1.3.1). highest: the highest index that may be chosen; None: the last one.
    knows: the SNR that the transmitter knows: the `mean` SNR, or the `instantaneous` SNR of each
        packet at the time when it is offered.
    target: packet error rate, 1e-3 to 0.5. The inner loop chooses the most efficient MCS whose
        error rate, at the known SNR minus `margin_db`, is at most the target; index 0 if there is
        none.
    outer_loop: after each packet of a link the margin falls by step_db * target / (1 - target) if
        the packet was delivered, and rises by step_db if not, so that the target is met in the long
        run even if the known SNR is wrong (Sampath et al., "On setting reverse link target SIR in a
        CDMA system", VTC 1997). Feedback is immediate and free; packets are sent in the order of
        slots.
    fidelity: `full` decoding, or `lookup`.
    packet_bytes, crc, iterations, symbol_rate_hz: as for `coded`.

    Statistics: `efficiency`, mean bits per symbol of the chosen MCS, and `mcs`, their mean index.
    """

    name = "adaptive"
    needs: tuple[str, ...] = ("snr_db",)

    def __init__(
        self,
        over: object = "awgn",
        table: str = "qam64",
        highest: int | None = None,
        knows: str = "mean",
        target: float = 0.1,
        margin_db: float = 0.0,
        outer_loop: bool = False,
        step_db: float = 0.5,
        fidelity: str = "full",
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        crc: str = "crc24a",
        iterations: int = DEFAULT_ITERATIONS,
        symbol_rate_hz: float | None = None,
    ) -> None:
        refuse_bits(self.name, over)
        rows = mcs_table(table)
        last = len(rows) - 1
        if highest is not None:
            last = integer(self.name, "highest", highest, 0, last)
        self.schemes = rows[: last + 1]
        self.knows = choice(self.name, "knows", knows, KNOWS)
        self.target = number(self.name, "target", target, 1e-3, 0.5)
        self.margin_db = number(self.name, "margin_db", margin_db, -MOST_MARGIN_DB, MOST_MARGIN_DB)
        self.outer_loop = flag(self.name, "outer_loop", outer_loop)
        self.step_db = number(self.name, "step_db", step_db, 0.001, 10)
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, 65535)
        self.fidelity = choice(self.name, "fidelity", fidelity, FIDELITIES)
        self.symbol_rate_hz = (
            None
            if symbol_rate_hz is None
            else number(self.name, "symbol_rate_hz", symbol_rate_hz, *SYMBOL_RATES_HZ)
        )
        self.links = [
            CodedLink(
                over=over,
                modulation=scheme.modulation,
                code_rate=scheme.code_rate,
                packet_bytes=packet_bytes,
                crc=crc,
                iterations=iterations,
                fidelity=self.fidelity,
            )
            for scheme in self.schemes
        ]
        self.over = self.links[0].over
        if not isinstance(self.over, Flat):
            raise ConfigError(
                f"{self.name}: over={self.over.name} as set has no single known gain per packet: "
                f"{ONE_GAIN}"
            )
        self._thresholds: list[float] | None = None

    @property
    def thresholds_db(self) -> list[float]:
        """Return the lowest Es/N0 at which each MCS meets the target, dB.

        It is read from the table of the MCS, which is measured if there is none.
        """
        if self._thresholds is None:
            tables = tables_of(self.links, self.name)
            self._thresholds = [table.snr_at(self.target) for table in tables]
        return self._thresholds

    def content_hash(self) -> str:
        """Return the SHA-256 of the error rate tables of all MCS."""
        return digest(tables_of(self.links, self.name))

    def pick(self, known_db: Tensor) -> Tensor:
        """Return the index of the most efficient MCS whose threshold is at most known_db.

        known_db: SNR in dB, any shape; returns int64 of that shape.
        """
        best = torch.zeros(known_db.shape, dtype=torch.int64, device=known_db.device)
        order = sorted(range(len(self.schemes)), key=lambda i: self.schemes[i].efficiency)
        for index in order:
            best = torch.where(known_db >= self.thresholds_db[index], index, best)
        return best

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets. Raises ChannelError in the same cases as `coded`."""
        links, slots = packets.lengths.shape
        device = packets.device
        mean = condition(self.name, conditions, "snr_db", links, *SNR_RANGE_DB, device)
        known = mean[:, None].expand(links, slots)
        if self.knows == "instantaneous":
            assert isinstance(self.over, Flat)
            timing = Timing(packets.groups, packets.times_s)
            gains = self.over.gains(randomness.to(device), timing).to(torch.float64)
            known = known + 10 * torch.log10(gains.clamp(min=1e-30))
        done = _Tally(packets)
        by_tables = self._unclocked and self.fidelity == "lookup"
        if not self.outer_loop:
            picked = self.pick(known - self.margin_db)
        elif by_tables:
            picked = self._follow(known, packets, self._fates(packets, conditions, randomness))
        else:
            each = self._one_by_one(done, packets, conditions, randomness)
            picked = self._follow(known, packets, each)
        start, end = self._book(packets, picked, packets.present)
        if by_tables or not self.outer_loop:
            timed = replace(packets, offered_s=start)
            self._send(done, timed, slice(0, slots), picked, conditions, randomness)
        count = packets.present.sum(dim=1).clamp(min=1)
        rates = torch.tensor(
            [scheme.efficiency for scheme in self.schemes], dtype=torch.float64, device=device
        )
        statistics = {
            "efficiency": (rates[picked] * packets.present).sum(dim=1) / count,
            "mcs": (picked * packets.present).sum(dim=1).to(torch.float64) / count,
        }
        return done.reception(end - packets.times_s, statistics)

    @property
    def _by_slot(self) -> bool:
        return type(self.over) in _BY_SLOT

    @property
    def _unclocked(self) -> bool:
        """Return whether results are independent of the time at which packets are sent."""
        over = self.over.over if isinstance(self.over, GilbertElliott) else self.over
        return type(over) in _BY_SLOT

    def _book(self, packets: Packets, picked: Tensor, sent: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end on the air of the packets `sent`, float64 [N, P] each."""
        uses = [link.uses_per_packet(1) for link in self.links]
        symbols = torch.tensor(uses, dtype=torch.int64, device=packets.device)[picked] * sent
        return Airtime(self.symbol_rate_hz).book(packets.times_s, symbols)

    def _follow(self, known: Tensor, packets: Packets, feedback: _Feedback) -> Tensor:
        """Run the outer loop: choose each MCS after the previous packet, int64 [N, P]."""
        picked = torch.zeros_like(packets.lengths)
        margin = torch.full_like(known[:, :1], self.margin_db)
        reward = self.step_db * self.target / (1 - self.target)
        for slot in range(known.shape[1]):
            here = slice(slot, slot + 1)
            picked[:, here] = self.pick(known[:, here] - margin)
            moved = torch.where(feedback(slot, picked), margin - reward, margin + self.step_db)
            moved = moved.clamp(-MOST_MARGIN_DB, MOST_MARGIN_DB)
            margin = torch.where(packets.present[:, here], moved, margin)
        return picked

    def _fates(self, packets: Packets, conditions: Conditions, randomness: Randomness) -> _Feedback:
        """Return the feedback that is drawn from the tables of the chosen MCS."""
        fates: dict[int, Tensor] = {}

        def feedback(slot: int, picked: Tensor) -> Tensor:
            here = picked[:, slot : slot + 1]
            came = torch.zeros_like(here, dtype=torch.bool)
            for index in here.unique().tolist():
                if index not in fates:
                    sent = self.links[index].transmit(packets, conditions, randomness)
                    fates[index] = sent.delivered
                came = torch.where(here == index, fates[index][:, slot : slot + 1], came)
            return came

        return feedback

    def _one_by_one(
        self, done: _Tally, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> _Feedback:
        """Send the packets slot by slot."""
        place = torch.arange(packets.lengths.shape[1], device=packets.device)
        one_fade = isinstance(self.over, Coherent) and self.over.coherence == "picture"
        whole = ("fading",) if one_fade else ()

        def feedback(slot: int, picked: Tensor) -> Tensor:
            here = slice(slot, slot + 1)
            if self._by_slot:
                streams = _OneSlot(randomness.keys, slot, whole)
                self._send(done, _cut(packets, here), here, picked[:, here], conditions, streams)
            else:
                start, _ = self._book(packets, picked, packets.present & (place <= slot))
                timed = replace(packets.keep(place == slot), offered_s=start)
                slots = slice(0, len(place))
                self._send(done, timed, slots, picked, conditions, randomness)
            return done.delivered[:, here]

        return feedback

    def _send(
        self,
        done: _Tally,
        packets: Packets,
        slots: slice,
        picked: Tensor,
        conditions: Conditions,
        randomness: Randomness,
    ) -> None:
        """Send the packets of K slots, [N, K], each with its MCS, int64 [N, K]."""
        for index in picked[packets.present].unique().tolist():
            sent = packets.present & (picked == index)
            links = sent.any(dim=1).nonzero()[:, 0]
            part = self.links[index].transmit(
                packets.keep(sent).select(links),
                {name: value[links.to(value.device)] for name, value in conditions.items()},
                randomness.select(links.to(randomness.device)),
            )
            done.add(part, links, slots, sent[links])

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Return the symbols of a packet with the least efficient MCS, the largest number."""
        most: int = max(link.uses_per_packet(packet_bytes) for link in self.links)
        return most


def refuse_bits(owner: str, over: object) -> None:
    """Raise ConfigError if `over` describes a bit channel."""
    name, _ = name_and_parameters("symbol channel", over)
    if name in BIT_CHANNELS.names():
        raise ConfigError(f"{owner}: over={name} is a bit channel and has no SNR: {ONE_GAIN}")


def _cut(packets: Packets, slots: slice) -> Packets:
    """Return the packets of some slots."""
    return Packets(
        packets.payload[:, slots],
        packets.lengths[:, slots],
        packets.priority[:, slots],
        None if packets.offered_s is None else packets.offered_s[:, slots],
        None if packets.group is None else packets.group[:, slots],
    )
