"""Crash-safe results: rows in part files, written completely or not at all.

    FOLDER/parts/*.parquet   finished rows, one file per batch; a resumed sweep starts from these
    FOLDER/results.parquet   the rows of the sweep, in the grid's order, and the same as .csv
    FOLDER/.lock             held while a sweep runs; the system lets go of it when the process ends

A row's key is (point, picture, realisation): the point's hash, the hash of the picture and its
labels, and a number. A row is never written twice with different contents, so parts may overlap,
come from earlier versions of the configuration, and be read in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet
from filelock import FileLock, Timeout

from channels.atomic_write import SUFFIX, whole_file
from channels.errors import ConfigError
from experiments.sweep.row import BITS

KEY = ("point", "picture_key", "realisation")
RESULTS = "results.parquet"
_DICTIONARY = 1 << 28
"""Size in bytes of a column's distinct values up to which a file stores each value once."""

Row = Mapping[str, Any]
Key = tuple[str, str, int]

PICTURES = "pictures"
"""Folder of the pictures kept as received (`examples`), inside a results folder."""

_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.large_binary(),
}
_KEY_TYPES = dict(zip(KEY, (pa.string(), pa.string(), pa.int64()), strict=True))


@dataclass(frozen=True)
class Done:
    """Keys of finished rows, in a compact form, so that they are not computed again.

    data: a table of KEY in Arrow's format.

    >>> table = pa.table({"point": ["a", "b"], "picture_key": ["p", "q"], "realisation": [0, 3]})
    >>> Done.of_table(table).of("q")
    {('b', 3)}
    """

    data: bytes = b""

    @classmethod
    def of_table(cls, table: pa.Table) -> Done:
        """Read the keys of a table."""
        if not table.num_rows:
            return cls()
        names = [table[name].combine_chunks().dictionary_encode() for name in KEY[:2]]
        columns = dict(zip(KEY, [*names, table["realisation"].combine_chunks()], strict=True))
        sink = pa.BufferOutputStream()
        packed = pa.table(columns)
        with pa.ipc.new_stream(sink, packed.schema) as writer:
            writer.write_table(packed)
        return cls(sink.getvalue().to_pybytes())

    def of(self, picture_key: str) -> set[tuple[str, int]]:
        """Return point and realisation of every row of a picture."""
        if not self.data:
            return set()
        own = self._table.filter(pa.compute.equal(self._table["picture_key"], picture_key))
        return set(zip(own["point"].to_pylist(), own["realisation"].to_pylist(), strict=True))

    @cached_property
    def _table(self) -> pa.Table:
        return pa.ipc.open_stream(self.data).read_all()


class Store:
    """The results folder of one sweep, locked during a `with` block.

    Raises ConfigError on entering if the folder cannot be written or another sweep holds it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.parts = self.folder / "parts"
        self._lock = FileLock(self.folder / ".lock")
        self._made: list[Path] = []
        """Folders that were not there before, the innermost first."""

    @classmethod
    def of_worker(cls, folder: str | Path) -> Store:
        """Return a store for a worker: the folder that its sweep has locked, or a folder of its
        own.

        Raises ConfigError if the folder cannot be written.
        """
        store = cls(folder)
        try:
            store.parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{store.folder}: cannot be written: {error.strerror or error}"
            ) from error
        return store

    def __enter__(self) -> Store:
        try:
            self._made = [one for one in (self.parts, *self.parts.parents) if not one.exists()]
            self.parts.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(
                f"{self.folder}: another sweep is writing here: wait for it or name another folder"
            ) from error
        except OSError as error:
            self._remove_empty()
            raise ConfigError(
                f"{self.folder}: cannot be written: {error.strerror or error}"
            ) from error
        self._tidy()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tidy()
        self._remove_empty()
        self._lock.release()

    def _tidy(self) -> None:
        """Remove temporary files of killed processes."""
        for folder in (self.parts, self.folder / PICTURES):
            for left in folder.glob(f"*{SUFFIX}"):
                left.unlink(missing_ok=True)

    def _remove_empty(self) -> None:
        """Remove the folders made here if nothing was written: a refused sweep leaves none."""
        for folder in self._made:
            try:
                if folder == self.folder and list(folder.iterdir()) == [folder / ".lock"]:
                    (folder / ".lock").unlink()
                folder.rmdir()
            except OSError:  # it is not there, or not empty
                return

    def done(self) -> set[Key]:
        """Return the keys of every row in the store."""
        table = self._read(columns=list(KEY))
        return set(zip(*(table[name].to_pylist() for name in KEY), strict=True))

    def rows_there(self) -> Done:
        """Return the same, to be found by picture."""
        return Done.of_table(self._read(columns=list(KEY)))

    def add(self, rows: Sequence[Row]) -> None:
        """Write rows as one part file; they are safely on disk when this returns."""
        if not rows:
            return
        key = hashlib.sha256("\n".join(str(row_key(row)) for row in rows).encode()).hexdigest()
        table = table_of(rows)
        _write(self.parts / f"{key[:24]}.parquet", partial(_write_parquet, table))

    def compact(self) -> None:
        """Merge all parts into one file; an interruption does no harm, as parts may overlap."""
        small = sorted(self.parts.glob("*.parquet"))
        if len(small) < 2:
            return
        table = self._read()
        keys = hashlib.sha256("\n".join(path.name for path in small).encode()).hexdigest()
        whole = self.parts / f"{keys[:24]}.parquet"
        _write(whole, partial(_write_parquet, table))
        for path in small:
            if path != whole:
                path.unlink()

    def replace(self, table: pa.Table) -> None:
        """Replace all rows by these."""
        old = sorted(self.parts.glob("*.parquet"))
        keys = hashlib.sha256("\n".join(path.name for path in old).encode()).hexdigest()
        whole = self.parts / f"{keys[:24]}.parquet"
        _write(whole, partial(_write_parquet, table))
        for path in old:
            if path != whole:
                path.unlink()

    def select(self, keys: Iterable[Key]) -> pa.Table:
        """Return the rows of these keys, in their order. Raises KeyError if one is missing."""
        table = self._read()
        place = {
            key: i
            for i, key in enumerate(zip(*(table[name].to_pylist() for name in KEY), strict=True))
        }
        return table.take(pa.array([place[key] for key in keys], pa.int64()))

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write `name`.parquet and `name`.csv; the CSV leaves out columns of lists and bytes."""
        flat = table.select(
            [
                field.name
                for field in table.schema
                if not (pa.types.is_list(field.type) or pa.types.is_large_binary(field.type))
            ]
        )
        _write(self.folder / f"{name}.parquet", partial(_write_parquet, table))
        _write(self.folder / f"{name}.csv", lambda path: pa.csv.write_csv(flat, path))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file into the folder, completely or not at all."""
        _write(self.folder / name, lambda path: path.write_text(text, encoding="utf-8"))

    def _read(self, columns: list[str] | None = None) -> pa.Table:
        """Read all rows of all parts, a key once; a part that cannot be read is set aside."""
        tables = []
        for path in sorted(self.parts.glob("*.parquet")):
            try:
                tables.append(read_parquet(path, columns))
            except (pa.ArrowException, OSError):
                path.replace(path.with_suffix(".damaged"))
        if not tables:
            return table_of([]).select(columns or list(KEY))
        table = pa.concat_tables(tables, promote_options="default")
        keys = list(zip(*(table[name].to_pylist() for name in KEY), strict=True))
        first = list({key: i for i, key in reversed(list(enumerate(keys)))}.values())
        if len(first) < len(keys):
            table = table.take(pa.array(sorted(first), pa.int64()))
        return filled(table)


def row_key(row: Row) -> Key:
    """Return the key of a row."""
    return (row["point"], row["picture_key"], row["realisation"])


def table_of(rows: Sequence[Row], keys: Sequence[str] = KEY) -> pa.Table:
    """Make a table of rows, with the columns `keys` first.

    The Python type of a value determines the type of its column; lists are of int. The table has
    the columns of all rows; missing values are null, or 0 in the ledger.
    """
    names = list(dict.fromkeys([*keys, *(name for row in rows for name in row)]))
    fields = []
    for name in names:
        sample = next((row[name] for row in rows if row.get(name) is not None), None)
        if isinstance(sample, list):
            kind = pa.list_(pa.int64())
        elif sample is not None:
            kind = _TYPES[type(sample)]
        else:
            kind = _KEY_TYPES.get(name, pa.null())
        fields.append(pa.field(name, kind))
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in fields]
    return filled(pa.table(columns, schema=pa.schema(fields)))


def filled(table: pa.Table) -> pa.Table:
    """Replace null by 0 in the columns of the ledger."""
    for i, field in enumerate(table.schema):
        if field.name.startswith(BITS):
            kind = pa.int64() if pa.types.is_null(field.type) else field.type
            column = table[field.name].cast(kind).fill_null(pa.scalar(0, kind))
            table = table.set_column(i, pa.field(field.name, kind), column)
    return table


def read_results(folder: str | Path) -> pa.Table:
    """Read the finished table of a results folder. Raises ConfigError if there is none."""
    path = Path(folder) / RESULTS
    try:
        return read_parquet(path)
    except FileNotFoundError as error:
        begun = (Path(folder) / "parts").is_dir()
        remedy = "run the sweep again to its end" if begun else "run `sqlink sweep` first"
        raise ConfigError(f"{folder}: no {RESULTS} here: {remedy}") from error
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{path}: cannot be read: run the sweep again to write it") from error


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file. (`pyarrow.parquet.read_table` would load pandas if it is
    installed.)
    """
    with pa.parquet.ParquetFile(path) as file:
        return file.read(columns)


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Write one file, in which equal values (such as a picture's features) are stored once."""
    pa.parquet.write_table(table, path, compression="zstd", dictionary_pagesize_limit=_DICTIONARY)


def _write(path: Path, content: Callable[[Path], object]) -> None:
    """Write a file, completely or not at all, and flush it to disk. Raises ConfigError."""
    try:
        with whole_file(path, durable=True) as aside:
            content(aside)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from error
