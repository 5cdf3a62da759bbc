"""Interleaving: neighbours travel far apart, so that a burst of losses does not meet both.

    packets of a block ── written in rows of `width` ── read in columns of `depth` ── channel

Source: Proakis and Salehi, "Digital Communications", 5th ed., section 7.12: a block interleaver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from channels.base import Channel, Conditions, Packets, Reception, register
from channels.config.builder import build
from channels.config.checks import choice, integer
from channels.packet.occupancy import take, uses_of_picture
from channels.random import Streams

MOST = 100_000


@dataclass(frozen=True)
class _Places:
    """position: int64 [N, P], where a slot's packet travels, of T places in blocks of a fixed size.
    in_order: int64 [N, P], where it would without interleaving. places: T.
    """

    position: Tensor
    in_order: Tensor
    places: int


@register("interleave")
class Interleave:
    """A block interleaver over packets, around any channel.

    over: the channel. depth: neighbours travel that many packets apart, 1 to 100000. width: packets
    a row, 1 to 100000; a block is depth x width packets. span: "picture", blocks start anew with
    each picture, or "sequence", they run across the pictures of a link.

    Slots count, whether filled or not: the last block of a picture (or of a link) that is not full
    leaves gaps on the channel, so `depth` x `width` best divides the packets of a picture. What a
    packet meets depends on the packets of its own block and of those before it.

    Where packets are offered at times, a block is sent once its last packet is offered, in the pace
    in which its packets were: the packet that travels in place i of a block leaves as much later
    than the block's last offer as the packet in place i was offered after the block's first one. So
    the delay counts the wait. A place keeps the picture (and with it the fade) of the packet that
    would have travelled there without interleaving.

    >>> Interleave("lossless", depth=3, width=2).order(6).tolist()
    [0, 2, 4, 1, 3, 5]
    """

    name = "interleave"
    inner = ("over",)

    def __init__(self, over: object, depth: int, width: int, span: str = "picture") -> None:
        self.over: Channel = build(over)
        self.depth = integer(self.name, "depth", depth, 1, MOST)
        self.width = integer(self.name, "width", width, 1, MOST)
        self.span = choice(self.name, "span", span, ("picture", "sequence"))
        self.needs = self.over.needs

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """The channel that carries the packets in their new order."""
        return (self.over,)

    def order(self, packets: int) -> Tensor:
        """int64 [packets]: which packet of one picture travels first, second, and so on."""
        position, _ = self._in_block(torch.arange(packets))
        return torch.argsort(position)

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Send N x P packets in the interleaved order; reads what `over` needs."""
        if not packets.lengths.numel():
            return self.over.transmit(packets, conditions, randomness)
        places = self._places(packets)
        sent, wait = self._interleaved(packets, places)
        used = int((places.position * packets.present).max()) + 1
        ahead = torch.arange(used, device=packets.device).expand(len(wait), used)
        got = self.over.transmit(take(sent, ahead), conditions, randomness)
        position = places.position.clamp(max=used - 1)
        back = take(got.packets, position)
        delay = got.delay_s.gather(1, position) + wait
        delivered = got.delivered.gather(1, position) & packets.present
        return replace(
            got,
            packets=replace(packets, payload=back.payload, lengths=back.lengths).keep(delivered),
            delivered=delivered,
            correct=got.correct.gather(1, position) & packets.present,
            delay_s=delay.masked_fill(~delivered, torch.inf),
            carried=None
            if got.carried is None
            else got.carried.gather(1, position) & packets.present,
        )

    def _in_block(self, number_of: Tensor) -> tuple[Tensor, Tensor]:
        """Places of packets by their number since the start of a block: interleaved, in order."""
        size = self.depth * self.width
        inside = number_of % size
        travels = inside % self.width * self.depth + inside // self.width
        return number_of - inside + travels, number_of

    def _places(self, packets: Packets) -> _Places:
        lengths, size = packets.lengths, self.depth * self.width
        slot = torch.arange(lengths.shape[1], device=packets.device).expand_as(lengths)
        if self.span == "sequence":
            start = first = torch.zeros_like(slot)
        else:
            picture = packets.pictures.contiguous()
            first = torch.searchsorted(picture, picture)
            after = torch.searchsorted(picture, picture, right=True)
            gaps = torch.where(slot == after - 1, (first - after) % size, 0)
            start = first + (gaps.cumsum(dim=1) - gaps).gather(1, first)
        position, in_order = self._in_block(slot - first)
        last = int((start + position).max())
        return _Places(start + position, start + in_order, -(-(last + 1) // size) * size)

    def _interleaved(self, packets: Packets, places: _Places) -> tuple[Packets, Tensor]:
        """What the inner channel is given, [N, T], and how long each packet waits, [N, P] s."""
        links, slots = packets.lengths.shape
        device, shape = packets.device, (links, places.places)
        slot = torch.arange(slots, device=device).expand(links, slots)
        held = torch.full(shape, slots, device=device).scatter_(1, places.position, slot)
        plain = torch.full(shape, -1, device=device).scatter_(1, places.in_order, slot)
        plain = plain.cummax(dim=1).values  # gaps go with the slot before
        sent = take(packets, held.clamp(max=slots - 1)).keep(held < slots)
        picture = None if packets.picture is None else packets.picture.gather(1, plain)
        if packets.offered_s is None:
            wait = torch.zeros(links, slots, dtype=torch.float64, device=device)
            return replace(sent, picture=picture), wait
        blocks = (links, -1, self.depth * self.width)
        filled = torch.zeros(shape, dtype=torch.bool, device=device)
        filled = filled.scatter_(1, places.in_order, packets.present).reshape(blocks)
        offered = packets.offered_s.gather(1, plain).reshape(blocks)
        begin = offered.masked_fill(~filled, torch.inf).amin(dim=-1, keepdim=True)
        pace = offered.masked_fill(~filled, -torch.inf).cummax(dim=-1).values
        end = pace[..., -1:]
        leaves = torch.where(end.isfinite(), end + torch.maximum(pace, begin) - begin, 0.0)
        leaves = leaves.reshape(shape)
        wait = leaves.gather(1, places.position) - packets.offered_s
        return replace(sent, offered_s=leaves, picture=picture), wait

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return self.over.uses_per_packet(packet_bytes)

    def uses_of_picture(self, packets: int, packet_bytes: int) -> int | None:
        """Channel uses of a picture of so many packets of so many bytes."""
        return uses_of_picture(self.over, packets, packet_bytes)
