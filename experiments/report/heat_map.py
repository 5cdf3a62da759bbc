"""A metric over rate and one condition of the channel: one map per codec, on a common scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from experiments.report.axes import Axis
from experiments.report.labels import codec_title, rate_parts, rate_title
from experiments.report.results import Results
from experiments.report.style import GREY, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR_MAP = "cividis"
"""A colour map of monotonic lightness, for colour-blind readers and for greyscale print."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeatMap:
    """Values by codec: float64 [rates, values of the condition]; NaN if not measured."""

    name: str
    title: str
    metric: Axis
    x: Axis
    xs: tuple[float, ...]
    rates: tuple[str, ...]
    values: Mapping[str, Floats]


def heat_maps(results: Results, metric: str, condition: str) -> HeatMap | None:
    """Collect the maps of a results folder, with other conditions at their first values, or
    None.
    """
    lines: list[dict[str, Any]] = results.lines
    lines = [line for line in lines if line[condition] is not None]
    for name in results.cell:
        if name != condition and lines:
            lines = [line for line in lines if line[name] == lines[0][name]]
    x, y = results.axis(condition), results.axis(metric)
    xs = sorted({line[condition] for line in lines})
    rates = sorted({line["rate"] for line in lines}, key=rate_parts)
    if len(xs) < 2 or len(rates) < 2 or not any(line.get(metric) is not None for line in lines):
        return None
    values: dict[str, Floats] = {}
    for line in lines:
        grid = values.setdefault(codec_title(line["codec"]), np.full((len(rates), len(xs)), np.nan))
        if line.get(metric) is not None:
            grid[rates.index(line["rate"]), xs.index(line[condition])] = line[metric] * y.factor
    name = f"heat_{metric}_{condition}".replace("_db", "-db")
    shown = tuple(value * x.factor for value in xs)
    return HeatMap(name, results.channel, y, x, shown, tuple(map(rate_title, rates)), values)


def draw_heat_maps(maps: HeatMap, size: Target) -> Figure:
    """Draw the maps side by side, each cell with its number."""
    from matplotlib.figure import Figure

    count = len(maps.values)
    columns = min(size.columns, count)
    rows = -(-count // columns)
    points = size.rc["font.size"]
    height = rows * (0.26 * len(maps.rates) * points / 8 + 0.62 * points / 8) + 0.3
    figure = Figure(figsize=(size.width, height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    finite = np.concatenate([grid[np.isfinite(grid)] for grid in maps.values.values()])
    low, high = finite.min(), finite.max()
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    for (title, grid), axes in zip(maps.values.items(), panels.flat, strict=False):
        colours = f"{COLOUR_MAP}_r" if maps.metric.better == "lower" else COLOUR_MAP
        axes.pcolormesh(grid, cmap=colours, vmin=low, vmax=high, edgecolors="white", linewidth=0.8)
        for i, j in np.ndindex(*grid.shape):
            share = (grid[i, j] - low) / ((high - low) or 1)
            dark = share > 0.55 if maps.metric.better == "lower" else share < 0.55
            known = np.isfinite(grid[i, j])
            axes.text(
                j + 0.5,
                i + 0.5,
                f"{grid[i, j]:.{maps.metric.decimals}f}" if known else "-",
                ha="center",
                va="center",
                color="white" if dark and known else "black",
                fontsize=points if len(maps.xs) * columns < 16 else size.small,
            )
        axes.set_xticks(np.arange(len(maps.xs)) + 0.5, [f"{x:g}" for x in maps.xs])
        axes.set_yticks(np.arange(len(maps.rates)) + 0.5, maps.rates)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.set_title(title)
        axes.set_xlabel(maps.x.label)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.suptitle(
        f"{maps.metric.label}; {maps.title}", x=0.01, ha="left", fontsize=points, fontweight="bold"
    )
    figure.patch.set_facecolor("white")
    figure.supxlabel("", color=GREY)
    return figure
