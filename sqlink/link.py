"""One link from end to end, with the ledger of every bit.

    images ─ Transmitter ─> Streams ─ pack ─> Packets ─ Channel ─> Reception ─ unpack ─> Received
                                                                                │ distinct
    LinkResult <──────────────────────────────── Decoded <─ Receiver <──────────┘

The steps are small functions, so that a sweep can encode once and decode once: a picture is encoded
once whatever the number of realisations, and realisations in which the same bytes came share one
decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import Channel, Packets, Reception
from channels.packet.occupancy import packets_within, uses_of_picture
from channels.random import Streams
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    Codec,
    Decoded,
    Rate,
    Received,
    Stream,
    Unreachable,
)
from sqlink.data.classes import NO_LABEL
from sqlink.errors import ConfigError
from sqlink.receiver import Receiver, outage
from sqlink.transmitter import Transmitter

CODEC_LEDGER = ("session", "index", "mask", "header", "coder", "padding", "payload")
CHANNEL_LEDGER = ("crc", "fec", "padding", "pilots")
"""Entries of a channel's ledger that count as its own; its `payload` is the codec's bits again."""


def pack(
    streams: Sequence[Stream | Unreachable],
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    device: torch.device | str = "cpu",
) -> Packets:
    """The packets of N streams as one batch for a channel; what is Unreachable sends none.

    Returns payload uint8 [N, P, packet_bytes], P the most packets of any stream; the width does not
    depend on which streams share the batch. Raises ConfigError if a packet is longer than that.
    """
    for stream in streams:
        if isinstance(stream, Unreachable):
            continue
        longest = max((len(p.data) for p in stream.packets), default=0)
        if longest > packet_bytes:
            raise ConfigError(
                f"{stream.session.codec} made a packet of {longest} bytes for a link of "
                f"{packet_bytes}: load the codec with packet_bytes={packet_bytes}"
            )
    pieces = [() if isinstance(stream, Unreachable) else stream.packets for stream in streams]
    packets = Packets.from_bytes(
        [[p.data for p in link] for link in pieces],
        [[p.priority for p in link] for link in pieces],
        device,
    )
    missing = packet_bytes - packets.payload.shape[-1]
    return replace(packets, payload=torch.nn.functional.pad(packets.payload, (0, missing)))


@dataclass(frozen=True)
class Sequences:
    """Runs of T pictures, each run one after another over a link of its own.

    length: T. picture_rate_hz: a run's picture t is offered to its link at t / picture_rate_hz.
    """

    length: int
    picture_rate_hz: float

    def join(self, packets: Packets) -> Packets:
        """Packets [L * T, P], run by run, as L links that carry T pictures each.

        Slots without a packet are closed up, so that a link's packets do not depend on how many
        those of other links are.
        """
        links = packets.lengths.shape[0] // self.length
        slots = packets.lengths.shape[1]
        device = packets.device
        picture = torch.arange(self.length, device=device).repeat_interleave(slots)
        picture = picture.expand(links, -1)
        lengths = packets.lengths.reshape(links, -1)
        order = self._order(lengths)
        payload = packets.payload.reshape(*lengths.shape, packets.payload.shape[-1])
        most = int((lengths > 0).sum(dim=1).max()) if lengths.numel() else 0
        picture = picture.gather(1, order)
        held = lengths.gather(1, order) > 0
        if most:
            picture = torch.where(held, picture, 0).cummax(dim=1).values
        return Packets(
            payload.gather(1, order[..., None].expand_as(payload))[:, :most],
            lengths.gather(1, order)[:, :most],
            packets.priority.reshape(links, -1).gather(1, order)[:, :most],
            (picture.to(torch.float64) / self.picture_rate_hz)[:, :most],
            picture[:, :most],
        )

    def split(self, packets: Packets, reception: Reception) -> Reception:
        """What came of L links as that of L * T pictures; packets: as given to `join`, [L * T, P].

        A link's channel uses, and the bits that its channel added, are shared out over its pictures
        by the packets of each that got as far as the channel that counts symbols (those offered,
        where it does not say), whole numbers that add up to the link's.
        """
        links = packets.lengths.shape[0] // self.length
        lengths = packets.lengths.reshape(links, -1)
        order = self._order(lengths)
        shape = packets.lengths.shape

        def spread(values: Tensor, empty: float) -> Tensor:
            """[L, most, ...] on the slots before they were closed up, [L * T, P, ...]."""
            whole = values.new_full((*lengths.shape, *values.shape[2:]), empty)
            index = order[:, : values.shape[1]].reshape(*values.shape[:2], *[1] * (values.ndim - 2))
            whole.scatter_(1, index.expand_as(values), values)
            return whole.reshape(*shape, *values.shape[2:])

        sent = packets.present
        if reception.carried is not None:
            sent = spread(reception.carried, False)
        sent = sent.sum(dim=1).reshape(links, self.length)
        came = reception.packets
        statistics = {
            name: value.repeat_interleave(self.length)
            for name, value in reception.statistics.items()
        }
        return Reception(
            packets=Packets(spread(came.payload, 0), spread(came.lengths, 0), packets.priority),
            delivered=spread(reception.delivered, False),
            correct=spread(reception.correct, False),
            channel_uses=_shared_out(reception.channel_uses, sent),
            delay_s=spread(reception.delay_s, torch.inf),
            ledger={name: _shared_out(bits, sent) for name, bits in reception.ledger.items()},
            statistics=statistics,
        )

    @staticmethod
    def _order(lengths: Tensor) -> Tensor:
        """int64 [L, S]: the slots that hold a packet, in order, then the others."""
        return torch.argsort((lengths == 0).to(torch.uint8), dim=1, stable=True)


def _shared_out(total: Tensor, shares: Tensor) -> Tensor:
    """int64 [L] shared out by int64 [L, T] shares, [L * T]; rows add up to the total."""
    up_to = shares.cumsum(dim=1)
    whole = up_to[:, -1:].clamp(min=1)
    edges = total[:, None] * up_to // whole
    return torch.diff(edges, dim=1, prepend=torch.zeros_like(edges[:, :1])).flatten()


def unpack(streams: Sequence[Stream], reception: Reception) -> list[Received]:
    """What the receiver holds of each of N streams: a packet not delivered is None.

    A packet delivered with wrong bytes (its CRC held by chance, or there is none) is passed on.
    """
    delivered = reception.delivered.cpu().tolist()
    data = reception.packets.to_bytes()
    return [
        Received(
            stream.session,
            tuple(
                piece if came else None
                for piece, came, _ in zip(data[n], delivered[n], stream.packets, strict=False)
            ),
        )
        for n, stream in enumerate(streams)
    ]


def distinct(received: Sequence[Received]) -> tuple[list[Received], list[int]]:
    """The receptions that differ, in order of first appearance, and for each given one its number.

    What is decoded depends on nothing but these bytes, so each of them need be decoded only once.
    """
    numbers: dict[Received, int] = {}
    which = [numbers.setdefault(one, len(numbers)) for one in received]
    return list(numbers), which


def ledger(streams: Sequence[Stream], reception: Reception) -> dict[str, Tensor]:
    """Bits by what they are, name -> int64 [N], of N streams sent.

    The codec's entries (CODEC_LEDGER) and the channel's own (CHANNEL_LEDGER), paddings of both
    taken together: the sum is what was sent, plus the session, which is charged once a picture.
    """
    total: dict[str, list[int]] = {}
    for n, stream in enumerate(streams):
        for name, bits in stream.ledger.items():
            total.setdefault(name, [0] * len(streams))[n] += bits
    for name in CHANNEL_LEDGER:
        if name in reception.ledger:
            row = total.setdefault(name, [0] * len(streams))
            for n, bits in enumerate(reception.ledger[name].cpu().tolist()):
                row[n] += bits
    return {name: torch.tensor(row, dtype=torch.int64) for name, row in total.items()}


def resolve_rate(
    rate: Rate, channel: Channel, packet_bytes: int, codec: Codec | None = None
) -> Rate:
    """A rate in channel uses turned into bytes: the whole packets that so many uses carry, and the
    codec's session, which both ends know and no channel use is spent on.

    Any other rate is returned as it is. Raises ConfigError where the channel counts no symbols, or
    where the uses do not carry one packet.
    """
    if rate.channel_uses is None:
        return rate
    count = packets_within(channel, rate.channel_uses, packet_bytes)
    if count is None:
        raise ConfigError(
            f"channel '{channel.name}' counts no symbols: give the rate in bpp or bytes"
        )
    if count < 1:
        raise ConfigError(
            f"{rate.channel_uses} channel uses carry no packet: one of {packet_bytes} bytes "
            f"takes {uses_of_picture(channel, 1, packet_bytes)} on '{channel.name}'"
        )
    return Rate(bytes=count * packet_bytes + getattr(codec, "session_bytes", 0))


@dataclass(frozen=True)
class LinkResult:
    """N pictures, each over R realisations of the channel.

    names: N names. sent: N answers of the codec. decoded: the U distinct decodings. understood:
    int64 [U, H, W], the evaluator's maps of them, or None. which: int64 [N, R], the decoding of
    each crossing. delivered, correct: bool [N, R, P]. channel_uses: int64 [N, R]. delay_s: float64
    [N, R, P]. ledger: name -> int64 [N, R], bits. statistics: name -> [N, R].

    A picture the codec cannot code this low (Unreachable) is an outage that sends nothing.
    """

    names: tuple[str, ...]
    sent: tuple[Stream | Unreachable, ...]
    decoded: Decoded
    understood: Tensor | None
    which: Tensor
    delivered: Tensor
    correct: Tensor
    channel_uses: Tensor
    delay_s: Tensor
    ledger: Mapping[str, Tensor]
    statistics: Mapping[str, Tensor]

    @property
    def outage(self) -> Tensor:
        """bool [N, R]: nothing could be decoded."""
        return self.decoded.outage[self.which]

    def image(self, picture: int, realisation: int = 0) -> Tensor:
        """float32 [3, H, W]: what was received of a picture."""
        return self.decoded.images[self.which[picture, realisation]]

    def segmentation(self, picture: int, realisation: int = 0) -> Tensor | None:
        """int64 [H, W]: the map received with a picture; None where the codec carries none."""
        if self.decoded.segmentation is None:
            return None
        return self.decoded.segmentation[self.which[picture, realisation]]

    def understanding(self, picture: int, realisation: int = 0) -> Tensor | None:
        """int64 [H, W]: what the evaluator sees in the picture received; None without one."""
        if self.understood is None:
            return None
        return self.understood[self.which[picture, realisation]]


class Link:
    """Transmitter -> channel -> receiver.

    packet_bytes: what the codec was loaded with; the unit of a rate in channel uses.
    device: where packets cross the channel.
    """

    def __init__(
        self,
        transmitter: Transmitter,
        channel: Channel,
        receiver: Receiver,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        device: torch.device | str = "cpu",
    ) -> None:
        self.transmitter = transmitter
        self.channel = channel
        self.receiver = receiver
        self.packet_bytes = packet_bytes
        self.device = torch.device(device)

    def run(
        self,
        images: Tensor,
        rate: Rate,
        conditions: Mapping[str, float | Tensor] | None = None,
        seed: int = 0,
        realisations: int = 1,
        names: Sequence[str] | None = None,
        segmentation: Tensor | None = None,
        point: str | None = None,
    ) -> LinkResult:
        """Send N pictures of one size, each over `realisations` independent draws of the channel.

        images: float32 [N, 3, H, W] in [0, 1]. conditions: name -> number, or one a picture, [N].
        names: what the pictures are called (their number by default): with `point` (the channel's
        name by default), the seed and the realisation they key the random numbers, so that a
        picture's fate does not depend on its company. The default leaves conditions and codec out
        of the key: curves over SNR and codecs side by side then meet the same noise.
        segmentation: int64 [N, H, W], a map to send in place of the transmitter's own.
        Raises SQLinkError (ConfigError, ChannelError, DataError) where the parts do not fit.
        """
        count, _, height, width = images.shape
        labels = tuple(names) if names is not None else tuple(str(n) for n in range(count))
        if len(labels) != count or len(set(labels)) != count:
            raise ConfigError(f"{count} pictures need {count} different names, got {list(labels)}")
        if realisations < 1:
            raise ConfigError(f"realisations={realisations} must be at least 1")
        rate = resolve_rate(rate, self.channel, self.packet_bytes, self.transmitter.codec)
        sent = tuple(self.transmitter.send(images, rate, segmentation))

        reached = [n for n, answer in enumerate(sent) if isinstance(answer, Stream)]
        streams = [answer for answer in sent if isinstance(answer, Stream)]
        crossing = [stream for stream in streams for _ in range(realisations)]
        slots = max((len(s.packets) for s in streams), default=0)
        uses = torch.zeros(count, realisations, dtype=torch.int64)
        delivered = torch.zeros(count, realisations, slots, dtype=torch.bool)
        correct = torch.zeros_like(delivered)
        delay = torch.full((count, realisations, slots), float("inf"), dtype=torch.float64)
        bits: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        which = torch.zeros(count, realisations, dtype=torch.int64)
        parts: list[Decoded] = []

        if crossing:
            shape = (len(reached), realisations)
            reception = self.channel.transmit(
                pack(crossing, self.packet_bytes, self.device),
                self._spread(conditions or {}, count, reached, realisations),
                Streams.derive(
                    seed,
                    [
                        (point or self.channel.name, labels[n], r)
                        for n in reached
                        for r in range(realisations)
                    ],
                    self.device,
                ),
            )
            uses[reached] = reception.channel_uses.cpu().reshape(shape)
            delivered[reached] = reception.delivered.cpu().reshape(*shape, slots)
            correct[reached] = reception.correct.cpu().reshape(*shape, slots)
            delay[reached] = reception.delay_s.cpu().reshape(*shape, slots)
            for name, value in ledger(crossing, reception).items():
                bits[name] = torch.zeros(count, realisations, dtype=torch.int64)
                bits[name][reached] = value.reshape(shape)
            for name, value in reception.statistics.items():
                spread = torch.full((count, realisations), float("nan"), dtype=torch.float64)
                spread[reached] = value.cpu().to(torch.float64).reshape(shape)
                statistics[name] = spread
            unique, numbers = distinct(unpack(crossing, reception))
            which[reached] = torch.tensor(numbers, dtype=torch.int64).reshape(shape)
            parts.append(self.receiver.receive(unique))
        if len(reached) < count:
            refused = [n for n in range(count) if n not in set(reached)]
            which[refused] = sum(len(part.outage) for part in parts)
            parts.append(outage(1, height, width))

        decoded = join(parts)
        understood = None
        if self.receiver.evaluator is not None:
            understood = self.receiver.understand(decoded.images)
        return LinkResult(
            names=labels,
            sent=sent,
            decoded=decoded,
            understood=understood,
            which=which,
            delivered=delivered,
            correct=correct,
            channel_uses=uses,
            delay_s=delay,
            ledger=bits,
            statistics=statistics,
        )

    def _spread(
        self,
        conditions: Mapping[str, float | Tensor],
        count: int,
        reached: Sequence[int],
        realisations: int,
    ) -> dict[str, Tensor]:
        """Conditions of each crossing, [reached * realisations], from those of each picture."""
        spread = {}
        for name, value in conditions.items():
            row = torch.as_tensor(value, dtype=torch.float64).to(self.device)
            if row.ndim > 1 or (row.ndim == 1 and len(row) != count):
                raise ConfigError(
                    f"condition '{name}' must be a number or one a picture [{count}], "
                    f"not {list(row.shape)}"
                )
            spread[name] = row.expand(count)[list(reached)].repeat_interleave(realisations)
        return spread


def join(parts: Sequence[Decoded]) -> Decoded:
    """Several batches of decoded pictures of one size as one; where one has no map, no labels."""
    maps: Tensor | None = None
    if any(part.segmentation is not None for part in parts):
        maps = torch.cat(
            [
                part.segmentation
                if part.segmentation is not None
                else torch.full(
                    (len(part.outage), *part.images.shape[2:]), NO_LABEL, dtype=torch.int64
                )
                for part in parts
            ]
        )
    return Decoded(
        images=torch.cat([part.images for part in parts]),
        segmentation=maps,
        outage=torch.cat([part.outage for part in parts]),
    )
