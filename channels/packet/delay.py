"""Random delays of packets, which change their order."""

from __future__ import annotations

import torch
from torch import Tensor

from channels.base import Conditions, Packets, Reception, erasure_reception, register
from channels.config.checks import choice, number, seconds
from channels.errors import ConfigError
from channels.random import Randomness

DEFAULT_SHAPE = 2.5


@register("delay")
class Delay:
    """Independent random delays of packets, with an optional deadline.

        delay = propagation_s + D,  E[D] = mean_s

    law: distribution of D. "fixed": D = mean_s. "exponential": P(D > x) = exp(-x / mean_s).
    "pareto": P(D > x) = (least / x)^shape for x above least = mean_s (shape - 1) / shape. mean_s,
    propagation_s: seconds, 0 to 10000. shape: tail index of the Pareto distribution, 1.01 to 1000,
    by default 2.5; the variance is infinite up to 2. deadline_s: playout deadline, 0 to 10000
    seconds: a packet with a longer delay is lost; None: no packet is lost.

    Draw p of a link decides on slot p. Statistics, [N]: `reordered`, the share of the delivered
    packets that overtake a packet offered earlier (or at the same time in an earlier slot);
    `overtaken`, the share of those that are overtaken, which is RFC 4737's ratio of
    Type-P-Reordered packets; `late_packets`, the number of packets lost by the deadline.
    """

    name = "delay"
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        mean_s: float,
        law: str = "fixed",
        shape: float | None = None,
        propagation_s: float = 0.0,
        deadline_s: float | None = None,
    ) -> None:
        self.mean_s = seconds(self.name, "mean_s", mean_s)
        self.law = choice(self.name, "law", law, ("fixed", "exponential", "pareto"))
        if shape is not None and self.law != "pareto":
            raise ConfigError(f"{self.name}: shape={shape!r} needs law: pareto")
        self.shape = number(
            self.name, "shape", DEFAULT_SHAPE if shape is None else shape, 1.01, 1000
        )
        self.propagation_s = seconds(self.name, "propagation_s", propagation_s)
        self.deadline_s = (
            None if deadline_s is None else seconds(self.name, "deadline_s", deadline_s)
        )

    def transmit(
        self, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        """Delay N x P packets; reads no condition."""
        delay = self.propagation_s + self._draw(randomness.to(packets.device), packets.lengths)
        late = torch.zeros_like(packets.present)
        if self.deadline_s is not None:
            late = packets.present & (delay > self.deadline_s)
        came = packets.present & ~late
        overtakes, overtaken = _overtaking(packets.times_s, delay, came)
        count = came.sum(dim=1).clamp(min=1)
        statistics = {
            "reordered": overtakes.sum(dim=1) / count.double(),
            "overtaken": overtaken.sum(dim=1) / count.double(),
            "late_packets": late.sum(dim=1),
        }
        return erasure_reception(packets, came, delay, statistics)

    def _draw(self, streams: Randomness, slots: Tensor) -> Tensor:
        """Draw D, seconds, float64 in the shape of `slots`, [N, P]."""
        if self.law == "fixed":
            return torch.full(slots.shape, self.mean_s, dtype=torch.float64, device=slots.device)
        draws = streams.child("delay").uniform(slots.shape[1])
        if self.law == "exponential":
            return -self.mean_s * torch.log(draws)
        return self.mean_s * (self.shape - 1) / self.shape * draws.pow(-1 / self.shape)

    def uses_per_packet(self, packet_bytes: int) -> int | None:
        return None


def _overtaking(offered_s: Tensor, delay_s: Tensor, came: Tensor) -> tuple[Tensor, Tensor]:
    """Return which packets overtake another, and which are overtaken, bool [N, P] each.

    The columns are sorted by the time of offering. offered_s, delay_s: float64 [N, P]. came: bool
    [N, P], the delivered packets; others are left out.
    """
    order = offered_s.argsort(dim=1, stable=True)
    counts = came.gather(1, order)
    arrival = (offered_s + delay_s).gather(1, order)
    latest = arrival.masked_fill(~counts, -torch.inf).cummax(dim=1).values
    earliest = arrival.masked_fill(~counts, torch.inf).flip(1).cummin(dim=1).values.flip(1)
    return counts & (arrival < latest), counts & (arrival > earliest)
