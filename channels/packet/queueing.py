"""Channels with a limited bit rate: a token bucket, and a bottleneck with a queue.

    token_bucket   rate_bits_s on average, bursts of depth_bits     (policing, or shaping)
    bottleneck     bandwidth_bits_s, behind a finite drop-tail queue

Packets are served in the order in which they are offered. Among packets of a group that are offered
at the same time, the most relevant one is first (lowest `priority`, then lowest slot). The state of
a link continues from group to group; before its first packet the bucket is full and the queue is
empty. The statistics `cut_packets` and `cut_bits`, int64 [N], count what was offered but not
carried.

Sources: Heinanen, Guerin, "A single rate three color marker", RFC 2697 (token bucket); Kleinrock,
"Queueing systems", 1975 (FIFO queue).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, erasure_reception, register
from channels.config.checks import flag, integer, number, seconds
from channels.errors import ChannelError, ConfigError
from channels.random import Randomness

MOST_BITS = 10**12
"""Largest budget and bucket depth, bits, and largest rate, bits per second."""

_SLACK_BITS = 1e-3
_SLACK_S = 1e-9
"""Smaller differences are rounding errors: a packet that fits exactly is carried."""


def _sorted(keys: Sequence[Tensor]) -> Tensor:
    """Return the slots sorted by the first key, then the next, then their number, int64 [N, P]."""
    order = keys[-1].argsort(dim=1, stable=True)
    for key in reversed(keys[:-1]):
        order = order.gather(1, key.gather(1, order).argsort(dim=1, stable=True))
    return order


def _in_service_order(packets: Packets) -> tuple[Tensor, Tensor, Tensor]:
    """Return the slots in order of service, their bits and their times, [N, K] each."""
    offered = packets.times_s.to(torch.float64)
    queued = offered.masked_fill(~packets.present, torch.inf)
    order = _sorted([queued, packets.groups, packets.priority])
    most = int(packets.present.sum(dim=1).max()) if packets.lengths.numel() else 0
    order = order[:, :most]
    return order, 8 * packets.lengths.gather(1, order), offered.gather(1, order)


def _cut(packets: Packets, carried: Tensor) -> dict[str, Tensor]:
    """Return the statistics of the packets not carried. carried: bool [N, P]."""
    cut = packets.present & ~carried
    return {
        "cut_packets": cut.sum(dim=1),
        "cut_bits": 8 * (packets.lengths * cut).sum(dim=1),
    }


def _served(
    packets: Packets, order: Tensor, delays: Sequence[Tensor], late: Sequence[Tensor]
) -> Reception:
    """Return the reception of packets served in `order`, int64 [N, K].

    delays: K tensors float64 [N], infinite for a dropped packet; late: K tensors bool [N].
    """
    delay = torch.full(packets.lengths.shape, torch.inf, dtype=torch.float64, device=order.device)
    if delays:
        delay.scatter_(1, order, torch.stack(list(delays), dim=1))
    carried = packets.present & delay.isfinite()
    statistics = _cut(packets, carried)
    statistics["late_packets"] = (
        torch.stack(list(late)).sum(dim=0) if late else torch.zeros_like(statistics["cut_packets"])
    )
    reception = erasure_reception(packets.keep(carried), carried, delay, statistics)
    return replace(reception, carried=carried)


@register("token_bucket")
class TokenBucket:
    """A token bucket: tokens arrive at a constant rate, and a packet takes one token per bit.

    rate_bits_s: tokens per second, 1 to 10^12. depth_bits: capacity of the bucket, 1 to 10^12; it
    is full before a link's first packet. shape: False, policing: a packet is dropped, and takes no
    token, if there are too few tokens; no packet is delayed. True, shaping: a packet waits for its
    tokens, and later packets wait behind it. deadline_s: with shaping, 0 to 10000: a packet that
    would wait longer is dropped when it is offered; None: no limit.

    At most depth_bits + rate_bits_s t bits pass in any t seconds. Statistics: `cut_packets`,
    `cut_bits`, and `late_packets`, those of them that the deadline dropped.
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

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Police or shape N x P packets; reads no condition and no random number.

        Raises ChannelError if a packet has more bits than the bucket: it could never pass.
        """
        longest = 8 * int(packets.lengths.max()) if packets.lengths.numel() else 0
        if longest > self.depth_bits:
            raise ChannelError(
                f"{self.name}: depth_bits={self.depth_bits:g} is too small for a packet of "
                f"{longest} bits: it must be from {longest} to {MOST_BITS}"
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
    """A line of limited bandwidth behind a first-in first-out queue, which drops packets when full.

        offered ──> [ queue ] ──> line, bits / bandwidth_bits_s ──> propagation_s ──> arrives

    bandwidth_bits_s: 1 to 10^12 bits/s. queue_packets: 0 to 10^9, or queue_bytes: 0 to 10^12,
    capacity of the queue without the packet on the line; neither: no limit. An idle line takes a
    packet at once, also with a queue of 0. deadline_s: 0 to 10000: a packet with a longer delay is
    dropped when it is offered, and the others are served as if it had not been offered; None: no
    limit. propagation_s: 0 to 10000.

    The delay of a packet is its wait, its own time on the line, and propagation_s. Before the first
    packet of a link the queue is empty and the line idle. Statistics: `cut_packets`, `cut_bits`,
    and `late_packets`, those of them that the deadline dropped.

    >>> sent = Packets.from_bytes([[bytes(100)] * 4])
    >>> line = Bottleneck(bandwidth_bits_s=8000, queue_packets=2)
    >>> line.transmit(sent, {}, Randomness.derive(0, [("p",)])).delay_s.tolist()
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
        """Capacity of the queue, packets or bytes; None: no limit."""
        self.counts_bytes = queue_bytes is not None
        if queue_packets is not None:
            self.room = integer(self.name, "queue_packets", queue_packets, 0, 10**9)
        if queue_bytes is not None:
            self.room = integer(self.name, "queue_bytes", queue_bytes, 0, 10**12)
        self.deadline_s = (
            torch.inf if deadline_s is None else seconds(self.name, "deadline_s", deadline_s)
        )
        self.propagation_s = seconds(self.name, "propagation_s", propagation_s)

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Queue N x P packets; reads no condition and no random number."""
        order, bits, times = _in_service_order(packets)
        links, most = bits.shape
        size = bits // 8 if self.counts_bytes else (bits > 0).to(torch.int64)
        begun = torch.full_like(times, torch.inf)  # [N, K], starts of accepted packets
        up_to = bits.new_zeros(links, most + 1)  # [N, K + 1], sums of their sizes
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
