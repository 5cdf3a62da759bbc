"""The content of a results folder, for the figures, the page, and the headline numbers.

FOLDER/summary.parquet     lines: one per cell of the grid
FOLDER/results.parquet     rows: one per (point, picture, realisation)
FOLDER/pictures/           shots: pictures kept as received
FOLDER/bjontegaard.parquet, differences.parquet, manifest.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import torch

from channels.errors import ConfigError
from experiments.report.axes import Axis, axis_of
from experiments.report.labels import channel_title, codec_title
from experiments.sweep.examples import FOLDER, original_path, received_path
from experiments.sweep.store import read_parquet, read_results
from sqlink.data.classes import NUM_CLASSES
from sqlink.metrics.semantic import miou

CONFUSIONS = {
    "miou": "confusion_image",
    "miou_map": "confusion_map",
    "map_fidelity": "confusion_sent",
}
"""Map from a metric to the column of its confusion matrices in the rows."""

Line = Mapping[str, Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shot:
    """A picture kept as received: the index of its row in `Results.rows`, and its file."""

    row: int
    path: Path


@dataclass(frozen=True)
class Results:
    """One results folder: lines of the summary, all rows, the manifest and the tables."""

    folder: Path
    lines: list[dict[str, Any]]
    rows: pa.Table
    manifest: dict[str, Any]
    bjontegaard: list[dict[str, Any]]
    differences: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: str | Path) -> Results:
        """Read a results folder. Raises ConfigError, one line, if it holds no finished sweep."""
        place = Path(folder)
        rows = read_results(place)
        try:
            manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
            lines = read_parquet(place / "summary.parquet").to_pylist()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{place}: summary or manifest cannot be read: run the sweep again to write them"
            ) from error
        tables = [_optional(place / f"{name}.parquet") for name in ("bjontegaard", "differences")]
        return cls(place, lines, rows, manifest, *tables)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @cached_property
    def channels(self) -> dict[str, str]:
        """A short description of each channel, by its name."""
        sweep = self.manifest["sweep"]
        found = dict.fromkeys(line["channel"] for line in self.lines)
        given = sweep.get("channels") or dict.fromkeys(found, sweep["channel"])
        return {name: channel_title(given.get(name, name)) for name in found}

    @property
    def channel(self) -> str:
        """A short description of the channels."""
        if len(self.channels) == 1:
            return next(iter(self.channels.values()))
        return "; ".join(f"{name}: {title}" for name, title in self.channels.items())

    @property
    def conditions(self) -> list[str]:
        """The columns of conditions; they are null for a channel that does not need them."""
        return list(self.manifest["conditions"])

    @cached_property
    def axes(self) -> list[str]:
        """Columns of swept options of channels and codecs."""
        names = list(self.lines[0])
        own = names[names.index("channel") + 1 : names.index("pictures")]
        return [name for name in own if name not in self.conditions]

    @cached_property
    def cell(self) -> list[str]:
        """Columns that distinguish lines of the same codec and rate."""
        return ["channel", *self.axes, *self.conditions, "packet_bytes"]

    @property
    def metrics(self) -> list[str]:
        """Columns of the summary that measure quality, in order; then the outage."""
        return [
            name
            for name in (*self.manifest["metrics"], "outage")
            if any(line.get(name) is not None for line in self.lines)
        ]

    @property
    def codecs(self) -> list[str]:
        """The codecs' titles as the sweep names them, in its order."""
        return list(dict.fromkeys(line["codec"] for line in self.lines))

    def axis(self, name: str) -> Axis:
        """Return the display of a column; metrics of other packages are described in the
        manifest.
        """
        return axis_of(name, self.manifest["metrics"])

    def trained(self, name: str) -> list[str]:
        """List codecs that had the metric as a training loss, too."""
        return [codec for codec, losses in self.manifest["trained_on"].items() if name in losses]

    @cached_property
    def pixels(self) -> float:
        """Mean pixels of a picture."""
        size = pa.compute.multiply(self.rows["height"], self.rows["width"])
        return float(pa.compute.mean(size).as_py())

    @cached_property
    def line_of_row(self) -> npt.NDArray[np.int64]:
        """Index of the line of each row, int64 [rows].

        -1 for a row that repeats a lower rate, because the codec is saturated.
        """
        names = ("codec", "rate", *self.cell)
        number = {tuple(line[name] for name in names): i for i, line in enumerate(self.lines)}
        columns = [self.rows[name].to_pylist() for name in names]
        return np.array([number.get(key, -1) for key in zip(*columns, strict=True)], dtype=np.int64)

    @cached_property
    def shots(self) -> list[Shot]:
        """Rows with kept pictures, in the order of the rows."""
        folder = self.folder / FOLDER
        names = {path.name for path in folder.glob("*.png")}
        found = []
        keys = zip(
            *(self.rows[name].to_pylist() for name in ("picture", "point", "realisation")),
            strict=True,
        )
        for row, (picture, point, realisation) in enumerate(keys):
            path = received_path(folder, picture, point, realisation)
            if path.name in names and original_path(folder, picture).name in names:
                found.append(Shot(row, path))
        return found

    def row(self, number: int) -> dict[str, Any]:
        """Return one row, as a mapping."""
        found: dict[str, Any] = self.rows.slice(number, 1).to_pylist()[0]
        return found

    def metric_of_rows(self, name: str) -> Floats:
        """Return a metric of every row, float64 [rows]; NaN for a row without a value.

        A semantic metric is computed from the row's confusion matrix.
        """
        column = CONFUSIONS.get(name, name)
        if column not in self.rows.column_names:
            return np.full(self.rows.num_rows, np.nan)
        values = self.rows[column]
        if name not in CONFUSIONS:
            return np.asarray(
                values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64
            )
        zeros = pa.scalar([0] * NUM_CLASSES**2, values.type)
        filled = pa.compute.if_else(pa.compute.is_valid(values), values, zeros)
        flat = pa.compute.list_flatten(filled).to_numpy(zero_copy_only=False)
        matrices = np.array(flat).reshape(-1, NUM_CLASSES, NUM_CLASSES)
        return np.asarray(miou(torch.from_numpy(matrices)).numpy(), dtype=np.float64)


@dataclass(frozen=True)
class Series:
    """The lines of one curve: a codec of a results folder.

    title: readable name, with the folder's name if two folders share a codec. place: index of the
    folder. style: index of colour and marker; a codec has the same in every figure.
    """

    codec: str
    title: str
    place: int
    style: int


KNOWN = ("sqgan", "jpeg2000", "bpg", "bpg+map", "map_only")
"""Codecs with fixed colours and markers, in this order; others get the remaining ones."""


def read_all(folders: Iterable[str | Path]) -> list[Results]:
    """Read several results folders. Raises ConfigError if none is given, or one twice."""
    paths = [Path(folder) for folder in folders]
    if not paths:
        raise ConfigError("no results folder is given: name at least one")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"{path} is given twice: name each results folder once")
    return [Results.read(path) for path in paths]


def series_of(results: Sequence[Results]) -> list[Series]:
    """Return the curves of several folders, codec by codec, with the same style in every figure.

    If folders share a codec, the titles of its curves include the folders' names.
    """
    everywhere = [codec for one in results for codec in one.codecs]
    others = [codec for codec in dict.fromkeys(everywhere) if codec not in KNOWN]
    names = _distinct_names(results)
    found = []
    taken: set[int] = set()
    for place, one in enumerate(results):
        for codec in one.codecs:
            shared = everywhere.count(codec) > 1
            title = codec_title(codec) + (f" ({names[place]})" if shared else "")
            style = KNOWN.index(codec) if codec in KNOWN else len(KNOWN) + others.index(codec)
            free = style
            while free in taken:
                free += 1
            taken.add(free)
            found.append(Series(codec, title, place, free))
    return sorted(found, key=lambda one: (one.style, one.place)) if len(results) > 1 else found


def _distinct_names(results: Sequence[Results]) -> list[str]:
    """Return the folders' names, with those of their parents if names are equal."""
    names = [one.name for one in results]
    return [
        name if names.count(name) == 1 else "/".join(one.folder.resolve().parts[-2:])
        for name, one in zip(names, results, strict=True)
    ]


def _optional(path: Path) -> list[dict[str, Any]]:
    """Read the lines of an optional table. Raises ConfigError if it cannot be read."""
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = read_parquet(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: run the sweep again to write it") from error
    return found
