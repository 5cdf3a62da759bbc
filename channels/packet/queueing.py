"""Channels that carry only so much: a budget a picture, a token bucket, a bottleneck with a queue.

    rate_limit     so many bits or channel uses a picture, whatever the time
    token_bucket   rate_bits_s on average, bursts of depth_bits     (policing, or shaping)
    bottleneck     bandwidth_bits_s, behind a finite drop-tail queue

Packets are served in the order in which they are offered; of those of a picture offered at the same
time the most relevant comes first (lowest `priority`, then lowest slot). A link's state is carried
on from picture to picture; before its first packet the bucket is full and the queue empty. The
statistics `cut_packets` and `cut_bits`, int64 [N], count what was offered and not carried.

Sources: Heinanen, Guerin, "A single rate three color marker", RFC 2697 (token bucket); Kleinrock,
"Queueing systems", 1975 (FIFO queue).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from channels.base import Channel, Conditions, Packets, Reception, register
from channels.config.checks import flag, integer, number, seconds
from channels.errors import ChannelError, ConfigError
from channels.packet.erasure import received
from channels.packet.raptorq import Ranks, uses_of_picture
from channels.random import Streams

MOST_BITS = 10**12
"""Of a budget, a bucket's depth, and, a second, of a rate."""

_SLACK_BITS = 1e-3
_SLACK_S = 1e-9
"""Less than these is rounding: a packet that fits exactly is carried."""


def _sorted(keys: Sequence[Tensor]) -> Tensor:
    """Slots by the first key, then by the next, then by their number: int64 [N, P]."""
    order = keys[-1].argsort(dim=1, stable=True)
    for key in reversed(keys[:-1]):
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    return order


def _in_service_order(packets: Packets) -> tuple[Tensor, Tensor, Tensor]:
    """Slots in the order they are served, their bits and their times, [N, K], K packets at most."""
    offered = packets.times_s.to(torch.float64)
    queued = offered.masked_fill(~packets.present, torch.inf)
    order = _sorted([queued, packets.pictures, packets.priority])
    most = int(packets.present.sum(dim=1).max()) if packets.lengths.numel() else 0
    order = order[:, :most]
    return order, 8 * packets.lengths.gather(1, order), offered.gather(1, order)


def _cut(packets: Packets, carried: Tensor) -> dict[str, Tensor]:
    """The statistics of what was offered and not carried, bool [N, P]."""
    cut = packets.present & ~carried
    return {
        "cut_packets": cut.sum(dim=1),
        "cut_bits": 8 * (packets.lengths * cut).sum(dim=1),
    }


def _served(
    packets: Packets, order: Tensor, delays: Sequence[Tensor], late: Sequence[Tensor]
) -> Reception:
    """delays: float64 [N] of each packet in order of service, infinite if it is cut."""
    delay = torch.full(packets.lengths.shape, torch.inf, dtype=torch.float64, device=order.device)
    if delays:
        delay.scatter_(1, order, torch.stack(list(delays), dim=1))
    carried = packets.present & delay.isfinite()
    statistics = _cut(packets, carried)
    statistics["late_packets"] = (
        torch.stack(list(late)).sum(dim=0) if late else torch.zeros_like(statistics["cut_packets"])
    )
    return received(packets.keep(carried), carried, delay, statistics)


@register("rate_limit")
class RateLimit:
    """So much a picture: its most relevant packets up to the first that no longer fits.

    bits or bytes: of packets, a picture; 1 to 10^12 bits. channel_uses: a picture, 1 to 10^12; what
    a packet takes is what `over` says. over: a channel (a name, a mapping or a list, as in YAML)
    that carries what fits; None: that is delivered as it is.

    Times play no part. With `over`, the ledger, the channel uses, the delays and the conditions are
    its own.

    >>> sent = Packets.from_bytes([[b"abc", b"de", b"f"]])
    >>> got = RateLimit(bytes=5).transmit(sent, {}, Streams.derive(0, [("p",)]))
    >>> got.delivered.tolist(), got.statistics["cut_bits"].tolist()
    ([[True, True, False]], [8])
    """

    name = "rate_limit"
    inner = ("over",)

    def __init__(
        self,
        bits: int | None = None,
        bytes: int | None = None,
        channel_uses: int | None = None,
        over: object = None,
    ) -> None:
        if bits is None and bytes is None and channel_uses is None:
            raise ConfigError(f"{self.name}: give bits or bytes, or channel_uses, a picture")
        if bits is not None and bytes is not None:
            raise ConfigError(f"{self.name}: bits={bits!r} and bytes={bytes!r}: give one of them")
        self.over: Channel | None = None
        if over is not None:
            from channels.config.builder import build

            self.over = build(over)
        self.needs: tuple[str, ...] = () if self.over is None else self.over.needs
        self.limits: dict[str, int] = {}
        """The limits given, a picture: name -> number of bits, bytes or channel uses."""
        if bits is not None:
            self.limits["bits"] = integer(self.name, "bits", bits, 1, MOST_BITS)
        if bytes is not None:
            self.limits["bytes"] = integer(self.name, "bytes", bytes, 1, MOST_BITS // 8)
        if channel_uses is not None:
            if self.over is None or self.over.uses_per_packet(1) is None:
                raise ConfigError(
                    f"{self.name}: channel_uses={channel_uses!r} needs `over`, a channel that "
                    "counts symbols, such as awgn"
                )
            self.limits["channel_uses"] = integer(
                self.name, "channel_uses", channel_uses, 1, MOST_BITS
            )

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Carry what fits of packets [N, P].

        Raises ChannelError if a packet alone takes more than a limit: it could never be carried.
        """
        order = _sorted([packets.pictures, packets.priority])
        fits = packets.present
        for limit, most in self.limits.items():
            fits = fits & self._within(limit, most, packets, order)
        statistics = _cut(packets, fits)
        if self.over is None:
            return received(packets.keep(fits), fits, statistics=statistics)
        got = self.over.transmit(packets.keep(fits), conditions, randomness.child("over"))
        return Reception(
            packets=got.packets,
            delivered=got.delivered,
            correct=got.correct,
            channel_uses=got.channel_uses,
            delay_s=got.delay_s,
            ledger=got.ledger,
            statistics={
                **{f"over.{k}" if k in statistics else k: v for k, v in got.statistics.items()},
                **statistics,
            },
        )

    def _within(self, limit: str, most: int, packets: Packets, order: Tensor) -> Tensor:
        """Which packets are within a limit, bool [N, P], where order is by picture and priority."""
        if limit == "channel_uses":
            sizes, longest = self._uses(most, packets)  # [N, P]
        else:
            sizes = packets.lengths if limit == "bytes" else 8 * packets.lengths
            longest = int(sizes.max()) if sizes.numel() else 0
        if longest > most:
            raise ChannelError(
                f"{self.name}: {limit}={most} a picture carries no packet that takes {longest}: "
                f"it must be from {longest} to {MOST_BITS}"
            )
        sizes, picture = sizes.gather(1, order), packets.pictures.gather(1, order)
        total = sizes.cumsum(dim=1)
        opens = torch.ones_like(sizes, dtype=torch.bool)
        opens[:, 1:] = picture[:, 1:] != picture[:, :-1]
        before = torch.where(opens, total - sizes, 0)
        used = total - (before.cummax(dim=1).values if sizes.numel() else before)
        return torch.empty_like(opens).scatter_(1, order, used <= most)

    def _uses(self, most: int, packets: Packets) -> tuple[Tensor, int]:
        """What each packet adds to the channel uses of those before it in its picture, int64 [N, P]
        (beyond `most` any number too large), and the most that one packet takes alone.
        """
        over = self.over
        assert over is not None
        if not packets.lengths.numel():
            return torch.zeros_like(packets.lengths), 0
        sizes, index = packets.lengths.unique(return_inverse=True)
        rank = Ranks.of(packets).rank
        ranks = int(rank.max()) + 1
        table = torch.zeros(len(sizes), ranks, dtype=torch.int64, device=packets.device)
        for row, size in enumerate(sizes.tolist()):
            added: list[int] = []
            spent = 0
            while size and len(added) < ranks and spent <= most:
                total = uses_of_picture(over, len(added) + 1, size) or 0
                added.append(max(total - spent, 0))
                spent = max(spent, total)
            table[row, : len(added)] = torch.tensor(added, dtype=torch.int64)
            table[row, len(added) :] = most + 1 if size else 0
        return table[index, rank], int(table[:, 0].max())

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """As `over` says; None without it."""
        return None if self.over is None else self.over.uses_per_packet(packet_bytes)

    def uses_of_picture(self, packets: int, packet_bytes: int) -> int | None:
        """Channel uses of a picture of so many packets, if they are within the limits."""
        return None if self.over is None else uses_of_picture(self.over, packets, packet_bytes)


@register("token_bucket")
class TokenBucket:
    """Tokens, one a bit, come at a rate into a bucket; a packet takes as many as it has bits.

    rate_bits_s: 1 to 10^12 bits/s. depth_bits: the most the bucket holds, 1 to 10^12 bits; it is
    full before a link's first packet, which is its stationary law where packets are rare.
    shape: False, policing: a packet that finds too few tokens is dropped and takes none; the others
    are not delayed. True, shaping: it waits until they suffice, and all that follow wait behind it.
    deadline_s: of shaping, 0 to 10000: a packet that would be delayed longer is dropped when it is
    offered; None: any wait is borne.

    In any window of t seconds at most depth_bits + rate_bits_s t bits pass.
    Statistics: `cut_packets`, `cut_bits`, and of them `late_packets`, lost by the deadline.
    """

    name = "token_bucket"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        rate_bits_s: float,
        depth_bits: float,
        shape: bool = False,
        deadline_s: float | None = None,
    ) -> None:
        self.rate_bits_s = number(self.name, "rate_bits_s", rate_bits_s, 1, MOST_BITS)
        self.depth_bits = number(self.name, "depth_bits", depth_bits, 1, MOST_BITS)
        self.shape = flag(self.name, "shape", shape)
        if deadline_s is not None and not self.shape:
            raise ConfigError(f"{self.name}: deadline_s={deadline_s!r} needs shape: true")
        self.deadline_s = (
            torch.inf if deadline_s is None else seconds(self.name, "deadline_s", deadline_s)
        )

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Police or shape packets [N, P]; reads no condition and no random number.

        Raises ChannelError if a packet is longer than the bucket is deep: it could never pass.
        """
        longest = 8 * int(packets.lengths.max()) if packets.lengths.numel() else 0
        if longest > self.depth_bits:
            raise ChannelError(
                f"{self.name}: depth_bits={self.depth_bits:g} lets no packet of {longest} bits "
                f"pass: it must be from {longest} to {MOST_BITS}"
            )
        order, bits, times = _in_service_order(packets)
        rate, depth = self.rate_bits_s, self.depth_bits
        tokens = times.new_full(times.shape[:1], depth)
        clock = torch.full_like(tokens, -torch.inf)
        delays, lates = [], []
        for need, offered in zip(bits.to(torch.float64).unbind(1), times.unbind(1), strict=True):
            begin = torch.maximum(offered, clock)
            held = (tokens + rate * (begin - clock)).clamp(max=depth)
            short = (need - held).clamp(min=0)
            wait = torch.where(short > _SLACK_BITS, short / rate, 0.0)
            if self.shape:
                delay = begin + wait - offered
                late = delay > self.deadline_s + _SLACK_S
                passes = (need > 0) & ~late
            else:
                delay = torch.zeros_like(wait)
                late = torch.zeros_like(wait, dtype=torch.bool)
                passes = (need > 0) & (wait == 0)
            tokens = torch.where(passes, held + rate * wait - need, tokens)
            clock = torch.where(passes, begin + wait, clock)
            delays.append(delay.masked_fill(~passes, torch.inf))
            lates.append((need > 0) & late)
        return _served(packets, order, delays, lates)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


@register("bottleneck")
class Bottleneck:
    """A line of some bandwidth behind a first-in first-out queue that drops what finds it full.

        offered ──> [ queue ] ──> line, bits / bandwidth_bits_s ──> propagation_s ──> arrives

    bandwidth_bits_s: 1 to 10^12 bits/s. queue_packets: 0 to 10^9, or queue_bytes: 0 to 10^12, the
    most that wait, the packet on the line not counted; neither: any number. An idle line takes a
    packet at once, however small the queue.
    deadline_s: 0 to 10000: a packet that would be delayed longer is dropped when it is offered, so
    that it costs the others nothing; None: any delay is borne. propagation_s: 0 to 10000.

    A packet's delay is its wait, its own time on the line and propagation_s. A link's queue is
    empty, and the line idle, before its first packet.
    Statistics: `cut_packets`, `cut_bits`, and of them `late_packets`, lost by the deadline.

    >>> sent = Packets.from_bytes([[bytes(100)] * 4])
    >>> line = Bottleneck(bandwidth_bits_s=8000, queue_packets=2)
    >>> line.transmit(sent, {}, Streams.derive(0, [("p",)])).delay_s.tolist()
    [[0.1, 0.2, 0.30000000000000004, inf]]
    """

    name = "bottleneck"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        bandwidth_bits_s: float,
        queue_packets: int | None = None,
        queue_bytes: int | None = None,
        deadline_s: float | None = None,
        propagation_s: float = 0.0,
    ) -> None:
        self.bandwidth_bits_s = number(
            self.name, "bandwidth_bits_s", bandwidth_bits_s, 1, MOST_BITS
        )
        if queue_packets is not None and queue_bytes is not None:
            raise ConfigError(
                f"{self.name}: queue_packets={queue_packets!r} and queue_bytes={queue_bytes!r}: "
                "give one of them"
            )
        self.room: int | None = None
        """What the queue holds, packets or bytes; None: any number."""
        self.counts_bytes = queue_bytes is not None
        if queue_packets is not None:
            self.room = integer(self.name, "queue_packets", queue_packets, 0, 10**9)
        if queue_bytes is not None:
            self.room = integer(self.name, "queue_bytes", queue_bytes, 0, 10**12)
        self.deadline_s = (
            torch.inf if deadline_s is None else seconds(self.name, "deadline_s", deadline_s)
        )
        self.propagation_s = seconds(self.name, "propagation_s", propagation_s)

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Queue packets [N, P]; reads no condition and no random number."""
        order, bits, times = _in_service_order(packets)
        links, most = bits.shape
        size = bits // 8 if self.counts_bytes else (bits > 0).to(torch.int64)
        begun = torch.full_like(times, torch.inf)  # [N, K], starts of those taken so far
        up_to = bits.new_zeros(links, most + 1)  # [N, K + 1], and the sum of their sizes
        taken = bits.new_zeros(links, 1)
        idle_from = times.new_full((links,), -torch.inf)
        delays, lates = [], []
        for k in range(most):
            offered, present = times[:, k], bits[:, k] > 0
            begin = torch.maximum(offered, idle_from)
            end = begin + bits[:, k].to(torch.float64) / self.bandwidth_bits_s
            delay = end - offered + self.propagation_s
            fits = present
            if self.room is not None:
                now = offered + _SLACK_S
                gone = torch.searchsorted(begun, now[:, None], right=True)
                waiting = (up_to.gather(1, taken) - up_to.gather(1, gone))[:, 0]
                fits = present & ((begin <= now) | (waiting + size[:, k] <= self.room))
            late = fits & (delay > self.deadline_s + _SLACK_S)
            passes = fits & ~late
            if self.room is not None:
                begun.scatter_(1, taken, torch.where(passes, begin, torch.inf)[:, None])
                sums = up_to.gather(1, taken) + size[:, k, None]
                taken = taken + passes[:, None]
                up_to.scatter_(1, taken, torch.where(passes[:, None], sums, up_to.gather(1, taken)))
            idle_from = torch.where(passes, end, idle_from)
            delays.append(delay.masked_fill(~passes, torch.inf))
            lates.append(late)
        return _served(packets, order, delays, lates)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None
