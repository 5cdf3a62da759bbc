"""Headline numbers: each codec at one rate, under the best and the worst conditions.

The rate is the lowest that every codec was asked for, the metric the first of `PREFERRED` that was
measured; neither depends on the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.axes import Axis
from experiments.report.labels import codec_title, rate_parts, rate_title
from experiments.report.results import Results

PREFERRED = ("miou", "lpips", "psnr_db", "ms_ssim")
WORSE_IF_LOWER = ("snr_db",)
"""Conditions whose low values are bad; of other conditions high values are bad."""


@dataclass(frozen=True)
class Number:
    """An estimate of one codec under one condition, with its 95 % interval."""

    codec: str
    conditions: Mapping[str, float]
    value: float
    low: float
    high: float
    outage: float


@dataclass(frozen=True)
class Headline:
    """A metric at one rate: codecs in the sweep's order, the worst conditions first."""

    metric: str
    axis: Axis
    rate: str
    channel: str
    ceiling: float | None
    numbers: tuple[Number, ...]
    where: Mapping[str, Axis]

    @property
    def title(self) -> str:
        """Its title: `mIoU of the picture at 0.05 bpp over Rayleigh fading`."""
        return f"{self.axis.title} at {rate_title(self.rate)} over {self.channel}"

    def written(self, number: Number) -> str:
        """Write one number with its unit, interval and outages."""
        axis = self.axis
        value = f"{number.value * axis.factor:.{axis.decimals}f}{f' {axis.unit}' * bool(axis.unit)}"
        if np.isfinite(number.low):
            low, high = (axis.factor * end for end in (number.low, number.high))
            value += f" [{low:.{axis.decimals}f}, {high:.{axis.decimals}f}]"
        return value + (f", outage {100 * number.outage:.0f} %" if number.outage else "")

    def text(self) -> str:
        """Return the lines that a terminal shows."""
        rows = [
            (
                ", ".join(self.where[k].said(v) for k, v in number.conditions.items()),
                codec_title(number.codec),
                self.written(number),
            )
            for number in self.numbers
        ]
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        lines = [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
        if self.ceiling is not None:
            best = self.ceiling * self.axis.factor
            lines.append(f"  the originals: {best:.{self.axis.decimals}f} {self.axis.unit}")
        return "\n".join([f"{self.title}:", *lines])


def headline(results: Results) -> Headline | None:
    """Collect the headline numbers of a results folder; None if no metric was measured."""
    metric = next((name for name in PREFERRED if name in results.metrics), None)
    if metric is None:
        return None
    rate = _common_rate(results)
    lines = [
        line for line in results.lines if line["rate"] == rate and line.get(metric) is not None
    ]
    ends = _ends(results, lines)
    varying = _varying(results, lines)
    numbers = tuple(
        Number(
            codec=line["codec"],
            conditions={name: line[name] for name in varying if line[name] is not None},
            value=line[metric],
            low=_known(line.get(f"{metric}_low")),
            high=_known(line.get(f"{metric}_high")),
            outage=line["outage"],
        )
        for end in ends
        for line in lines
        if all(line[name] == value for name, value in end.items())
    )
    ceilings = [line["miou_clean"] for line in lines if line.get("miou_clean") is not None]
    channel = results.channels[lines[0]["channel"]]
    where = {name: results.axis(name) for name in results.conditions}
    ceiling = max(ceilings) if metric == "miou" and ceilings else None
    axis = results.axis(metric)
    return Headline(metric, axis, rate, channel, ceiling, numbers, where)


def ending(folder: Path, figures: Sequence[Path], page: Path) -> str:
    """Write the end of a run's output: the headline numbers, and the picture to open first."""
    results = Results.read(folder)
    found = headline(results)
    lines = [] if found is None else [found.text(), ""]
    sheet = next((path for path in figures if path.name.startswith("pictures")), None)
    if sheet is not None:
        lines.append(f"open this picture first: {sheet}")
    lines += [f"{len(figures)} figures and the tables: {folder}", f"everything on one page: {page}"]
    return "\n".join(lines)


def _common_rate(results: Results) -> str:
    """Return the lowest rate of the first kind that most codecs have."""
    by_rate: dict[str, set[str]] = {}
    for line in results.lines:
        by_rate.setdefault(line["rate"], set()).add(line["codec"])
    most = max(len(codecs) for codecs in by_rate.values())
    shared = [rate for rate, codecs in by_rate.items() if len(codecs) == most]
    kind = rate_parts(shared[0])[0]
    return min((rate for rate in shared if rate_parts(rate)[0] == kind), key=rate_parts)


def _known(value: float | None) -> float:
    return float("nan") if value is None else value


def _varying(results: Results, lines: list[dict[str, Any]]) -> list[str]:
    return [n for n in results.conditions if len({line[n] for line in lines} - {None}) > 1]


def _ends(results: Results, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the worst and the best values of every condition together; one mapping if none varies.

    The first channel, and packets of the first size, alone.
    """
    first = {name: lines[0][name] for name in results.cell if name not in results.conditions}
    worst, best = dict(first), dict(first)
    lines = [line for line in lines if all(line[name] == v for name, v in first.items())]
    for name in results.conditions:
        values = sorted({line[name] for line in lines} - {None})
        if not values:
            continue
        ends = (values[0], values[-1]) if name in WORSE_IF_LOWER else (values[-1], values[0])
        worst[name], best[name] = ends
    return [worst] if worst == best else [worst, best]
