"""Unequal error protection: packets are protected according to their priority.

    packets ── class by priority ── each class over a channel of its own, in copies

Packets of all classes and their copies take the slots of one time line, so that one fade or one
burst of losses may affect several classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from channels.base import Channel, Conditions, Packets, Reception, register
from channels.config.builder import build
from channels.config.checks import integer, number
from channels.config.description import name_and_parameters
from channels.errors import ConfigError
from channels.packet.occupancy import (
    MOST_PACKETS,
    ROUNDING,
    Ranks,
    TimeLine,
    charge,
    moves_slots,
    rounded_up,
    take,
)
from channels.random import Randomness

CLASS_KEYS = ("packets", "share", "copies", "channel")
"""Keys of a class of `unequal` in addition to the parameters of its channel."""


MOST_COPIES = 64


@dataclass(frozen=True)
class PacketClass:
    """The next packets of a group by priority: a number, a share, or all remaining packets.

    packets, share: of the class; the last class has neither. copies: transmissions of each packet,
    0 for none. group: number of its channel among the distinct channels of `Unequal`; None if the
    class is not sent.
    """

    packets: int | None
    share: float | None
    copies: int
    group: int | None


@register("unequal")
class Unequal:
    """Unequal error protection: each class of packets has its own channel.

    over: the channel of all classes, {name: parameters} or a name.
    classes: a list of mappings, the most relevant packets first. Each has `packets`, a count, or
        `share`, 0 to 1 of the group's packets, rounded up; the last has neither and takes all
        remaining packets. `copies`, 0 to 64, is the number of transmissions of each packet, in a
        row; the receiver keeps the first copy that arrives, and 0 sends nothing. `channel` replaces
        the channel of the class; any other key replaces a parameter of it, such as `code_rate`.

    Classes with equal channels share one channel. All channels use the same random streams, each
    packet in its own slots, so that all classes of a link have the same fades and bursts. A queue
    or budget inside a class limits that channel only: put it before `unequal` in a chain. The class
    of a packet depends on the priorities of the other packets of its group, and on their number if
    a share is given.

    >>> link = Unequal(
    ...     over={"coded": {"over": {"rayleigh": {"coherence": "picture"}}}},
    ...     classes=[{"packets": 2, "code_rate": 0.25}, {"code_rate": 0.8}],
    ... )
    >>> link.uses_of_group(10, 96)
    7128
    """

    name = "unequal"
    channel_parameters = ("over", "classes.channel")
    moves_slots = True

    def __init__(self, over: object, classes: object) -> None:
        if isinstance(classes, (str, Mapping)) or not isinstance(classes, Sequence) or not classes:
            raise ConfigError(
                f"unequal: classes={classes!r} must be a list of mappings, the most relevant first"
            )
        specs: list[object] = []
        self.classes = tuple(
            self._read(over, one, i, i == len(classes) - 1, specs) for i, one in enumerate(classes)
        )
        if sum(one.share or 0 for one in self.classes) > 1 + ROUNDING:
            raise ConfigError("unequal: the shares of all classes must add up to at most 1")
        if not specs:
            raise ConfigError(
                "unequal: copies=0 in every class: give at least one class copies above 0"
            )
        self.channels = tuple(self._channel(number, spec) for number, spec in enumerate(specs))
        for channel in self.channels:
            if moves_slots(channel):
                raise ConfigError(
                    "unequal: raptorq or unequal within a class would use slots of other classes: "
                    "put it around, as {raptorq: {over: {unequal: ...}}}"
                )
        self.needs = tuple(dict.fromkeys(need for one in self.channels for need in one.needs))

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """Return the distinct channels of the classes."""
        return self.channels

    @staticmethod
    def _read(
        over: object, one: object, place: int, last: bool, specs: list[object]
    ) -> PacketClass:
        """Return one class; add the description of its channel to `specs` unless it is there."""
        if not isinstance(one, Mapping):
            raise ConfigError(f"unequal: a class is a mapping such as {{packets: 2}}, got {one!r}")
        keys = {str(key): value for key, value in one.items()}
        packets, share = keys.pop("packets", None), keys.pop("share", None)
        if last and (packets is not None or share is not None):
            raise ConfigError(
                f"unequal: classes[{place}]: the last class takes all other packets: leave "
                "packets and share out"
            )
        if not last and (packets is None) == (share is None):
            meant = [key for key in keys if get_close_matches(key, CLASS_KEYS, 1, 0.8)]
            wrong = [key for key in meant if key not in CLASS_KEYS]
            said = f", not {wrong[0]!r}" if wrong else ""
            raise ConfigError(
                f"unequal: classes[{place}]: every class but the last needs one of packets and "
                f"share{said}"
            )
        if packets is not None:
            packets = integer("unequal", "packets", packets, 1, MOST_PACKETS)
        if share is not None:
            share = number("unequal", "share", share, 0, 1)
        copies = integer("unequal", "copies", keys.pop("copies", 1), 0, MOST_COPIES)
        spec = keys.pop("channel", over)
        if copies == 0:
            if keys or spec is not over:
                raise ConfigError(
                    "unequal: a class of copies=0 sends nothing: leave its channel out"
                )
            return PacketClass(packets, share, 0, None)
        if keys:
            if isinstance(spec, Sequence) and not isinstance(spec, str):
                raise ConfigError(
                    f"unequal: {', '.join(keys)} of a class cannot change a list of channels: "
                    "give the class its own `channel`"
                )
            name, parameters = name_and_parameters("channel", spec)
            spec = {name: {**parameters, **keys}}
        if spec not in specs:
            specs.append(spec)
        return PacketClass(packets, share, copies, specs.index(spec))

    def _channel(self, number: int, spec: object) -> Channel:
        """Build a channel. Raises ConfigError that names the first class that uses it."""
        try:
            return build(spec)
        except ConfigError as error:
            place = next(i for i, one in enumerate(self.classes) if one.group == number)
            own = ", ".join(CLASS_KEYS)
            raise ConfigError(
                f"unequal: classes[{place}]: {error} (a class's own keys: {own})"
            ) from None

    def classes_of(self, packets: Packets) -> Tensor:
        """Return the number of each packet's class, int64 [N, P]."""
        ranks = Ranks.of(packets)
        edge, number_of = torch.zeros_like(ranks.count), torch.zeros_like(ranks.count)
        for one in self.classes[:-1]:
            edge = edge + (ranks.count if one.packets is None else one.packets)
            if one.share is not None:
                edge = edge - ranks.count + rounded_up(ranks.count, one.share)
            number_of = number_of + (ranks.rank >= edge)
        return number_of

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets, each over the channel of its class; reads the conditions of all.

        Raises ChannelError if one of them does.
        """
        device = packets.device
        number_of = self.classes_of(packets)
        copies = torch.tensor([one.copies for one in self.classes], device=device)[number_of]
        groups = [-1 if one.group is None else one.group for one in self.classes]
        group = torch.tensor(groups, device=device)[number_of]
        copies = copies * packets.present
        line = TimeLine.of(copies.clamp(min=1))
        sending = line.used & (line.turn < copies.gather(1, line.owner))
        on_line = line.lay(packets, sending)
        whose = group.gather(1, line.owner)

        payload, lengths = torch.zeros_like(on_line.payload), torch.zeros_like(on_line.lengths)
        delivered, correct = torch.zeros_like(sending), torch.zeros_like(sending)
        carried = torch.zeros_like(sending)
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
            on_air = mine if got.carried is None else mine & got.carried
            carried = carried | on_air
            own = 8 * (packets.lengths * line.any_of(on_air)).sum(dim=1)
            paid = 8 * (on_line.lengths * on_air).sum(dim=1)
            for key, bits in charge(got.ledger, own, paid).items():
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
            carried=line.any_of(carried),
        )

    def _first_to_arrive(self, line: TimeLine, copies: Tensor, delay: Tensor) -> Tensor:
        """Return the first transmission of each packet that arrives, int64 [N, P]."""
        most = max(one.copies for one in self.classes)
        best, kept = delay.gather(1, line.first), line.first
        for turn in range(1, most):
            at = (line.first + turn).clamp(max=max(delay.shape[1] - 1, 0))
            arrives = delay.gather(1, at)
            earlier = (turn < copies) & (arrives < best)
            best, kept = torch.where(earlier, arrives, best), torch.where(earlier, at, kept)
        return kept

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Return the channel uses of a packet in the class where it takes the most."""
        costs = [cost for cost in self._costs(packet_bytes) if cost is not None]
        return max(costs) if costs else None

    def uses_of_group(self, packets: int, packet_bytes: int) -> int | None:
        """Return the channel uses of a group of `packets` packets of `packet_bytes` bytes."""
        costs = self._costs(packet_bytes)
        if all(cost is None for cost in costs):
            return None
        left, total = packets, 0
        for one, cost in zip(self.classes, costs, strict=True):
            size = left if one.packets is None else min(one.packets, left)
            if one.share is not None:
                size = min(math.ceil(one.share * packets - ROUNDING), left)
            left, total = left - size, total + size * (cost or 0)
        return total

    def _costs(self, packet_bytes: int) -> list[int | None]:
        """Return the channel uses of a packet of each class; None if its channel counts none."""
        each = [channel.uses_per_packet(packet_bytes) for channel in self.channels]
        costs: list[int | None] = []
        for one in self.classes:
            uses = None if one.group is None else each[one.group]
            costs.append(None if uses is None else one.copies * uses)
        return costs
