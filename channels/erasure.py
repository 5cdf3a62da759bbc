"""Packet channels that lose whole packets, and one that loses nothing; they count no symbols."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, register
from channels.random import Streams
from channels.ranges import condition, number


def _received(packets: Packets, delivered: Tensor) -> Reception:
    """A packet comes as it was sent, at once, or not at all."""
    links = packets.lengths.shape[0]
    zero = torch.zeros(delivered.shape, dtype=torch.float64, device=packets.device)
    return Reception(
        packets=packets.keep(delivered),
        delivered=delivered,
        correct=delivered,
        channel_uses=torch.zeros(links, dtype=torch.int64, device=packets.device),
        delay_s=zero.masked_fill(~delivered, torch.inf),
        ledger={"payload": 8 * packets.lengths.sum(dim=1)},
    )


@register("lossless")
class Lossless:
    """Everything comes.

    >>> sent = Packets.from_bytes([[b"ab", b"c"]])
    >>> Lossless().transmit(sent, {}, Streams.derive(0, [("p",)])).packets.to_bytes()
    [[b'ab', b'c']]
    """

    name = "lossless"
    needs: tuple[str, ...] = ()

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Deliver every packet [N, P]; reads no condition and no random number."""
        return _received(packets, packets.present)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


@register("iid_erasure")
class IidErasure:
    """Each packet is lost with the same probability, whatever happens to the others.

    loss: that probability, 0 to 1; None to read it, link by link, from the condition `loss` [N].
    Draw p of a link decides slot p, so a packet's fate does not depend on how many follow it, and
    what is lost at one probability is lost at every higher one.
    """

    name = "iid_erasure"

    def __init__(self, loss: float | None = None) -> None:
        self.loss = None if loss is None else number(self.name, "loss", loss, 0, 1)
        self.needs: tuple[str, ...] = ("loss",) if loss is None else ()

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Drop packets of [N, P]. Raises ChannelError if `loss` is missing or outside 0..1."""
        links, slots = packets.lengths.shape
        draws = randomness.to(packets.device).child("loss").uniform(slots)  # [N, P]
        if self.loss is None:
            loss = condition(self.name, conditions, "loss", links, 0, 1, packets.device)
            lost = draws < loss[:, None]
        else:
            lost = draws < self.loss
        return _received(packets, packets.present & ~lost)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


@register("gilbert_elliott")
class GilbertElliott:
    """Losses in bursts: a two-state chain whose bad state loses every packet, the good one none.

        good ── loss / ((1 - loss) burst) ──> bad          share of time in the bad state: loss
        good <── 1 / burst ── bad                          mean length of a burst: `burst` packets

    loss: the share of packets lost, 0 to burst / (burst + 1); None to read it, link by link, from
    the condition `loss` [N]. burst: mean number of packets lost in a row, 1 to 10000. Each link
    starts from the stationary law. Packets' slots count, whether filled or not, so a packet's fate
    does not depend on how many follow it.

    Sources: Gilbert, "Capacity of a burst-noise channel", 1960; Elliott, "Estimates of error rates
    for codes on burst-noise channels", 1963, here with loss probabilities 0 and 1.
    """

    name = "gilbert_elliott"

    def __init__(self, loss: float | None = None, burst: float = 4.0) -> None:
        self.burst = number(self.name, "burst", burst, 1, 10_000)
        self.most = self.burst / (self.burst + 1)
        """The largest loss that bursts of that length leave: good runs last at least a packet."""
        self.loss = None if loss is None else number(self.name, "loss", loss, 0, self.most)
        self.needs: tuple[str, ...] = ("loss",) if loss is None else ()

    def transmit(self, packets: Packets, conditions: Conditions, randomness: Streams) -> Reception:
        """Drop packets of [N, P]. Raises ChannelError if `loss` is missing or out of range."""
        links, slots = packets.lengths.shape
        draws = randomness.to(packets.device).child("loss").uniform(slots)  # [N, P]
        if self.loss is None:
            loss = condition(self.name, conditions, "loss", links, 0, self.most, packets.device)
        else:
            loss = torch.full((links,), self.loss, dtype=torch.float64, device=packets.device)
        bad = _two_states(draws, loss, loss / ((1 - loss) * self.burst), 1 - 1 / self.burst)
        return _received(packets, packets.present & ~bad)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


def _two_states(draws: Tensor, first: Tensor, enter: Tensor, stay: float) -> Tensor:
    """Which slots a two-state chain is bad in, bool [N, P], from uniform draws [N, P].

    first, enter: [N], probabilities of being bad in slot 0 and of good -> bad; stay: of bad -> bad.
    A draw below both makes the next slot bad and one above both makes it good, whatever it was; one
    between them keeps the state (or turns it, where enter > stay). So a slot is what the last draw
    that decides made of it, and no slot need wait for the one before.
    """
    slots = draws.shape[1]
    low, high = enter.clamp(max=stay)[:, None], enter.clamp(min=stay)[:, None]
    becomes = draws < low
    decides = becomes | (draws >= high)
    becomes[:, 0] = draws[:, 0] < first
    decides[:, 0] = True
    number_of = torch.arange(slots, device=draws.device).expand_as(draws)
    last = torch.where(decides, number_of, 0).cummax(dim=1).values  # [N, P]
    turns = (~decides & (enter > stay)[:, None]).cumsum(dim=1)
    since = turns - turns.gather(1, last)
    return becomes.gather(1, last) ^ (since % 2 == 1)
