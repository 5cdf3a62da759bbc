"""Figures of results folders: metrics over rate and over the channel, maps of both, and pictures.

    rate_CELL, SNR_DB_RATE, ...   every metric in a panel, one line per codec, in one cell
    classes_CELL                  IoU of every class over the rate
    heat_METRIC_CONDITION         a metric over rate and a condition, one map per codec
    pictures_NAME_RATE            the original and each codec at similar rates, with metrics
    channel_CONDITION_NAME_RATE   each codec's picture over the values of a condition

Curves and maps are drawn for a printed width (`style.TARGETS`), as PDF, SVG and PNG, with their
numbers as CSV and as pgfplots. Bands are 95 % intervals, hollow marks are points with outages, and
a cross is a rate that the codec cannot reach.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from channels.errors import ConfigError
from channels.registry import nearest
from experiments.report import picture_sheets
from experiments.report.curves import (
    RATES,
    SOME_OUTAGE,
    Chart,
    Curve,
    Panel,
    Question,
    axis_across,
    cell_title,
    class_panels,
    distinct,
    matching,
    notes,
    panel,
    thinned,
)
from experiments.report.figure_export import chart_tex, heat_tex, write_chart_csv, write_heat_csv
from experiments.report.heat_map import HeatMap, draw_heat_maps, heat_maps
from experiments.report.results import Results, read_all
from experiments.report.style import COLOURS, DASHES, FORMATS, GREY, MARKERS, Target, styled, target
from sqlink.data.pictures import write_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CELLS = 8
"""Largest number of figures of one kind; of more cells, some are chosen evenly."""
BY = ("codec", "rate", "packet_bytes")
"""Columns that distinguish curves, besides the conditions."""


def plot_results(
    folders: str | Path | Sequence[str | Path],
    *,
    x: str | None = None,
    metrics: Sequence[str] = (),
    by: str = "codec",
    at: Mapping[str, float] | None = None,
    made_for: str = "ieee-page",
    formats: Sequence[str] = FORMATS,
    style: Path | None = None,
    envelope: bool = False,
    output: str | Path | None = None,
) -> list[Path]:
    """Draw figures of one or more results folders. Returns the files written.

    x: horizontal axis: `bpp`, `channel_uses`, `cbr` or a condition. If x or metrics are given, only
    those curves are drawn, else all figures. by: what distinguishes the curves of a codec: `rate`,
    `packet_bytes` or a condition. at: condition -> value, to draw these cells only. made_for: a
    name in `style.TARGETS`. style: an additional matplotlib style file. envelope: draw the best of
    the folders that share a codec at each x, such as folders of several code rates. output: the
    folder to write to, by default the first results folder. Raises ConfigError, one line, if there
    is no finished sweep or a name is unknown.
    """
    given = [folders] if isinstance(folders, (str, Path)) else list(folders)
    results = read_all(given)
    size, chosen = target(made_for), _formats(formats)
    metrics = _columns(results, metrics)
    _check(results, x, metrics, by, at or {})
    place = Path(output) if output is not None else results[0].folder
    written: list[Path] = []
    with styled(size, style):
        for chart in _charts(results, x, metrics, by, at or {}, envelope):
            figure = draw_chart(chart, size)
            written += _save(figure, place / chart.name, chosen)
            written.append(write_chart_csv(chart, place / f"{chart.name}.csv"))
            written.append(_write(chart_tex(chart, size), place / f"{chart.name}.tex"))
        if x is None:
            for maps in _heats(results, metrics):
                figure = draw_heat_maps(maps, size)
                written += _save(figure, place / maps.name, chosen)
                written.append(write_heat_csv(maps, place / f"{maps.name}.csv"))
                written.append(_write(heat_tex(maps, size), place / f"{maps.name}.tex"))
    if x is None and not metrics and output is None:
        with styled(target("slide"), style):
            for one in results:
                for figure, name in _sheets(one):
                    written += _save(figure, one.folder / name, ("png",))
    return written


def draw_chart(chart: Chart, size: Target) -> Figure:
    """Draw a figure of the chart's panels, at its printed width."""
    from matplotlib.figure import Figure

    count = len(chart.panels)
    columns = min(size.columns, count) if count != 4 else min(2, size.columns)
    rows = -(-count // columns)
    width = size.width if count > 1 or size.columns == 1 else size.width * 0.62
    points = size.rc["font.size"]
    text = _wrapped(chart.notes, width, size.small)
    heading = _wrapped(chart.title, width, points)
    handles = _legend(chart)
    longest = max(len(handle.get_label()) for handle in handles)
    entries = max(1, int(width / ((0.058 * longest + 0.5) * points / 8)))
    above = heading.count("\n") + 1 + -(-len(handles) // entries)
    extra = (above * points * 1.5 + (text.count("\n") + 2) * size.small * 1.3) / 72
    figure = Figure(figsize=(width, size.panel * rows + extra), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    for number, (one, axes) in enumerate(zip(chart.panels, panels.flat, strict=False)):
        draw_panel(one, axes)
        if count == 1:
            axes.set_title("")
            axes.set_ylabel(one.heading)
        if count - number > columns:
            axes.set_xlabel("")
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(entries, len(handles)),
        columnspacing=1.2,
        handlelength=2.4,
        title=heading,
        title_fontproperties={"size": points, "weight": "bold"},
        alignment="left",
    )
    figure.supxlabel(text, x=0.01, ha="left", fontsize=size.small, color=GREY)
    return figure


def draw_panel(one: Panel, axes: Axes) -> None:
    """Draw curves with their bands, marks and ceiling."""
    for curve in one.curves:
        colour = COLOURS[curve.style % len(COLOURS)]
        marker = MARKERS[curve.marker % len(MARKERS)]
        dash = DASHES[curve.marker % len(DASHES)]
        if curve.member:
            axes.plot(curve.x, curve.y, color=colour, linestyle=dash, linewidth=0.5, alpha=0.7)
            continue
        if len(curve.x) > 1:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.14, linewidth=0)
        axes.plot(curve.x, curve.y, color=colour, linestyle=dash, zorder=3)
        for kind, chosen in marks(curve).items():
            hollow: Any = {"markerfacecolor": "white"} if kind == "outage" else {}
            axes.plot(
                curve.x[chosen],
                curve.y[chosen],
                "x" if kind == "unreachable" else marker,
                color=colour,
                linestyle="",
                zorder=4,
                **hollow,
            )
    if one.ceiling is not None:
        axes.axhline(one.ceiling, color=GREY, linestyle=(0, (4, 3)), linewidth=0.8)
    axes.set_title(one.heading)
    axes.set_xlabel(one.x.label)
    axes.margins(x=0.05, y=0.1)
    axes.locator_params(axis="both", nbins=5, steps=[1, 2, 2.5, 5, 10])
    if one.name == "outage":
        axes.set_ylim(-4, 104)


def marks(curve: Curve) -> dict[str, Any]:
    """Return which points are plain, have outages, or are unreachable: bool [points] each."""
    never = curve.unreachable == 1
    lost = ~never & (curve.outage > SOME_OUTAGE)
    kinds = {"plain": ~never & ~lost, "outage": lost, "unreachable": never}
    return {kind: chosen for kind, chosen in kinds.items() if chosen.any()}


def _legend(chart: Chart) -> list[Any]:
    """Draw an entry for each curve, and one for each kind of mark that occurs."""
    from matplotlib.lines import Line2D

    handles: dict[str, Line2D] = {}
    kinds: set[str] = set()
    ceiling = any(one.ceiling is not None for one in chart.panels)
    for curve in (curve for one in chart.panels for curve in one.curves):
        if not curve.member:
            kinds |= set(marks(curve))
            handles.setdefault(
                curve.title,
                Line2D(
                    [],
                    [],
                    color=COLOURS[curve.style % len(COLOURS)],
                    marker=MARKERS[curve.marker % len(MARKERS)],
                    linestyle=DASHES[curve.marker % len(DASHES)],
                    label=curve.title,
                ),
            )
    found = list(handles.values())
    plain: Any = {"color": GREY, "linestyle": ""}
    if "outage" in kinds:
        found.append(Line2D([], [], marker="o", mfc="white", label="outage over 1 %", **plain))
    if "unreachable" in kinds:
        found.append(Line2D([], [], marker="x", label="rate not reachable", **plain))
    if ceiling:
        line: Any = {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 0.8}
        found.append(Line2D([], [], label="judge on originals", **line))
    return found


def _charts(
    results: Sequence[Results],
    x: str | None,
    metrics: Sequence[str],
    by: str,
    at: Mapping[str, float],
    envelope: bool,
) -> Iterator[Chart]:
    """Yield all figures of curves that are asked for."""
    lines = [line for one in results for line in one.lines]
    conditions = list(dict.fromkeys(name for one in results for name in one.conditions))
    cell_names = list(dict.fromkeys(name for one in results for name in one.cell))
    if all(len(one.channels) == 1 for one in results):
        cell_names.remove("channel")  # folders of different channels are drawn together
    known = list(dict.fromkeys(name for one in results for name in one.metrics))
    wanted = tuple(metrics) or tuple(known)
    xs = (x,) if x is not None else ("bpp", *conditions)
    channel = "; ".join(dict.fromkeys(one.channel for one in results))
    for over in xs:
        held = [*cell_names, *(["rate"] if over not in RATES else [])]
        held = [name for name in held if name not in (over, by)]
        cells = [
            cell
            for cell in distinct(lines, held)
            if all(cell.get(k) is None or np.isclose(cell[k], v) for k, v in at.items())
        ]
        for cell in thinned(cells, MOST_CELLS):
            moved = "rate" if over in RATES else over
            drawn = {line.get(moved) for line in matching(lines, cell)} - {None}
            if len(drawn) < 2 and x is None:
                continue
            question = Question(over, wanted, cell, by, envelope)
            shown = {k: v for k, v in cell.items() if _varies(lines, k) or k == "rate"}
            title = f"{channel}" + (f"; {cell_title(results[0], shown)}" if shown else "")
            first = "rate" if over == "bpp" else over
            name = file_name(first, shown, metrics if x is not None or metrics else (), by)
            panels = [panel(results, question, metric) for metric in wanted]
            panels = [one for one in panels if one.curves]
            if not panels:
                continue
            said = notes(results, [one.name for one in panels])
            yield Chart(name, title, tuple(panels), said)
            if over == "bpp" and x is None and not metrics:
                classes = class_panels(results, question)
                if classes:
                    name = file_name("classes", shown)
                    yield Chart(name, f"IoU of each class; {title}", tuple(classes), said)


def _heats(results: Sequence[Results], metrics: Sequence[str]) -> Iterator[HeatMap]:
    one = results[0]
    for condition in one.conditions:
        for metric in metrics or [name for name in ("miou", "psnr_db") if name in one.metrics][:1]:
            found = heat_maps(one, metric, condition)
            if found is not None:
                yield found


def _sheets(results: Results) -> Iterator[tuple[Figure, str]]:
    """Yield figures of the kept pictures, in the first realisation."""
    rows = [results.row(shot.row) for shot in results.shots]
    rows = [row for row in rows if row["realisation"] == 0]
    for picture in dict.fromkeys(row["picture"] for row in rows):
        for rate in dict.fromkeys(row["rate"] for row in rows):
            own = [row for row in rows if (row["picture"], row["rate"]) == (picture, rate)]
            if not own:
                continue
            place = {"rate": rate}
            name = file_name(f"pictures_{picture}", place)
            yield picture_sheets.grid(results, picture, own), name
            for condition in results.conditions:
                if len({row[condition] for row in own} - {None}) > 1:
                    name = file_name(f"channel_{condition}_{picture}", place)
                    yield picture_sheets.over_channel(results, own, condition), name


def file_name(
    first: str, cell: Mapping[str, Any], metrics: Sequence[str] = (), by: str = "codec"
) -> str:
    """Make a file name for LaTeX and shells: without dots, equals signs and blanks.

    >>> file_name("rate", {"snr_db": -2.5, "rate": "bpp=0.04"}, ["miou"])
    'rate_miou_snr-db-m2p5_bpp-0p04'
    """
    texts = [first, *metrics, *([f"by-{by}"] if by != "codec" else [])]
    for name, value in cell.items():
        if value is None:
            continue
        kind, number = value.split("=") if name == "rate" else (name, _plain(value))
        texts.append(f"{kind.replace('_', '-')}-{number.replace('-', 'm').replace('.', 'p')}")
    return "_".join("".join(c if c.isalnum() or c in "-_" else "-" for c in text) for text in texts)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _varies(lines: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({line.get(name) for line in lines}) > 1


def _columns(results: Sequence[Results], metrics: Sequence[str]) -> list[str]:
    """Return the columns of metrics named as in a sweep's file: `psnr` for psnr_db.

    Other names are returned unchanged.
    """
    known = {name for one in results for name in one.metrics}
    return [
        f"{name}_db" if name not in known and f"{name}_db" in known else name for name in metrics
    ]


def _check(
    results: Sequence[Results],
    x: str | None,
    metrics: Sequence[str],
    by: str,
    at: Mapping[str, float],
) -> None:
    """Raise ConfigError for a name that no folder has, before anything is drawn."""
    if x is not None:
        axis_across(results, x)
    known = list(dict.fromkeys(name for one in results for name in one.metrics))
    for name in metrics:
        if name not in known:
            missing = {k: v for one in results for k, v in one.manifest["unavailable"].items()}
            why = f": {missing[name]}" if name in missing else f": {nearest(name, known)}"
            raise ConfigError(f"--metric {name} was not measured{why}")
    bys = [*BY, *dict.fromkeys(name for one in results for name in one.cell)]
    if by not in bys:
        raise ConfigError(f"--by {by}: {nearest(by, bys)}")
    for name, value in at.items():
        found = {line.get(name) for one in results for line in one.lines}
        values: list[float] = sorted(v for v in found if isinstance(v, (int, float)))
        if not any(np.isclose(value, one) for one in values):
            there = ", ".join(f"{one:g}" for one in values) or "nothing"
            raise ConfigError(f"--at {name}={value:g} was not measured: there is {there}")
    if x is not None and x == by:
        raise ConfigError(f"--by {by} is what stands across: give another")


def _formats(formats: Sequence[str]) -> tuple[str, ...]:
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format {name}: {nearest(name, list(FORMATS))}")
    if not formats:
        raise ConfigError(f"--format names none: give some of {','.join(FORMATS)}")
    return tuple(dict.fromkeys(formats))


def _wrapped(text: str, width: float, points: float) -> str:
    """Break a text into lines that fit a width in inches."""
    from textwrap import fill

    most = max(20, int(width * 72 / (points * 0.5)))
    return "\n".join(fill(line, most) for line in text.splitlines())


def _save(figure: Figure, path: Path, formats: Sequence[str]) -> list[Path]:
    """Write each format to a temporary file, then rename it."""
    from io import BytesIO

    written = []
    for name in formats:
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(
            name, {}
        )
        buffer = BytesIO()
        figure.savefig(buffer, format=name, metadata=metadata)
        written.append(_write(buffer.getvalue(), path.with_name(f"{path.name}.{name}")))
    figure.clear()
    return written


def _write(content: str | bytes, path: Path) -> Path:
    write_aside(content.encode() if isinstance(content, str) else content, path)
    return path
