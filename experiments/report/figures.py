"""Figures of a results folder: metrics over rate, over the channel, and the pictures themselves.

    rate.CELL               every metric over true bits a pixel, a line a codec, at one channel cell
    snr_db.RATE, ...        every metric over a condition of the channel, a line a codec, at a rate
    pictures.NAME.RATE      the original and each codec at like rate, with maps, bpp and metrics
    channel.NAME.RATE       each codec's picture over the values of a condition

All are PNG, the curves SVG as well. Bands are 95 % intervals, hollow marks are points with outages,
a cross is a rate that the codec cannot reach; what n is stands under every figure.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from PIL import Image

from channels.atomic import whole_file
from channels.errors import ConfigError
from experiments.report.axes import NO_UNIT, Axis, axis_of
from experiments.report.summary import CLEAN
from experiments.sweep.examples import FOLDER, original_path, received_path
from experiments.sweep.store import read_parquet, read_results
from sqlink.data.classes import NAMES, NUM_CLASSES, PALETTE
from sqlink.metrics.jackknife import MIN_BLOCKS
from sqlink.metrics.semantic import miou

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind eyes; markers differ too."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, GREY, PALE = "#1a1a1a", "#6b6b6b", "#e3e3e3"
SOME_OUTAGE = 0.01
MOST_CELLS = 8
"""Figures of one kind; more cells than that are thinned out evenly."""

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": PALE,
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
    "svg.hashsalt": "sqlink",
}


Line = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """What figures are drawn from: the summary's lines, the rows kept as pictures, the manifest."""

    folder: Path
    lines: list[dict[str, Any]]
    examples: list[dict[str, Any]]
    manifest: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Results:
        """Raises ConfigError where the folder holds no finished sweep."""
        table = read_results(folder)
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            lines = read_parquet(folder / "summary.parquet").to_pylist()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{folder}: summary or manifest cannot be read: run the sweep again to write them"
            ) from error
        kept = received_path(folder / FOLDER, "*", "*").name
        names = {path.name for path in (folder / FOLDER).glob(kept)}
        rows = zip(
            table["picture"].to_pylist(),
            table["point"].to_pylist(),
            table["realisation"].to_pylist(),
            strict=True,
        )
        found = [
            i
            for i, (picture, point, realisation) in enumerate(rows)
            if realisation == 0
            and received_path(Path(), picture, point).name in names
            and original_path(Path(), picture).name in names
        ]
        return cls(folder, lines, table.take(found).to_pylist(), manifest)

    @property
    def conditions(self) -> list[str]:
        return list(self.manifest["conditions"])

    @property
    def metrics(self) -> list[str]:
        """Columns of the summary that are drawn, in order."""
        return [
            name
            for name in (*self.manifest["metrics"], "outage")
            if any(line.get(name) is not None for line in self.lines)
        ]

    @property
    def codecs(self) -> list[str]:
        return list(dict.fromkeys(line["codec"] for line in self.lines))

    def axis(self, name: str) -> Axis:
        """How a column is drawn; one of another's metric says so in the manifest."""
        return axis_of(name, self.manifest["metrics"])

    def trained(self, name: str) -> list[str]:
        """Codecs that had the metric as a training loss, too."""
        return [codec for codec, losses in self.manifest["trained_on"].items() if name in losses]


def plot_results(folder: str | Path) -> list[Path]:
    """Draw every figure that the results of `folder` give, into it. Returns their paths.

    Raises ConfigError, one line, where there is no finished sweep.
    """
    place = Path(folder)
    results = Results.read(place)
    written: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for figure, name, formats in _figures(results):
            for suffix in formats:
                written.append(_save(figure, place / f"{name}.{suffix}"))
            figure.clear()
    return written


def _figures(results: Results) -> Iterable[tuple[Figure, str, tuple[str, ...]]]:
    curves = ("png", "svg")
    conditions = results.conditions
    for cell in _thinned(_distinct(results.lines, (*conditions, "packet_bytes"))):
        lines = _matching(results.lines, cell)
        if len({line["rate"] for line in lines}) > 1:
            shown = _without_constants(results, cell)
            title = "Quality over rate" + (f", {_said(results, shown)}" if shown else "")
            figure = _panels(results, lines, "bpp", title)
            yield figure, _file_name("rate", shown), curves
    for condition in conditions:
        others = [name for name in (*conditions, "packet_bytes", "rate") if name != condition]
        for cell in _thinned(_distinct(results.lines, others)):
            lines = _matching(results.lines, cell)
            if len({line[condition] for line in lines}) > 1:
                shown = _without_constants(results, cell)
                title = (
                    f"Quality over the channel, {_said(results, {'rate': cell['rate']} | shown)}"
                )
                figure = _panels(results, lines, condition, title)
                yield figure, _file_name(condition, {"rate": cell["rate"]} | shown), curves
    for picture in dict.fromkeys(row["picture"] for row in results.examples):
        for rate in dict.fromkeys(row["rate"] for row in results.examples):
            rows = [r for r in results.examples if (r["picture"], r["rate"]) == (picture, rate)]
            if not rows:
                continue
            yield _grid(results, picture, rows), f"pictures.{picture}.{rate}", ("png",)
            for condition in conditions:
                if len({row[condition] for row in rows}) > 1:
                    figure = _over_channel(results, rows, condition)
                    yield figure, f"channel.{condition}.{picture}.{rate}", ("png",)


def _panels(results: Results, lines: Sequence[Line], x: str, title: str) -> Figure:
    """One panel a metric: `x` across, a line a codec."""
    from matplotlib.figure import Figure

    names = [name for name in results.metrics if any(line.get(name) is not None for line in lines)]
    columns = 4 if len(names) in (4, 7, 8) else min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.7 * columns + 0.4, 3.1 * rows + 1.1), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat[len(names) :]:
        panel.set_visible(False)
    for name, panel in zip(names, panels.flat, strict=False):
        _panel(results, panel, lines, x, name)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=min(5, len(labels)))
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    figure.supxlabel(_caption(results, lines, names), x=0.01, ha="left", fontsize=7.5, color=GREY)
    return figure


def _panel(results: Results, panel: Axes, lines: Sequence[Line], x: str, name: str) -> None:
    axis, across = results.axis(name), results.axis(x)
    for n, codec in enumerate(results.codecs):
        own = [line for line in lines if line["codec"] == codec and line.get(name) is not None]
        if not own:
            continue
        colour, marker = COLOURS[n % len(COLOURS)], MARKERS[n % len(MARKERS)]
        where = [_across(line, x) * across.factor for line in own]
        order = np.argsort(where)
        xs = np.asarray(where)[order]
        ys, low, high = (
            np.asarray([own[i][key] for i in order], dtype=np.float64) * axis.factor
            for key in (name, f"{name}_low", f"{name}_high")
        )
        panel.fill_between(xs, low, high, color=colour, alpha=0.14, linewidth=0)
        panel.plot(xs, ys, color=colour, marker=marker, label=codec, zorder=3)
        for i, px, py in zip(order, xs, ys, strict=True):
            if own[i]["unreachable"] == 1:
                panel.plot(px, py, "x", color=colour, markersize=9, markeredgewidth=2, zorder=5)
            elif own[i]["outage"] > SOME_OUTAGE:
                panel.plot(px, py, marker, color=colour, mfc="white", mew=1.5, zorder=4)
    clean = f"{name}{CLEAN}"
    ceilings = {line[clean] for line in lines if line.get(clean) is not None}
    if ceilings:
        best = axis.factor * max(ceilings)
        panel.axhline(best, color=GREY, linestyle=(0, (4, 3)), linewidth=1)
        panel.annotate(
            f"original: {best:.1f}",
            (1, best),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=GREY,
        )
    star = "*" if results.trained(name) else ""
    arrow = {"higher": " ↑", "lower": " ↓"}.get(axis.better, "")
    panel.set_title(f"{axis.title}{star}{arrow}")
    panel.set_ylabel(axis.label)
    panel.set_xlabel(across.label)
    if x != "bpp":
        panel.set_xticks([v * across.factor for v in _thinned(sorted({line[x] for line in lines}))])
    panel.margins(x=0.04, y=0.08)
    if name == "outage":
        panel.set_ylim(-3, 103)


def _across(line: Line, x: str) -> float:
    """Where a line stands across; a rate never reached stands at the one that was asked for."""
    value = line[x]
    if x == "bpp" and (value is None or value != value):
        kind, asked = line["rate"].split("=")
        return float(asked) if kind == "bpp" else float("nan")
    return float(value)


def _caption(results: Results, lines: Sequence[Line], names: Sequence[str]) -> str:
    line = lines[0]
    blocks, pictures = line["blocks"], line["pictures"]
    parts = [
        f"n = {pictures} pictures in {blocks} blocks, {line['realisations']} realisations each",
        "bands: 95 % intervals, Student's t on blocks"
        if blocks >= MIN_BLOCKS
        else f"intervals n/a: {blocks} block{'' if blocks == 1 else 's'}",
        "outages stay in the mean (hollow: more than 1 %, cross: rate not reachable)",
    ]
    text = "; ".join(parts) + "."
    trained = {name: codecs for name in names if (codecs := results.trained(name))}
    for name, codecs in trained.items():
        text += f"\n* {results.axis(name).title} was also a training loss of {', '.join(codecs)}."
    for name in names:
        counts = {int(line.get(f"{name}_pictures") or pictures) for line in lines}
        for count in sorted(counts - {pictures}):
            text += f"\n{results.axis(name).title}: n = {count} of {pictures} pictures."
    for name, reason in results.manifest["unavailable"].items():
        said = textwrap.fill(f"{results.axis(name).title} not measured: {reason}.", 150)
        text += f"\n{said}"
    return text


def _grid(results: Results, picture: str, rows: Sequence[Line]) -> Figure:
    """The original and each codec at one rate, where the fewest outages are, with their maps."""
    cells = _distinct(rows, (*results.conditions, "packet_bytes"))
    best = min(cells, key=lambda cell: _outage(results, {"rate": rows[0]["rate"], **cell}))
    shown = {row["codec"]: row for row in _matching(rows, best)}
    folder = results.folder / FOLDER
    origin = original_path(folder, picture)
    paths = [origin, *(received_path(folder, picture, row["point"]) for row in shown.values())]
    texts = ["original", *(_under(results, row) for row in shown.values())]
    titles = ["original", *shown]
    kinds = [
        (suffix, says)
        for suffix, says in (
            (".png", "picture"),
            (".seen.png", "what the judge\nsees in it"),
            (".map.png", "map received\n(original: labels)"),
        )
        if any(path.with_suffix(suffix).exists() for path in paths)
    ]
    clean = miou_of(rows[0].get("confusion_clean"))
    texts[0] = "no coding" + ("" if clean is None else f"\nmIoU {100 * clean:.1f} %")
    figure, panels = _sheet(origin, len(kinds), len(paths), captions=1)
    for i, (suffix, says) in enumerate(kinds):
        for j, path in enumerate(paths):
            panel = panels[i][j]
            _show(panel, path.with_suffix(suffix))
            if i == 0:
                panel.set_title(titles[j])
                panel.set_xlabel(texts[j], fontsize=8)
        panels[i][0].set_ylabel(says, fontsize=8.5)
    _class_legend(figure)
    title = f"{picture} at {_rate_said(rows[0]['rate'])}"
    conditions = {key: value for key, value in best.items() if key != "packet_bytes"}
    if conditions:
        title += f", {_said(results, conditions)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _over_channel(results: Results, rows: Sequence[Line], condition: str) -> Figure:
    """Each codec's picture over the values of one condition, the others at their first."""
    others = [name for name in (*results.conditions, "packet_bytes") if name != condition]
    lines = _matching(rows, _distinct(rows, others)[0])
    values = _thinned(sorted({row[condition] for row in lines}), 5)
    codecs = list(dict.fromkeys(row["codec"] for row in lines))
    folder = results.folder / FOLDER
    picture = rows[0]["picture"]
    figure, panels = _sheet(
        original_path(folder, picture), len(codecs), len(values), captions=len(codecs)
    )
    axis = results.axis(condition)
    by_cell = {(row["codec"], row[condition]): row for row in lines}
    for i, codec in enumerate(codecs):
        for j, value in enumerate(values):
            panel = panels[i][j]
            row = by_cell.get((codec, value))
            if row is None:
                panel.set_visible(False)
                continue
            _show(panel, received_path(folder, picture, row["point"]))
            panel.set_xlabel(_under(results, row), fontsize=8)
            if i == 0:
                panel.set_title(axis.said(value))
        panels[i][0].set_ylabel(codec, fontsize=10, fontweight="bold")
    title = f"{picture} at {_rate_said(rows[0]['rate'])} over {axis.title}; one realisation"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _sheet(origin: Path, rows: int, columns: int, captions: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels of the shape of the picture `origin`, so many rows of them with text."""
    from matplotlib.figure import Figure

    with Image.open(origin) as picture:
        ratio = picture.height / picture.width
    width = 3.1
    height = (width * ratio + 0.08) * rows + 0.52 * captions + 0.85
    figure = Figure(figsize=(width * columns + 0.5, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _show(panel: Axes, path: Path) -> None:
    """A picture without axes; "none" where the codec has no such."""
    panel.set_xticks([])
    panel.set_yticks([])
    panel.grid(False)
    for spine in panel.spines.values():
        spine.set_visible(False)
    if path.exists():
        with Image.open(path) as picture:
            panel.imshow(np.asarray(picture.convert("RGB")), interpolation="antialiased")
    else:
        panel.text(0.5, 0.5, "carries no map", ha="center", va="center", color=GREY, fontsize=9)
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)


def _under(results: Results, row: Line) -> str:
    """The text under a picture: true bpp, packets, metrics."""
    if row["unreachable"]:
        return f"rate not reachable: its lowest is {8 * row['lowest_bytes'] / _pixels(row):.3f} bpp"
    packets = f"{row['delivered']} of {row['packets']} packets"
    first = f"{8 * row['bytes'] / _pixels(row):.3f} bpp, {row['bytes']} bytes, {packets}"
    parts = ["outage"] if row["outage"] else []
    for name in results.manifest["metrics"]:
        if row.get(name) is not None:
            axis = results.axis(name)
            star = "*" if row["codec"] in results.trained(name) else ""
            digits = ".3f" if axis.unit == NO_UNIT else ".2f"
            parts.append(f"{axis.title}{star} {axis.said(row[name], digits)}")
    seen = miou_of(row.get("confusion_image"))
    if seen is not None:
        parts.append(f"mIoU {100 * seen:.1f} %")
    carried = miou_of(row.get("confusion_map"))
    if carried is not None:
        parts.append(f"of map {100 * carried:.1f} %")
    half = len(parts) if len(parts) <= 3 else 3
    return "\n".join([first, ", ".join(parts[:half]), ", ".join(parts[half:])]).rstrip()


def miou_of(matrix: Sequence[int] | None) -> float | None:
    """mIoU of one picture's confusion matrix, as it is stored; None where there is none."""
    import torch

    if matrix is None:
        return None
    return float(miou(torch.tensor(matrix).reshape(NUM_CLASSES, NUM_CLASSES)))


def _class_legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor=f"#{bytes(colour).hex()}", label=name)
        for name, colour in zip(NAMES, PALETTE, strict=True)
    ]
    columns = min(len(NAMES), int(figure.get_figwidth() / 0.95))  # an entry is about an inch wide
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=8, handlelength=1
    )


def _pixels(row: Line) -> int:
    return int(row["height"]) * int(row["width"])


def _outage(results: Results, cell: Mapping[str, Any]) -> float:
    """Mean outage of a cell over the codecs."""
    return float(np.mean([line["outage"] for line in _matching(results.lines, cell)]))


def _distinct(lines: Sequence[Line], names: Sequence[str]) -> list[dict[str, Any]]:
    """The combinations of values that occur, sorted as far as they are numbers."""
    found = {tuple(line[name] for name in names): None for line in lines}
    return [dict(zip(names, values, strict=True)) for values in found]


def _matching(lines: Sequence[Line], cell: Mapping[str, Any]) -> list[Line]:
    return [line for line in lines if all(line[name] == value for name, value in cell.items())]


def _without_constants(results: Results, cell: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a cell that tells it from others, without the rate."""
    return {
        name: value
        for name, value in cell.items()
        if name != "rate" and len({line[name] for line in results.lines}) > 1
    }


def _thinned(cells: list[Any], most: int = MOST_CELLS) -> list[Any]:
    """At most so many, evenly chosen, the first and the last among them."""
    if len(cells) <= most:
        return cells
    return [cells[i] for i in np.linspace(0, len(cells) - 1, most).round().astype(int)]


def _said(results: Results, cell: Mapping[str, Any]) -> str:
    """A cell in words, such as `0.04 bpp, mean Es/N0 5 dB`."""
    texts = []
    for name, value in cell.items():
        if name == "rate":
            texts.append(_rate_said(value))
        elif name == "packet_bytes":
            texts.append(f"{value}-byte packets")
        else:
            axis = results.axis(name)
            texts.append(f"{axis.title} {axis.said(value)}")
    return ", ".join(texts)


def _rate_said(rate: str) -> str:
    kind, value = rate.split("=")
    return f"quality {value}" if kind == "quality" else f"{value} {kind.replace('_', ' ')}"


def _file_name(first: str, cell: Mapping[str, Any]) -> str:
    """`rate.snr_db=5`, fit for a file system."""
    texts = [str(value) if name == "rate" else f"{name}={value:g}" for name, value in cell.items()]
    return ".".join([first, *texts])


def _save(figure: Figure, path: Path) -> Path:
    """Write a figure, whole or not at all. Raises ConfigError."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    try:
        with whole_file(path) as aside:
            figure.savefig(aside, format=path.suffix[1:], metadata=metadata)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path
