"""What the rows of one cell of the grid come to: estimates, and the draws of their intervals.

A cell is what differs in nothing but the seed of the channel's randomness. Its rows are brought
into an array pictures x realisations; another seed is as good as more realisations. Every cell of a
sweep is drawn under one seed of the bootstrap, so draw b of one cell and draw b of another are of
the same pictures and realisations: differences, and whatever else is computed draw by draw, are
paired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
from torch import Tensor

from experiments.sweep.grid import Point, canonical
from experiments.sweep.schema import FRECHET, MATRICES
from sqlink.data.classes import NUM_CLASSES
from sqlink.metrics import frechet
from sqlink.metrics.bootstrap import (
    RESAMPLES,
    Interval,
    Statistic,
    mean,
    mean_iou,
    mean_sums,
    percentiles,
    resample,
)

CELLS, CELLS_CLEAN = "cells_image", "cells_clean"
"""Columns of the judge's features: of the picture received, and of the original."""

SOURCES = dict(zip(MATRICES, ("confusion_image", "confusion_map", "confusion_sent"), strict=True))
"""Semantic metric -> the column of confusion matrices that it is made of."""

SEED = 0x5147
"""Of the bootstrap's draws."""

LEVEL = 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quantity:
    """Something that adds up over receptions, and what its sums come to.

    sums: [pictures, realisations, ...]. centred: see `bootstrap.interval`.
    """

    sums: Floats
    statistic: Statistic = mean
    resamples: int = RESAMPLES
    centred: bool = False

    def of(self, which: npt.NDArray[np.bool_]) -> float | None:
        """Its value over the receptions of a mask [pictures, realisations]; None if there is none.

        None, too, where nothing of them was measured.
        """
        if not which.any():
            return None
        value = float(self.statistic(self.sums[which].sum(axis=0)[None])[0])
        return value if np.isfinite(value) else None


class Measured:
    """The rows of one cell.

    points: those of the cell, which differ by the seed alone. rows: theirs, in any order, each
    picture and realisation once.
    """

    also_asked: tuple[str, ...] = ()
    """Higher rates at which the codec makes the same streams (`saturation.merged`)."""

    def __init__(self, points: Sequence[Point], rows: pa.Table) -> None:
        self.points = tuple(points)
        self.rows = rows
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
        self.blocks = np.asarray(rows["block"].to_pylist())[self._order].reshape(self.shape)[:, 0]
        self._found: dict[str, tuple[float, Floats] | None] = {}

    @property
    def title(self) -> str:
        return self.points[0].encoding.codec.title

    @property
    def rate(self) -> str:
        return self.points[0].encoding.rate.label()

    @property
    def num_blocks(self) -> int:
        return len(set(self.blocks.tolist()))

    def column(self, name: str) -> Floats:
        """A column of numbers, [pictures, realisations], NaN where there is none."""
        values = self.rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float64)[self._order].reshape(self.shape)

    def matrices(self, name: str) -> Floats:
        """A column of confusion matrices, [pictures, realisations, C, C]; 0 without labels."""
        column = self.rows[name]
        filled = pyarrow.compute.if_else(
            pyarrow.compute.is_valid(column), column, pa.scalar([0] * NUM_CLASSES**2, column.type)
        )
        flat = pyarrow.compute.list_flatten(filled).to_numpy(zero_copy_only=False)
        found = np.asarray(flat, dtype=np.float64).reshape(len(column), NUM_CLASSES, NUM_CLASSES)
        return found[self._order].reshape(*self.shape, NUM_CLASSES, NUM_CLASSES)

    def bpp(self, column: str = "bytes") -> Floats:
        """True bits a pixel, [pictures, realisations]; NaN where the rate could not be reached.

        column: `bytes` that were offered, `sent_bytes` or `delivered_bytes`.
        """
        bits = 8 * self.column(column) / (self.column("height") * self.column("width"))
        return np.where(self.reached(), bits, np.nan)

    def reached(self) -> npt.NDArray[np.bool_]:
        """Where the codec could code the picture as low as it was asked to."""
        there: npt.NDArray[np.bool_] = self.column("unreachable") == 0
        return there

    def quantity(self, name: str) -> Quantity | None:
        """A metric's column, a semantic metric, `fd`, or `bpp`; None where nothing was measured."""
        if name == "bpp":
            return Quantity(mean_sums(self.bpp()))
        if name == "outage":
            lost = self.column(name)
            return Quantity(mean_sums(np.where(self.reached(), lost, np.nan)))
        if name == FRECHET:
            if not self._has(CELLS):
                return None
            both = np.stack([self._moments(CELLS), self._moments(CELLS_CLEAN)], axis=2)
            return Quantity(both, frechet.frechet_of_sums, frechet.RESAMPLES, centred=True)
        if name in SOURCES:
            there = self._has(SOURCES[name])
            return Quantity(self.matrices(SOURCES[name]), mean_iou) if there else None
        return Quantity(mean_sums(self.column(name))) if name in self.rows.column_names else None

    def interval(self, name: str) -> Interval | None:
        """The estimate of a quantity with its interval; None where nothing was measured."""
        found = self.drawn(name)
        return None if found is None else percentiles(*found, self.num_blocks, LEVEL)

    def drawn(self, name: str) -> tuple[float, Floats] | None:
        """The estimate of a quantity and its values on the bootstrap's resamples, [B]."""
        if name not in self._found:
            quantity = self.quantity(name)
            self._found[name] = None if quantity is None else self._draw(quantity)
        return self._found[name]

    def _draw(self, quantity: Quantity) -> tuple[float, Floats]:
        estimate = float(quantity.statistic(quantity.sums.sum(axis=(0, 1))[None])[0])
        draws = quantity.statistic(
            resample(quantity.sums, seed=SEED, blocks=self.blocks, resamples=quantity.resamples)
        )
        if quantity.centred:
            draws = draws + (estimate - draws.mean())
        return estimate, draws

    def _has(self, name: str) -> bool:
        return name in self.rows.column_names and self.rows[name].null_count < len(self.rows)

    def _moments(self, name: str) -> Floats:
        """[pictures, realisations, k] of a column of features; equal ones are counted once."""
        column = self.rows[name].to_pylist()
        found = {data: frechet.moments(unpacked_cells(data)) for data in dict.fromkeys(column)}
        every = np.stack([found[data] for data in column])[self._order]
        return every.reshape(*self.shape, -1)


def cells_of(table: pa.Table, points: Sequence[Point]) -> list[Measured]:
    """The cells of a sweep in the order of its points; table: the rows of all of them."""
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
        )
        for group in groups.values()
    ]


def packed_cells(cells: Tensor) -> list[bytes]:
    """float32 [N, cells, C] features as rows keep them: half precision, C in 2 bytes before.

    >>> import torch
    >>> [len(data) for data in packed_cells(torch.zeros(2, 48, 128))]
    [12290, 12290]
    """
    width = np.array(cells.shape[2], dtype="<u2").tobytes()
    return [width + one.numpy().astype("<f2").tobytes() for one in cells]


def unpacked_cells(data: bytes) -> Floats:
    """What `packed_cells` packed of one picture, [cells, C]."""
    width = int.from_bytes(data[:2], "little")
    return np.frombuffer(data, "<f2", offset=2).reshape(-1, width).astype(np.float64)


def by_condition(cells: Sequence[Measured]) -> Mapping[tuple[object, ...], list[Measured]]:
    """Cells over one channel under the same conditions, at the same packet size."""
    found: dict[tuple[object, ...], list[Measured]] = {}
    for cell in cells:
        point = cell.points[0]
        size = point.encoding.packet_bytes
        found.setdefault((point.channel, size, *point.conditions), []).append(cell)
    return found
