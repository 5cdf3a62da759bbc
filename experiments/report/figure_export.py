r"""Export a figure: its numbers as CSV, and the figure for LaTeX as pgfplots.

A paper that loads `pgfplots` with its libraries `groupplots` and `fillbetween` can `\input` the
file; it holds its own numbers, so that it needs no other file.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np

from experiments.report.curves import SOME_OUTAGE, Chart, Curve, Panel
from experiments.report.heat_map import HeatMap
from experiments.report.style import COLOURS, Target
from sqlink.data.pictures import write_aside

_MARKS = ("*", "square*", "triangle*", "diamond*", "triangle*", "pentagon*", "star", "x")
_DASHES = (
    "solid",
    "dashed",
    "densely dotted",
    "dash dot",
    "loosely dashed",
    "dotted",
    "dash dot dot",
    "solid",
)
_SPECIAL = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "é": r"\'e",
    "ø": r"{\o}",
}


def write_chart_csv(chart: Chart, path: Path) -> Path:
    """Write a line for each point: panel, curve, x, y, interval, outage and unreachable shares."""
    rows: list[list[str | float]] = []
    for panel in chart.panels:
        for curve in panel.curves:
            columns = (curve.x, curve.y, curve.low, curve.high, curve.outage, curve.unreachable)
            rows += [
                [panel.name, panel.y.unit, curve.title, panel.x.label, *map(_short, values)]
                for values in zip(*columns, strict=True)
            ]
    head = ["metric", "unit", "curve", "x_is", "x", "y", "low", "high", "outage", "unreachable"]
    return _write_csv(head, rows, path)


def write_heat_csv(maps: HeatMap, path: Path) -> Path:
    """Write a line for each cell: codec, rate, value of the condition, metric."""
    rows: list[list[str | float]] = [
        [codec, rate, _short(x), _short(grid[i, j])]
        for codec, grid in maps.values.items()
        for i, rate in enumerate(maps.rates)
        for j, x in enumerate(maps.xs)
    ]
    return _write_csv(["codec", "rate", maps.x.label, maps.metric.label], rows, path)


def chart_tex(chart: Chart, size: Target) -> str:
    """Write a `tikzpicture` of the chart."""
    columns = min(size.columns, len(chart.panels))
    rows = -(-len(chart.panels) // columns)
    defined = [
        rf"\definecolor{{sqlink{i}}}{{HTML}}{{{c[1:].upper()}}}" for i, c in enumerate(COLOURS)
    ]
    lines = [
        f"% {chart.title}",
        r"% Needs \usepackage{pgfplots} \usepgfplotslibrary{groupplots,fillbetween}",
        *(f"% {line}" for line in chart.notes.splitlines()),
        *defined,
        r"\begin{tikzpicture}",
        r"\begin{groupplot}[",
        f"  group style={{group size={columns} by {rows},",
        "    horizontal sep=1.35cm, vertical sep=1.5cm},",
        f"  width={size.width / columns:.2f}in, height={size.panel:.2f}in,",
        r"  font=\footnotesize, grid=major, grid style={black!12}, axis lines=left,",
        r"  mark size=1.4pt,",
        r"  title style={font=\footnotesize, yshift=-1ex}, label style={font=\footnotesize},",
        r"  legend style={draw=none, fill=none, font=\footnotesize, legend columns=-1,",
        r"    at={(0,1.25)}, anchor=south west,",
        r"    /tikz/every even column/.append style={column sep=1em}},",
        "]",
    ]
    for number, panel in enumerate(chart.panels):
        lines += _panel_tex(panel, legend=number == 0)
    lines += [r"\end{groupplot}", r"\end{tikzpicture}", ""]
    return "\n".join(lines)


def heat_tex(maps: HeatMap, size: Target) -> str:
    """Write a `tikzpicture` of the maps."""
    columns = min(size.columns, len(maps.values))
    rows = -(-len(maps.values) // columns)
    lines = [
        f"% {maps.metric.label}; {maps.title}",
        r"% Needs \usepackage{pgfplots} \usepgfplotslibrary{groupplots}",
        r"\begin{tikzpicture}",
        r"\begin{groupplot}[",
        f"  group style={{group size={columns} by {rows},",
        "    horizontal sep=1.2cm, vertical sep=1.5cm},",
        f"  width={size.width / columns:.2f}in, height={size.panel:.2f}in, font=\\footnotesize,",
        f"  colormap/viridis, enlargelimits=false, xlabel={{{_tex(maps.x.label)}}},",
        f"  xtick={{{','.join(str(i) for i in range(len(maps.xs)))}}},",
        f"  xticklabels={{{','.join(f'{x:g}' for x in maps.xs)}}},",
        f"  ytick={{{','.join(str(i) for i in range(len(maps.rates)))}}},",
        f"  yticklabels={{{','.join(_tex(rate) for rate in maps.rates)}}},",
        "]",
    ]
    for codec, grid in maps.values.items():
        lines.append(rf"\nextgroupplot[title={{{_tex(codec)}}}]")
        lines.append(
            rf"\addplot[matrix plot*, point meta=explicit, mesh/cols={len(maps.xs)}] "
            "table[meta=v] {"
        )
        lines.append("x y v")
        for i, j in np.ndindex(*grid.shape):
            lines.append(f"{j} {i} {_number(float(grid[i, j]))}")
        lines.append("};")
    lines += [r"\end{groupplot}", r"\end{tikzpicture}", ""]
    return "\n".join(lines)


def _panel_tex(panel: Panel, legend: bool) -> list[str]:
    lines = [rf"\nextgroupplot[title={{{_tex(panel.heading)}}}, xlabel={{{_tex(panel.x.label)}}}]"]
    for number, curve in enumerate(panel.curves):
        colour = f"sqlink{curve.style % len(COLOURS)}"
        dash = _DASHES[curve.marker % len(_DASHES)]
        if curve.member:
            lines.append(
                rf"\addplot[forget plot, {colour}, very thin, {dash}] {_points(curve.x, curve.y)};"
            )
            continue
        if len(curve.x) > 1 and np.isfinite(curve.low).all() and np.isfinite(curve.high).all():
            for end in ("low", "high"):
                points = _points(curve.x, getattr(curve, end))
                lines.append(
                    rf"\addplot[forget plot, draw=none, name path={end}{number}] {points};"
                )
            lines.append(
                rf"\addplot[forget plot, {colour}, fill opacity=0.14] "
                f"fill between[of=low{number} and high{number}];"
            )
        mark = _MARKS[curve.marker % len(_MARKS)]
        lines.append(rf"\addplot[{colour}, {dash}, mark={mark}] {_points(curve.x, curve.y)};")
        if legend:
            lines.append(rf"\addlegendentry{{{_tex(curve.title)}}}")
        lines += _marks_tex(curve, colour, mark)
    if panel.ceiling is not None:
        ends = (
            rf"(axis cs:\pgfkeysvalueof{{/pgfplots/{end}}},{panel.ceiling:.5g})"
            for end in ("xmin", "xmax")
        )
        lines.append(rf"\draw[black!55, dashed] {' -- '.join(ends)};")
    return lines


def _marks_tex(curve: Curve, colour: str, mark: str) -> list[str]:
    """Write hollow marks for points with outages, and crosses for unreachable rates."""
    never = curve.unreachable == 1
    lost = ~never & (curve.outage > SOME_OUTAGE)
    found = []
    if lost.any():
        points = _points(curve.x[lost], curve.y[lost])
        style = f"{colour}, only marks, mark={mark}, mark options={{fill=white, solid}}"
        found.append(rf"\addplot[forget plot, {style}] {points};")
    never &= np.isfinite(curve.x) & np.isfinite(curve.y)
    if never.any():
        points = _points(curve.x[never], curve.y[never])
        style = f"{colour}, only marks, mark=x, mark size=2.4pt, thick"
        found.append(rf"\addplot[forget plot, {style}] {points};")
    return found


def _points(x: np.ndarray, y: np.ndarray) -> str:
    pairs = " ".join(
        f"({a:.5g},{b:.5g})"
        for a, b in zip(x.tolist(), y.tolist(), strict=True)
        if math.isfinite(a) and math.isfinite(b)
    )
    return f"coordinates {{{pairs}}}"


def _number(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "nan"


def _short(value: float) -> float | str:
    return float(f"{value:.9g}") if math.isfinite(value) else ""


def _tex(text: str) -> str:
    r"""Escape a text for LaTeX.

    >>> print(_tex("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_SPECIAL.get(c, c) for c in text)


def _write_csv(head: list[str], rows: list[list[str | float]], path: Path) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_aside(text.getvalue().encode(), path)
    return path
