"""Sheets of kept pictures: the original and every codec at equal bytes, from a sweep's folder.

    pictures/ ── at each size asked for, of each codec the picture nearest to it ──> a sheet

A row is a size in bits per pixel. It shows each codec's kept picture of the nearest size, with its
true bytes and its metrics; one that differs by more than a tenth is framed. All pictures are of the
channel and condition with the fewest outages. A codec of symbols has no bytes: each row shows its
picture whose channel uses are nearest to those of the row's first codec.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.gallery import Tile, sheet
from experiments.report.labels import codec_title
from experiments.report.picture_sheets import miou_of
from experiments.report.results import Results
from experiments.sweep.examples import FOLDER, original_path
from sqlink.data.pictures import write_aside
from sqlink.errors import ConfigError

LIKE = 1.1
"""Ratio of bytes up to which two pictures count as equal in size."""
MOST_ROWS = 4

Row = Mapping[str, Any]


def draw_like_bytes(results: Results, folder: Path, rates: Sequence[float] = ()) -> list[Path]:
    """Draw a sheet for every kept picture, and return the files.

    rates: bits per pixel; by default those of the first codec's kept pictures. Raises ConfigError
    if the sweep kept no picture.
    """
    kept: dict[str, list[tuple[Row, Path]]] = {}
    for one in results.shots:
        held = results.row(one.row)
        if held["realisation"] == 0 and not held["unreachable"]:
            kept.setdefault(held["picture"], []).append((held, one.path))
    if not kept:
        raise ConfigError(
            f"{results.folder}: no pictures were kept: run the sweep with examples: 1 or more"
        )
    written = []
    for picture, shots in kept.items():
        shots = _of_one_cell(results, shots)
        by_codec: dict[str, list[tuple[Row, Path]]] = {}
        for shot in shots:
            by_codec.setdefault(shot[0]["codec"], []).append(shot)
        origin = Tile(_pixels(original_path(results.folder / FOLDER, picture)), "original", "")
        rows = []
        for bpp in rates or _own_rates(by_codec):
            tiles = [origin]
            uses: float | None = None
            for codec, own in by_codec.items():
                row, file = min(own, key=partial(_far, bpp=bpp, uses=uses))
                uses = row["channel_uses"] if uses is None else uses
                beyond = row["bytes"] > 0 and _distance(row, bpp, None) > math.log(LIKE)
                tiles.append(Tile(_pixels(file), codec_title(codec), _said(results, row), beyond))
            rows.append(tiles)
        path = folder / f"like_bytes.{picture}.png"
        write_aside(sheet(f"{picture}, equal bytes", rows), path)
        written.append(path)
    return written


def _of_one_cell(results: Results, shots: Sequence[tuple[Row, Path]]) -> list[tuple[Row, Path]]:
    """Select the channel and condition with the fewest outages among the kept pictures."""
    cells: dict[tuple[object, ...], list[tuple[Row, Path]]] = {}
    for row, path in shots:
        met = tuple(row[name] for name in results.conditions)
        cells.setdefault((row["channel"], row["packet_bytes"], *met), []).append((row, path))

    def worth(cell: Sequence[tuple[Row, Path]]) -> tuple[int, float]:
        codecs = {row["codec"] for row, _ in cell}
        return len(codecs), -float(np.mean([row["outage"] for row, _ in cell]))

    return max(cells.values(), key=worth)


def _own_rates(by_codec: Mapping[str, Sequence[tuple[Row, Path]]]) -> list[float]:
    """Return bits per pixel of some of the first codec's pictures, from lowest to highest."""
    for own in by_codec.values():
        found = sorted({8 * row["bytes"] / (row["height"] * row["width"]) for row, _ in own})
        if found[-1] > 0:
            return found[:: -(-len(found) // MOST_ROWS)]
    return [1.0]


def _far(shot: tuple[Row, Path], bpp: float, uses: float | None) -> float:
    return _distance(shot[0], bpp, uses)


def _distance(row: Row, bpp: float, uses: float | None) -> float:
    """Return the distance of a picture from a size, as the logarithm of a ratio."""
    if row["bytes"] > 0:
        return abs(math.log(8 * row["bytes"] / (row["height"] * row["width"]) / bpp))
    return 0.0 if not uses else abs(math.log(max(row["channel_uses"], 1) / uses))


def _said(results: Results, row: Row) -> str:
    """Write bytes and metrics of one picture."""
    if row["outage"]:
        return f"{row['bytes']} bytes, outage"
    size = f"{row['bytes']} bytes" if row["bytes"] > 0 else f"{row['channel_uses']} uses"
    parts = [size]
    for name in results.manifest["metrics"]:
        if isinstance(row.get(name), float):
            axis = results.axis(name)
            title = "" if axis.unit else f"{axis.title} "
            parts.append(title + axis.said(row[name], ".2f"))
    seen = miou_of(row.get("confusion_image"))
    if seen is not None:
        parts.append(f"mIoU {100 * seen:.0f} %")
    return ", ".join(parts)


def _pixels(path: Path) -> Any:
    """Read uint8 [H, W, 3]. Raises ConfigError if the file cannot be read."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: run the sweep again") from error
