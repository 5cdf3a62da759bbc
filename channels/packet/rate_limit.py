"""A budget for each group of packets, spent on the most relevant packets."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from channels.base import Channel, Conditions, Packets, Reception, erasure_reception, register
from channels.config.builder import build
from channels.config.checks import integer
from channels.errors import ChannelError, ConfigError
from channels.packet.occupancy import Ranks, uses_of_group
from channels.packet.queueing import MOST_BITS, _cut, _sorted
from channels.random import Randomness


@register("rate_limit")
class RateLimit:
    """A budget for each group of packets (a picture): packets are carried in order of priority.

    The first packet that exceeds the budget, and all less relevant packets, are dropped. bits or
    bytes: budget of a group, 1 to 10^12 bits. channel_uses: budget of a group, 1 to 10^12, as
    `over` counts them. over: a channel (a name, a mapping or a list, as in YAML) that carries the
    packets within the budget; None: they are delivered unchanged.

    Time has no effect. With `over`, the ledger, channel uses, delays and conditions are those of
    `over`.

    >>> sent = Packets.from_bytes([[b"abc", b"de", b"f"]])
    >>> got = RateLimit(bytes=5).transmit(sent, {}, Randomness.derive(0, [("p",)]))
    >>> got.delivered.tolist(), got.statistics["cut_bits"].tolist()
    ([[True, True, False]], [8])
    """

    name = "rate_limit"
    channel_parameters = ("over",)

    def __init__(
        self,
        bits: int | None = None,
        bytes: int | None = None,
        channel_uses: int | None = None,
        over: object = None,
    ) -> None:
        if bits is None and bytes is None and channel_uses is None:
            raise ConfigError(f"{self.name}: give bits or bytes, or channel_uses, per picture")
        if bits is not None and bytes is not None:
            raise ConfigError(f"{self.name}: bits={bits!r} and bytes={bytes!r}: give one of them")
        self.over: Channel | None = None
        if over is not None:
            self.over = build(over)
        self.needs: tuple[str, ...] = () if self.over is None else self.over.needs
        self.limits: dict[str, int] = {}
        """The limits per picture: name -> number of bits, bytes or channel uses."""
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

    @property
    def wrapped(self) -> tuple[Channel, ...]:
        """Return the channel that carries the packets within the budget, if one is given."""
        return () if self.over is None else (self.over,)

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Carry those of N x P packets that are within the budget of their group.

        Raises ChannelError if one packet alone exceeds a limit: it could never be carried.
        """
        order = _sorted([packets.groups, packets.priority])
        fits = packets.present
        for limit, most in self.limits.items():
            fits = fits & self._within(limit, most, packets, order)
        statistics = _cut(packets, fits)
        if self.over is None:
            whole = erasure_reception(packets.keep(fits), fits, statistics=statistics)
            return replace(whole, carried=fits)
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
            carried=fits if got.carried is None else fits & got.carried,
        )

    def _within(self, limit: str, most: int, packets: Packets, order: Tensor) -> Tensor:
        """Return the packets within a limit, bool [N, P]. order: slots by group and priority."""
        if limit == "channel_uses":
            sizes, longest = self._uses(most, packets)  # [N, P]
        else:
            sizes = packets.lengths if limit == "bytes" else 8 * packets.lengths
            longest = int(sizes.max()) if sizes.numel() else 0
        if longest > most:
            raise ChannelError(
                f"{self.name}: {limit}={most} per picture is too small for a packet of {longest}: "
                f"it must be from {longest} to {MOST_BITS}"
            )
        sizes, group = sizes.gather(1, order), packets.groups.gather(1, order)
        total = sizes.cumsum(dim=1)
        opens = torch.ones_like(sizes, dtype=torch.bool)
        opens[:, 1:] = group[:, 1:] != group[:, :-1]
        before = torch.where(opens, total - sizes, 0)
        used = total - (before.cummax(dim=1).values if sizes.numel() else before)
        return torch.empty_like(opens).scatter_(1, order, used <= most)

    def _uses(self, most: int, packets: Packets) -> tuple[Tensor, int]:
        """Return the channel uses that each packet adds to its group, int64 [N, P], and the most
        that a packet alone takes.

        Beyond a sum of `most`, a packet's number is `most` + 1.
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
                total = uses_of_group(over, len(added) + 1, size) or 0
                added.append(max(total - spent, 0))
                spent = max(spent, total)
            table[row, : len(added)] = torch.tensor(added, dtype=torch.int64)
            table[row, len(added) :] = most + 1 if size else 0
        return table[index, rank], int(table[:, 0].max())

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        """Return the channel uses per packet of `over`; None without it."""
        return None if self.over is None else self.over.uses_per_packet(packet_bytes)

    def uses_of_group(self, packets: int, packet_bytes: int) -> int | None:
        """Return the channel uses of a group of `packets` packets within the limits."""
        return None if self.over is None else uses_of_group(self.over, packets, packet_bytes)
