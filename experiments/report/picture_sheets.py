"""Sheets of pictures: the original and each codec at similar rates, with maps; and over a
condition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from experiments.report.curves import cell_title, distinct, matching, thinned
from experiments.report.labels import codec_title, rate_title
from experiments.report.results import Line, Results
from experiments.report.style import GREY
from experiments.sweep.examples import FOLDER, original_path, received_path
from sqlink.data.classes import NAMES, NUM_CLASSES, PALETTE
from sqlink.metrics.semantic import miou

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_VALUES = 5
"""Largest number of values of a condition on a sheet; of more values, some are chosen evenly."""


def grid(results: Results, picture: str, rows: Sequence[Line]) -> Figure:
    """Draw the original and each codec at one rate, at the fewest outages, with their maps."""
    cells = distinct(rows, results.cell)
    best = min(cells, key=lambda cell: _mean_outage(results, {"rate": rows[0]["rate"], **cell}))
    shown = {row["codec"]: row for row in matching(rows, best)}
    folder = results.folder / FOLDER
    origin = original_path(folder, picture)
    paths = [origin, *(received_path(folder, picture, row["point"]) for row in shown.values())]
    texts = ["original", *(_under(results, row) for row in shown.values())]
    titles = ["original", *(codec_title(codec) for codec in shown)]
    kinds = [
        (suffix, says)
        for suffix, says in (
            (".png", "picture"),
            (".seen.png", "segmented\nby the judge"),
            (".map.png", "map received\n(original: labels)"),
        )
        if any(path.with_suffix(suffix).exists() for path in paths)
    ]
    clean = miou_of(rows[0].get("confusion_clean"))
    texts[0] = "not coded" + ("" if clean is None else f"\nmIoU {100 * clean:.1f} %")
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
    title = f"{picture} at {rate_title(rows[0]['rate'])}"
    conditions = {key: value for key, value in best.items() if key in results.conditions}
    if conditions:
        title += f", {cell_title(results, conditions)}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def over_channel(results: Results, rows: Sequence[Line], condition: str) -> Figure:
    """Draw each codec's picture over the values of one condition, with the others at their
    first.
    """
    rows = [row for row in rows if row[condition] is not None]
    others = [name for name in results.cell if name != condition]
    lines = matching(rows, distinct(rows, others)[0])
    values = thinned(sorted({row[condition] for row in lines}), MOST_VALUES)
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
        panels[i][0].set_ylabel(codec_title(codec), fontsize=10, fontweight="bold")
    over = axis.title[:1].lower() + axis.title[1:] if axis.title[1:2].islower() else axis.title
    title = f"{picture} at {rate_title(rows[0]['rate'])} over {over}; one realisation"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def _sheet(origin: Path, rows: int, columns: int, captions: int) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of panels with the shape of the picture `origin`, with room for captions."""
    from matplotlib.figure import Figure

    with Image.open(origin) as picture:
        ratio = picture.height / picture.width
    width = 3.1
    height = (width * ratio + 0.08) * rows + 0.52 * captions + 0.85
    figure = Figure(figsize=(width * columns + 0.5, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).tolist()


def _show(panel: Axes, path: Path) -> None:
    """Draw a picture without axes; a note if the codec carries no map."""
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
    """Write the text under a picture: true bpp, packets, metrics."""
    if row["unreachable"]:
        return f"rate not reachable: its lowest is {8 * row['lowest_bytes'] / _pixels(row):.3f} bpp"
    packets = f"{row['delivered']} of {row['packets']} packets"
    first = f"{8 * row['bytes'] / _pixels(row):.3f} bpp, {row['bytes']} bytes, {packets}"
    parts = ["outage"] if row["outage"] else []
    for name in results.manifest["metrics"]:
        if row.get(name) is not None:
            axis = results.axis(name)
            star = "*" if row["codec"] in results.trained(name) else ""
            digits = ".2f" if axis.unit else ".3f"
            parts.append(f"{axis.title}{star} {axis.said(row[name], digits)}")
    seen = miou_of(row.get("confusion_image"))
    if seen is not None:
        parts.append(f"mIoU {100 * seen:.1f} %")
    carried = miou_of(row.get("confusion_map"))
    if carried is not None:
        parts.append(f"of map {100 * carried:.1f} %")
    half = len(parts) if len(parts) <= 3 else 3
    return "\n".join([first, ", ".join(parts[:half]), ", ".join(parts[half:])]).rstrip()


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


def miou_of(matrix: Sequence[int] | None) -> float | None:
    """Compute the mIoU of a stored confusion matrix of one picture; None without one."""
    if matrix is None:
        return None
    return float(miou(torch.tensor(matrix).reshape(NUM_CLASSES, NUM_CLASSES)))


def _mean_outage(results: Results, cell: Mapping[str, Any]) -> float:
    """Return the mean outage rate of a cell over the codecs."""
    return float(np.mean([line["outage"] for line in matching(results.lines, cell)]))


def _pixels(row: Line) -> int:
    return int(row["height"]) * int(row["width"])
