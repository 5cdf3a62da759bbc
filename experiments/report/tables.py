"""Tables of a sweep: all rows, Bjøntegaard rates against the anchors, differences of rows.

    tables.md              all three, in readable form
    bjontegaard.csv        one line per codec, anchor and metric; also as .parquet
    differences.csv        one line per pair of rows and metric; also as .parquet

Intervals (95 %) leave out the same blocks of pictures throughout, so that curves and rows are
compared on the same pictures. Bjøntegaard rates are those of `deltas`; pairs of codecs without one
are merged into one line of `tables.md`, and have one line each in the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.axes import axis_of
from experiments.report.deltas import SMALL, curves_of, folded, has, rate_delta, with_interval
from experiments.report.estimates import Measured, by_condition
from experiments.report.unmeasured import Unmeasured
from experiments.sweep.store import Store, table_of
from sqlink.errors import ConfigError
from sqlink.metrics.base import AnyMetric
from sqlink.metrics.jackknife import MIN_BLOCKS
from sqlink.wording import counted

TABLES = "tables.md"

Line = Mapping[str, Any]


def write_tables(
    store: Store,
    cells: Sequence[Measured],
    lines: Sequence[Line],
    asked: Sequence[str],
    metrics: Mapping[str, AnyMetric],
    missing: Mapping[str, Unmeasured],
    trained_on: Mapping[str, Sequence[str]],
    anchors: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Write the tables into the results folder.

    lines: those of the summary, one per cell. asked: columns of all metrics asked for. metrics:
    metrics that could be built, by column. missing: metrics without values for some or all
    pictures. trained_on: codec's title -> metrics that were its training losses. anchors: titles of
    codecs. pairs: of rows, named `TITLE RATE`.
    """
    better = {name: metric.higher_is_better for name, metric in metrics.items()}
    names = [name for name in asked if any(line.get(name) is not None for line in lines)]
    deltas, differences = [], []
    for group in by_condition(cells).values():
        deltas += _bjontegaard(group, [n for n in names if n != "map_fidelity"], better, anchors)
        differences += _differences(group, names, pairs)
    if deltas:
        store.write_table("bjontegaard", table_of(deltas, keys=("codec", "against", "metric")))
    if differences:
        store.write_table("differences", table_of(differences, keys=("row", "against", "metric")))
    names_met = (name for cell in cells for name, _ in cell.points[0].conditions)
    conditions = ["channel", "packet_bytes", *dict.fromkeys(names_met)]
    text = [
        _rows_table(lines, asked, trained_on, conditions),
        _notes(cells[0], lines, asked, missing, trained_on),
    ]
    if deltas:
        text.append(_bjontegaard_table(deltas, trained_on, conditions))
    if differences:
        text.append(_differences_table(differences, trained_on, conditions))
    store.write_text(TABLES, "\n\n".join(text) + "\n")


def read_tables(folder: Path) -> str:
    """Read what `write_tables` wrote. Raises ConfigError if there is nothing."""
    try:
        return (folder / TABLES).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: no {TABLES} here: run the sweep again") from error


def _bjontegaard(
    cells: Sequence[Measured],
    names: Sequence[str],
    better: Mapping[str, bool],
    anchors: Sequence[str],
) -> list[dict[str, Any]]:
    """Compute the deltas of every codec that has a curve, under one condition of the channel."""
    curves = curves_of(cells)
    found = []
    for anchor in anchors:
        if anchor not in curves:  # a rule of the sweep excludes it on this channel
            continue
        for title, own in curves.items():
            if title == anchor or not any(len(c) > 1 for c in (own, curves[anchor])):
                continue
            for name in names:
                if not all(has(cell, name) for cell in (*own, *curves[anchor])):
                    continue
                line = _delta_line(own, curves[anchor], name, better[name])
                found.append(
                    {"codec": title, "against": anchor, "metric": name, **_said(cells[0]), **line}
                )
    return found


def _delta_line(
    test: Sequence[Measured], anchor: Sequence[Measured], name: str, higher_is_better: bool
) -> dict[str, Any]:
    estimate, found = with_interval(
        lambda ours, theirs: rate_delta(ours, theirs, higher_is_better), test, anchor, name
    )
    return {
        "bd_rate_percent": found.estimate,
        "bd_rate_percent_low": found.low,
        "bd_rate_percent_high": found.high,
        "overlap": estimate.overlap,
        "metric_low": estimate.low,
        "metric_high": estimate.high,
        "pictures": (test or anchor)[0].shape[0],
        "blocks": (test or anchor)[0].num_blocks,
        "reason": estimate.reason,
    }


def _differences(
    cells: Sequence[Measured], names: Sequence[str], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Compute the differences of the pairs of rows, under one condition of the channel."""
    by_name = {
        f"{cell.title} {rate}": cell for cell in cells for rate in (cell.rate, *cell.also_asked)
    }
    found = []
    for row, against in pairs:
        ours, theirs = by_name.get(row), by_name.get(against)
        if ours is None or theirs is None:  # a rule of the sweep excludes it on this channel
            continue
        for name in names:
            a, b = ours.result(name), theirs.result(name)
            if a is None or b is None:
                continue
            apart = (a - b).interval()
            found.append(
                {
                    "row": row,
                    "against": against,
                    "metric": name,
                    **_said(ours),
                    "value": a.estimate,
                    "value_against": b.estimate,
                    "difference": apart.estimate,
                    "difference_low": apart.low,
                    "difference_high": apart.high,
                    "bpp": float(np.nanmean(ours.bpp())),
                    "bpp_against": float(np.nanmean(theirs.bpp())),
                    "interval": None if apart.reason is None else f"n/a: {apart.reason}",
                    "pictures": int(ours.measured(name).any(axis=1).sum()),
                    "blocks": apart.blocks,
                    "realisations": ours.shape[1],
                }
            )
    return found


def _said(cell: Measured) -> dict[str, float | str]:
    """Write the channel, its conditions, and the packet size."""
    point = cell.points[0]
    size = point.encoding.packet_bytes
    return {"channel": point.channel, "packet_bytes": size, **dict(point.conditions)}


def _rows_table(
    lines: Sequence[Line],
    names: Sequence[str],
    trained_on: Mapping[str, Sequence[str]],
    conditions: Sequence[str],
) -> str:
    conditions = _varying(lines, conditions)
    outages = any(line["outage"] for line in lines)
    unreachable = any(line["unreachable"] for line in lines)
    cut = any(line["bpp_sent"] < line["bpp"] - 1e-9 for line in lines)
    uses = any(line["channel_uses_max"] for line in lines)
    head = [
        "codec",
        "asked",
        *(["bpp offered", "bpp sent", "bpp delivered"] if cut else ["bpp"]),
        "bytes",
        *(["uses asked", "uses, mean", "uses, maximum"] if uses else []),
        *conditions,
        *(axis_of(n, {}).head for n in names),
        *(["outages, %"] if outages else []),
        *(["unreachable, %"] if unreachable else []),
    ]
    body = []
    for line in lines:
        star = trained_on.get(line["codec"], ())
        body.append(
            [
                line["codec"],
                line["rate"] + (" (saturated)" if line["saturated"] else ""),
                _number(line["bpp"], 4),
                *([_number(line[n], 4) for n in ("bpp_sent", "bpp_delivered")] if cut else []),
                _number(line["bytes"], 0),
                *(_uses(line) if uses else []),
                *(_shown(line.get(name)) for name in conditions),
                *(_interval(line, name, "*" if name in star else "") for name in names),
                *([_percent(line["outage"])] if outages else []),
                *([_percent(line["unreachable"])] if unreachable else []),
            ]
        )
    return _markdown(head, body)


def _uses(line: Line) -> list[str]:
    """Write the channel uses: those asked for, if the rate is in channel uses, and those used."""
    asked = line["channel_uses_asked"]
    mean, most = line["channel_uses"], line["channel_uses_max"]
    return ["-" if asked is None else f"{asked}", f"{mean:.0f}", f"{most}"]


def _shown(value: float | str | None) -> str:
    """Write a condition; a dash if the channel does not need it."""
    return "-" if value is None else value if isinstance(value, str) else f"{value:g}"


def _percent(share: float | None) -> str:
    return "-" if share is None or not np.isfinite(share) else f"{100 * share:.0f}"


def _notes(
    cell: Measured,
    lines: Sequence[Line],
    names: Sequence[str],
    missing: Mapping[str, Unmeasured],
    trained_on: Mapping[str, Sequence[str]],
) -> str:
    blocks = cell.num_blocks
    text = (
        f"n = {counted(cell.shape[0], 'picture')} in {counted(blocks, 'block')}, "
        f"{counted(cell.shape[1], 'realisation')} each. "
        + (
            "In brackets: 95 % intervals (Student's t, leaving out each block in turn). "
            if blocks >= MIN_BLOCKS
            else f"Intervals n/a: {counted(blocks, 'block')}; {MIN_BLOCKS} are needed. "
        )
        + "Every mean includes outages and unreachable rates; bpp excludes the latter."
    )
    for name, lack in missing.items():
        title = axis_of(name, {}).title
        if lack.pictures:
            text += (
                f" {title}: n = {lack.pictures} of {counted(lack.of, 'picture')}; {lack.reason}."
            )
        else:
            text += f" {title}: n/a; {lack.reason}."
    ceilings = {line["miou_clean"] for line in lines if line.get("miou_clean") is not None}
    if ceilings:
        text += f" On the originals, the judge's mIoU is {100 * max(ceilings):.1f} %."
    for name in names:
        codecs = [title for title, losses in trained_on.items() if name in losses]
        if codecs:
            title = axis_of(name, {}).head
            text += f" * {title} was also a training loss of {', '.join(codecs)}."
    return text


def _bjontegaard_table(
    deltas: Sequence[Line], trained_on: Mapping[str, Sequence[str]], conditions: Sequence[str]
) -> str:
    conditions = _varying(deltas, conditions)
    head = ["codec", "against", *conditions, "metric", "BD-rate, %", "between", "overlap"]
    body = []
    for line in deltas:
        if not np.isfinite(line["bd_rate_percent"]):
            continue
        axis = axis_of(line["metric"], {})
        title, factor, decimals = axis.head, axis.factor, axis.decimals
        star = "*" if line["metric"] in trained_on.get(line["codec"], ()) else ""
        value = f"{line['bd_rate_percent']:.1f}{star}"
        if np.isfinite(line["bd_rate_percent_low"]):
            low, high = line["bd_rate_percent_low"], line["bd_rate_percent_high"]
            value += f" [{low:.1f}, {high:.1f}]"
        body.append(
            [
                line["codec"],
                line["against"],
                *(_shown(line.get(name)) for name in conditions),
                title,
                value,
                " to ".join(
                    f"{factor * line[end]:.{decimals}f}" for end in ("metric_low", "metric_high")
                ),
                f"{line['overlap']:.0%}" + (" (small)" if line["overlap"] < SMALL else ""),
            ]
        )
    first = deltas[0]
    text = (
        "Bjøntegaard rates: bits needed more (+) or less (-) than by the anchor at equal quality, "
        "averaged between the two values of the metric given; `overlap` is the share of the "
        "narrower curve's range between them. "
        f"n = {counted(first['pictures'], 'picture')} in {counted(first['blocks'], 'block')}."
    )
    return "\n\n".join(filter(None, (text, _markdown(head, body) if body else "", folded(deltas))))


def _differences_table(
    differences: Sequence[Line], trained_on: Mapping[str, Sequence[str]], conditions: Sequence[str]
) -> str:
    conditions = _varying(differences, conditions)
    head = ["row", "against", *conditions, "bpp", "metric", "values", "difference"]
    body = []
    for line in differences:
        axis = axis_of(line["metric"], {})
        title, factor, decimals = axis.head, axis.factor, axis.decimals
        trained = {
            codec: line["metric"] in trained_on.get(codec, ())
            for codec in (line[side].rsplit(" ", 1)[0] for side in ("row", "against"))
        }
        stars = ["*" if is_loss else "" for is_loss in trained.values()]
        stars = stars * 2 if len(stars) == 1 else stars
        value, other = (factor * line[key] for key in ("value", "value_against"))
        apart = f"{factor * line['difference']:+.{decimals}f}"
        if np.isfinite(line["difference_low"]):
            low, high = (factor * line[f"difference_{end}"] for end in ("low", "high"))
            apart += f" [{low:+.{decimals}f}, {high:+.{decimals}f}]"
        body.append(
            [
                line["row"],
                line["against"],
                *(_shown(line.get(name)) for name in conditions),
                f"{line['bpp']:.4f} and {line['bpp_against']:.4f}",
                title,
                f"{value:.{decimals}f}{stars[0]} and {other:.{decimals}f}{stars[1]}",
                apart,
            ]
        )
    return "Differences, paired over the same pictures and realisations.\n\n" + _markdown(
        head, body
    )


def _interval(line: Line, name: str, star: str) -> str:
    """Write a value with its interval, and its number of pictures if not all have a value."""
    if line.get(name) is None or not np.isfinite(line[name]):
        return "n/a"
    axis = axis_of(name, {})
    text = f"{axis.factor * line[name]:.{axis.decimals}f}{star}"
    if np.isfinite(line[f"{name}_low"]):
        low, high = (axis.factor * line[f"{name}_{end}"] for end in ("low", "high"))
        text += f" [{low:.{axis.decimals}f}, {high:.{axis.decimals}f}]"
    elif line["blocks"] >= MIN_BLOCKS:
        text += f" [{line[f'{name}_interval']}]"
    if line[f"{name}_pictures"] < line["pictures"]:
        text += f" (n = {line[f'{name}_pictures']})"
    return text


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if np.isfinite(value) else "-"


def _varying(lines: Sequence[Line], conditions: Sequence[str]) -> list[str]:
    """Return the channel's conditions that differ between lines."""
    return [name for name in conditions if len({line.get(name) for line in lines}) > 1]


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))
