"""Forecast of a sweep: points, encodings, and an estimate of time and size from its first
picture.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.sweep.components import Components
from experiments.sweep.grid import Point, encodings
from experiments.sweep.pictures import Picture
from experiments.sweep.runner import Runner
from experiments.sweep.schema import load_sweep
from experiments.sweep.store import Store
from experiments.sweep.worker import Crossing
from sqlink.runtime.precision import full_precision
from sqlink.settings import find_settings
from sqlink.wording import counted

SHOWN = 12
"""Number of points listed; of more points, the first and the last are listed."""


@dataclass(frozen=True)
class Forecast:
    """Forecast of a sweep.

    seconds, bytes: estimates for all rows, from one picture under each encoding.
    """

    points: tuple[Point, ...]
    encodings: int
    pictures: int
    rows: int
    done: int
    seconds: float
    bytes: int

    def __str__(self) -> str:
        lines = [_line(point) for point in self.points]
        if len(lines) > SHOWN:
            half = SHOWN // 2
            left = len(lines) - 2 * half
            lines = [*lines[:half], f"... {left} more ...", *lines[-half:]]
        minutes = self.seconds / 60
        took = f"{minutes:.0f} min" if minutes >= 2 else f"{self.seconds:.0f} s"
        return "\n".join(
            [
                *lines,
                f"{counted(len(self.points), 'point')}, "
                f"{counted(self.encodings, 'encoding')} a picture, "
                f"{counted(self.pictures, 'picture')}: {counted(self.rows, 'row')}, "
                f"{self.done} of them finished already",
                f"about {took} at most on this machine (if every reception is new), "
                f"about {self.bytes / 1e6:.1f} MB",
            ]
        )


def forecast(config_path: str | Path, output: str | Path | None = None) -> Forecast:
    """Build a sweep, run its first picture at one point of each encoding, and extrapolate.

    output: a results folder, whose rows are not counted as work. Nothing is written. Raises
    SQLinkError as the sweep itself would.
    """
    path = find_settings(config_path, "experiments.configs")
    sweep = load_sweep(path)
    with torch.inference_mode(), full_precision():
        components = Components.of(sweep, path.name)
        with tempfile.TemporaryDirectory(prefix="sqlink-") as folder, Store(folder) as store:
            runner = Runner(sweep, components, store, name=path.name)
            count = runner.pictures.count
            rows = runner.total
            seconds, size = _tried(runner, store)
    parts = Path(output or sweep.output or Path("results") / path.stem) / "parts"
    done = 0
    if parts.is_dir():
        with Store(parts.parent) as there:
            hashes = {point.hash for point in runner.points}
            done = sum(key[0] in hashes for key in there.done())
    left = max(rows - done, 0) / max(rows, 1)
    return Forecast(
        points=tuple(runner.points),
        encodings=len(encodings(runner.points)),
        pictures=count,
        rows=rows,
        done=min(done, rows),
        seconds=seconds * left,
        bytes=int(size * left),
    )


def _tried(runner: Runner, store: Store) -> tuple[float, int]:
    """Estimate the seconds and bytes of all rows.

    Each encoding is run with one row and with two: the difference is the cost of a row, the rest of
    the first that of coding.
    """
    worker = runner.worker
    batch = worker.prepared(next(worker.pictures.batches(runner.pictures.groups[0])))
    pictures = len(batch) if runner.sweep.sequence is not None else 1
    seconds, size = 0.0, 0.0
    for group in encodings(runner.points):
        first = _timed(runner, store, batch[:pictures], group[0], 1)
        second = _timed(runner, store, batch[:pictures], group[0], 2)
        row = max(second[0] - first[0], 0.0) / pictures
        coding = max(first[0] / pictures - row, 0.0)
        each = len(group) * runner.sweep.realisations
        seconds += runner.pictures.count * (coding + each * row)
        size += runner.pictures.count * each * second[1] / (2 * pictures)
    return seconds, int(size)


def _timed(
    runner: Runner, store: Store, batch: list[Picture], point: Point, realisations: int
) -> tuple[float, int]:
    """Measure the seconds, and bytes of a part file, of pictures at one point."""
    crossings = [Crossing(n, point, r) for r in range(realisations) for n in range(len(batch))]
    start = time.perf_counter()
    rows = runner.worker.rows_of(batch, point.encoding, crossings)
    took = time.perf_counter() - start
    before = {path.name for path in store.parts.glob("*.parquet")}
    store.add(rows)
    new = [path for path in store.parts.glob("*.parquet") if path.name not in before]
    return took, sum(path.stat().st_size for path in new)


def _line(point: Point) -> str:
    met = ", ".join(f"{name}={value:g}" for name, value in point.conditions)
    return f"{point.hash}  {point.encoding.label}, {point.channel}{' ' + met if met else ''}"
