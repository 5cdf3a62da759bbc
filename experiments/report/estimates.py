"""Estimates from the rows of one cell of the grid, and the spread of their blocks.

A cell consists of the points that differ only in the seed of the channel's randomness. Its rows
form an array pictures x realisations, in which further seeds are further realisations. Every result
is computed with all blocks of pictures and without each in turn (`jackknife`). Result g of two
cells leaves out the same pictures, so differences and other functions of results are paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import torch

from experiments.sweep.grid import Point, canonical
from experiments.sweep.measuring import FEATURES, Measures, counts_column, unpacked
from sqlink.metrics.base import SetMetric, bounds
from sqlink.metrics.jackknife import (
    Floats,
    Integers,
    Interval,
    Jackknife,
    block_numbers,
    leave_one_out,
    mean_sums,
)

SHARES = ("outage", "unreachable")
"""Columns of 0 and 1: if all pictures have the same value, the spread of 0 is meaningless."""

Booleans = npt.NDArray[np.bool_]


class Measured:
    """The rows of one cell.

    points: those of the cell, which differ in the seed only. rows: their rows, in any order, each
    picture and realisation once. measures: the sweep's metrics.
    """

    also_asked: tuple[str, ...] = ()
    """Higher rates at which the codec makes the same streams (`saturation.merged`)."""

    def __init__(
        self, points: Sequence[Point], rows: pa.Table, measures: Measures | None = None
    ) -> None:
        self.points = tuple(points)
        self.rows = rows
        self.measures = measures or Measures()
        pictures = rows["picture_key"].to_pylist()
        number = {key: n for n, key in enumerate(dict.fromkeys(pictures))}
        self.shape = (len(number), len(pictures) // len(number))
        self._order = np.lexsort(
            (
                rows["realisation"].to_numpy(),
                rows["seed"].to_numpy(),
                [number[key] for key in pictures],
            )
        )
        names = np.asarray(rows["block"].to_pylist())[self._order].reshape(self.shape)[:, 0]
        self.blocks = block_numbers(names, self.shape[0])
        self._found: dict[str, Jackknife | None] = {}
        self._there: dict[str, Booleans] = {}
        self._columns: dict[str, Floats] = {}

    @property
    def title(self) -> str:
        return self.points[0].encoding.codec.title

    @property
    def rate(self) -> str:
        return self.points[0].encoding.rate.label()

    @property
    def num_blocks(self) -> int:
        return int(self.blocks.max()) + 1

    def column(self, name: str) -> Floats:
        """Return a column of numbers, [pictures, realisations]; NaN for missing values."""
        if name not in self._columns:
            column = self.rows[name]
            if not pa.types.is_float64(column.type):
                column = column.cast(pa.float64())
            values = np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
            self._columns[name] = values[self._order].reshape(self.shape)
        return self._columns[name]

    def counts(self, name: str, shape: tuple[int, ...]) -> Floats:
        """Return a column of counts, [pictures, realisations, *shape]; 0 for missing values."""
        column = self.rows[name]
        nothing = pa.scalar([0] * int(np.prod(shape)), column.type)
        filled = pyarrow.compute.if_else(pyarrow.compute.is_valid(column), column, nothing)
        flat = pyarrow.compute.list_flatten(filled).to_numpy(zero_copy_only=False)
        found = np.asarray(flat, dtype=np.float64).reshape(len(column), *shape)
        return found[self._order].reshape(*self.shape, *shape)

    def bpp(self, column: str = "bytes") -> Floats:
        """Return the true bits per pixel, [pictures, realisations]; NaN for unreachable rates.

        column: `bytes` that were offered, `sent_bytes` or `delivered_bytes`.
        """
        bits = 8 * self.column(column) / (self.column("height") * self.column("width"))
        return np.where(self.reached(), bits, np.nan)

    def reached(self) -> Booleans:
        """Return where the codec could code the picture within the rate, [pictures,
        realisations].
        """
        return np.asarray(self.column("unreachable") == 0, dtype=np.bool_)

    def measured(self, name: str) -> Booleans:
        """Return where a metric has a value, [pictures, realisations]."""
        if name not in self._there:
            self._there[name] = self._measured(name)
        return self._there[name]

    def _measured(self, name: str) -> Booleans:
        if counted := self.measures.of_maps.get(name):
            column = counts_column(counted)
            if not self._has(column):
                return np.zeros(self.shape, bool)
            counts = self.counts(column, counted.shape)
            return np.asarray(counts.reshape(*self.shape, -1).any(axis=-1), dtype=np.bool_)
        column = name
        if of_set := self.measures.of_sets.get(name):
            column = f"{FEATURES}{of_set.extractor.name}"
        if column not in self.rows.column_names:
            return np.zeros(self.shape, bool)
        there = pyarrow.compute.is_valid(self.rows[column]).to_numpy(zero_copy_only=False)
        found = np.asarray(there)[self._order].reshape(self.shape)
        return found & self.reached() if name == "outage" else found

    def result(self, name: str) -> Jackknife | None:
        """Return a metric, another column of numbers, or `bpp`; None where nothing was measured."""
        if name not in self._found:
            self._found[name] = self._result(name)
        return self._found[name]

    def interval(self, name: str) -> Interval | None:
        """Return a result with its interval, cut off at the metric's bounds.

        None where nothing was measured.
        """
        found = self.result(name)
        if found is None:
            return None
        if name in SHARES and found.estimate in (0.0, 1.0):
            some = "none" if found.estimate == 0 else "all"
            return Interval(
                found.estimate, np.nan, np.nan, 0.95, self.num_blocks, f"{some} observed"
            )
        if name in SHARES:
            return found.interval(low=0.0, high=1.0)
        metric = self.measures.metrics.get(name)
        low, high = (-np.inf, np.inf) if metric is None else bounds(metric)
        return found.interval(low=low, high=high)

    def value(self, name: str, which: Booleans) -> float | None:
        """Return a metric over the receptions of a mask [pictures, realisations].

        None if nothing was measured for them.
        """
        which = which & self.measured(name)
        if not which.any():
            return None
        if counted := self.measures.of_maps.get(name):
            sums = self.counts(counts_column(counted), counted.shape)[which].sum(axis=0)
            return float(counted.value(torch.from_numpy(sums)))
        if of_set := self.measures.of_sets.get(name):
            ours, theirs, _ = self._vectors(of_set, which)
            return float(of_set.distance([ours], theirs, np.zeros(len(ours), np.int64)).estimate)
        return float(self.column(name)[which].mean())

    def _result(self, name: str) -> Jackknife | None:
        if name in ("bpp", "bpp_sent"):
            column = "bytes" if name == "bpp" else "sent_bytes"
            return leave_one_out(mean_sums(self.bpp(column)), blocks=self.blocks)
        if not self.measured(name).any():
            return None
        if counted := self.measures.of_maps.get(name):
            value = counted.value
            sums = self.counts(counts_column(counted), counted.shape)
            return leave_one_out(
                sums, lambda one: value(torch.from_numpy(one)).numpy(), blocks=self.blocks
            )
        if metric := self.measures.of_sets.get(name):
            there = self.measured(name)
            parts = [
                self._vectors(metric, there & (np.arange(self.shape[1]) == r))
                for r in range(self.shape[1])
            ]
            _, reference, block = parts[0]
            present, number = np.unique(block, return_inverse=True)
            found = metric.distance([ours for ours, _, _ in parts], reference, number)
            without = np.full(self.num_blocks, found.estimate)
            without[present] = found.without
            return Jackknife(found.estimate, without, np.isin(np.arange(self.num_blocks), present))
        values = np.where(self.measured(name), self.column(name), np.nan)
        return leave_one_out(mean_sums(values), blocks=self.blocks)

    def _has(self, name: str) -> bool:
        return name in self.rows.column_names and self.rows[name].null_count < len(self.rows)

    def _vectors(self, metric: SetMetric, which: Booleans) -> tuple[Floats, Floats, Integers]:
        """Return the vectors of receptions, those of the originals, and the block of each, [n,
        ...].
        """
        name = f"{FEATURES}{metric.extractor.name}"
        places = self._order.reshape(self.shape)[which]
        found = []
        for column in (name, f"{name}_original"):
            chosen = self.rows[column].take(pa.array(places)).to_pylist()
            known = {data: unpacked(data) for data in dict.fromkeys(chosen)}
            found.append([known[data] for data in chosen])
        blocks = np.broadcast_to(self.blocks[:, None], self.shape)[which]
        block = np.repeat(blocks, [len(one) for one in found[0]])
        return np.concatenate(found[0]), np.concatenate(found[1]), block


def cells_of(
    table: pa.Table, points: Sequence[Point], measures: Measures | None = None
) -> list[Measured]:
    """Return the cells of a sweep in the order of its points; table: all their rows."""
    where: dict[str, list[int]] = {}
    for i, name in enumerate(table["point"].to_pylist()):
        where.setdefault(name, []).append(i)
    groups: dict[str, list[Point]] = {}
    for point in points:
        encoding = point.encoding
        cell = [encoding.codec.title, encoding.rate.label(), point.channel, point.conditions]
        groups.setdefault(canonical([*cell, encoding.packet_bytes]), []).append(point)
    return [
        Measured(
            group,
            table.take(pa.array([i for point in group for i in where[point.hash]], pa.int64())),
            measures,
        )
        for group in groups.values()
    ]


def by_condition(cells: Sequence[Measured]) -> Mapping[tuple[object, ...], list[Measured]]:
    """Group cells over one channel under the same conditions, at the same packet size."""
    found: dict[tuple[object, ...], list[Measured]] = {}
    for cell in cells:
        point = cell.points[0]
        size = point.encoding.packet_bytes
        found.setdefault((point.channel, size, *point.conditions), []).append(cell)
    return found
