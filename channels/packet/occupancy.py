"""Which slots packets take, in which order, and how many channel uses a group of packets takes.

Packets, their copies and their repair packets stand in slots of one time line.
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
    """Ranks of packets [N, P] in their group, by priority and, if equal, by slot.

    rank: int64 [N, P], 0 the most relevant of its group; empty slots come last. count: int64 [N,
    P], packets of its group. start: int64 [N, P], slots of the link's earlier groups.
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
    """Slots of [N, P] with `counts` transmissions each, one after another, T in all.

    owner: int64 [N, T], the slot that a transmission belongs to. turn: int64 [N, T], 0 for the
    first of its slot. used: bool [N, T], false beyond a link's end. first: int64 [N, P], where each
    slot's transmissions begin.
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
        """Return the slots with a `chosen` transmission (bool [N, T]), bool [N, P]."""
        count = torch.zeros_like(self.first)
        return count.scatter_add_(1, self.owner, (chosen & self.used).to(torch.int64)) > 0

    def lay(self, packets: Packets, sent: Tensor) -> Packets:
        """Place packets [N, P] on the line, those of `sent` (bool [N, T]) only."""
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
    """Make a ledger of `sent` bits, `own` of which are the packets' own: the rest is fec.

    Over several hops, the payload is divided in the proportion of the first hop.
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
    """Return the channel uses of a group of so many packets of so many bytes; None if none are
    counted.

    If packets cost unequally, this is less than `packets` times `uses_per_packet`.
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
    """Return the most packets of one group that take at most so many channel uses, up to
    MOST_PACKETS.
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
    """Return `share` of `count`, rounded up, int64."""
    return torch.ceil(count.to(torch.float64) * share - ROUNDING).to(torch.int64)


@runtime_checkable
class MovesSlots(Protocol):
    """A channel that may send in other slots than those of its packets."""

    moves_slots: bool


def moves_slots(channel: Channel) -> bool:
    """Say whether the slots in which a channel, or one inside it, sends depend on which are
    filled.
    """
    if isinstance(channel, MovesSlots) and channel.moves_slots:
        return True
    return isinstance(channel, Wrapper) and any(map(moves_slots, channel.wrapped))
