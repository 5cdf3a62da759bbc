"""Functions of `sqlink results`: list, show, merge, export and prune results folders.

The folder of a running or interrupted sweep holds the finished pictures.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from channels.atomic_write import SUFFIX, whole_file
from channels.errors import ConfigError
from experiments.report.tables import read_tables
from experiments.sweep.grid import FORMAT
from experiments.sweep.store import KEY, RESULTS, Store, read_parquet, read_results
from sqlink.wording import counted

MANIFEST = "manifest.json"
FORMATS = ("csv", "parquet", "jsonl")


@dataclass(frozen=True)
class Summary:
    """Summary of a results folder in a line.

    state: finished, under way (or interrupted), or begun (no picture is finished). rows: number of
    rows in its table.
    """

    folder: Path
    state: str
    rows: int
    codecs: tuple[str, ...]
    channels: tuple[str, ...]
    pictures: int

    def __str__(self) -> str:
        return (
            f"{self.folder}  {self.state}  {counted(self.rows, 'row')}  "
            f"{counted(self.pictures, 'picture')}  "
            f"{', '.join(self.codecs)}  over {', '.join(self.channels)}"
        )


def listed(root: str | Path) -> list[Summary]:
    """List every results folder in `root`, and `root` itself, by name.

    Raises ConfigError if `root` is not a folder.
    """
    place = Path(root)
    if not place.is_dir():
        raise ConfigError(f"{place} is not a folder: name one that holds results")
    folders = [place, *sorted(path for path in place.iterdir() if path.is_dir())]
    return [_summary(folder) for folder in folders if _is_results(folder)]


def shown(folder: str | Path) -> str:
    """Show the folder in a few lines, and its tables. Raises ConfigError if there are none."""
    place = _checked(folder)
    found = manifest_of(place)
    lines = [str(_summary(place)), ""]
    for name in ("conditions", "realisations", "unavailable"):
        if found.get(name):
            value = found[name]
            lines.append(f"{name}: {_plain(value)}")
    versions = found.get("versions", {})
    lines.append(f"versions: {_plain(versions)}")
    return "\n".join([*lines, "", read_tables(place)])


def merge(folders: Sequence[str | Path], output: str | Path) -> int:
    """Merge the rows of several folders into one, each row once; return their number.

    `sqlink sweep CONFIG -o OUTPUT` then uses them, computes missing rows and writes the tables.
    Kept pictures are copied, too. Raises ConfigError if a folder holds no rows, or holds rows of
    another format.
    """
    sources = [_checked(folder) for folder in folders]
    target = Path(output)
    if any(source.resolve() == target.resolve() for source in sources):
        raise ConfigError(f"{target} is one of the folders to merge: name another with -o")
    formats = {str(manifest_of(source).get("format", FORMAT)) for source in sources}
    if len(formats) > 1:
        said = ", ".join(sorted(formats))
        raise ConfigError(f"rows of different formats ({said}): run the older sweeps again")
    with Store(target) as store:
        for source in sources:
            for part in sorted((source / "parts").glob("*.parquet")):
                _copied(part, store.parts / part.name)
            for picture in sorted((source / "pictures").glob("*.png")):
                _copied(picture, target / "pictures" / picture.name)
        store.compact()
        return len(store.done())


def export(folder: str | Path, output: str | Path, columns: Sequence[str] = ()) -> int:
    """Write the rows as CSV, Parquet or JSON lines, by the file's suffix; return their number.

    columns: columns to write, by default all. CSV has no columns of lists or bytes. Raises
    ConfigError for another suffix, and for an unknown column.
    """
    table, path = read_results(_checked(folder)), Path(output)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(f"{path}: the name should end in one of {known}")
    for name in columns:
        if name not in table.column_names:
            known = ", ".join(table.column_names)
            raise ConfigError(f"{folder}: no column '{name}': known: {known}")
    table = table.select(list(columns) or table.column_names)
    try:
        with whole_file(path) as aside:
            if suffix == "parquet":
                pa.parquet.write_table(table, aside, compression="zstd")
            elif suffix == "csv":
                pa.csv.write_csv(flat(table), aside)
            else:
                lines = (json.dumps(row, default=_text) for row in table.to_pylist())
                aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
    return int(table.num_rows)


def prune(folder: str | Path, dry_run: bool = False) -> tuple[int, int]:
    """Remove what the folder's table does not name: earlier rows and pictures, and temporary files.

    Returns the number of rows and the bytes of files removed.

    dry_run: only count. Raises ConfigError if the sweep is not finished.
    """
    place = _checked(folder)
    if not manifest_of(place).get("finished", True):
        raise ConfigError(f"{place}: the sweep is not finished: run it to its end before you prune")
    table = read_results(place)
    kept = set(zip(*(table[name].to_pylist() for name in KEY), strict=True))
    points = set(table["point"].to_pylist())
    with Store(place) as store:
        old = store.done() - kept
        stale = [
            *store.parts.glob("*.damaged"),
            *place.glob(f"*{SUFFIX}"),
            *store.parts.glob(f"*{SUFFIX}"),
        ]
        for picture in (place / "pictures").glob("*.png"):
            point = _point_of(picture.name)
            if point is not None and point not in points:
                stale.append(picture)
        freed = sum(path.stat().st_size for path in stale)
        before = sum(path.stat().st_size for path in store.parts.glob("*.parquet"))
        if not dry_run:
            for path in stale:
                path.unlink()
            if old:
                store.replace(table)
                after = sum(path.stat().st_size for path in store.parts.glob("*.parquet"))
                freed += max(before - after, 0)
    return len(old), freed


def manifest_of(folder: Path) -> dict[str, Any]:
    """Read the manifest; empty if it is missing or cannot be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def flat(table: pa.Table) -> pa.Table:
    """Return the table without columns of lists and of bytes."""
    return table.select(
        [
            field.name
            for field in table.schema
            if not (pa.types.is_list(field.type) or pa.types.is_large_binary(field.type))
        ]
    )


def _is_results(folder: Path) -> bool:
    return (folder / "parts").is_dir() or (folder / RESULTS).is_file()


def _checked(folder: str | Path) -> Path:
    place = Path(folder)
    if not _is_results(place):
        raise ConfigError(f"{place}: no results here: name the folder of a sweep")
    return place


def _summary(folder: Path) -> Summary:
    found = manifest_of(folder)
    state, rows, pictures = "begun", 0, 0
    if (folder / RESULTS).is_file():
        table = read_parquet(folder / RESULTS, ["picture_key"])
        rows, pictures = table.num_rows, len(table["picture_key"].unique())
        state = "finished" if found.get("finished", True) else "under way or interrupted"
    sweep = found.get("sweep", {})
    codecs = [codec.get("label") or codec["name"] for codec in sweep.get("codecs", ())]
    channels = found.get("channels") or []
    return Summary(folder, state, rows, tuple(codecs), tuple(channels), pictures)


def _copied(source: Path, target: Path) -> None:
    """Copy a file, completely or not at all. Raises ConfigError."""
    try:
        target.parent.mkdir(exist_ok=True)
        with whole_file(target) as aside:
            shutil.copyfile(source, aside)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from error


def _point_of(name: str) -> str | None:
    """Return the point's hash in the name of a kept picture; None for an original."""
    for word in name.split(".")[1:]:
        if len(word) == 16 and all(letter in "0123456789abcdef" for letter in word):
            return word
    return None


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _text(value: object) -> str:
    """Return bytes as hexadecimal digits, for JSON."""
    return value.hex() if isinstance(value, bytes) else str(value)
