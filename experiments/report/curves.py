"""Curves of results: the data of figures, before they are drawn.

Results, ... ── chart(metrics, x, cell) ──> Chart of Panels of Curves ──> figures, CSV, pgfplots
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.report.axes import AXES, Axis
from experiments.report.labels import rate_parts, rate_title
from experiments.report.results import Line, Results, Series, series_of
from experiments.report.summary import CLEAN
from sqlink.data.classes import NAMES
from sqlink.errors import ConfigError
from sqlink.metrics.jackknife import MIN_BLOCKS
from sqlink.wording import counted

RATES = ("bpp", "channel_uses", "cbr")
"""Horizontal axes that are measured from what was sent; any other axis is a condition."""
SOME_OUTAGE = 0.01
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One line of a panel, in the units that are shown, float64 [points] each.

    style: index of colour and dash; marker: index of the value of `by`. low, high: ends of the 95 %
    interval, NaN without one. unreachable, outage: shares. member: whether it lies under an
    envelope, drawn thin and not in the legend.
    """

    title: str
    style: int
    marker: int
    x: Floats
    y: Floats
    low: Floats
    high: Floats
    outage: Floats
    unreachable: Floats
    member: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves of one quantity. ceiling: upper bound for any codec, if known."""

    name: str
    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    ceiling: float | None = None

    @property
    def heading(self) -> str:
        """Its title with unit and better direction: `PSNR (dB) ↑`."""
        arrow = {"higher": " ↑", "lower": " ↓"}.get(self.y.better, "")
        return f"{self.title}{f' ({self.y.unit})' if self.y.unit else ''}{arrow}"


@dataclass(frozen=True)
class Chart:
    """Panels of one figure. name: of its files. notes: text below it."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    notes: str


@dataclass(frozen=True)
class Question:
    """Content of a figure: metrics over x, one curve per codec (or per value of `by`), in one cell.

    cell: column -> value, held fixed. envelope: draw the best of several folders that share a codec
    at each x, with the curves of the folders thin under it.
    """

    x: str
    metrics: tuple[str, ...]
    cell: Mapping[str, Any]
    by: str = "codec"
    envelope: bool = False


def axis_across(results: Sequence[Results], x: str) -> Axis:
    """Return the display of the horizontal axis. Raises ConfigError if no folder has it."""
    if x in RATES:
        return AXES[x]
    for one in results:
        if x in one.conditions:
            return one.axis(x)
    known = ", ".join((*RATES, *dict.fromkeys(n for one in results for n in one.conditions)))
    raise ConfigError(f"nothing was measured over '{x}': give one of {known}")


def across(results: Results, line: Line, x: str) -> float:
    """Return the horizontal position of a line; an unreachable rate is at the rate asked for."""
    if x == "cbr":
        return float(line["channel_uses"]) / (3 * results.pixels)
    value = line.get(x)
    if x == "bpp" and (value is None or value != value):
        kind, asked = rate_parts(line["rate"])
        return asked if kind == "bpp" else float("nan")
    return float("nan") if value is None else float(value)


def panel(results: Sequence[Results], question: Question, metric: str) -> Panel:
    """Collect the curves of one metric, over every folder that measured it."""
    x, y = axis_across(results, question.x), _axis(results, metric)
    curves: list[Curve] = []
    ceilings: set[float] = set()
    for series in series_of(results):
        one = results[series.place]
        lines = [
            line
            for line in matching(one.lines, question.cell)
            if line["codec"] == series.codec and line.get(metric) is not None
        ]
        values: list[Any] = [None]
        if question.by != "codec":
            found = {line.get(question.by) for line in lines} - {None}
            values = sorted(found, key=lambda value: (isinstance(value, str), value))
        for number, value in enumerate(values):
            own = lines if value is None else [ln for ln in lines if ln[question.by] == value]
            if own:
                curves.append(_curve(one, series, number, own, question, metric))
        clean = f"{metric}{CLEAN}"
        ceilings |= {line[clean] for line in lines if line.get(clean) is not None}
    if question.envelope:
        curves = _with_envelopes(results, curves, question, y)
    ceiling = max(ceilings) * y.factor if ceilings else None
    star = "*" if any(one.trained(metric) for one in results) else ""
    return Panel(metric, f"{y.title}{star}", x, y, tuple(curves), ceiling)


def class_panels(results: Sequence[Results], question: Question) -> list[Panel]:
    """Make a panel for each class: its IoU in the picture received."""
    found = []
    for name in NAMES:
        one = panel(results, replace(question, envelope=False), f"iou_{name}")
        if any(np.isfinite(curve.y).any() for curve in one.curves):
            found.append(replace(one, title=name, y=Axis("IoU", "%", 100, "higher")))
    return found


def notes(results: Sequence[Results], metrics: Sequence[str]) -> str:
    """Write the text under a figure: n, bands, training losses and missing metrics."""
    counts = []
    for one in results:
        line = one.lines[0]
        name = f"{one.name}: " if len(results) > 1 else ""
        counts.append(
            f"{name}n = {counted(line['pictures'], 'picture')} in "
            f"{counted(line['blocks'], 'block')}, "
            f"{counted(line['realisations'], 'realisation')} each"
        )
    blocks = min(one.lines[0]["blocks"] for one in results)
    parts = [
        *dict.fromkeys(counts),
        "bands: 95 % intervals, Student's t on blocks"
        if blocks >= MIN_BLOCKS
        else f"intervals n/a: {counted(blocks, 'block')}",
        "outages stay in the mean",
    ]
    lines = ["; ".join(parts) + "."]
    for name in metrics:
        codecs = dict.fromkeys(codec for one in results for codec in one.trained(name))
        if codecs:
            title = _axis(results, name).title
            lines.append(f"* {title} was also a training loss of {', '.join(codecs)}.")
    for one in results:
        for name in metrics:
            of = one.lines[0]["pictures"]
            numbers = {int(line.get(f"{name}_pictures") or of) for line in one.lines}
            lines += [
                f"{one.axis(name).title}: n = {count} of {counted(of, 'picture')}."
                for count in sorted(numbers - {of})
            ]
        lines += [
            f"{one.axis(name).title} not measured: {reason}."
            for name, reason in one.manifest["unavailable"].items()
        ]
    return "\n".join(dict.fromkeys(lines))


def matching(lines: Sequence[Line], cell: Mapping[str, Any]) -> list[Line]:
    """Return the lines of a cell; conditions that a folder lacks are ignored."""
    return [
        line
        for line in lines
        if all(line.get(name, value) == value for name, value in cell.items())
    ]


def distinct(lines: Sequence[Line], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the distinct combinations of values, in order, without names that a line lacks."""
    found = {tuple((name, line[name]) for name in names if name in line): None for line in lines}
    return [dict(values) for values in found]


def thinned(values: list[Any], most: int) -> list[Any]:
    """Return at most `most` values, evenly chosen, including the first and the last.

    >>> thinned([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(values) <= most:
        return values
    return [values[i] for i in np.linspace(0, len(values) - 1, most).round().astype(int)]


def cell_title(results: Results, cell: Mapping[str, Any]) -> str:
    """Write a cell in words, such as `0.04 bpp, mean Es/N0 5 dB`."""
    return ", ".join(
        _value_said(results, name, value) for name, value in cell.items() if value is not None
    )


def _axis(results: Sequence[Results], name: str) -> Axis:
    if name.startswith("iou_"):
        return Axis(f"IoU of {name.removeprefix('iou_')}", "%", 100, "higher")
    return next((one.axis(name) for one in results if name in one.metrics), results[0].axis(name))


def _curve(
    results: Results,
    series: Series,
    number: int,
    lines: Sequence[Line],
    question: Question,
    metric: str,
) -> Curve:
    x, y = axis_across([results], question.x), _axis([results], metric)
    where = np.array([across(results, line, question.x) * x.factor for line in lines])
    order = np.argsort(where, kind="stable")

    def column(name: str, factor: float = 1.0) -> Floats:
        values = [lines[i].get(name) for i in order]
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64) * factor

    title = series.title
    if question.by != "codec":
        title += f", {_value_said(results, question.by, lines[0][question.by])}"
    return Curve(
        title,
        series.style,
        series.style if question.by == "codec" else number,
        where[order],
        column(metric, y.factor),
        column(f"{metric}_low", y.factor),
        column(f"{metric}_high", y.factor),
        column("outage"),
        column("unreachable"),
    )


def _value_said(results: Results, name: str, value: Any) -> str:
    """Write the value of a column in readable form: `mean Es/N0 5 dB`."""
    if name == "rate":
        return rate_title(value)
    if name == "channel" or isinstance(value, str):
        return value if name == "channel" else f"{name.replace('_', ' ')} {value}"
    axis = results.axis(name)
    return f"{axis.title} {axis.said(value)}" if name != "packet_bytes" else f"{value}-byte packets"


def _with_envelopes(
    results: Sequence[Results], curves: Sequence[Curve], question: Question, y: Axis
) -> list[Curve]:
    """Return each codec's best curve over the folders, and the folders' curves under it.

    Over a rate, a point competes with all points of fewer bits or channel uses; over a condition,
    only with those at the same value.
    """
    sign = -1.0 if y.better == "lower" else 1.0
    plain = {series.title: series for series in series_of(results)}
    by_codec: dict[str, list[Curve]] = {}
    for curve in curves:
        by_codec.setdefault(plain[curve.title].codec, []).append(curve)
    found: list[Curve] = []
    for own in by_codec.values():
        if len(own) < 2:
            found += own
            continue
        joined = [np.concatenate([getattr(c, name) for c in own]) for name in _FIELDS]
        order = np.lexsort((-sign * joined[1], joined[0]))
        best, kept = -np.inf, []
        last = np.nan
        for i in order:
            where, value = joined[0][i], sign * joined[1][i]
            if question.x not in RATES:
                if where != last:
                    kept.append(i)
            elif value > best:
                best = value
                kept.append(i)
            last = where
        across_, along, low, high, outage, unreachable = (column[kept] for column in joined)
        name = own[0].title.split(" (")[0]
        style = min(curve.style for curve in own)
        found += [replace(curve, style=style, member=True) for curve in own]
        title = f"{name}, best of {len(own)}"
        found.append(Curve(title, style, style, across_, along, low, high, outage, unreachable))
    return found


_FIELDS = ("x", "y", "low", "high", "outage", "unreachable")
