"""The tables of `sqlink compare`, as text, CSV and LaTeX.

    Comparison ── tables ──> Table, ... ── write_comparison ──> compare.md, NAME.csv, NAME.tex

Rows without information are merged: comparisons without a number, and points without any received
picture, are one line below the table; values that do not change over a condition are one row. The
CSV files have all rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from channels.atomic_write import whole_file
from experiments.report.axes import axis_of
from experiments.report.compare import Comparison, Line
from experiments.report.deltas import SMALL, folded
from sqlink.errors import ConfigError
from sqlink.metrics.jackknife import MIN_BLOCKS
from sqlink.wording import counted

Key = tuple[float | str | None, ...]
"""Codec, channel, conditions and rate of a row."""
Values = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table in readable form: `note` is written above it, and `rest`, on rows without numbers,
    below.
    """

    name: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    rest: str

    @property
    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [self.head, ("---",) * len(self.head), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines) if self.rows else ""
        return "\n\n".join(filter(None, (self.note, table, self.rest)))

    @property
    def latex(self) -> str:
        """Return the table as a LaTeX tabular, which needs no package."""
        lines = [" & ".join(map(_escaped, line)) + r" \\" for line in (self.head, *self.rows)]
        notes = [f"% {line}" for text in (self.note, self.rest) for line in text.splitlines()]
        first = [rf"\begin{{tabular}}{{{'l' * len(self.head)}}}", r"\hline", lines[0], r"\hline"]
        return "\n".join([*notes, *first, *lines[1:], r"\hline", r"\end{tabular}"]) + "\n"


def tables(found: Comparison) -> list[Table]:
    """Return the readable tables, without empty ones."""
    made = [_deltas_table(found), _values_table(found), _differences_table(found)]
    return [table for table in made if table.rows or table.rest]


def write_comparison(found: Comparison, folder: Path) -> tuple[str, list[Path]]:
    """Write compare.md, and each table as .csv and .tex; return the text and the paths.

    Raises ConfigError if the folder cannot be written.
    """
    said = tables(found)
    sources = {"bd": found.deltas, "values": found.values, "differences": found.differences}
    text = "\n\n".join(table.markdown for table in said) + "\n"
    files = {"compare.md": text}
    for table in said:
        files[f"{table.name}.csv"] = _csv(sources[table.name])
        files[f"{table.name}.tex"] = table.latex
    written = []
    for name, content in files.items():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as aside:
                aside.write_text(content, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
        written.append(path)
    return text, written


def _deltas_table(found: Comparison) -> Table:
    varying = _varying(found.deltas)
    head = ("codec", "against", *varying, "metric", "BD-rate, %", "BD-metric", "between", "overlap")
    rows = []
    for line in found.deltas:
        if not np.isfinite(line["bd_rate_percent"]):
            continue
        axis = axis_of(line["metric"], {})
        factor, decimals = axis.factor, axis.decimals
        rate = [line[f"bd_rate_percent{end}"] for end in ("", "_low", "_high")]
        metric = [factor * line[f"bd_metric{end}"] for end in ("", "_low", "_high")]
        between = (f"{factor * line[f'metric_{end}']:.{decimals}f}" for end in ("low", "high"))
        small = " (small)" if line["overlap"] < SMALL else ""
        rows.append(
            (
                line["codec"],
                line["against"],
                *(_shown(line.get(name)) for name in varying),
                axis.head,
                _with_interval(rate, "+.1f") + _star(found, line),
                _with_interval(metric, f"+.{decimals}f"),
                " to ".join(between),
                f"{line['overlap']:.0%}{small}",
            )
        )
    note = (
        "Bjøntegaard deltas against the anchor. BD-rate: bits needed more (+) or less (-) at equal "
        "quality, averaged between the two values of the metric; overlap: the share of the "
        "narrower curve's range that this is. BD-metric: gain at equal rate. "
        + _shared(found, found.deltas)
        + _n(found)
    )
    return Table("bd", note, head, tuple(rows), folded(found.deltas))


def _values_table(found: Comparison) -> Table:
    lines = found.values
    varying = _varying(lines)
    head = ("codec", *varying, "at", *(axis_of(name, {}).head for name in found.better))
    cells: dict[Key, dict[str, str]] = {}
    lost: set[Key] = set()
    for line in lines:
        key = (line["codec"], *(line.get(name) for name in varying), line["at"])
        if line["outage"] == 1:
            lost.add(key)
        elif line["reason"] is None:
            axis = axis_of(line["metric"], {})
            shown = [axis.factor * line[end] for end in ("value", "low", "high")]
            text = _with_interval(shown, f".{axis.decimals}f") + _star(found, line)
            cells.setdefault(key, {})[line["metric"]] = text
    measured = {
        key: tuple(one.get(name, "n/a") for name in found.better) for key, one in cells.items()
    }
    rows = tuple((*key, *values) for key, values in _joined(measured))
    nothing = (
        f"At {counted(len(lost), 'further point')} all pictures are outages (the mean colour)."
        if lost
        else ""
    )
    kept = [line for line in lines if line["outage"] != 1]
    rest = "\n\n".join(filter(None, (folded(kept), nothing)))
    note = "Each metric at a rate, interpolated over the logarithm of the rate. " + _n(found)
    if lines and not lines[0]["at"].startswith("bpp="):
        note = "Each metric at the rates asked for. " + _n(found)
    return Table("values", note, head, rows, rest)


def _differences_table(found: Comparison) -> Table:
    lines = found.differences
    varying = _varying(lines)
    head = ("codec", "against", *varying, "at", "metric", "difference")
    rows = []
    for line in lines:
        if line["reason"] is not None:
            continue
        axis = axis_of(line["metric"], {})
        apart = [axis.factor * line[end] for end in ("value", "low", "high")]
        rows.append(
            (
                line["codec"],
                line["against"],
                *(_shown(line.get(name)) for name in varying),
                line["at"],
                axis.head,
                _with_interval(apart, f"+.{axis.decimals}f") + _star(found, line),
            )
        )
    note = (
        "Differences, codec minus anchor, paired over the same pictures. "
        + _shared(found, lines)
        + _n(found)
    )
    return Table("differences", note, head, tuple(rows), folded(lines))


def _n(found: Comparison) -> str:
    """Write the sample sizes of the intervals, and the meaning of a star."""
    many = " or ".join(map(str, found.realisations))
    text = (
        f"n = {counted(found.pictures, 'picture')} in {counted(found.blocks, 'block')}, {many} "
        f"realisation{'' if found.realisations == (1,) else 's'} each; "
    ) + (
        "95 % intervals in brackets."
        if found.blocks >= MIN_BLOCKS
        else f"intervals n/a: {MIN_BLOCKS} blocks are needed."
    )
    starred = {losses for codec, losses in found.trained_on.items() if losses}
    return text + (" * was also a training loss of the codec." if starred else "")


def _star(found: Comparison, line: Line) -> str:
    return "*" if line["metric"] in found.trained_on.get(line["codec"], ()) else ""


def _with_interval(values: Sequence[float], digits: str) -> str:
    """Write an estimate with its interval, if it has one."""
    if not np.isfinite(values[0]):
        return "n/a"
    text = f"{values[0]:{digits}}"
    if np.isfinite(values[1]):
        text += f" [{values[1]:{digits}}, {values[2]:{digits}}]"
    return text


def _joined(rows: Mapping[Key, Values]) -> list[tuple[tuple[str, ...], Values]]:
    """Join rows that differ in one condition but not in their values: `5 to 25`."""
    numbers: dict[int, set[float]] = {}
    for key in rows:
        for place, one in enumerate(key):
            if isinstance(one, int | float):
                numbers.setdefault(place, set()).add(one)
    varying = [place for place, found in numbers.items() if len(found) > 1]
    groups: dict[object, list[Key]] = {}
    for n, (key, values) in enumerate(rows.items()):
        name: object = n
        if len(varying) == 1:
            name = (key[: varying[0]], key[varying[0] + 1 :], values)
        groups.setdefault(name, []).append(key)
    joined = []
    for keys in groups.values():
        shown = [_shown(one) for one in keys[0]]
        if len(keys) > 1:
            met = sorted(numbers[varying[0]] & {key[varying[0]] for key in keys})
            whole = len(met) == sum(met[0] <= one <= met[-1] for one in numbers[varying[0]])
            shown[varying[0]] = (
                f"{_shown(met[0])} to {_shown(met[-1])}" if whole else ", ".join(map(_shown, met))
            )
        joined.append((tuple(shown), rows[keys[0]]))
    return joined


def _shared(found: Comparison, lines: Sequence[Line]) -> str:
    """Write a sentence with what all lines of a table have in common."""
    own = _varying(lines)
    names = [name for name in _varying(found.values) if name not in own]
    if not lines or not names:
        return ""
    said = ", ".join(f"{name} {_shown(lines[0].get(name))}" for name in names)
    return f"All rows have {said}. "


def _varying(lines: Sequence[Line]) -> list[str]:
    """Return the channel, the packet size and the conditions, where they differ between lines."""
    own = (
        "codec",
        "against",
        "metric",
        "at",
        "value",
        "low",
        "high",
        "reason",
        "overlap",
        "outage",
    )
    names = dict.fromkeys(name for line in lines for name in line if name not in own)
    names = {name: None for name in names if not name.startswith(("bd_", "bpp_", "metric_"))}
    return [name for name in names if len({line.get(name) for line in lines}) > 1]


def _shown(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:g}"


def _csv(lines: Sequence[Line]) -> str:
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: ("" if v != v else f"{v:.6g}") if isinstance(v, float) else v for k, v in line.items()}
        for line in lines
    )
    return text.getvalue()


_LATEX = {c: rf"\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}


def _escaped(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text).replace("^", r"\textasciicircum{}")
