"""Repair packets for the packets of a group, or for windows of it.

    packets ── windows ── + repair packets ── channel ── any k of n recover the window

Packets and their repair packets take the slots of one time line, so that one fade or one burst of
losses may affect both.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from channels.base import Channel, Conditions, Packets, Reception, register
from channels.config.builder import build
from channels.config.checks import choice, integer, number
from channels.errors import ChannelError, ConfigError
from channels.packet.occupancy import (
    MOST_PACKETS,
    ROUNDING,
    Ranks,
    TimeLine,
    charge,
    rounded_up,
    take,
    uses_of_group,
)
from channels.random import Randomness

ID_BYTES = 4
"""Length of RFC 6330's FEC payload ID, which the rule `real` adds to every packet of a window."""

_WINDOW_BYTES = 6 << 20
"""Most bytes of a window; the package divides larger windows into sub-blocks of 10 MiB."""


@dataclass(frozen=True)
class _Windows:
    """The windows over packets [N, P].

    By packet. member: bool [N, P], whether it belongs to a window. number: int64 [N, P], below P,
    its window. place: int64 [N, P], its number in its window.
    By window, at the window's number. size, repair: number of packets and of repair packets.
    longest: bytes of the longest packet. last_slot: slot of the last packet. priority: that of the
    least relevant packet. ready_s: time at which the last packet is offered. All int64 [N, P], but
    ready_s float64.
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
    """RaptorQ (RFC 6330): repair packets for a group of packets (a picture), or for windows of it.

    over: any channel; it carries the source packets and, after the last one of each window, its
        repair packets, which are as long as the longest packet of the window.
    repair: repair packets per window, 0 to 10000; or overhead: repair packets per packet of the
        window, 0 to 100, rounded up.
    window: packets per window, in order of priority; None: one window for all packets of a group.
    protect: share of a group's packets that windows cover, the most relevant ones, 0 to 1.
    rule: "ideal", any k of the n packets of a window recover its k source packets, as with a
        maximum distance separable code; with fewer, the receiver keeps the source packets that were
        delivered. "real", the code of the package raptorq, on the CPU, which adds 4 bytes to each
        packet of a window.

    A recovered packet arrives with the packet that completes its window. With the ideal rule,
    repair packets carry random bytes, and a window with a wrong packet recovers nothing. The
    statistic `recovered` is the number of packets that were lost and recovered.

    >>> RaptorQ(over="awgn", overhead=0.25).uses_of_group(8, 96)
    7920
    """

    name = "raptorq"
    channel_parameters = ("over",)
    moves_slots = True

    def __init__(
        self,
        over: object,
        repair: int | None = None,
        overhead: float | None = None,
        window: int | None = None,
        protect: float = 1.0,
        rule: str = "ideal",
    ) -> None:
        self.over = build(over)
        if (repair is None) == (overhead is None):
            raise ConfigError("raptorq: give one of repair and overhead")
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

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """Return the channel that carries source and repair packets."""
        return (self.over,)

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Send N x P packets and their repair packets; reads the conditions of `over`.

        Raises ChannelError if `over` does, or if a window of rule "real" has more than 6 MiB.
        """
        windows = self._windows(packets)
        number_of = windows.number
        slot = torch.arange(number_of.shape[1], device=packets.device).expand_as(number_of)
        closes = windows.member & (slot == windows.last_slot.gather(1, number_of))
        line = TimeLine.of(1 + windows.repair.gather(1, number_of) * closes)
        repairs = line.used & (line.turn > 0)
        sent = self._with_repair(packets, windows, line, repairs, randomness)
        got = self.over.transmit(sent, conditions, randomness)

        on_air = sent.present if got.carried is None else sent.present & got.carried
        carried = on_air.gather(1, line.first) & packets.present
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
            ledger=charge(
                got.ledger,
                8 * (packets.lengths * carried).sum(dim=1),
                8 * (sent.lengths * on_air).sum(dim=1),
            ),
            statistics={**got.statistics, "recovered": recovered.sum(dim=1)},
            carried=carried,
        )

    def _windows(self, packets: Packets) -> _Windows:
        ranks = Ranks.of(packets)
        member = packets.present & (ranks.rank < rounded_up(ranks.count, self.protect))
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
            repair = rounded_up(size, self.overhead)
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
        line: TimeLine,
        repairs: Tensor,
        randomness: Randomness,
    ) -> Packets:
        """Return the packets for the inner channel, with repair packets, [N, T]."""
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
            laid.group,
        )

    def _encode(
        self, packets: Packets, windows: _Windows, line: TimeLine, repairs: Tensor, width: int
    ) -> Tensor:
        """Return the real repair packets in their places, uint8 [N, T, width]."""
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
        line: TimeLine,
        inside: Tensor,
        arrival: Tensor,
        received: Packets,
    ) -> tuple[Tensor, Tensor]:
        """Return the time at which each window is decoded, float64 [N, P], and the recovered
        packets, uint8 [N, P, B].
        """
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

    @staticmethod
    def header_bytes_for(parameters: Mapping[str, object]) -> int:
        """Return the bytes that a channel with these parameters adds to each packet."""
        return ID_BYTES if parameters.get("rule") == "real" else 0

    @property
    def header_bytes(self) -> int:
        """Return the bytes added to each packet."""
        return self.header_bytes_for({"rule": self.rule})

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Return the channel uses of a packet that is a window of its own, the largest number."""
        return self.uses_of_group(1, packet_bytes)

    def uses_of_group(self, packets: int, packet_bytes: int) -> int | None:
        """Return the channel uses of a group of `packets` packets of `packet_bytes` bytes."""
        covered = math.ceil(self.protect * packets - ROUNDING)
        size = max(covered, 1) if self.window is None else self.window
        windows = [size] * (covered // size) + ([covered % size] if covered % size else [])
        repair = sum(
            (self.repair or 0) if self.overhead is None else math.ceil(self.overhead * k - ROUNDING)
            for k in windows
        )
        extra = ID_BYTES if self._library is not None and covered else 0
        return uses_of_group(self.over, packets + repair, packet_bytes + extra)


def _library() -> Any:
    try:
        return importlib.import_module("raptorq")
    except ImportError:
        raise ConfigError(
            "raptorq: rule=real needs the package raptorq: pip install 'sqlink[fec]', or rule=ideal"
        ) from None


def _each_window(packets: Packets, windows: _Windows) -> list[tuple[int, int, bytes, int]]:
    """Return, for each window, its link, its number, its packets joined, and their size in bytes.

    Packets are padded with zeros to one size, a multiple of 8 bytes, as the package needs. Bytes
    that are zero in all source packets are zero in all repair packets and are not sent.
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
                f"rule=real, which takes up to {_WINDOW_BYTES} bytes: lower window"
            )
        slots = (member[link] & (number_of[link] == window)).nonzero()[:, 0]
        block = torch.zeros(count, symbol, dtype=torch.uint8)
        width = min(symbol, payload.shape[-1])
        block[place[link, slots], :width] = payload[link, slots, :width]
        found.append((link, window, block.numpy().tobytes(), symbol))
    return found


def _behind_id(payload: Tensor, windows: _Windows) -> Tensor:
    """Return payloads with the FEC payload ID before source packets, uint8 [N, P, B + 4].

    The ID is block number 0 and the packet's symbol number.
    """
    shifts = torch.tensor([24, 16, 8, 0], device=payload.device)
    numbers = ((windows.place[..., None] >> shifts) & 0xFF).to(torch.uint8)
    behind = torch.cat([numbers, payload[..., :-ID_BYTES]], dim=-1)
    return torch.where(windows.member[..., None], behind, payload)


def _without_id(received: Packets, first: Tensor, member: Tensor, packets: Packets) -> Tensor:
    """Return received source packets without the FEC payload ID, uint8 [N, P, B]."""
    width = packets.payload.shape[-1]
    payload = take(received, first).payload
    bare = payload[..., ID_BYTES : ID_BYTES + width]
    return torch.where(member[..., None], bare, payload[..., :width])


def _random_bytes(randomness: Randomness, repairs: Tensor, width: int) -> Tensor:
    """Draw random bytes at `repairs` (bool [N, T]), uint8 [N, T, width], zero elsewhere."""
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
    windows: _Windows, line: TimeLine, inside: Tensor, arrival: Tensor, wrong: Tensor
) -> Tensor:
    """Return the arrival of the k-th packet of each window, float64 [N, P]; infinite if it has
    fewer.

    inside: bool [N, T], transmissions that belong to a window. wrong: bool [N, T], those delivered
    with wrong bytes; their window cannot be decoded.
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
