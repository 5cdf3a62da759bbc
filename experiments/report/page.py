"""One HTML file with the results of one or more sweeps, which opens without a network.

    results folders ── Results ──> page data (JSON) ┐
    pictures/       ── Pictures ──> data URIs       ├── assets/page.html ──> report.html
    assets/*.css, *.js, plotly.js                   ┘

The file contains everything: its content security policy forbids any request. All numbers are
computed here or by the sweep; the scripts only select, scale and draw them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.report.axes import AXES
from experiments.report.compare import compare
from experiments.report.embedded import Pictures, asset, token_layers
from experiments.report.headline import headline
from experiments.report.labels import LEDGER, rate_parts, rate_title
from experiments.report.results import Results, Series, read_all, series_of
from experiments.sweep.examples import FOLDER, original_path
from experiments.sweep.row import BITS
from sqlink.data.classes import NAMES, PALETTE
from sqlink.data.pictures import write_aside
from sqlink.errors import ConfigError, DataError
from sqlink.metrics.jackknife import MIN_BLOCKS

NAME = "report.html"
MAX_BYTES = 15_000_000
"""Largest size of a page in bytes."""
WORST = 60
"""Pictures listed per line of the summary, the worst of each metric first."""
PRECISION = 5
"""Significant digits of a number on the page."""


def write_page(
    folders: Sequence[str | Path], output: str | Path | None = None, max_bytes: int = MAX_BYTES
) -> Path:
    """Write the page of one or more results folders, and return its path.

    output: the file; by default `report.html` in the first folder. Pictures are coded more
    coarsely, and the last ones left out, if the page would be larger than `max_bytes`. Raises
    ConfigError if a folder holds no finished sweep, DataError if the page cannot be written.
    """
    results = read_all(folders)
    target = Path(output) if output is not None else results[0].folder / NAME
    if target.is_dir():
        target = target / NAME
    write_aside(_html(results, max_bytes).encode(), target)
    return target


def script_json(value: Any) -> str:
    """Write JSON that is safe inside a <script> element, whatever texts it holds; NaN becomes null.

    >>> script_json({"a": "</script>", "b": float("nan")})
    '{"a":"\\\\u003c/script>","b":null}'
    """
    text = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _html(results: Sequence[Results], max_bytes: int) -> str:
    from jinja2 import Environment
    from markupsafe import Markup

    page = Environment(autoescape=True).from_string(asset("page.html"))
    plotly = _plotly()
    room = max_bytes - len(plotly.encode()) - 200_000
    pictures = Pictures(0)
    data = page_data(results, pictures)
    said = script_json(data)
    pictures.budget_bytes = room - len(said.encode())
    if pictures.budget_bytes < 0:
        raise DataError(
            f"the tables alone take {len(said) / 1e6:.1f} MB: the page may have "
            f"{max_bytes / 1e6:.1f}: report fewer folders at once"
        )
    uris = pictures.uris()
    notes = {"quality": pictures.quality, "left_out": pictures.left_out}
    return page.render(
        title=data["title"],
        styles=Markup(asset("base.css") + asset("page.css")),
        plotly=Markup(plotly),
        scripts=Markup("\n".join(asset(name) for name in ("base.js", "compare.js", "page.js"))),
        data=Markup(said),
        pictures=Markup(script_json({"uris": uris, **notes})),
        version=data["version"],
    )


def _plotly() -> str:
    """Return the library's script in a form that is safe inside a <script> element."""
    script = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return script.replace("</script", "<\\/script")


def page_data(results: Sequence[Results], pictures: Pictures) -> dict[str, Any]:
    """Collect the data for the page's scripts; pictures are referred to by number."""
    series = series_of(results)
    names = list(dict.fromkeys(name for one in results for name in one.metrics))
    conditions = list(dict.fromkeys(name for one in results for name in one.conditions))
    lines: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    worst: list[dict[str, Any]] = []
    shots: list[dict[str, Any]] = []
    for place, one in enumerate(results):
        first = len(lines)
        numbers = {s.codec: n for n, s in enumerate(series) if s.place == place}
        lines += [_line(one, line, numbers[line["codec"]], names) for line in one.lines]
        worst += _worst(one, names, first)
        own, taken = _gallery(one, place, pictures, first)
        shown += own
        shots += taken
    front = headline(results[0])
    across = _across(results)
    return {
        "title": " and ".join(one.name for one in results),
        "version": version("sqlink"),
        "folders": [_folder(one) for one in results],
        "across": across,
        "series": [_series(one, results) for one in series],
        "metrics": [{"id": name, **_axis(results, name)} for name in names],
        "categories": list(dict.fromkeys(n for one in results for n in ("channel", *one.axes))),
        "conditions": [{"id": name, **_axis(results, name)} for name in conditions],
        "axes": {name: asdict(AXES[name]) for name in ("bpp", "channel_uses", "delay_s")},
        "rates": _rates(results),
        "blocks_needed": MIN_BLOCKS,
        "lines": lines,
        "pictures": shown,
        "shots": shots,
        "worst": worst,
        "classes": [
            {"name": name, "colour": f"#{bytes(colour).hex()}"}
            for name, colour in zip(NAMES, PALETTE, strict=True)
        ],
        "ledger": [{"id": k, "title": title, "group": g} for k, (title, g) in LEDGER.items()],
        "headline": None
        if front is None
        else {
            "title": front.title,
            "ceiling": front.ceiling,
            "axis": asdict(front.axis),
            "numbers": [asdict(number) for number in front.numbers],
        },
    }


def _plain(value: Any) -> Any:
    """Return the value with rounded numbers, and None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.{PRECISION}g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return int(value) if isinstance(value, np.integer) else value


def _axis(results: Sequence[Results], name: str) -> dict[str, Any]:
    return asdict(next(one for one in results if _knows(one, name)).axis(name))


def _knows(results: Results, name: str) -> bool:
    return name in results.metrics or name in results.conditions


def _series(one: Series, results: Sequence[Results]) -> dict[str, Any]:
    folder = results[one.place]
    trained = folder.manifest["trained_on"].get(one.codec, [])
    return {
        "codec": one.codec,
        "title": one.title,
        "folder": one.place,
        "style": one.style,
        "trained": trained,
    }


def _folder(one: Results) -> dict[str, Any]:
    manifest = one.manifest
    first = one.lines[0]
    hidden = ("config", "sweep", "metrics", "unavailable", "trained_on", "conditions", "compute")
    return {
        "name": one.name,
        "channel": one.channel,
        "pictures": first["pictures"],
        "blocks": first["blocks"],
        "realisations": first["realisations"],
        "rows": one.rows.num_rows,
        "unavailable": {one.axis(k).title: v for k, v in manifest["unavailable"].items()},
        "yaml": manifest["config"],
        "made": {key: value for key, value in manifest.items() if key not in hidden},
        "compute": manifest.get("compute", {}),
        "bjontegaard": [
            {**line, "metric": one.axis(line["metric"]).title} for line in one.bjontegaard
        ],
        "differences": [
            {
                **line,
                "metric": one.axis(line["metric"]).title,
                "factor": one.axis(line["metric"]).factor,
                "decimals": one.axis(line["metric"]).decimals,
            }
            for line in one.differences
        ],
    }


def _across(results: Sequence[Results]) -> list[dict[str, Any]] | None:
    """Return the Bjøntegaard rates between codecs of several folders; None for a single folder, and
    where the folders hold different pictures or one codec in all.
    """
    if len(results) < 2:
        return None
    try:
        found = compare([one.folder for one in results])
    except ConfigError:
        return None
    titles = {name: _titled(results, name) for name in found.better}
    return [{**line, "metric": titles[line["metric"]]} for line in found.deltas]


def _titled(results: Sequence[Results], name: str) -> str:
    return next(one for one in results if _knows(one, name)).axis(name).title


def _rates(results: Sequence[Results]) -> list[dict[str, Any]]:
    """Return all rates that were asked for, by kind, in ascending order."""
    labels = dict.fromkeys(line["rate"] for one in results for line in one.lines)
    kinds = list(dict.fromkeys(rate_parts(label)[0] for label in labels))
    ordered = sorted(
        labels, key=lambda label: (kinds.index(rate_parts(label)[0]), rate_parts(label))
    )
    return [
        {
            "label": label,
            "kind": rate_parts(label)[0],
            "value": rate_parts(label)[1],
            "title": rate_title(label),
        }
        for label in ordered
    ]


def _line(
    one: Results, line: Mapping[str, Any], number: int, names: Sequence[str]
) -> dict[str, Any]:
    """Return one line of the summary in the page's format."""
    found: dict[str, Any] = {
        "s": number,
        "rate": line["rate"],
        "cond": {name: line[name] for name in one.conditions if line[name] is not None},
        "cat": {name: line[name] for name in ("channel", *one.axes) if line[name] is not None},
        "size": line["packet_bytes"],
        "bpp": line["bpp"],
        "bytes": line["bytes"],
        "uses": line["channel_uses"],
        "loss": line["packet_loss"],
        "outage": line["outage"],
        "unreachable": line["unreachable"],
        "v": {
            name: [line[name], line.get(f"{name}_low"), line.get(f"{name}_high")]
            for name in names
            if line.get(name) is not None
        },
        "bits": {
            name.removeprefix(BITS): round(value)
            for name, value in line.items()
            if name.startswith(BITS) and value
        },
        "clean": line.get("miou_clean"),
    }
    if line.get("delay_s") is not None:
        found["delay"] = [line["delay_s"], line.get("delay_s_p95")]
    if line.get(f"iou_{NAMES[0]}") is not None or line.get("miou") is not None:
        found["iou"] = [line.get(f"iou_{name}") for name in NAMES]
    return found


def _worst(one: Results, names: Sequence[str], first: int) -> list[dict[str, Any]]:
    """Collect the worst pictures of each line in any metric, as means over realisations."""
    metrics = [name for name in names if name in one.metrics and name != "outage"]
    pictures = one.rows["picture"].to_pylist()
    index = {name: i for i, name in enumerate(dict.fromkeys(pictures))}
    where = np.array([index[name] for name in pictures], dtype=np.int64)
    there = one.line_of_row >= 0
    cell = (one.line_of_row * len(index) + where)[there]
    count = len(one.lines) * len(index)
    table = {}
    for name in (*metrics, "outage"):
        values = one.metric_of_rows(name)[there]
        known = np.isfinite(values)
        total = np.bincount(cell, np.where(known, values, 0), minlength=count)
        rows = np.bincount(cell, known, minlength=count)
        means = np.where(rows > 0, total / np.maximum(rows, 1), np.nan)
        table[name] = means.reshape(len(one.lines), len(index))
    found = []
    for number in range(len(one.lines)):
        chosen: set[int] = set()
        for name in metrics:
            row = table[name][number]
            row = row if one.axis(name).better == "higher" else -row
            chosen |= set(np.argsort(row)[:WORST].tolist())
        found += [
            {
                "l": first + number,
                "p": list(index)[i],
                "v": {name: table[name][number, i] for name in (*metrics, "outage")},
            }
            for i in sorted(chosen)
        ]
    return found


def _gallery(
    one: Results, place: int, pictures: Pictures, first: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Collect the originals of a folder, and the kept pictures as received."""
    folder = one.folder / FOLDER
    metrics = [name for name in one.metrics if name != "outage"]
    columns = {name: one.metric_of_rows(name) for name in metrics}
    originals: dict[str, dict[str, Any]] = {}
    shots = []
    for shot in one.shots:
        if one.line_of_row[shot.row] < 0:
            continue
        row = one.row(shot.row)
        name = row["picture"]
        if name not in originals:
            path = original_path(folder, name)
            originals[name] = {
                "folder": place,
                "name": name,
                "width": row["width"],
                "height": row["height"],
                "image": pictures.add(path),
                "map": pictures.add(path.with_suffix(".map.png"), exact=True),
                "seen": pictures.add(path.with_suffix(".seen.png"), exact=True),
            }
        shots.append(
            {
                "l": first + int(one.line_of_row[shot.row]),
                "folder": place,
                "p": name,
                "r": row["realisation"],
                "image": pictures.add(shot.path),
                "map": pictures.add(shot.path.with_suffix(".map.png"), exact=True),
                "seen": pictures.add(shot.path.with_suffix(".seen.png"), exact=True),
                "tokens": _tokens(shot.path.with_suffix(".tokens.png")),
                "bytes": row["bytes"],
                "bpp": 8 * row["bytes"] / (row["height"] * row["width"]),
                "uses": row["channel_uses"],
                "packets": row["packets"],
                "delivered": row["delivered"],
                "outage": row["outage"],
                "lowest": row["lowest_bytes"] if row["unreachable"] else None,
                "v": {metric: float(column[shot.row]) for metric, column in columns.items()},
            }
        )
    return list(originals.values()), shots


def _tokens(path: Path) -> dict[str, Any] | None:
    """Read relevance and fates of tokens as written by `examples`; None if there are none."""
    if not path.exists():
        return None
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGBA" if picture.mode == "RGBA" else "RGB"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture: {error}") from error
    return token_layers(pixels)
