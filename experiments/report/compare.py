"""`sqlink compare RESULTS`: comparison of the codecs of one or several sweeps in numbers.

    RESULTS, ... ── rows ──> cells ──┬─ BD-rate, BD-metric of each codec against each anchor
                                     ├─ each metric at rates asked for, interpolated
                                     └─ differences at those rates, paired over blocks of pictures
    ──> Comparison ── comparison_tables ──> compare.md, and each table as .csv and .tex

Nothing is run again: metrics are computed from the numbers and counts in the rows. Several folders
must hold the same pictures. The name of a folder is added to a codec that is in two of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from channels.registry import nearest
from experiments.report.deltas import (
    curves_of,
    has,
    metric_delta,
    rate_delta,
    value_at,
    with_interval,
)
from experiments.report.estimates import Measured, by_condition, cells_of
from experiments.report.results import Results, read_all
from experiments.report.saturation import merged
from experiments.sweep.components import column
from experiments.sweep.grid import Encoding, Point
from experiments.sweep.measuring import FEATURES, Measures
from experiments.sweep.schema import CodecChoice, Sweep
from sqlink.codecs.base import Rate
from sqlink.errors import ConfigError, SQLinkError
from sqlink.metrics import METRICS, AnyMetric, MapMetric, SetMetric
from sqlink.metrics.jackknife import Jackknife
from sqlink.segmentation import load_segmenter

RATES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6)
"""Default rates of the comparison in bits per pixel: those of them that two codecs reach."""
FOLDER = "compare"

Line = dict[str, Any]


@dataclass
class Comparison:
    """Result of `compare`: lines of three tables. pictures, blocks: sample sizes of the intervals.
    bounds: column -> range of the values.
    """

    folders: tuple[str, ...]
    pictures: int
    blocks: int
    realisations: tuple[int, ...]
    better: dict[str, bool]
    bounds: dict[str, tuple[float, float]]
    trained_on: dict[str, tuple[str, ...]]
    deltas: list[Line] = field(default_factory=list)
    values: list[Line] = field(default_factory=list)
    differences: list[Line] = field(default_factory=list)


def compare(
    folders: Sequence[Path],
    against: Sequence[str] = (),
    rates: Sequence[float] = (),
    metrics: Sequence[str] = (),
) -> Comparison:
    """Compare the codecs of results folders.

    against: titles of the anchors; by default those of the sweeps. rates: bits per pixel. metrics:
    columns; by default all. Raises ConfigError, one line, for folders of different pictures, an
    unknown codec or metric, a wrong rate, or a single codec.
    """
    for rate in rates:
        Rate(bpp=rate)
    results = read_all(folders)
    better = _better(results, metrics)
    cells: list[Measured] = []
    trained: dict[str, tuple[str, ...]] = {}
    everywhere = [title for one in results for title in one.codecs]
    wanted: list[str] = []
    for one in results:
        names = {
            title: f"{title} ({one.name})" if everywhere.count(title) > 1 else title
            for title in one.codecs
        }
        cells += read_cells(one, names, list(better))
        trained |= {
            names[title]: tuple(losses)
            for title, losses in one.manifest["trained_on"].items()
            if title in names
        }
        wanted += [names[title] for title in against or _anchors(one) if title in names]
    titles = list(dict.fromkeys(cell.title for cell in cells))
    for title in against:
        if title not in everywhere and title not in titles:
            raise ConfigError(f"--against {title}: no such codec: {nearest(title, titles)}")
    anchors = list(dict.fromkeys([*wanted, *(title for title in against if title in titles)]))
    if len(titles) < 2:
        raise ConfigError(
            f"{folders[0]} holds one codec, {titles[0]}: name a folder with another beside it"
        )
    _same_pictures(cells)
    found = Comparison(
        tuple(one.name for one in results),
        cells[0].shape[0],
        cells[0].num_blocks,
        tuple(sorted({cell.shape[1] for cell in cells})),
        better,
        _bounds(results, list(better)),
        trained,
    )
    for group in by_condition(cells).values():
        _compare_group(found, group, anchors, rates)
    return found


def _compare_group(
    found: Comparison, group: Sequence[Measured], anchors: Sequence[str], rates: Sequence[float]
) -> None:
    """Add the lines of one channel under one condition."""
    said = _said(group[0])
    names = [name for name in found.better if any(has(cell, name) for cell in group)]
    curves = curves_of([cell for cell in group if _sends_bytes(cell)])
    pairs = [(t, a) for a in anchors for t in dict.fromkeys(c.title for c in group) if t != a]
    for title, anchor in pairs:
        if title not in curves or anchor not in curves:
            continue
        for name in names:
            both = (curves[title], curves[anchor])
            if all(has(cell, name) for curve in both for cell in curve):
                line = {"codec": title, "against": anchor, **said, "metric": name}
                found.deltas.append(line | _delta_line(*both, name, found.better[name]))
    at: dict[tuple[str, str, str], Jackknife | str] = {}
    outages: dict[tuple[str, str], float] = {}
    if rates or not any(cell.points[0].encoding.rate.channel_uses for cell in group):
        for bpp in rates or _round_rates(curves):
            for title, curve in curves.items():
                for name in names:
                    at[title, f"bpp={bpp:g}", name] = _at(curve, name, bpp)
    else:  # rates in channel uses are compared row by row
        for cell in group:
            outages[cell.title, cell.rate] = _not_come(cell)
            for name in names:
                measured = cell.result(name)
                at[cell.title, cell.rate, name] = measured or "not measured"
    for (title, rate, name), one in at.items():
        line = {"codec": title, **said, "at": rate, "metric": name}
        line["outage"] = outages.get((title, rate), np.nan)
        found.values.append(line | _interval_of(one, *found.bounds[name]))
    for title, anchor in pairs:
        for (own, rate, name), ours in at.items():
            theirs = at.get((anchor, rate, name))
            if own != title or theirs is None:
                continue
            line = {"codec": title, "against": anchor, **said, "at": rate, "metric": name}
            found.differences.append(line | _interval_of(_apart(title, ours, anchor, theirs)))


def _apart(
    title: str, ours: Jackknife | str, anchor: str, theirs: Jackknife | str
) -> Jackknife | str:
    """Return the paired difference, or the reason why there is none."""
    if isinstance(ours, str):
        return f"{title}: {ours}"
    return f"{anchor}: {theirs}" if isinstance(theirs, str) else ours - theirs


def _not_come(cell: Measured) -> float:
    """Return the share of pictures with an outage or with an unreachable rate."""
    return 1 - float((cell.reached() & (cell.column("outage") == 0)).mean())


def _sends_bytes(cell: Measured) -> bool:
    """Say whether the cell has a rate in bits per pixel; symbols have none."""
    found = cell.result("bpp_sent")
    return found is not None and bool(np.isfinite(found.estimate)) and found.estimate > 0


def read_cells(
    results: Results, names: Mapping[str, str], metrics: Sequence[str]
) -> list[Measured]:
    """Read the cells of a results folder, its pictures in the order of their keys.

    names: codec's title -> name in the comparison. metrics: columns that are needed.
    """
    rows = results.rows.sort_by([("picture_key", "ascending")])
    sent = ("point", "codec", "rate_kind", "rate_value", "packet_bytes", "channel", "seed")
    if not set(sent) <= set(rows.column_names):
        raise ConfigError(f"{results.folder}: rows of an older version: run the sweep again")
    columns = {name: rows[name].to_pylist() for name in (*sent, *results.conditions)}
    points: dict[str, Point] = {}
    for n, name in enumerate(columns["point"]):
        if name in points:
            continue
        line = {key: values[n] for key, values in columns.items()}
        value = line["rate_value"]
        whole = line["rate_kind"] in ("bytes", "channel_uses")
        rate = Rate(**{line["rate_kind"]: int(value) if whole else value})
        met = [(key, line[key]) for key in results.conditions if line[key] is not None]
        choice = CodecChoice(name=names[line["codec"]])
        encoding = Encoding(choice, rate, line["packet_bytes"])
        points[name] = Point(encoding, line["channel"], tuple(met), line["seed"], name)
    order = list(dict.fromkeys(results.rows["point"].to_pylist()))
    found = cells_of(rows, [points[name] for name in order], _measures(results, metrics))
    return merged(found)


def _measures(results: Results, metrics: Sequence[str]) -> Measures:
    """Make the metrics of the sweep that need more than a column of numbers."""
    held = set(results.rows.column_names)
    needed = [name for name in metrics if name not in held]
    if not needed:
        return Measures()
    try:
        sweep = Sweep.model_validate(results.manifest["sweep"])
    except ValueError as error:
        raise ConfigError(
            f"{results.folder}: manifest.json is of another version: run the sweep again"
        ) from error
    found: dict[str, AnyMetric] = {}
    for choice in sweep.metrics:
        if not any(name.startswith(choice.name) for name in needed):
            continue
        options = dict(choice.options)
        if "judge" in (METRICS.options(choice.name) or ()):
            options["judge"] = load_segmenter(sweep.judge.name, **sweep.judge.options)
        try:
            metric = METRICS.make(choice.name, options)
        except SQLinkError as error:
            raise type(error)(f"{results.folder}: metric {choice.name}: {error}") from error
        if isinstance(metric, MapMetric) or (
            isinstance(metric, SetMetric) and f"{FEATURES}{metric.extractor.name}" in held
        ):
            found[column(metric)] = metric
    return Measures(found)


def _better(results: Sequence[Results], asked: Sequence[str]) -> dict[str, bool]:
    """Return column -> whether higher is better, of the metrics asked for, or of all."""
    known = {
        name: bool(about["higher_is_better"])
        for one in results
        for name, about in one.manifest["metrics"].items()
        if any(line.get(name) is not None for line in one.lines)
    }
    chosen = [
        next((name for name in known if name in (one, f"{one}_db")), one)
        for one in asked or [name for name in known if name != "map_fidelity"]
    ]
    for name in chosen:
        if name not in known:
            raise ConfigError(f"--metric {name}: not measured: {nearest(name, list(known))}")
    return {name: known[name] for name in chosen}


def _bounds(results: Sequence[Results], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return column -> the range of a metric's values; none in manifests of older versions."""
    held = {
        name: about.get("bounds") or (None, None)
        for one in results
        for name, about in one.manifest["metrics"].items()
    }
    return {
        name: (
            -np.inf if (low := held[name][0]) is None else float(low),
            np.inf if (high := held[name][1]) is None else float(high),
        )
        for name in names
    }


def _anchors(one: Results) -> list[str]:
    """Return the sweep's anchors; by default its last codec."""
    given = one.manifest["sweep"].get("compare", {}).get("anchors")
    held = dict.fromkeys(line["against"] for line in one.bjontegaard)
    return list(given or held or one.codecs[-1:])


def _same_pictures(cells: Sequence[Measured]) -> None:
    """Raise ConfigError unless all cells have the same pictures, as pairs require."""
    keys = [list(dict.fromkeys(cell.rows["picture_key"].to_pylist())) for cell in cells]
    for cell, own in zip(cells, keys, strict=True):
        if own != keys[0]:
            raise ConfigError(
                f"{cells[0].title} and {cell.title} were measured on different pictures: "
                "compare sweeps of the same data, every and limit"
            )


def _said(cell: Measured) -> Line:
    """Write the channel, its conditions, and the packet size."""
    point = cell.points[0]
    size = point.encoding.packet_bytes
    return {"channel": point.channel, "packet_bytes": size, **dict(point.conditions)}


def _delta_line(
    test: Sequence[Measured], anchor: Sequence[Measured], name: str, higher_is_better: bool
) -> Line:
    rate = partial(rate_delta, higher_is_better=higher_is_better)
    estimate, found = with_interval(rate, test, anchor, name)
    line: Line = {
        "bd_rate_percent": found.estimate,
        "bd_rate_percent_low": found.low,
        "bd_rate_percent_high": found.high,
        "metric_low": estimate.low,
        "metric_high": estimate.high,
        "overlap": estimate.overlap,
        "reason": estimate.reason,
    }
    metric = partial(metric_delta, higher_is_better=higher_is_better)
    estimate, found = with_interval(metric, test, anchor, name)
    return line | {
        "bd_metric": found.estimate,
        "bd_metric_low": found.low,
        "bd_metric_high": found.high,
        "bpp_low": estimate.low,
        "bpp_high": estimate.high,
    }


def _at(curve: Sequence[Measured], name: str, bpp: float) -> Jackknife | str:
    there = [cell for cell in curve if has(cell, name)]
    return value_at(there, name, bpp) if there else "not measured"


def _interval_of(found: Jackknife | str, low: float = -np.inf, high: float = np.inf) -> Line:
    if isinstance(found, str):
        return {"value": np.nan, "low": np.nan, "high": np.nan, "reason": found}
    one = found.interval(low=low, high=high)
    return {"value": one.estimate, "low": one.low, "high": one.high, "reason": None}


def _round_rates(curves: Mapping[str, Sequence[Measured]]) -> list[float]:
    """Return those of RATES that at least two codecs reach."""
    spans = []
    for cells in curves.values():
        rates = [found.estimate for cell in cells if (found := cell.result("bpp_sent"))]
        rates = [rate for rate in rates if np.isfinite(rate) and rate > 0]
        if rates:
            spans.append((min(rates), max(rates)))
    return [rate for rate in RATES if sum(low <= rate <= high for low, high in spans) > 1]
