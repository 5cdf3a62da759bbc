"""Block interleaving of packets, which separates the losses of a burst.

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
from channels.packet.occupancy import take, uses_of_group
from channels.random import Randomness

MOST = 100_000


@dataclass(frozen=True)
class _Places:
    """The places of packets on the channel.

    position: int64 [N, P], the place of each slot's packet among T places. in_order: int64 [N, P],
    its place without interleaving. places: T.
    """

    position: Tensor
    in_order: Tensor
    places: int


@register("interleave")
class Interleave:
    """A block interleaver of packets around any channel.

    over: the channel. depth: distance on the channel between packets that were neighbours, in
        packets, 1 to 100000. width: packets per row, 1 to 100000; a block has depth x width
        packets. span: "picture", each group of packets (a picture) begins a new block, or
        "sequence", blocks continue across the groups of a link.

    Empty slots count as packets. A last block that is not full leaves empty places on the channel,
    so `depth` x `width` should divide the number of packets of a group. The result of a packet
    depends only on the packets of its own block and of earlier blocks.

    If packets have times of offering, a block is sent when its last packet is offered, with the
    intervals at which its packets were offered: place i is sent t seconds after the block's last
    offer if packet i was offered t seconds after its first. The delay includes this wait. A place
    keeps the group (and so the fade) of the packet that has this place without interleaving.

    >>> Interleave("lossless", depth=3, width=2).order(6).tolist()
    [0, 2, 4, 1, 3, 5]
    """

    name = "interleave"
    channel_parameters = ("over",)

    def __init__(self, over: object, depth: int, width: int, span: str = "picture") -> None:
        self.over: Channel = build(over)
        self.depth = integer(self.name, "depth", depth, 1, MOST)
        self.width = integer(self.name, "width", width, 1, MOST)
        self.span = choice(self.name, "span", span, ("picture", "sequence"))
        self.needs = self.over.needs

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """Return the channel that carries the interleaved packets."""
        return (self.over,)

    def order(self, packets: int) -> Tensor:
        """Return the packets of a group in the order in which they are sent, int64 [packets]."""
        position, _ = self._in_block(torch.arange(packets))
        return torch.argsort(position)

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets in the interleaved order; reads the conditions of `over`."""
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
        """Return the places of packets with and without interleaving, from their numbers."""
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
            group = packets.groups.contiguous()
            first = torch.searchsorted(group, group)
            after = torch.searchsorted(group, group, right=True)
            gaps = torch.where(slot == after - 1, (first - after) % size, 0)
            start = first + (gaps.cumsum(dim=1) - gaps).gather(1, first)
        position, in_order = self._in_block(slot - first)
        last = int((start + position).max())
        return _Places(start + position, start + in_order, -(-(last + 1) // size) * size)

    def _interleaved(self, packets: Packets, places: _Places) -> tuple[Packets, Tensor]:
        """Return the packets for the inner channel, [N, T], and the wait of each, [N, P] s."""
        links, slots = packets.lengths.shape
        device, shape = packets.device, (links, places.places)
        slot = torch.arange(slots, device=device).expand(links, slots)
        held = torch.full(shape, slots, device=device).scatter_(1, places.position, slot)
        plain = torch.full(shape, -1, device=device).scatter_(1, places.in_order, slot)
        plain = plain.cummax(dim=1).values  # gaps go with the slot before
        sent = take(packets, held.clamp(max=slots - 1)).keep(held < slots)
        group = None if packets.group is None else packets.group.gather(1, plain)
        if packets.offered_s is None:
            wait = torch.zeros(links, slots, dtype=torch.float64, device=device)
            return replace(sent, group=group), wait
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
        return replace(sent, offered_s=leaves, group=group), wait

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return self.over.uses_per_packet(packet_bytes)

    def uses_of_group(self, packets: int, packet_bytes: int) -> int | None:
        """Return the channel uses of a group of `packets` packets of `packet_bytes` bytes."""
        return uses_of_group(self.over, packets, packet_bytes)
