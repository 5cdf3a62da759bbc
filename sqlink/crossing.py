"""One crossing of a channel, for `Link`, for sweeps and for the command line.

    Streams ─ pack ─> Packets ─ select ─> Channel.transmit ─> Reception ─ unpack ─> Received
    (one per picture)          (one per draw)                     │                    │ distinct
                                                                  └─ ledger, uses      └─> decode

A picture is packed once, whatever the number of realisations, and realisations that received
identical bytes are decoded once. Draws keep their order from end to end: entry `l` of everything in
`CrossingResult` belongs to draw `l`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from channels.base import Channel, Packets, Reception
from channels.config.packet_size import fixed_sizes
from channels.packet.occupancy import packets_within, uses_of_group
from channels.random import Randomness
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    Codec,
    Decoded,
    Rate,
    Received,
    Stream,
    Unreachable,
    session_bytes,
)
from sqlink.data.classes import NO_LABEL
from sqlink.errors import ConfigError
from sqlink.receiver import Receiver, outage
from sqlink.transmitter import Transmitter

CODEC_LEDGER = ("session", "index", "mask", "header", "coder", "padding", "payload")
CHANNEL_LEDGER = ("crc", "fec", "padding", "pilots", "relay")
"""Entries of the channel itself. `relay`: the packets' own bits on further hops. A channel's
`payload` is the codec's bits again.
"""

_Item = TypeVar("_Item", bound=Hashable)


def pack(
    streams: Sequence[Stream | Unreachable],
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    device: torch.device | str = "cpu",
) -> Packets:
    """Pack N streams into one batch of packets for a channel; an Unreachable sends none.

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
class Draw:
    """One transmission: the index of the stream that is sent, and the key of its random numbers.

    answer: index of the stream among those packed. name: the picture's. realisation, seed: with the
    name, the key of the channel's randomness.
    """

    answer: int
    name: str
    realisation: int = 0
    seed: int = 0


@dataclass(frozen=True)
class CrossingResult:
    """The reception of L draws over the channel, in their order.

    received: what the receiver holds of each; None if the codec had nothing to send. delivered,
    correct, carried: bool [L, P], as of `Reception`; carried are the packets that were sent, those
    that no budget or queue cut. channel_uses: int64 [L]. delay_s: float64 [L, P], infinite where
    not delivered. ledger: name -> int64 [L], bits. statistics: name -> float64 [L], NaN where
    nothing was sent. sent_bytes, delivered_bytes: int64 [L], of packets, with the session.
    """

    received: list[Received | None]
    delivered: Tensor
    correct: Tensor
    carried: Tensor
    channel_uses: Tensor
    delay_s: Tensor
    ledger: dict[str, Tensor]
    statistics: dict[str, Tensor]
    sent_bytes: Tensor
    delivered_bytes: Tensor


def cross(
    channel: Channel,
    answers: Sequence[Stream | Unreachable],
    draws: Sequence[Draw],
    conditions: Mapping[str, Tensor],
    *,
    point: str,
    packet_bytes: int,
    device: torch.device | str = "cpu",
    sequences: PictureSequences | None = None,
    together: int | None = None,
) -> CrossingResult:
    """Send one stream for each of L draws.

    answers: the codec's, one for each picture. conditions: name -> [L]. point: part of the key of
    the random numbers, beside a draw's name, realisation and seed. packet_bytes: the codec's packet
    size. sequences: each `sequences.length` draws in a row are then one sequence, whose pictures
    cross one link in their order. The first draw keys that link; all draws of a sequence share
    realisation and seed. together: largest number of draws in one batch of the channel; it changes
    the memory taken, not the results.
    Raises ConfigError if the channel was built for another packet size, ChannelError if the
    channel refuses.
    """
    check_packet_size(channel, packet_bytes)
    length = 1 if sequences is None else sequences.length
    _check_order(draws, len(answers), length)
    count, device = len(draws), torch.device(device)
    packets = pack(answers, packet_bytes, device)
    shape = (count, packets.lengths.shape[1])
    done = CrossingResult(
        received=[None] * count,
        delivered=torch.zeros(shape, dtype=torch.bool),
        correct=torch.zeros(shape, dtype=torch.bool),
        carried=torch.zeros(shape, dtype=torch.bool),
        channel_uses=torch.zeros(count, dtype=torch.int64),
        delay_s=torch.full(shape, torch.inf, dtype=torch.float64),
        ledger={},
        statistics={},
        sent_bytes=torch.zeros(count, dtype=torch.int64),
        delivered_bytes=torch.zeros(count, dtype=torch.int64),
    )
    sends = [isinstance(answers[draw.answer], Stream) for draw in draws]
    if sequences is None:
        crossing = [number for number, here in enumerate(sends) if here]
    else:
        crossing = list(range(count)) if any(sends) else []
    size = len(crossing) if together is None else max(1, together // length) * length
    for start in range(0, len(crossing), max(1, size)):
        part = crossing[start : start + size]
        links = part[::length]
        keys = [
            Randomness.derive(draws[n].seed, [(point, draws[n].name, draws[n].realisation)]).keys
            for n in links
        ]
        sent = packets.select(torch.tensor([draws[n].answer for n in part], device=device))
        index = torch.tensor(links)
        met = {name: value[index.to(value.device)].to(device) for name, value in conditions.items()}
        randomness = Randomness(torch.cat(keys).to(device))
        if sequences is None:
            reception = channel.transmit(sent, met, randomness)
        else:
            joined = channel.transmit(sequences.join(sent), met, randomness)
            reception = sequences.split(sent, joined)
        _fill(done, part, [answers[draws[n].answer] for n in part], sent, reception)
    return done


def _check_order(draws: Sequence[Draw], answers: int, length: int) -> None:
    """Raise ValueError if draws name answers that do not exist, or are not whole sequences."""
    if any(not 0 <= draw.answer < answers for draw in draws):
        raise ValueError(f"a draw names an answer beyond the {answers} there are")
    if len(draws) % length:
        raise ValueError(f"{len(draws)} draws are not a whole number of sequences of {length}")
    for start in range(0, len(draws), length):
        sequence = draws[start : start + length]
        if len({(draw.realisation, draw.seed) for draw in sequence}) > 1:
            raise ValueError("the draws of a sequence must share their realisation and seed")


def _fill(
    done: CrossingResult,
    numbers: Sequence[int],
    answers: Sequence[Stream | Unreachable],
    packets: Packets,
    reception: Reception,
) -> None:
    """Write the reception of the draws `numbers`, which sent `answers`, packets [R, P]."""
    reached = [i for i, answer in enumerate(answers) if isinstance(answer, Stream)]
    streams = [answer for answer in answers if isinstance(answer, Stream)]
    if len(reached) < len(answers):
        some = torch.tensor(reached, dtype=torch.int64, device=packets.device)
        packets, reception = packets.select(some), reception.select(some)
    at = torch.tensor([numbers[i] for i in reached], dtype=torch.int64)
    present = packets.present
    delivered = reception.delivered & present
    carried = _carried(packets, reception)
    session = torch.tensor([len(s.session.header) for s in streams], dtype=torch.int64)
    done.delivered[at] = delivered.cpu()
    done.correct[at] = (reception.correct & present).cpu()
    done.carried[at] = carried.cpu()
    done.channel_uses[at] = reception.channel_uses.cpu()
    done.delay_s[at] = reception.delay_s.masked_fill(~delivered, torch.inf).cpu()
    done.sent_bytes[at] = session + (packets.lengths * carried).sum(dim=1).cpu()
    done.delivered_bytes[at] = session + (packets.lengths * delivered).sum(dim=1).cpu()
    count = len(done.received)
    for name, bits in ledger(streams, reception).items():
        zero = torch.zeros(count, dtype=torch.int64)
        done.ledger.setdefault(name, zero)[at] = bits
    for name, value in reception.statistics.items():
        unknown = torch.full((count,), torch.nan, dtype=torch.float64)
        done.statistics.setdefault(name, unknown)[at] = value.cpu().to(torch.float64)
    for number, came in zip(at.tolist(), unpack(streams, reception), strict=True):
        done.received[number] = came


def _carried(packets: Packets, reception: Reception) -> Tensor:
    """Return the packets that were sent, bool [N, P]."""
    if reception.carried is None:
        return packets.present
    return reception.carried & packets.present


@runtime_checkable
class Sized(Protocol):
    """A codec that says how long its packets are."""

    packet_bytes: int


def packet_size(codec: Codec, given: int | None = None) -> int:
    """Return the bytes of a codec's packets: the codec's own, else `given`, else
    DEFAULT_PACKET_BYTES.

    Raises ConfigError if `given` differs from the codec's own packet size.
    """
    own = codec.packet_bytes if isinstance(codec, Sized) else None
    if own is not None and given not in (None, own):
        raise ConfigError(
            f"{codec.name} makes packets of {own} bytes for a link of {given}: load the codec with "
            f"packet_bytes={given}"
        )
    return own or given or DEFAULT_PACKET_BYTES


def check_packet_size(channel: Channel, packet_bytes: int) -> None:
    """Raise ConfigError if a part of the channel was built for packets of another size."""
    for name, built, carries in fixed_sizes(channel, packet_bytes):
        if built != carries:
            raise ConfigError(
                f"channel '{name}' is built for packets of {built} bytes, but would carry packets "
                f"of {carries}: leave packet_bytes out of the channel's description, or give it as "
                f"{carries}"
            )


@dataclass(frozen=True)
class PictureSequences:
    """Sequences of T pictures; the pictures of a sequence cross one link, one after another.

    length: T. picture_rate_hz: picture t of a sequence is offered to the link at
        t / picture_rate_hz seconds.
    """

    length: int
    picture_rate_hz: float

    def join(self, packets: Packets) -> Packets:
        """Join packets [L * T, P], sequence by sequence, into L links that carry T pictures each.

        Empty slots are moved to the end, so that the packets of a link do not depend on the number
        of packets of the other links.
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
        """Split the reception of L links into that of L * T pictures; packets: as given to `join`,
        [L * T, P].

        A link's channel uses, and the bits that its channel added, are divided over its pictures by
        the packets of each that reached the channel that counts symbols (or those offered, if it
        does not say), in whole numbers that add up to the link's.
        """
        links = packets.lengths.shape[0] // self.length
        lengths = packets.lengths.reshape(links, -1)
        order = self._order(lengths)
        shape = packets.lengths.shape

        def spread(values: Tensor, empty: float) -> Tensor:
            """Spread [L, most, ...] over the slots before they were closed up, [L * T, P, ...]."""
            whole = values.new_full((*lengths.shape, *values.shape[2:]), empty)
            index = order[:, : values.shape[1]].reshape(*values.shape[:2], *[1] * (values.ndim - 2))
            whole.scatter_(1, index.expand_as(values), values)
            return whole.reshape(*shape, *values.shape[2:])

        carried = None if reception.carried is None else spread(reception.carried, False)
        sent = packets.present if carried is None else carried
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
            carried=carried,
        )

    @staticmethod
    def _order(lengths: Tensor) -> Tensor:
        """Return the slots that hold a packet, in order, then the others, int64 [L, S]."""
        return torch.argsort((lengths == 0).to(torch.uint8), dim=1, stable=True)


def _shared_out(total: Tensor, shares: Tensor) -> Tensor:
    """Divide int64 [L] by int64 [L, T] shares: [L * T]; rows add up to the total."""
    up_to = shares.cumsum(dim=1)
    whole = up_to[:, -1:].clamp(min=1)
    edges = total[:, None] * up_to // whole
    return torch.diff(edges, dim=1, prepend=torch.zeros_like(edges[:, :1])).flatten()


def unpack(streams: Sequence[Stream], reception: Reception) -> list[Received]:
    """Return what the receiver holds of each of N streams: a packet not delivered is None.

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


def distinct(received: Sequence[_Item]) -> tuple[list[_Item], list[int]]:
    """Return the distinct receptions, in order of first appearance, and the number of each given
    one's.

    Decoding depends on these bytes only, so each of them is decoded once. What is measured depends
    on the picture, too, so a sweep gives pairs of both.
    """
    numbers: dict[_Item, int] = {}
    which = [numbers.setdefault(one, len(numbers)) for one in received]
    return list(numbers), which


def decode_received(
    receiver: Receiver, came: Sequence[Received | None], height: int, width: int
) -> Decoded:
    """Decode N pictures of one size from what each received, in their order; None is an outage."""
    there = [one for one in came if one is not None]
    parts = [receiver.receive(there)] if there else []
    if len(there) == len(came):
        return parts[0] if parts else outage(0, height, width)
    parts.append(outage(1, height, width))
    joined = join(parts)
    place = iter(range(len(there)))
    order = [len(there) if one is None else next(place) for one in came]
    return Decoded(
        images=joined.images[order],
        segmentation=None if joined.segmentation is None else joined.segmentation[order],
        outage=joined.outage[order],
    )


def ledger(streams: Sequence[Stream], reception: Reception) -> dict[str, Tensor]:
    """Return the bits sent of N streams by kind, name -> int64 [N].

    The codec's entries (CODEC_LEDGER) count the session and the packets that were carried; the
    channel's entries (CHANNEL_LEDGER) follow, with the padding of both added. A packet that takes
    several hops counts for the codec on the first hop and as `relay` on the others. The sum is what
    occupied the channel, plus the session, which is charged once a picture.
    """
    total: dict[str, list[int]] = {}
    carried = None if reception.carried is None else reception.carried.cpu().tolist()
    own = [0] * len(streams)
    for n, stream in enumerate(streams):
        total.setdefault("session", [0] * len(streams))[n] += 8 * len(stream.session.header)
        for p, packet in enumerate(stream.packets):
            here = carried is None or carried[n][p]
            own[n] += 8 * len(packet.data) if here else 0
            for name, bits in packet.bits.items():
                total.setdefault(name, [0] * len(streams))[n] += bits if here else 0
    channel = {name: bits.cpu().tolist() for name, bits in reception.ledger.items()}
    if "payload" in channel:
        again = [max(paid - once, 0) for paid, once in zip(channel["payload"], own, strict=True)]
        if any(again):
            channel["relay"] = again
    for name in CHANNEL_LEDGER:
        for n, bits in enumerate(channel.get(name, ())):
            total.setdefault(name, [0] * len(streams))[n] += bits
    return {name: torch.tensor(row, dtype=torch.int64) for name, row in total.items()}


def resolve_rate(
    rate: Rate, channel: Channel, packet_bytes: int, codec: Codec | None = None
) -> Rate:
    """Convert a rate in channel uses to bytes: the whole packets that so many uses carry, and the
    codec's session, which both ends know and which takes no channel use.

    Any other rate is returned as it is. Raises ConfigError if the channel counts no symbols, or
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
            f"takes {uses_of_group(channel, 1, packet_bytes)} on '{channel.name}'"
        )
    return Rate(bytes=count * packet_bytes + session_bytes(codec))


def send(
    transmitter: Transmitter,
    images: Tensor,
    rate: Rate,
    channel: Channel,
    packet_bytes: int,
    segmentation: Tensor | None = None,
) -> list[Stream | Unreachable]:
    """Encode N pictures of one size for a channel, each within `rate`.

    With a rate in channel uses no picture takes more, whatever the channel's retransmissions: a
    codec that spreads its bytes over more packets than they fill gets fewer bytes. images,
    segmentation: as for `Transmitter.send`. Raises ConfigError as `resolve_rate` does.
    """
    codec = transmitter.codec
    budget = resolve_rate(rate, channel, packet_bytes, codec)
    answers = transmitter.send(images, budget, segmentation)
    if rate.channel_uses is None:
        return answers

    def too_dear(answer: Stream | Unreachable) -> bool:
        if isinstance(answer, Unreachable):
            return False
        uses = uses_of_group(channel, len(answer.packets), packet_bytes) or 0
        return uses > (rate.channel_uses or 0)

    while dear := [n for n, answer in enumerate(answers) if too_dear(answer)]:
        budget = Rate(bytes=max((budget.bytes or 1) - packet_bytes, 1))
        again = transmitter.send(
            images[dear], budget, None if segmentation is None else segmentation[dear]
        )
        for n, answer in zip(dear, again, strict=True):
            if budget.bytes == 1 and too_dear(answer):
                raise ConfigError(
                    f"{codec.name} makes more packets than {rate.channel_uses} channel uses carry "
                    f"on '{channel.name}': raise the rate"
                )
            answers[n] = answer
    return answers


def join(parts: Sequence[Decoded]) -> Decoded:
    """Join several batches of decoded pictures of one size; a batch without a map gets no
    labels.
    """
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
