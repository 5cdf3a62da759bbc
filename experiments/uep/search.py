"""Estimates and scores of protection plans on tuning pictures.

    plan ── channel, simulated ── delivered packets ─┬─ `Tuner.guess`: estimated from curves, fast
                                                     └─ `Tuner.score`: decoded and measured

A curve gives the value of the first p of P packets. A packet after a gap has a fixed share of the
value that it has without the gap; the share is estimated from a few random losses. The guess
selects the plans that are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.base import Packets
from channels.packet.unequal import Unequal
from channels.random import Randomness
from experiments.sweep.components import Components
from sqlink.codecs.base import (
    Codec,
    Rate,
    Received,
    Stream,
    session_bytes,
)
from sqlink.errors import ConfigError
from sqlink.metrics.semantic import confusion, miou

MIOU = "miou"
GUESSES = 400
"""Simulated pictures of a guess."""
_LENGTHS = (1, 2, 3, 4, 6, 9, 13, 18, 27, 40)
"""Numbers of packets for which curves are measured; between them they are interpolated."""
_HOLES = 8
"""Number of random losses for estimating the value of a packet after a gap."""
_FIRST, _SECOND = (1, 2, 3, 4, 6), (0, 1, 2, 3, 4, 6, 9)
"""Candidates for the numbers of packets of the first and the second class."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ProtectionPlan:
    """A protection plan for a picture's packets.

    counts: pairs (number of an option, number of packets), in the order of packets; one pair is
    equal protection. codec: number of the codec.
    """

    codec: int
    counts: tuple[tuple[int, int], ...]

    @property
    def packets(self) -> int:
        """Return the number of packets of a picture."""
        return sum(count for _, count in self.counts)

    def classes(self, options: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the classes of `unequal`; the last one takes all remaining packets."""
        classes = [{"packets": count, **options[option]} for option, count in self.counts]
        return [*classes[:-1], dict(options[self.counts[-1][0]])]


def equal_plans(codec: int, costs: Sequence[int], uses: int, most: int) -> list[ProtectionPlan]:
    """Return a plan for each option, with as many packets as `uses` allows, up to `most`."""
    return [
        ProtectionPlan(codec, ((option, min(uses // cost, most)),))
        for option, cost in enumerate(costs)
        if cost <= uses
    ]


def unequal_plans(codec: int, costs: Sequence[int], uses: int, most: int) -> list[ProtectionPlan]:
    """Return plans of two or three classes, at most `most` packets, that fill `uses`.

    Each class is more expensive than the next one.

    >>> unequal_plans(0, [300, 100], 500, 9)
    [ProtectionPlan(codec=0, counts=((0, 1), (1, 2)))]
    """
    by_cost = sorted(range(len(costs)), key=lambda option: -costs[option])
    found: dict[tuple[tuple[int, int], ...], None] = {}
    for triple in combinations_with_replacement(by_cost, 3):
        for first in _FIRST:
            for second in _SECOND:
                left = uses
                counts: list[tuple[int, int]] = []
                for option, wanted in zip(triple, (first, second, most), strict=True):
                    room = most - sum(count for _, count in counts)
                    count = min(wanted, left // costs[option], room)
                    left -= count * costs[option]
                    if count and counts and counts[-1][0] == option:
                        counts[-1] = (option, counts[-1][1] + count)
                    elif count:
                        counts.append((option, count))
                if len(counts) > 1 and len({costs[option] for option, _ in counts}) == len(counts):
                    found[tuple(counts)] = None
    return [ProtectionPlan(codec, counts) for counts in found]


@dataclass
class Tuner:
    """An estimator of protection plans over one channel.

    over: as for `unequal`. options: keys of a class for each option. codecs: those of the plans.
    components: the tuning pictures, metrics, segmenter and judge. pictures: number of decoded
    pictures, with `draws` realisations each. packet_bytes, condition: the sweep's packet size and
    the name of its condition. metrics: columns of picture metrics, or "miou". Decoded pictures are
    cached.
    """

    over: object
    options: Sequence[Mapping[str, Any]]
    codecs: Sequence[Codec]
    components: Components
    pictures: int
    draws: int
    packet_bytes: int
    condition: str
    metrics: Sequence[str]
    where: str
    _images: Tensor = field(init=False)
    _labels: list[Tensor | None] = field(init=False)
    _seen: dict[tuple[int, int, int, bytes], Floats] = field(init=False, default_factory=dict)
    _streams: dict[tuple[int, int], list[Stream] | None] = field(init=False, default_factory=dict)
    _curves: dict[tuple[int, int], Floats] = field(init=False, default_factory=dict)
    _after_gaps: dict[tuple[int, str], float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        data = self.components.data
        self.pictures = min(self.pictures, len(data))
        which = [n * len(data) // self.pictures for n in range(self.pictures)]
        samples = [data[n] for n in which]
        if len({tuple(sample.image.shape) for sample in samples}) > 1:
            raise ConfigError(f"{self.where}: tuning: the pictures must be of one size")
        self._images = torch.stack([sample.image for sample in samples])
        self._labels = [sample.segmentation for sample in samples]
        if MIOU in self.metrics and any(labels is None for labels in self._labels):
            raise ConfigError(f"{self.where}: tuning: miou needs labels: give labelled pictures")

    def higher_is_better(self, metric: str) -> bool:
        """Return whether a higher value of a metric is better."""
        return metric == MIOU or self.components.measures.of_pictures[metric].higher_is_better

    def delivered(self, candidate: ProtectionPlan, value: float, links: int) -> Bools:
        """Return the delivered packets at one value of the condition, bool [links, P]."""
        streams = Randomness.derive(1, [("tuning", n) for n in range(links)])
        packets = candidate.packets
        sent = Packets(
            torch.zeros(links, packets, self.packet_bytes, dtype=torch.uint8),
            torch.full((links, packets), self.packet_bytes),
            torch.arange(packets).expand(links, packets),
        )
        given = {self.condition: torch.full((links,), float(value), dtype=torch.float64)}
        channel = Unequal(self.over, candidate.classes(self.options))
        got = channel.transmit(sent, given, streams.child("channel"))
        came: Bools = got.correct.numpy()
        return came

    def reaches(self, candidate: ProtectionPlan) -> bool:
        """Return whether the codec can code every tuning picture in the plan's packets."""
        return self._encoded(candidate.codec, candidate.packets) is not None

    def guess(self, candidate: ProtectionPlan, value: float) -> dict[str, float]:
        """Return an estimate of each metric, from the curves."""
        came = self.delivered(candidate, value, GUESSES)
        return {
            metric: float(self._guessed(candidate.codec, metric, came)) for metric in self.metrics
        }

    def score(self, candidate: ProtectionPlan, value: float) -> dict[str, float]:
        """Return each metric of the tuning pictures after the channel."""
        came = self.delivered(candidate, value, self.pictures * self.draws)
        return self._measured(candidate.codec, came.reshape(self.pictures, self.draws, -1))

    def gains(self, codec: int, metric: str, packets: int) -> list[float]:
        """Return the gain in a metric of each of `packets` packets, given all earlier ones.

        The gains never rise.
        """
        from scipy.optimize import isotonic_regression

        curve = self._curve(codec, packets)[:, self.metrics.index(metric)]
        gained = np.diff(curve) if self.higher_is_better(metric) else -np.diff(curve)
        return [float(v) for v in np.maximum(isotonic_regression(gained, increasing=False).x, 0)]

    def _guessed(self, codec: int, metric: str, came: Bools) -> float:
        prefix = came.cumprod(axis=1).sum(axis=1)
        share = self._after_gap(codec, metric)
        whole = prefix + share * (came.sum(axis=1) - prefix)
        return float(self._worth(codec, metric, came.shape[1], whole).mean())

    def _worth(self, codec: int, metric: str, packets: int, whole: Floats) -> Floats:
        """Return a metric after the first `whole` packets, a real number each, float [...]."""
        at = self.metrics.index(metric)

        def of(length: int) -> Floats:
            curve = self._curve(codec, length)[:, at]
            return np.asarray(np.interp(whole / packets * length, np.arange(length + 1), curve))

        known = [n for n in _LENGTHS if self._encoded(codec, n) is not None]
        upper = next((n for n in known if n >= packets), known[-1])
        lower = max((n for n in known if n <= packets), default=upper)
        if lower == upper:
            return of(upper)
        part = (packets - lower) / (upper - lower)
        return (1 - part) * of(lower) + part * of(upper)

    def _curve(self, codec: int, packets: int) -> Floats:
        """Return the metrics after the first 0 to P packets of P, float64 [P + 1, metrics]."""
        if (codec, packets) not in self._curves:
            prefixes = np.tri(packets + 1, packets, -1, dtype=np.bool_)
            rows = [
                self._measured(codec, np.broadcast_to(row, (self.pictures, 1, packets)))
                for row in prefixes
            ]
            self._curves[codec, packets] = np.array(
                [[row[metric] for metric in self.metrics] for row in rows]
            )
        return self._curves[codec, packets]

    def _after_gap(self, codec: int, metric: str) -> float:
        """Return the relative value of a packet after a gap, 0 to 1, by least squares."""
        if (codec, metric) not in self._after_gaps:
            packets = next(n for n in _LENGTHS if n >= 6 and self._encoded(codec, n) is not None)
            draws = Randomness.derive(2, [("gaps", n) for n in range(_HOLES)]).uniform(packets)
            came = draws.numpy() > 0.4
            came[:, 0] &= np.arange(_HOLES) % 2 == 0
            found = [
                self._measured(codec, np.broadcast_to(row, (self.pictures, 1, packets)))
                for row in came
            ]
            prefix = came.cumprod(axis=1).sum(axis=1)
            rest = came.sum(axis=1) - prefix
            for name in self.metrics:
                truth = np.array([row[name] for row in found])
                shares = np.linspace(0, 1, 21)
                errors = [
                    ((self._worth(codec, name, packets, prefix + s * rest) - truth) ** 2).sum()
                    for s in shares
                ]
                self._after_gaps[codec, name] = float(shares[int(np.argmin(errors))])
        return self._after_gaps[codec, metric]

    def _measured(self, codec: int, came: Bools) -> dict[str, float]:
        """Return the mean of each metric; came: bool [pictures, draws, P], packets delivered."""
        packets = came.shape[2]
        wanted = [(picture, row.tobytes()) for picture, rows in enumerate(came) for row in rows]
        missing = [one for one in dict.fromkeys(wanted) if (codec, packets, *one) not in self._seen]
        self._decode(codec, packets, missing)
        rows = np.stack([self._seen[codec, packets, *one] for one in wanted])
        sums = rows.mean(axis=0)
        names = [name for name in self.metrics if name != MIOU]
        found = dict(zip(names, sums[: len(names)].tolist(), strict=True))
        if MIOU in self.metrics:
            matrix = rows[:, len(names) :].sum(axis=0)
            size = round(len(matrix) ** 0.5)
            found[MIOU] = float(miou(torch.from_numpy(matrix).reshape(size, size)))
        return found

    def _decode(self, codec: int, packets: int, wanted: Sequence[tuple[int, bytes]]) -> None:
        """Decode and measure the receptions that are not in the cache."""
        if not wanted:
            return
        streams = self._encoded(codec, packets)
        assert streams is not None
        for start in range(0, len(wanted), 8):
            part = wanted[start : start + 8]
            received = []
            for picture, row in part:
                session, sent = streams[picture].session, streams[picture].packets
                came = np.frombuffer(row, dtype=np.bool_)
                pieces = (p.data if ok else None for p, ok in zip(sent, came, strict=False))
                received.append(Received(session, tuple(pieces)))
            images = self.codecs[codec].decode(received).images
            originals = self._images[[picture for picture, _ in part]]
            columns = [
                self.components.measures.of_pictures[name](images, originals)
                .double()
                .reshape(-1, 1)
                .cpu()
                for name in self.metrics
                if name != MIOU
            ]
            if MIOU in self.metrics:
                assert self.components.measures.judge is not None
                labels = [self._labels[picture] for picture, _ in part]
                truth = torch.stack([one for one in labels if one is not None])
                seen = self.components.measures.judge.segment(images).cpu()
                columns.append(confusion(seen, truth).flatten(1).double())
            values = torch.cat(columns, dim=1).numpy()
            for one, row_values in zip(part, values, strict=True):
                self._seen[codec, packets, *one] = row_values

    def _encoded(self, codec: int, packets: int) -> list[Stream] | None:
        """Return the tuning pictures coded in `packets` packets; None if one does not fit."""
        key = codec, packets
        if key not in self._streams:
            coder, segmenter = self.codecs[codec], self.components.segmenter
            budget = packets * self.packet_bytes + session_bytes(coder)
            maps = None
            if segmenter is not None:
                maps = torch.cat([segmenter.segment(one[None]) for one in self._images])
            answers = coder.encode(self._images, Rate(bytes=budget), maps)
            streams = [answer for answer in answers if isinstance(answer, Stream)]
            self._streams[key] = streams if len(streams) == len(answers) else None
        return self._streams[key]


def best(
    candidates: Sequence[ProtectionPlan],
    worth: Callable[[ProtectionPlan], float],
    higher_is_better: bool,
    count: int,
) -> list[ProtectionPlan]:
    """Return the `count` best plans, best first."""
    sign = -1 if higher_is_better else 1
    return sorted(candidates, key=lambda candidate: sign * worth(candidate))[:count]


def each(candidates: Sequence[Sequence[ProtectionPlan]]) -> Iterator[ProtectionPlan]:
    """Yield every plan once, in order."""
    yield from dict.fromkeys(candidate for part in candidates for candidate in part)
