"""The figure of a channel study: one panel for each quantity, with intervals and references."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator

from channels.atomic_write import whole_file
from channels.errors import ConfigError
from experiments.channel_study.curves import (
    CONDITIONS,
    Curves,
    Floats,
    Point,
    Share,
    instants,
    shows_delay,
    shows_runs,
)
from experiments.channel_study.references import (
    Reference,
    bit_references,
    delay_reference,
    loss_references,
    run_reference,
)
from experiments.report.axes import Axis
from experiments.report.style import COLOURS, GREY, MARKERS, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


FORMATS = (".png", ".pdf", ".svg")


_LOWEST_SHOWN = 1e-6


def check_target(path: Path) -> None:
    """Raise ConfigError if a figure cannot be written to `path`."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path}: give a file name that ends in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: the folder {path.parent} does not exist: make it")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: give a file name")


def draw(curves: Curves, path: Path) -> None:
    """Draw the figure, one panel per quantity, to PNG, PDF or SVG. Raises ConfigError."""
    check_target(path)
    kinds: list[Callable[[Axes, Curves], None]] = []
    if any(point.bits is not None for point in curves.points):
        kinds.append(_bit_panel)
    delayed = any(shows_delay(point) for point in curves.points)
    if curves.condition is not None:
        kinds.append(_loss_panel)
    elif not delayed or any(point.lost.hits for point in curves.points):
        kinds.append(_slot_panel)
    if any(shows_runs(point) for point in curves.points):
        kinds.append(_run_panel)
    if delayed:
        kinds.append(_delay_panel)
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(kinds) + 0.4, 4.3), layout="constrained")
        panels = figure.subplots(1, len(kinds), squeeze=False)
        for panel, kind in zip(panels.flat, kinds, strict=True):
            kind(panel, curves)
            panel.margins(x=0.03)
        figure.suptitle(_titled(curves), x=0.01, ha="left", fontsize=12, fontweight="bold")
        caption = textwrap.fill(_caption(curves), 88 * len(kinds))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=7.5, color=GREY)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        if path.suffix.lower() == ".pdf":
            metadata = {"CreationDate": None}
        try:
            with whole_file(path) as aside:
                figure.savefig(aside, format=path.suffix.lower()[1:], metadata=metadata)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error


def _titled(curves: Curves) -> str:
    others = [
        f"{CONDITIONS[name].title} {CONDITIONS[name].said(value)}"
        if name in CONDITIONS
        else f"{name} {value:g}"
        for name, value in curves.others.items()
    ]
    own = curves.channel.name
    named = curves.title if curves.title == own else f"{curves.title} ({own})"
    return ", ".join([named, *others])


def _caption(curves: Curves) -> str:
    each = f" on {curves.links} links of {curves.slots} packets" if curves.slots > 1 else ""
    parts = [
        f"n = {curves.links * curves.slots} packets of {curves.packet_bytes} bytes per point{each}"
    ]
    if curves.traffic:
        parts.append(curves.traffic)
    bits = next((point.bits.trials for point in curves.points if point.bits is not None), 0)
    if bits:
        parts.append(f"{bits} bits per point")
    if not any(point.lost.hits for point in curves.points):
        parts.append("no packet was lost")
    text = "; ".join(parts) + ". Bars: 95 % intervals, Clopper and Pearson"
    if curves.slots > 1:
        text += ", correlated packets of a link count as fewer (Korn and Graubard)"
    return text + "; a hollow triangle: no event, the end of its interval."


def _axis(curves: Curves) -> Axis:
    name = curves.condition or ""
    return CONDITIONS.get(name, Axis(name))


def _marks(
    panel: Axes,
    xs: Sequence[float],
    shares: Sequence[Share],
    label: str,
    number: int = 0,
    log: bool = False,
    factor: float = 1.0,
) -> None:
    """Draw rates with their intervals.

    On a logarithmic axis a rate of 0 is drawn at the upper end of its interval.
    """
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    seen = [i for i, s in enumerate(shares) if s.trials and (s.hits or not log)]
    none = [i for i, s in enumerate(shares) if s.trials and not s.hits and log]
    if seen:
        y = np.array([shares[i].rate for i in seen])
        ends = np.array([shares[i].interval for i in seen])
        panel.errorbar(
            np.array(xs)[seen],
            factor * y,
            factor * np.stack([y - ends[:, 0], ends[:, 1] - y]).clip(min=0),
            fmt=marker,
            color=colour,
            markersize=4.5,
            elinewidth=1.1,
            capsize=2,
            label=label,
            zorder=4,
        )
    if none:
        tops = [factor * shares[i].interval[1] for i in none]
        panel.plot(np.array(xs)[none], tops, "v", color=colour, mfc="white", markersize=5, zorder=4)


def _linestyle(reference: Reference, number: int) -> Any:
    """Return the line style: solid for exact laws, dashed for bounds, dotted for others."""
    if number > 0 or reference.target:
        return (0, (1, 1.5))
    return (0, (5, 2)) if reference.bound else "-"


def _lines(
    panel: Axes,
    references: Sequence[Reference],
    xs: Floats,
    factor_x: float = 1.0,
    factor_y: float = 1.0,
) -> None:
    for number, reference in enumerate(references):
        panel.plot(
            xs * factor_x,
            reference.values(xs) * factor_y,
            color="#1a1a1a" if number == 0 else GREY,
            linestyle=_linestyle(reference, number),
            linewidth=1.3,
            label=reference.name,
            zorder=2,
        )


def _span(curves: Curves) -> Floats:
    values = [point.value for point in curves.points if point.value is not None]
    return np.linspace(min(values), max(values), 400) if len(values) > 1 else np.array(values)


def _floor(shares: Sequence[Share]) -> float:
    """Return the lower end of a logarithmic axis, a little below the smallest value."""
    seen = [share.interval[0] for share in shares if share.hits]
    seen += [share.interval[1] / 3 for share in shares if share.trials and not share.hits]
    seen.append(0.03)
    return max(_LOWEST_SHOWN, 10.0 ** math.floor(math.log10(max(min([*seen, 0.03]), 1e-12))))


def _finish(panel: Axes, title: str, x: str, y: str, legend: Any = "best") -> None:
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.legend(
        fontsize=7.5, loc=legend, frameon=True, facecolor="white", edgecolor="none", framealpha=0.9
    )


def _bit_panel(panel: Axes, curves: Curves) -> None:
    axis = _axis(curves)
    points = [point for point in curves.points if point.bits is not None]
    shares = [point.bits for point in points if point.bits is not None]
    _lines(panel, bit_references(curves), _span(curves), axis.factor)
    xs = [axis.factor * (point.value or 0.0) for point in points]
    _marks(panel, xs, shares, "counted", log=True)
    panel.set_yscale("log")
    panel.set_ylim(_floor(shares), 1)
    _finish(panel, "Bit errors", axis.label, "Bit error rate (no unit)", "lower left")


def _loss_panel(panel: Axes, curves: Curves) -> None:
    axis = _axis(curves)
    log = curves.condition != "loss"
    factor = 1.0 if log else 100.0
    shares = [point.lost for point in curves.points]
    _lines(panel, loss_references(curves), _span(curves), axis.factor, factor)
    xs = [axis.factor * (point.value or 0.0) for point in curves.points]
    _marks(panel, xs, shares, "counted", log=log, factor=factor)
    if log:
        panel.set_yscale("log")
        panel.set_ylim(_floor(shares), 1.3)
    _finish(
        panel,
        "Packet loss",
        axis.label,
        "Packets lost (share)" if log else "Packets lost (%)",
        "lower left" if log else "upper left",
    )


def _slot_panel(panel: Axes, curves: Curves) -> None:
    (point,) = curves.points
    slots = np.arange(1, curves.slots + 1, dtype=np.float64)
    step = -(-curves.slots // 50)
    _lines(panel, loss_references(curves), slots, 1.0, 100.0)
    shares = point.lost_by_slot[::step]
    _marks(panel, slots[::step].tolist(), shares, "counted", factor=100.0)
    top = 108 * max(share.interval[1] for share in shares)
    panel.set_ylim(-0.03 * top, top)
    _finish(panel, "Packet loss", "Packet of its link (number)", "Packets lost (%)")


def _some(points: Sequence[Point], most: int = 3) -> list[Point]:
    """Return at most `most` points in equal steps, with the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, most).round().astype(int)]


def _at(curves: Curves, point: Point) -> str:
    return "counted" if point.value is None else f"{_axis(curves).said(point.value)}"


def _run_panel(panel: Axes, curves: Curves) -> None:
    points = _some([point for point in curves.points if shows_runs(point)])
    longest = 1
    for number, point in enumerate(points):
        shown = [length for length, share in enumerate(point.runs) if share.hits]
        longest = max(longest, shown[-1])
        beside = 0.12 * (number - (len(points) - 1) / 2)
        _marks(
            panel,
            [length + beside for length in shown],
            [point.runs[length] for length in shown],
            f"{_at(curves, point)}, {point.runs[0].trials} runs",
            number,
            log=True,
        )
        reference = run_reference(curves, point.value)
        if reference is not None:
            xs = np.arange(shown[-1] + 1, dtype=np.float64)
            panel.plot(
                xs,
                reference.values(xs),
                color=COLOURS[number % len(COLOURS)],
                linewidth=1.2,
                zorder=2,
            )
    panel.set_yscale("log")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(_floor([share for point in points for share in point.runs if share.hits]), 1.5)
    has_reference = run_reference(curves, points[-1].value) is not None
    _finish(
        panel,
        "Runs of losses" + (" (lines: of the two states)" if has_reference else ""),
        "Packets lost in a row, l (number)",
        "P(run longer than l)",
    )


def _delay_panel(panel: Axes, curves: Curves) -> None:
    points = _some([point for point in curves.points if shows_delay(point)])
    longest = max(float(instants(point, 2)[-1]) for point in points)
    unit, factor = ("s", 1.0) if longest >= 1 else ("ms", 1e3)
    grid = np.linspace(0, longest, 600)
    for number, point in enumerate(points):
        come = np.sort(point.delays_s, axis=None)
        share = np.searchsorted(come, grid, side="right") / len(come)
        marks = grid[np.linspace(0, len(grid) - 1, 16).round().astype(int)]
        colour = COLOURS[number % len(COLOURS)]
        panel.plot(grid * factor, share, color=colour, linewidth=1, alpha=0.6)
        shares = [point.within(float(t)) for t in marks]
        _marks(panel, (marks * factor).tolist(), shares, _at(curves, point), number)
    reference = delay_reference(curves)
    if reference is not None:
        _lines(panel, [reference], grid[grid <= reference.up_to], factor)
    panel.set_ylim(0, 1.03)
    _finish(
        panel, "Delay", f"Delay t ({unit})", "P(there within t), lost ones never", "lower right"
    )
