"""Protection across packets: what a packet's priority buys, and repair packets.

    unequal   packets ── class by priority ── each class over a channel of its own, in copies
    raptorq   packets ── windows ── + repair packets ── channel ── any k of n recover the window

Packets, their copies and their repair packets stand in slots of one time line, the same for every
class, so that a fade or a burst of losses meets them as it would one link's traffic.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from channels.base import Chain, Channel, Conditions, Packets, Reception, register
from channels.config.checks import choice, integer, number
from channels.config.spec import name_and_parameters
from channels.errors import ChannelError, ConfigError
from channels.random import Streams

CLASS_KEYS = ("packets", "share", "copies", "channel")
"""What a class of `unequal` has beside parameters of its channel."""

MOST_COPIES = 64
MOST_PACKETS = 1_000_000
MOST_REPAIR = 10_000

ID_BYTES = 4
"""Of RFC 6330's FEC payload ID, which goes with every packet of a window by the rule `real`."""

_WINDOW_BYTES = 6 << 20
"""Of source packets; larger windows the package would cut into sub-blocks of 10 MiB."""

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Ranks:
    """Where packets of [N, P] stand in their picture, by priority and, where equal, by slot.

    rank: int64 [N, P], 0 the most relevant of its picture; empty slots come last. count: int64
    [N, P], packets of its picture. start: int64 [N, P], slots of the link's earlier pictures.
    """

    rank: Tensor
    count: Tensor
    start: Tensor

    @classmethod
    def of(cls, packets: Packets) -> Ranks:
        priority = packets.priority.masked_fill(~packets.present, torch.iinfo(torch.int64).max)
        order = torch.argsort(priority, dim=1, stable=True)
        later = torch.argsort(packets.pictures.gather(1, order), dim=1, stable=True)
        order = order.gather(1, later)
        picture = packets.pictures.gather(1, order)
        start = torch.searchsorted(picture, picture)
        place = torch.arange(picture.shape[1], device=picture.device).expand_as(picture)
        held = packets.present.gather(1, order).to(torch.int64)
        count = torch.zeros_like(start).scatter_add_(1, start, held).gather(1, start)

        def put_back(values: Tensor) -> Tensor:
            return torch.empty_like(values).scatter_(1, order, values)

        return cls(put_back(place - start), put_back(count), put_back(start))


@dataclass(frozen=True)
class _TimeLine:
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
    def of(cls, counts: Tensor) -> _TimeLine:
        ends = counts.cumsum(dim=1)
        total = counts.sum(dim=1, keepdim=True)
        longest = int(total.max()) if counts.numel() else 0
        time = torch.arange(longest, device=counts.device).expand(counts.shape[0], longest)
        owner = torch.searchsorted(ends, time.contiguous(), right=True)
        owner = owner.clamp(max=max(counts.shape[1] - 1, 0))
        first = ends - counts
        return cls(owner, time - first.gather(1, owner), time < total, first)

    def lay(self, packets: Packets, sent: Tensor) -> Packets:
        """Packets [N, P] in their places on the line, those of `sent` (bool [N, T]) alone."""
        return take(packets, self.owner).keep(sent)


def take(packets: Packets, slots: Tensor) -> Packets:
    """What stands in `slots`, int64 [N, T], of packets [N, P]."""
    wide = slots[..., None].expand(*slots.shape, packets.payload.shape[-1])
    return Packets(
        packets.payload.gather(1, wide),
        packets.lengths.gather(1, slots),
        packets.priority.gather(1, slots),
        None if packets.offered_s is None else packets.offered_s.gather(1, slots),
        None if packets.picture is None else packets.picture.gather(1, slots),
    )


def _charge(ledger: Mapping[str, Tensor], own: Tensor, sent: Tensor) -> dict[str, Tensor]:
    """A ledger whose payload is `sent` bits with `own` of them the packets' own: the rest is fec.

    Where a part of them never reached what counts symbols, both are taken to have lost alike.
    """
    charged = dict(ledger)
    if "payload" in charged:
        payload = charged["payload"]
        kept = payload * own // sent.clamp(min=1)
        charged["payload"] = kept
        charged["fec"] = charged.get("fec", torch.zeros_like(payload)) + payload - kept
    return charged


@runtime_checkable
class _CountsPictures(Protocol):
    def uses_of_picture(self, packets: int, packet_bytes: int) -> int | None: ...


def uses_of_picture(channel: Channel, packets: int, packet_bytes: int) -> int | None:
    """Channel uses of a picture of so many packets of so many bytes; None where none are counted.

    Where packets cost unequally this is less than `packets` times `uses_per_packet`.
    """
    if isinstance(channel, _CountsPictures):
        return channel.uses_of_picture(packets, packet_bytes)
    if isinstance(channel, Chain):
        counts = [uses_of_picture(link, packets, packet_bytes) for link in channel.links]
        known = [count for count in counts if count is not None]
        return sum(known) if known else None
    each = channel.uses_per_packet(packet_bytes)
    return None if each is None else packets * each


def packets_within(channel: Channel, uses: int, packet_bytes: int) -> int | None:
    """Most packets of one picture that take at most so many channel uses, up to MOST_PACKETS."""

    def cost(packets: int) -> int:
        return uses_of_picture(channel, packets, packet_bytes) or 0

    if uses_of_picture(channel, 1, packet_bytes) is None:
        return None
    low, high = 0, 1
    while high < MOST_PACKETS and cost(high) <= uses:
        low, high = high, 2 * high
    high = min(high, MOST_PACKETS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= uses else (low, middle)
    return low


@dataclass(frozen=True)
class PacketClass:
    """The next packets of a picture by priority: `packets` of them, a `share` of all, or the rest.

    copies: transmissions of each, 0 for none. group: number of its channel among those of `Unequal`
    that differ, None where nothing is sent.
    """

    packets: int | None
    share: float | None
    copies: int
    group: int | None


@register("unequal")
class Unequal:
    """Unequal error protection: packets of each class of priority go over a channel of their own.

    over: the channel of all classes, {name: parameters} or a name.
    classes: a list of mappings, the most relevant packets first. Each has `packets`, a count, or
        `share`, 0 to 1 of the picture's packets, rounded up; the last has neither and takes the
        rest. `copies`, 0 to 64, sends each packet so often, one copy right after another, and the
        receiver keeps the first that arrives; 0 sends nothing. `channel` replaces the channel of
        the class; any other key replaces a parameter of it, such as `code_rate`.

    Classes with equal channels share one. All draw from the same streams, each packet in its own
    slots, so those of a link meet the same fades and bursts; a queue or a budget inside is each
    channel's own: put it before `unequal` in a chain. A packet's class depends on its picture's
    other packets only by their priority, and by their number where a share is given.

    >>> link = Unequal(
    ...     over={"coded": {"over": {"rayleigh": {"coherence": "picture"}}}},
    ...     classes=[{"packets": 2, "code_rate": 0.25}, {"code_rate": 0.8}],
    ... )
    >>> link.uses_of_picture(10, 96)
    7128
    """

    name = "unequal"
    inner = ("over", "classes.channel")

    def __init__(self, over: object, classes: object) -> None:
        if isinstance(classes, (str, Mapping)) or not isinstance(classes, Sequence) or not classes:
            raise ConfigError(
                f"unequal: classes={classes!r} must be a list of mappings, the most relevant first"
            )
        specs: list[object] = []
        self.classes = tuple(
            self._read(over, one, i, i == len(classes) - 1, specs) for i, one in enumerate(classes)
        )
        if sum(one.share or 0 for one in self.classes) > 1 + _ROUNDING:
            raise ConfigError("unequal: the shares of all classes must add up to at most 1")
        if not specs:
            raise ConfigError("unequal: copies=0 in every class: at least one must send packets")
        self.channels = tuple(self._channel(number, spec) for number, spec in enumerate(specs))
        for channel in self.channels:
            if _moves_slots(channel):
                raise ConfigError(
                    "unequal: raptorq or unequal within a class would take slots of other classes: "
                    "put it around, as {raptorq: {over: {unequal: ...}}}"
                )
        self.needs = tuple(dict.fromkeys(need for one in self.channels for need in one.needs))

    @staticmethod
    def _read(
        over: object, one: object, place: int, last: bool, specs: list[object]
    ) -> PacketClass:
        """One class; its channel's spec goes to `specs`, unless it is there."""
        if not isinstance(one, Mapping):
            raise ConfigError(f"unequal: a class is a mapping such as {{packets: 2}}, got {one!r}")
        keys = {str(key): value for key, value in one.items()}
        packets, share = keys.pop("packets", None), keys.pop("share", None)
        if last and (packets is not None or share is not None):
            raise ConfigError(
                f"unequal: classes[{place}]: the last class takes the rest: it has neither packets "
                "nor share"
            )
        if not last and (packets is None) == (share is None):
            meant = [key for key in keys if get_close_matches(key, CLASS_KEYS, 1, 0.8)]
            wrong = [key for key in meant if key not in CLASS_KEYS]
            said = f", not {wrong[0]!r}" if wrong else ""
            raise ConfigError(
                f"unequal: classes[{place}]: every class but the last has packets or share, one of "
                f"both{said}"
            )
        if packets is not None:
            packets = integer("unequal", "packets", packets, 1, MOST_PACKETS)
        if share is not None:
            share = number("unequal", "share", share, 0, 1)
        copies = integer("unequal", "copies", keys.pop("copies", 1), 0, MOST_COPIES)
        spec = keys.pop("channel", over)
        if copies == 0:
            if keys or spec is not over:
                raise ConfigError("unequal: a class of copies=0 sends nothing and has no channel")
            return PacketClass(packets, share, 0, None)
        if keys:
            if isinstance(spec, Sequence) and not isinstance(spec, str):
                raise ConfigError(
                    f"unequal: {', '.join(keys)} of a class would change one channel, not a list; "
                    "give the class its own `channel`"
                )
            name, parameters = name_and_parameters("channel", spec)
            spec = {name: {**parameters, **keys}}
        if spec not in specs:
            specs.append(spec)
        return PacketClass(packets, share, copies, specs.index(spec))

    def _channel(self, number: int, spec: object) -> Channel:
        """What a spec makes. Raises ConfigError, with the first class that uses it."""
        try:
            return _channel(spec)
        except ConfigError as error:
            place = next(i for i, one in enumerate(self.classes) if one.group == number)
            own = ", ".join(CLASS_KEYS)
            raise ConfigError(
                f"unequal: classes[{place}]: {error} (a class's own keys: {own})"
            ) from None

    def classes_of(self, packets: Packets) -> Tensor:
        """int64 [N, P]: number of each packet's class."""
        ranks = Ranks.of(packets)
        edge, number_of = torch.zeros_like(ranks.count), torch.zeros_like(ranks.count)
        for one in self.classes[:-1]:
            edge = edge + (ranks.count if one.packets is None else one.packets)
            if one.share is not None:
                edge = edge - ranks.count + _rounded_up(ranks.count, one.share)
            number_of = number_of + (ranks.rank >= edge)
        return number_of

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Send N x P packets, each over the channel of its class; reads what those need.

        Raises ChannelError where one of them does.
        """
        device = packets.device
        number_of = self.classes_of(packets)
        copies = torch.tensor([one.copies for one in self.classes], device=device)[number_of]
        groups = [-1 if one.group is None else one.group for one in self.classes]
        group = torch.tensor(groups, device=device)[number_of]
        copies = copies * packets.present
        line = _TimeLine.of(copies.clamp(min=1))
        sending = line.used & (line.turn < copies.gather(1, line.owner))
        on_line = line.lay(packets, sending)
        whose = group.gather(1, line.owner)

        payload, lengths = torch.zeros_like(on_line.payload), torch.zeros_like(on_line.lengths)
        delivered, correct = torch.zeros_like(sending), torch.zeros_like(sending)
        delay = torch.full(sending.shape, torch.inf, dtype=torch.float64, device=device)
        uses = torch.zeros(len(lengths), dtype=torch.int64, device=device)
        ledger: dict[str, Tensor] = {}
        statistics: dict[str, Tensor] = {}
        for i, channel in enumerate(self.channels):
            mine = sending & (whose == i)
            sent = on_line.keep(mine)
            got = channel.transmit(sent, conditions, randomness)
            payload = payload + got.packets.payload
            lengths = lengths + got.packets.lengths
            delivered, correct = delivered | got.delivered, correct | got.correct
            delay = torch.where(got.delivered, got.delay_s, delay)
            uses = uses + got.channel_uses
            own = 8 * (packets.lengths * (group == i) * (copies > 0)).sum(dim=1)
            for key, bits in _charge(got.ledger, own, 8 * sent.lengths.sum(dim=1)).items():
                ledger[key] = ledger[key] + bits if key in ledger else bits
            for key, value in got.statistics.items():
                first = next(c for c, one in enumerate(self.classes) if one.group == i)
                statistics[f"class {first}.{key}" if key in statistics else key] = value

        kept = self._first_to_arrive(line, copies, delay)
        sent_at_all = copies > 0
        received = take(Packets(payload, lengths, lengths), kept)
        delivered = delivered.gather(1, kept) & sent_at_all
        return Reception(
            packets=replace(packets, payload=received.payload, lengths=received.lengths).keep(
                delivered
            ),
            delivered=delivered,
            correct=correct.gather(1, kept) & sent_at_all,
            channel_uses=uses,
            delay_s=delay.gather(1, kept).masked_fill(~delivered, torch.inf),
            ledger=ledger,
            statistics=statistics,
        )

    def _first_to_arrive(self, line: _TimeLine, copies: Tensor, delay: Tensor) -> Tensor:
        """int64 [N, P]: the transmission that each packet is taken from."""
        most = max(one.copies for one in self.classes)
        best, kept = delay.gather(1, line.first), line.first
        for turn in range(1, most):
            at = (line.first + turn).clamp(max=max(delay.shape[1] - 1, 0))
            arrives = delay.gather(1, at)
            earlier = (turn < copies) & (arrives < best)
            best, kept = torch.where(earlier, arrives, best), torch.where(earlier, at, kept)
        return kept

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Channel uses of one packet in the class where it takes most."""
        costs = [cost for cost in self._costs(packet_bytes) if cost is not None]
        return max(costs) if costs else None

    def uses_of_picture(self, packets: int, packet_bytes: int) -> int | None:
        """Channel uses of a picture of so many packets of so many bytes."""
        costs = self._costs(packet_bytes)
        if all(cost is None for cost in costs):
            return None
        left, total = packets, 0
        for one, cost in zip(self.classes, costs, strict=True):
            size = left if one.packets is None else min(one.packets, left)
            if one.share is not None:
                size = min(math.ceil(one.share * packets - _ROUNDING), left)
            left, total = left - size, total + size * (cost or 0)
        return total

    def _costs(self, packet_bytes: int) -> list[int | None]:
        """Channel uses of a packet of each class; None where its channel counts none."""
        each = [channel.uses_per_packet(packet_bytes) for channel in self.channels]
        costs: list[int | None] = []
        for one in self.classes:
            uses = None if one.group is None else each[one.group]
            costs.append(None if uses is None else one.copies * uses)
        return costs


def _channel(spec: object) -> Channel:
    from channels.config.builder import build

    return build(spec)


def _moves_slots(channel: Channel) -> bool:
    """Whether the slots in which a channel sends depend on which are filled."""
    inside = [getattr(channel, "over", None), *getattr(channel, "links", ())]
    return isinstance(channel, (RaptorQ, Unequal)) or any(
        _moves_slots(one) for one in inside if isinstance(one, Channel)
    )


def _rounded_up(count: Tensor, share: float) -> Tensor:
    """int64: `share` of `count`, rounded up."""
    return torch.ceil(count.to(torch.float64) * share - _ROUNDING).to(torch.int64)


@dataclass(frozen=True)
class _Windows:
    """Of which packets [N, P] a window is made; a window's values stand at its number.

    member: bool [N, P], packets that belong to one. number: int64 [N, P], below P, the window of
    each. place: int64 [N, P], number of each in its window. size, repair, longest, last_slot and
    priority (int64 [N, P]) and ready_s (float64): by window, its packets, its repair packets, the
    longest packet's bytes, the slot of the last packet, the least relevant packet's priority, and
    when the last packet is offered.
    """

    member: Tensor
    number: Tensor
    place: Tensor
    size: Tensor
    repair: Tensor
    longest: Tensor
    last_slot: Tensor
    priority: Tensor
    ready_s: Tensor


@register("raptorq")
class RaptorQ:
    """Repair packets across the packets of a picture, or of windows of it, after RFC 6330.

    over: any channel; it carries the source packets, and behind each window's last one its repair
        packets, as long as the window's longest packet.
    repair: repair packets a window, 0 to 10000; or overhead: a share of the window's packets,
        0 to 100, rounded up.
    window: packets a window, in order of priority; None for a picture's packets in one window.
    protect: share of a picture's packets, the most relevant, that windows cover, 0 to 1.
    rule: "ideal", any k of a window's n packets recover it, as of a maximum distance separable
        code, else what came of the k stays; or "real", the bytes of package raptorq, on the CPU,
        4 bytes more on each packet of a window.

    A recovered packet arrives with the packet that completes its window. By the ideal rule repair
    packets carry random bytes, and a window into which a wrong packet came recovers nothing.
    The statistic `recovered` is the number of packets that only repair delivered.

    >>> RaptorQ(over="awgn", overhead=0.25).uses_of_picture(8, 96)
    7920
    """

    name = "raptorq"
    inner = ("over",)

    def __init__(
        self,
        over: object,
        repair: int | None = None,
        overhead: float | None = None,
        window: int | None = None,
        protect: float = 1.0,
        rule: str = "ideal",
    ) -> None:
        self.over = _channel(over)
        if (repair is None) == (overhead is None):
            raise ConfigError("raptorq: give repair or overhead, one of both")
        self.repair = None if repair is None else integer("raptorq", "repair", repair, 0, 10_000)
        self.overhead = (
            None if overhead is None else number("raptorq", "overhead", overhead, 0, 100)
        )
        self.window = (
            None if window is None else integer("raptorq", "window", window, 1, MOST_PACKETS)
        )
        self.protect = number("raptorq", "protect", protect, 0, 1)
        self.rule = choice("raptorq", "rule", rule, ("ideal", "real"))
        self._library = _library() if self.rule == "real" else None
        self.needs = self.over.needs

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Send N x P packets and their repair packets; reads what `over` needs.

        Raises ChannelError where `over` does, and where a real window holds more than 6 MiB.
        """
        windows = self._windows(packets)
        number_of = windows.number
        slot = torch.arange(number_of.shape[1], device=packets.device).expand_as(number_of)
        closes = windows.member & (slot == windows.last_slot.gather(1, number_of))
        line = _TimeLine.of(1 + windows.repair.gather(1, number_of) * closes)
        repairs = line.used & (line.turn > 0)
        sent = self._with_repair(packets, windows, line, repairs, randomness)
        got = self.over.transmit(sent, conditions, randomness)

        came = got.delivered.gather(1, line.first)
        true = got.correct.gather(1, line.first)
        arrival = (sent.times_s + got.delay_s).masked_fill(~got.delivered, torch.inf)
        arrival = arrival.masked_fill(~line.used, torch.inf)
        inside = line.used & windows.member.gather(1, line.owner)
        payload = take(got.packets, line.first).payload[..., : packets.payload.shape[-1]]
        if self._library is not None:
            payload = _without_id(got.packets, line.first, windows.member, packets)
            solved, rebuilt = self._decode(packets, windows, line, inside, arrival, got.packets)
        else:
            solved = _times_solved(windows, line, inside, arrival, got.delivered & ~got.correct)
            rebuilt = packets.payload
        solved = solved.gather(1, number_of)
        known = windows.member & solved.isfinite()
        recovered = known & ~came
        payload = torch.where(recovered[..., None], rebuilt, payload)
        used = torch.arange(payload.shape[-1], device=payload.device) < packets.lengths[..., None]
        same = ((payload == packets.payload) | ~used).all(dim=-1)
        delivered = came | recovered
        at = arrival.gather(1, line.first)
        at = torch.where(known, torch.minimum(at, solved), at)
        return Reception(
            packets=replace(packets, payload=payload).keep(delivered),
            delivered=delivered,
            correct=torch.where(recovered, same, true),
            channel_uses=got.channel_uses,
            delay_s=(at - packets.times_s).masked_fill(~delivered, torch.inf),
            ledger=_charge(got.ledger, 8 * packets.lengths.sum(dim=1), 8 * sent.lengths.sum(dim=1)),
            statistics={**got.statistics, "recovered": recovered.sum(dim=1)},
        )

    def _windows(self, packets: Packets) -> _Windows:
        ranks = Ranks.of(packets)
        member = packets.present & (ranks.rank < _rounded_up(ranks.count, self.protect))
        place = ranks.rank if self.window is None else ranks.rank % self.window
        number_of = ranks.start + ranks.rank - place
        slot = torch.arange(place.shape[1], device=place.device).expand_as(place)
        zero = torch.zeros_like(place)
        size = zero.scatter_add(1, number_of, member.to(torch.int64))

        def largest(values: Tensor, low: float) -> Tensor:
            start = torch.full_like(values, low)
            return start.scatter_reduce(
                1, number_of, values.masked_fill(~member, low), "amax", include_self=True
            )

        if self.overhead is None:
            repair = (self.repair or 0) * (size > 0)
        else:
            repair = _rounded_up(size, self.overhead)
        return _Windows(
            member,
            number_of,
            place,
            size,
            repair,
            largest(packets.lengths, 0),
            largest(slot, 0),
            largest(packets.priority, torch.iinfo(torch.int64).min),
            largest(packets.times_s, -torch.inf),
        )

    def _with_repair(
        self,
        packets: Packets,
        windows: _Windows,
        line: _TimeLine,
        repairs: Tensor,
        randomness: Streams,
    ) -> Packets:
        """What goes over the inner channel, [N, T]."""
        extra = ID_BYTES if self._library is not None else 0
        payload = torch.nn.functional.pad(packets.payload, (0, extra))
        lengths = packets.lengths
        if extra:
            payload = _behind_id(payload, windows)
            lengths = lengths + extra * windows.member
        laid = line.lay(replace(packets, payload=payload, lengths=lengths), line.used & ~repairs)
        number_of = windows.number.gather(1, line.owner)
        if self._library is not None:
            repair = self._encode(packets, windows, line, repairs, payload.shape[-1])
        else:
            repair = _random_bytes(randomness, repairs, payload.shape[-1])
        long = (windows.longest + extra).gather(1, number_of) * repairs
        held = torch.arange(payload.shape[-1], device=long.device) < long[..., None]
        offered = laid.offered_s
        if offered is not None:
            offered = torch.where(repairs, windows.ready_s.gather(1, number_of), offered)
        return Packets(
            laid.payload + repair * held,
            laid.lengths + long,
            torch.where(repairs, windows.priority.gather(1, number_of), laid.priority),
            offered,
            laid.picture,
        )

    def _encode(
        self, packets: Packets, windows: _Windows, line: _TimeLine, repairs: Tensor, width: int
    ) -> Tensor:
        """uint8 [N, T, width]: the real repair packets in their places."""
        out = torch.zeros(*repairs.shape, width, dtype=torch.uint8)
        places = repairs.cpu()
        closing = line.owner.cpu()
        number_of = windows.number.cpu()
        for link, window, data, symbol in _each_window(packets, windows):
            count = int(windows.repair[link, window])
            if not count:
                continue
            assert self._library is not None
            encoder = self._library.Encoder.with_defaults(data, symbol)
            made = encoder.get_encoded_packets(count)[-count:]
            at = places[link] & (number_of[link, closing[link]] == window)
            flat = torch.frombuffer(bytearray(b"".join(made)), dtype=torch.uint8)
            rows = flat.reshape(count, -1)[:, :width]
            out[link, at, : rows.shape[1]] = rows
        return out.to(packets.device)

    def _decode(
        self,
        packets: Packets,
        windows: _Windows,
        line: _TimeLine,
        inside: Tensor,
        arrival: Tensor,
        received: Packets,
    ) -> tuple[Tensor, Tensor]:
        """When each window is solved, float64 [N, P], and the packets rebuilt, uint8 [N, P, B]."""
        solved = torch.full(windows.size.shape, torch.inf, dtype=torch.float64)
        rebuilt = torch.zeros(packets.payload.shape, dtype=torch.uint8)
        number_of = windows.number.cpu()
        member, place = windows.member.cpu(), windows.place.cpu()
        of_line = number_of.gather(1, line.owner.cpu())
        inside, times = inside.cpu(), arrival.cpu()
        payload, lengths = received.payload.cpu(), received.lengths.cpu()
        assert self._library is not None
        for link, window, data, symbol in _each_window(packets, windows):
            mine = (inside[link] & (of_line[link] == window) & times[link].isfinite()).nonzero()
            if len(mine) < int(windows.size[link, window]):
                continue
            mine = mine[:, 0][torch.argsort(times[link, mine[:, 0]], stable=True)]
            decoder = self._library.Decoder.with_defaults(len(data), symbol)
            for at in mine.tolist():
                packet = payload[link, at, : int(lengths[link, at])].numpy().tobytes()
                whole = decoder.decode(packet.ljust(ID_BYTES + symbol, b"\0"))
                if whole is None:
                    continue
                solved[link, window] = times[link, at]
                slots = (member[link] & (number_of[link] == window)).nonzero()[:, 0]
                rows = torch.frombuffer(bytearray(whole), dtype=torch.uint8).reshape(-1, symbol)
                width = min(symbol, rebuilt.shape[-1])
                rebuilt[link, slots, :width] = rows[place[link, slots], :width]
                break
        used = torch.arange(rebuilt.shape[-1]) < packets.lengths.cpu()[..., None]
        return solved.to(packets.device), (rebuilt * used).to(packets.device)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Channel uses of a packet that is a window of its own: no packet costs more."""
        return self.uses_of_picture(1, packet_bytes)

    def uses_of_picture(self, packets: int, packet_bytes: int) -> int | None:
        """Channel uses of a picture of so many packets of so many bytes."""
        covered = math.ceil(self.protect * packets - _ROUNDING)
        size = max(covered, 1) if self.window is None else self.window
        windows = [size] * (covered // size) + ([covered % size] if covered % size else [])
        repair = sum(
            (self.repair or 0)
            if self.overhead is None
            else math.ceil(self.overhead * k - _ROUNDING)
            for k in windows
        )
        extra = ID_BYTES if self._library is not None and covered else 0
        return uses_of_picture(self.over, packets + repair, packet_bytes + extra)


def _library() -> Any:
    try:
        return importlib.import_module("raptorq")
    except ImportError:
        raise ConfigError(
            "raptorq: rule=real needs the package raptorq: pip install 'sqlink[fec]', or rule=ideal"
        ) from None


def _each_window(packets: Packets, windows: _Windows) -> list[tuple[int, int, bytes, int]]:
    """Link, window, its packets zero-filled to one symbol size and joined, and that size in bytes.

    The package takes symbols of a multiple of 8 bytes; what is zero in all source symbols is zero
    in the repair symbols, so they need not be sent so long.
    """
    payload, number_of = packets.payload.cpu(), windows.number.cpu()
    member, place = windows.member.cpu(), windows.place.cpu()
    size, longest = windows.size.cpu(), windows.longest.cpu()
    found = []
    for link, window in size.nonzero().tolist():
        symbol = -(-int(longest[link, window]) // 8) * 8
        count = int(size[link, window])
        if count * symbol > _WINDOW_BYTES or symbol > 65528:
            raise ChannelError(
                f"raptorq: a window of {count} packets of {symbol} bytes is too large for "
                f"rule=real, which takes up to {_WINDOW_BYTES} bytes; lower window"
            )
        slots = (member[link] & (number_of[link] == window)).nonzero()[:, 0]
        block = torch.zeros(count, symbol, dtype=torch.uint8)
        width = min(symbol, payload.shape[-1])
        block[place[link, slots], :width] = payload[link, slots, :width]
        found.append((link, window, block.numpy().tobytes(), symbol))
    return found


def _behind_id(payload: Tensor, windows: _Windows) -> Tensor:
    """Source packets of windows, uint8 [N, P, B + 4], behind block number 0 and symbol number."""
    shifts = torch.tensor([24, 16, 8, 0], device=payload.device)
    numbers = ((windows.place[..., None] >> shifts) & 0xFF).to(torch.uint8)
    behind = torch.cat([numbers, payload[..., :-ID_BYTES]], dim=-1)
    return torch.where(windows.member[..., None], behind, payload)


def _without_id(received: Packets, first: Tensor, member: Tensor, packets: Packets) -> Tensor:
    """uint8 [N, P, B]: source packets as received, without their FEC payload ID."""
    width = packets.payload.shape[-1]
    payload = take(received, first).payload
    bare = payload[..., ID_BYTES : ID_BYTES + width]
    return torch.where(member[..., None], bare, payload[..., :width])


def _random_bytes(randomness: Streams, repairs: Tensor, width: int) -> Tensor:
    """uint8 [N, T, width]: random bytes where `repairs` (bool [N, T]), zero elsewhere."""
    links, length = repairs.shape
    out = torch.zeros(links, length, width, dtype=torch.uint8, device=repairs.device)
    most = int(repairs.sum(dim=1).max()) if repairs.numel() else 0
    if not most or not width:
        return out
    streams = randomness.to(repairs.device).child("repair").split(most)
    words = streams.integers(-(-width // 4)).reshape(links, most, -1)
    shifts = torch.tensor([0, 8, 16, 24], device=repairs.device)
    octets = ((words[..., None] >> shifts) & 0xFF).to(torch.uint8).flatten(2)[..., :width]
    turn = (repairs.cumsum(dim=1) - 1).clamp(min=0)
    chosen = octets.gather(1, turn[..., None].expand(links, length, width))
    return chosen * repairs[..., None]


def _times_solved(
    windows: _Windows, line: _TimeLine, inside: Tensor, arrival: Tensor, wrong: Tensor
) -> Tensor:
    """float64 [N, P], by window: when its k-th packet arrives, infinite if that never happens.

    inside: bool [N, T], transmissions that belong to a window. wrong: bool [N, T], delivered with
    wrong bytes; their window is never solved.
    """
    slots = windows.size.shape[1]
    number_of = windows.number.gather(1, line.owner)
    order = torch.argsort(arrival.masked_fill(~inside, torch.inf), dim=1, stable=True)
    grouped = number_of.masked_fill(~inside, slots).gather(1, order)
    order = order.gather(1, torch.argsort(grouped, dim=1, stable=True))
    grouped = number_of.masked_fill(~inside, slots).gather(1, order)
    place = torch.arange(grouped.shape[1], device=grouped.device).expand_as(grouped)
    nth = place - torch.searchsorted(grouped, grouped)
    spoilt = torch.zeros_like(windows.size).scatter_add(
        1, number_of, (wrong & inside).to(torch.int64)
    )
    safe = grouped.clamp(max=max(slots - 1, 0))
    decides = (grouped < slots) & (nth == windows.size.gather(1, safe) - 1)
    decides = decides & (spoilt.gather(1, safe) == 0)
    times = torch.where(decides, arrival.gather(1, order), torch.inf)
    return torch.full_like(windows.ready_s, torch.inf).scatter_reduce(
        1, safe, times, "amin", include_self=True
    )
