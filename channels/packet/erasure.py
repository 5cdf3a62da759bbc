"""Packet erasures, independent or in bursts, and a channel without loss; no symbols are counted."""

from __future__ import annotations

import torch

from channels.base import Conditions, Packets, Reception, erasure_reception, register
from channels.config.checks import condition, number
from channels.errors import ConfigError
from channels.random import Randomness
from channels.two_state import two_states


@register("lossless")
class Lossless:
    """A channel that delivers every packet unchanged.

    >>> sent = Packets.from_bytes([[b"ab", b"c"]])
    >>> Lossless().transmit(sent, {}, Randomness.derive(0, [("p",)])).packets.to_bytes()
    [[b'ab', b'c']]
    """

    name = "lossless"
    needs: tuple[str, ...] = ()

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Deliver N x P packets; reads no condition and no random number."""
        return erasure_reception(packets, packets.present)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


@register("iid_erasure")
class IidErasure:
    """Independent losses of packets with one probability.

    loss: that probability, 0 to 1; None: read from the condition `loss` [N]. Draw p of a link
    decides on slot p. The result of a packet therefore does not depend on the number of later
    packets, and a packet lost at one probability is lost at every higher probability.
    """

    name = "iid_erasure"

    def __init__(self, loss: float | None = None) -> None:
        self.loss = None if loss is None else number(self.name, "loss", loss, 0, 1)
        self.needs: tuple[str, ...] = ("loss",) if loss is None else ()

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Lose some of N x P packets. Raises ChannelError if `loss` is missing or outside 0..1."""
        links, slots = packets.lengths.shape
        draws = randomness.to(packets.device).child("loss").uniform(slots)  # [N, P]
        if self.loss is None:
            loss = condition(self.name, conditions, "loss", links, 0, 1, packets.device)
            lost = draws < loss[:, None]
        else:
            lost = draws < self.loss
        return erasure_reception(packets, packets.present & ~lost)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


DEFAULT_BURST = 4.0


@register("gilbert_elliott")
class GilbertElliott:
    """Losses of packets in bursts: a two-state Markov chain with one step per packet.

        good ── p ──> bad        share of time in the bad state: p / (p + r)
        good <── r ── bad        mean stay in the bad state: 1 / r packets

    The parameters have one of two forms.

    loss and burst: the bad state loses every packet, and the good state none. loss: share of lost
    packets, 0 to burst / (burst + 1); None: read from the condition `loss` [N]. burst: mean number
    of consecutive losses, 1 to 10000, by default 4. Then r = 1 / burst and p = loss / ((1 - loss)
    burst).

    p and r, 0 to 1 and not both 0, with loss_good and loss_bad, 0 to 1: share of packets lost in
    each state, by default 0 and 1. The share of lost packets is (r loss_good + p loss_bad) / (p +
    r).

    Each link starts from the stationary distribution. The chain makes a step for every slot, also
    for an empty one, so that the result of a packet does not depend on the number of later packets.
    Raises ConfigError if parameters of both forms are given.

    Sources: Gilbert, "Capacity of a burst-noise channel", 1960 (loss_good 0); Elliott, "Estimates
    of error rates for codes on burst-noise channels", 1963.
    """

    name = "gilbert_elliott"

    def __init__(
        self,
        loss: float | None = None,
        burst: float | None = None,
        p: float | None = None,
        r: float | None = None,
        loss_good: float | None = None,
        loss_bad: float | None = None,
    ) -> None:
        by_loss = {"loss": loss, "burst": burst}
        by_states = {"p": p, "r": r, "loss_good": loss_good, "loss_bad": loss_bad}
        given = [name for name, value in by_states.items() if value is not None]
        mixed = [name for name, value in by_loss.items() if value is not None]
        if given and mixed:
            raise ConfigError(
                f"{self.name}: {mixed[0]} and {given[0]} exclude each other: give loss and burst, "
                "or p and r with loss_good and loss_bad"
            )
        if given and (p is None or r is None):
            missing = "p" if p is None else "r"
            raise ConfigError(f"{self.name}: {given[0]} needs {missing}: give {missing}, 0 to 1")
        self.p = None if p is None else number(self.name, "p", p, 0, 1)
        self.r = None if r is None else number(self.name, "r", r, 0, 1)
        if self.p == self.r == 0:
            raise ConfigError(f"{self.name}: p={p} and r={r} are both 0: give at least one above 0")
        self.loss_good = number(
            self.name, "loss_good", 0.0 if loss_good is None else loss_good, 0, 1
        )
        self.loss_bad = number(self.name, "loss_bad", 1.0 if loss_bad is None else loss_bad, 0, 1)
        self.burst = number(
            self.name, "burst", DEFAULT_BURST if burst is None else burst, 1, 10_000
        )
        self.most = self.burst / (self.burst + 1)
        """The largest loss with such bursts: a stay in the good state is at least one packet."""
        self.loss = None if loss is None else number(self.name, "loss", loss, 0, self.most)
        self.needs: tuple[str, ...] = () if given or loss is not None else ("loss",)

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Lose some of N x P packets. Raises ChannelError if `loss` is missing or out of range."""
        links, slots = packets.lengths.shape
        streams = randomness.to(packets.device)
        draws = streams.child("loss").uniform(slots)  # [N, P]
        if self.p is not None and self.r is not None:
            enter = draws.new_full((links,), self.p)
            bad = two_states(draws, enter / (self.p + self.r), enter, 1 - self.r)
            if (self.loss_good, self.loss_bad) == (0, 1):
                return erasure_reception(packets, packets.present & ~bad)
            share = draws.new_tensor([self.loss_good, self.loss_bad])[bad.long()]
            lost = streams.child("loss within a state").uniform(slots) < share
            return erasure_reception(packets, packets.present & ~lost)
        if self.loss is None:
            loss = condition(self.name, conditions, "loss", links, 0, self.most, packets.device)
        else:
            loss = torch.full((links,), self.loss, dtype=torch.float64, device=packets.device)
        bad = two_states(draws, loss, loss / ((1 - loss) * self.burst), 1 - 1 / self.burst)
        return erasure_reception(packets, packets.present & ~bad)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None
