"""Slots of packets on a time line, their order, and the channel uses of a group of packets.

Packets, their copies and their repair packets take the slots of one time line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.base import Chain, Channel, Packets, Wrapper

MOST_PACKETS = 1_000_000


ROUNDING = 1e-9


@dataclass(frozen=True)
class Ranks:
    """The ranks of packets [N, P] in their group, by priority and, if equal, by slot.

    rank: int64 [N, P], 0 is the most relevant of its group; empty slots are last. count: int64 [N,
    P], number of packets of its group. start: int64 [N, P], number of slots of the link's earlier
    groups.
    """

    rank: Tensor
    count: Tensor
    start: Tensor

    @classmethod
    def of(cls, packets: Packets) -> Ranks:
        priority = packets.priority.masked_fill(~packets.present, torch.iinfo(torch.int64).max)
        order = torch.argsort(priority, dim=1, stable=True)
        later = torch.argsort(packets.groups.gather(1, order), dim=1, stable=True)
        order = order.gather(1, later)
        group = packets.groups.gather(1, order)
        start = torch.searchsorted(group, group)
        place = torch.arange(group.shape[1], device=group.device).expand_as(group)
        held = packets.present.gather(1, order).to(torch.int64)
        count = torch.zeros_like(start).scatter_add_(1, start, held).gather(1, start)

        def put_back(values: Tensor) -> Tensor:
            return torch.empty_like(values).scatter_(1, order, values)

        return cls(put_back(place - start), put_back(count), put_back(start))


@dataclass(frozen=True)
class TimeLine:
    """A time line of T transmissions per link, several in a row for each of P slots.

    owner: int64 [N, T], the slot of each transmission. turn: int64 [N, T], its number within its
    slot. used: bool [N, T], false after the last transmission of a link. first: int64 [N, P], the
    first transmission of each slot.
    """

    owner: Tensor
    turn: Tensor
    used: Tensor
    first: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> TimeLine:
        ends = counts.cumsum(dim=1)
        total = counts.sum(dim=1, keepdim=True)
        longest = int(total.max()) if counts.numel() else 0
        time = torch.arange(longest, device=counts.device).expand(counts.shape[0], longest)
        owner = torch.searchsorted(ends, time.contiguous(), right=True)
        owner = owner.clamp(max=max(counts.shape[1] - 1, 0))
        first = ends - counts
        return cls(owner, time - first.gather(1, owner), time < total, first)

    def any_of(self, chosen: Tensor) -> Tensor:
        """Return the slots with at least one `chosen` transmission (bool [N, T]), bool [N, P]."""
        count = torch.zeros_like(self.first)
        return count.scatter_add_(1, self.owner, (chosen & self.used).to(torch.int64)) > 0

    def lay(self, packets: Packets, sent: Tensor) -> Packets:
        """Return the packets [N, T] of the line: each slot's packet where `sent` (bool [N, T])."""
        return take(packets, self.owner).keep(sent)


def take(packets: Packets, slots: Tensor) -> Packets:
    """Gather packets [N, P] at `slots`, int64 [N, T]."""
    wide = slots[..., None].expand(*slots.shape, packets.payload.shape[-1])
    return Packets(
        packets.payload.gather(1, wide),
        packets.lengths.gather(1, slots),
        packets.priority.gather(1, slots),
        None if packets.offered_s is None else packets.offered_s.gather(1, slots),
        None if packets.group is None else packets.group.gather(1, slots),
    )


def charge(ledger: Mapping[str, Tensor], own: Tensor, sent: Tensor) -> dict[str, Tensor]:
    """Return the ledger with the payload divided into the packets' own bits and fec.

    sent: bits of all transmissions; own: those of the packets themselves; the others are fec. Over
    several hops, the payload is divided in the proportion of the first hop.
    """
    charged = dict(ledger)
    if "payload" in charged:
        payload = charged["payload"]
        kept = payload * own // sent.clamp(min=1)
        charged["payload"] = kept
        charged["fec"] = charged.get("fec", torch.zeros_like(payload)) + payload - kept
    return charged


@runtime_checkable
class CountsGroups(Protocol):
    def uses_of_group(self, packets: int, packet_bytes: int) -> int | None: ...


def uses_of_group(channel: Channel, packets: int, packet_bytes: int) -> int | None:
    """Return the channel uses of a group of `packets` packets of `packet_bytes` bytes.

    None if the channel counts no symbols. If some packets take fewer channel uses than others, this
    is less than `packets` times `uses_per_packet`.
    """
    if isinstance(channel, CountsGroups):
        return channel.uses_of_group(packets, packet_bytes)
    if isinstance(channel, Chain):
        counts = [uses_of_group(link, packets, packet_bytes) for link in channel.links]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None
    each = channel.uses_per_packet(packet_bytes)
    return None if each is None else packets * each


def packets_within(channel: Channel, uses: int, packet_bytes: int) -> int | None:
    """Return the largest number of packets of one group that take at most `uses` channel uses.

    It is at most MOST_PACKETS, and None if the channel counts no symbols.
    """

    def cost(packets: int) -> int:
        return uses_of_group(channel, packets, packet_bytes) or 0

    if uses_of_group(channel, 1, packet_bytes) is None:
        return None
    low, high = 0, 1
    while high < MOST_PACKETS and cost(high) <= uses:
        low, high = high, 2 * high
    high = min(high, MOST_PACKETS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= uses else (low, middle)
    return low


def rounded_up(count: Tensor, share: float) -> Tensor:
    """Return `share` times `count`, rounded up, int64."""
    return torch.ceil(count.to(torch.float64) * share - ROUNDING).to(torch.int64)


@runtime_checkable
class MovesSlots(Protocol):
    """A channel that may send a packet in another slot than its own."""

    moves_slots: bool


def moves_slots(channel: Channel) -> bool:
    """Return whether a channel, or one inside it, may send packets in other slots."""
    if isinstance(channel, MovesSlots) and channel.moves_slots:
        return True
    return isinstance(channel, Wrapper) and any(map(moves_slots, channel.wrapped))
