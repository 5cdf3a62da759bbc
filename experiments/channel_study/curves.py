"""The results of a channel study: shares with their intervals, points and curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from channels.base import Channel
from channels.fading.base import SNR_RANGE_DB
from experiments.report.axes import AXES, Axis

CONFIDENCE = 0.95


Floats = NDArray[np.float64]


CONDITIONS: Mapping[str, Axis] = {
    **AXES,
    "loss": Axis("Loss asked for", "%", 100),
    "crossover": Axis("Crossover probability", "per bit"),
    "erasure": Axis("Erasure probability", "per bit"),
}


RANGES: Mapping[str, tuple[float, float]] = {"--snr-db": SNR_RANGE_DB, "--loss": (0, 1)}
"""Largest range of an option; a channel may accept less."""


@dataclass(frozen=True)
class Share:
    """A share of hits among trials that are equivalent to `effective` independent trials."""

    hits: int
    trials: int
    effective: float

    @classmethod
    def of(cls, hits: Floats, trials: Floats) -> Share:
        """Return the share of hits among trials, [N] each, one number per link.

        Links are independent, but packets of one link may not be. The design effect is that of Korn
        and Graubard, "Confidence intervals for proportions with small expected number of positive
        counts", Survey Methodology 24, 1998.
        """
        total, count = float(hits.sum()), float(trials.sum())
        links = int((trials > 0).sum())
        if count == 0 or count == links:
            return cls(int(total), int(count), count)
        rate = total / count
        binomial = rate * (1 - rate) / count
        if binomial == 0:
            return cls(int(total), int(count), float(links))
        spread = ((hits - rate * trials) ** 2).sum() / count**2 * links / max(1, links - 1)
        return cls(int(total), int(count), count / max(1.0, spread / binomial))

    @property
    def rate(self) -> float:
        return self.hits / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Return the Clopper-Pearson interval, from the beta distribution for real numbers."""
        if not self.trials:
            return 0.0, 1.0
        tail, n = (1 - CONFIDENCE) / 2, self.effective
        x = self.rate * n
        low = float(betaincinv(x, n - x + 1, tail)) if x > 0 else 0.0
        high = float(betaincinv(x + 1, n - x, 1 - tail)) if x < n else 1.0
        return low, high


@dataclass
class Point:
    """The counts at one value of the condition (None: the channel reads no condition)."""

    value: float | None
    lost: Share
    lost_by_slot: list[Share]
    bits: Share | None = None
    runs: list[Share] = field(default_factory=list)
    """Shares of runs of more than 0, 1, ... lost packets."""
    delays_s: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """[links, slots], infinite where lost."""

    def within(self, time_s: float) -> Share:
        """Return the share of all packets that are delivered within `time_s`."""
        come = (self.delays_s <= time_s).sum(axis=1).astype(np.float64)
        return Share.of(come, np.full_like(come, self.delays_s.shape[1]))


@dataclass(frozen=True)
class Curves:
    """A channel, the settings of its measurement, and the points."""

    channel: Channel
    title: str
    condition: str | None
    others: Mapping[str, float]
    links: int
    slots: int
    packet_bytes: int
    traffic: str
    points: list[Point]


def shows_runs(point: Point) -> bool:
    return len(point.runs) > 1 and point.runs[1].hits > 0


def shows_delay(point: Point) -> bool:
    return bool((point.delays_s[np.isfinite(point.delays_s)] > 0).any())


def instants(point: Point, count: int) -> Floats:
    """Return delays from 0 to the 99.9 % quantile, in equal steps."""
    come = point.delays_s[np.isfinite(point.delays_s)]
    return np.linspace(0, float(np.quantile(come, 0.999)) * 1.02, count)
