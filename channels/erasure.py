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
