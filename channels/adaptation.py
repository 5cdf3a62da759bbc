"""Link adaptation: the modulation and code rate of each packet from the SNR, as 5G does it.

SNR that the transmitter knows ── inner loop: highest MCS whose loss is below the target ──┐
          ^── outer loop: an offset that ACKs and NACKs push about until the target holds ──┤
packets ──────────────────────────────────────── coded with it, over the symbol channel <──┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, register
from channels.bits import BIT_CHANNELS
from channels.bler import tables_of
from channels.coded import DEFAULT_PACKET_BYTES, CodedLink
from channels.errors import ConfigError
from channels.ldpc import DEFAULT_ITERATIONS
from channels.lookup import LookupLink
from channels.mcs import mcs_table
from channels.random import Streams
from channels.ranges import choice, condition, flag, integer, number
from channels.spec import name_and_parameters
from channels.symbols import SNR_RANGE_DB, Flat, Timing

FIDELITIES = {"full": CodedLink, "lookup": LookupLink}
KNOWS = ("mean", "instantaneous")
MOST_MARGIN_DB = 30.0


@dataclass(frozen=True)
class _Sum:
    """What several transmissions of different slots of the same links came to."""

    reception: Reception

    def plus(self, other: Reception, sent: Tensor) -> _Sum:
        """sent: bool [N, P], the slots that `other` is of."""
        mine = self.reception
        packets = mine.packets
        merged = replace(
            packets,
            payload=packets.payload + other.packets.payload,
            lengths=packets.lengths + other.packets.lengths,
        )
        names = dict.fromkeys((*mine.ledger, *other.ledger))
        zero = torch.zeros_like(mine.channel_uses)
        return _Sum(
            Reception(
                packets=merged,
                delivered=mine.delivered | other.delivered,
                correct=mine.correct | other.correct,
                channel_uses=mine.channel_uses + other.channel_uses,
                delay_s=torch.where(sent, other.delay_s, mine.delay_s),
                ledger={
                    name: mine.ledger.get(name, zero) + other.ledger.get(name, zero)
                    for name in names
                },
            )
        )

    @classmethod
    def nothing(cls, packets: Packets) -> _Sum:
        links = packets.lengths.shape[0]
        none = torch.zeros_like(packets.present)
        return cls(
            Reception(
                packets=packets.keep(none),
                delivered=none,
                correct=none,
                channel_uses=torch.zeros(links, dtype=torch.int64, device=packets.device),
                delay_s=torch.full_like(packets.times_s, torch.inf),
                ledger={},
            )
        )


@register("adaptive")
class AdaptiveLink:
    """A coded link that picks an MCS for each packet.

    over: a symbol channel of one known gain a packet. table: `qam64`, `qam256` or `qam64-low`
        (TS 38.214, 5.1.3.1). highest: of its rows, the highest that may be picked.
    knows: what the transmitter knows of a packet's SNR: the `mean`, or the `instantaneous` one.
    target: share of packets that may be lost, 1e-3 to 0.5: the inner loop picks the most efficient
        MCS whose table of error rates says no more at the known SNR, less `margin_db`; row 0 where
        none does.
    outer_loop: after each packet of a link the margin falls by step_db * target / (1 - target) if
        it came and rises by step_db if not, so that in the long run the target holds however wrong
        the known SNR is (Sampath et al., "On setting reverse link target SIR in a CDMA system",
        VTC 1997). Feedback is immediate and free.
    fidelity: `full` decoding, or `lookup`.
    packet_bytes, crc, iterations: as for `coded`.

    Statistics: `efficiency`, mean bits a symbol of the MCS picked, and `mcs`, mean index.
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
        made = FIDELITIES[choice(self.name, "fidelity", fidelity, FIDELITIES)]
        self.links = [
            made(
                over=over,
                modulation=scheme.modulation,
                code_rate=scheme.code_rate,
                packet_bytes=packet_bytes,
                crc=crc,
                iterations=iterations,
            )
            for scheme in self.schemes
        ]
        self.over = self.links[0].over
        if not isinstance(self.over, Flat):
            raise ConfigError(
                f"{self.name}: over={self.over.name} has no single known gain a packet; use awgn, "
                "or fading with coherence packet or picture"
            )
        self._thresholds: list[float] | None = None

    @property
    def thresholds_db(self) -> list[float]:
        """Es/N0 from which each MCS loses no more than the target, from its table (measured, if
        nobody did before).
        """
        if self._thresholds is None:
            tables = tables_of(self.links, self.name)
            self._thresholds = [table.snr_at(self.target) for table in tables]
        return self._thresholds

    def pick(self, known_db: Tensor) -> Tensor:
        """int64, of the shape of known_db: the most efficient MCS whose threshold is reached."""
        best = torch.zeros(known_db.shape, dtype=torch.int64, device=known_db.device)
        order = sorted(range(len(self.schemes)), key=lambda i: self.schemes[i].efficiency)
        for index in order:
            best = torch.where(known_db >= self.thresholds_db[index], index, best)
        return best

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Send N x P packets. Raises ChannelError as `coded` does."""
        links, slots = packets.lengths.shape
        device = packets.device
        mean = condition(self.name, conditions, "snr_db", links, *SNR_RANGE_DB, device)
        known = mean[:, None].expand(links, slots)
        if self.knows == "instantaneous":
            assert isinstance(self.over, Flat)
            timing = Timing(packets.pictures, packets.times_s)
            gains = self.over.gains(randomness.to(device), timing).to(torch.float64)
            known = known + 10 * torch.log10(gains.clamp(min=1e-30))
        done = _Sum.nothing(packets)
        margin = torch.full((links, 1), self.margin_db, dtype=torch.float64, device=device)
        if not self.outer_loop:
            picked = self.pick(known - margin)
            done = self._send(packets, picked, conditions, randomness, done)
        else:
            picked = torch.zeros_like(packets.lengths)
            place = torch.arange(slots, device=device)
            reward = self.step_db * self.target / (1 - self.target)
            for slot in range(slots):
                here = self.pick(known[:, slot : slot + 1] - margin)
                picked[:, slot] = here[:, 0]
                one = packets.keep((place == slot).expand(links, slots))
                done = self._send(one, picked, conditions, randomness, done)
                came = done.reception.delivered[:, slot : slot + 1]
                moved = torch.where(came, margin - reward, margin + self.step_db)
                moved = moved.clamp(-MOST_MARGIN_DB, MOST_MARGIN_DB)
                margin = torch.where(packets.present[:, slot : slot + 1], moved, margin)
        count = packets.present.sum(dim=1).clamp(min=1)
        rates = torch.tensor(
            [scheme.efficiency for scheme in self.schemes], dtype=torch.float64, device=device
        )
        statistics = {
            "efficiency": (rates[picked] * packets.present).sum(dim=1) / count,
            "mcs": (picked * packets.present).sum(dim=1).to(torch.float64) / count,
        }
        return replace(done.reception, statistics=statistics)

    def _send(
        self,
        packets: Packets,
        picked: Tensor,
        conditions: Conditions,
        randomness: Streams,
        done: _Sum,
    ) -> _Sum:
        """The packets present, each with the MCS picked for its slot."""
        for index in picked[packets.present].unique().tolist():
            mask = packets.present & (picked == index)
            some = mask.any(dim=1).nonzero()[:, 0]
            whole = _spread(
                self.links[index].transmit(
                    packets.keep(mask).select(some),
                    _of(conditions, some),
                    randomness.select(some.to(randomness.device)),
                ),
                some,
                packets,
            )
            done = done.plus(whole, mask)
        return done

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """The most symbols that a packet may take: those of the least efficient MCS."""
        most: int = max(link.uses_per_packet(packet_bytes) for link in self.links)
        return most


def refuse_bits(owner: str, over: object) -> None:
    """Raises ConfigError where `over` is a bit channel."""
    name, _ = name_and_parameters("symbol channel", over)
    if name in BIT_CHANNELS.names():
        raise ConfigError(
            f"{owner}: over={name} is a bit channel, which has no SNR: use awgn, or fading with "
            "coherence packet or picture"
        )


def _of(conditions: Conditions, links: Tensor) -> Mapping[str, Tensor]:
    return {name: value[links.to(value.device)] for name, value in conditions.items()}


def _spread(part: Reception, links: Tensor, packets: Packets) -> Reception:
    """What some links came to, as of all of them; the others sent nothing."""

    def whole(values: Tensor, shape: torch.Size, empty: float) -> Tensor:
        spread = torch.full(shape, empty, dtype=values.dtype, device=values.device)
        spread[links] = values
        return spread

    slots, count = packets.lengths.shape, packets.lengths.shape[:1]
    came = part.packets
    return Reception(
        packets=replace(
            packets,
            payload=whole(came.payload, packets.payload.shape, 0),
            lengths=whole(came.lengths, slots, 0),
        ),
        delivered=whole(part.delivered, slots, False),
        correct=whole(part.correct, slots, False),
        channel_uses=whole(part.channel_uses, count, 0),
        delay_s=whole(part.delay_s, slots, torch.inf),
        ledger={name: whole(bits, count, 0) for name, bits in part.ledger.items()},
    )
