"""Speed of a sweep compared with a plain loop of the same calls, and its distribution of time.

    python -m experiments.sweep.speed quickstart --pictures 1 --realisations 1,4,16 --loop 24

The loop encodes, sends, decodes and measures once for every row, as a simple script would. Evenly
spaced rows of the sweep are computed by the loop and timed, and their mean is extrapolated to all
rows; each must equal the sweep's row. Time that is not spent on loading, coding, channel, decoding
or metrics is `other`, which includes writing rows and tables. Seconds are wall-clock time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from experiments.sweep.cache import Cache
from experiments.sweep.components import Components
from experiments.sweep.finishing import say
from experiments.sweep.pictures import Picture
from experiments.sweep.runner import Runner
from experiments.sweep.schema import Sweep, load_sweep
from experiments.sweep.store import Done, Store, read_results
from experiments.sweep.worker import Crossing, Worker
from sqlink.codecs.sqgan.codec import SQGANCodec
from sqlink.errors import SQLinkError
from sqlink.runtime.malloc import keep_freed_memory
from sqlink.runtime.precision import full_precision
from sqlink.settings import find_settings

Line = dict[str, object]

COMPUTING = ("load", "prepare", "encode", "cross", "decode", "measure")
COMPARED = ("stream", "bytes", "delivered", "correct", "channel_uses", "psnr_db", "confusion_image")
"""Columns in which a row of the loop must equal the sweep's; floats to 1e-5."""


@dataclass(frozen=True)
class Speed:
    """Speed of one sweep.

    seconds: total time, tables included. parts: seconds by part. decoded: distinct receptions.
    loop_s: seconds per row of the plain loop, mean over `tried` rows.
    """

    rows: int
    realisations: int
    seconds: float
    parts: dict[str, float]
    decoded: int
    loop_s: float
    tried: int

    @property
    def ratio(self) -> float:
        """Speed relative to the loop."""
        return self.loop_s * self.rows / self.seconds

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {took / self.seconds:.1%}" for name, took in self.parts.items())
        other = 1 - sum(self.parts.values()) / self.seconds
        return (
            f"{self.realisations} realisations, {self.rows} rows: {self.seconds:.1f} s, "
            f"{self.decoded} receptions decoded; loop {self.loop_s:.3f} s a row "
            f"(n = {self.tried}), {self.loop_s * self.rows:.0f} s for all: "
            f"{self.ratio:.1f} times as fast; "
            f"{shares}, other {other:.1%}"
        )


def measured(sweep: Sweep, name: str, realisations: int, tried: int) -> Speed:
    """Run a sweep, and some of its rows alone. Raises RuntimeError if they differ."""
    sweep = sweep.model_copy(update={"realisations": realisations, "until": None})
    components = Components.of(sweep, name)
    with tempfile.TemporaryDirectory(prefix="sqlink-") as home, Store(home) as store:
        runner = Runner(sweep, components, store, name=name)
        _forget(components)
        begun = time.perf_counter()
        runner.run("")
        seconds = time.perf_counter() - begun
        spent = runner.compute.spent.values()
        parts = {part: sum(one.get(f"{part}_s", 0.0) for one in spent) for part in COMPUTING}
        decoded = int(sum(one.get("decoded", 0) for one in spent))
        rows = read_results(home).to_pylist()
    with tempfile.TemporaryDirectory(prefix="sqlink-") as home:
        loop_s = _loop(sweep, components, rows[:: max(1, len(rows) // tried)][:tried], Path(home))
    return Speed(len(rows), realisations, seconds, parts, decoded, loop_s, tried)


def _loop(
    sweep: Sweep, components: Components, rows: Sequence[dict[str, object]], home: Path
) -> float:
    """Return the seconds per row for rows computed independently, one after another."""
    worker = Worker(sweep, components, Store.of_worker(home), Done(), Cache(None), say)
    by_hash = {point.hash: point for point in worker.points}
    numbers = [number for group in worker.pictures.groups for number in group]
    batches = [batch for n in numbers for batch in worker.pictures.batches((n,))]
    loaded: dict[str, Picture] = {
        picture.key: picture for batch in batches for picture in worker.prepared(batch)
    }
    took = 0.0
    for row in rows:
        _forget(components)
        begun = time.perf_counter()
        (found,) = worker.rows_of(
            [loaded[str(row["picture_key"])]],
            by_hash[str(row["point"])].encoding,
            [Crossing(0, by_hash[str(row["point"])], int(str(row["realisation"])))],
        )
        took += time.perf_counter() - begun
        for name in COMPARED:
            ours, theirs = found.get(name), row.get(name)
            close = isinstance(ours, float) and abs(ours - float(str(theirs))) < 1e-5
            if ours != theirs and not close:
                raise RuntimeError(f"{name} of {row['codec']} {row['rate']}: {ours} and {theirs}")
    return took / len(rows)


def _forget(components: Components) -> None:
    """Clear what codecs cache of earlier pictures, as in a new process."""
    for codec in components.codecs.values():
        if isinstance(codec, SQGANCodec):
            codec.forget()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.sweep.speed")
    parser.add_argument("config", help="a sweep's YAML, or the name of a shipped one")
    parser.add_argument("--pictures", type=int, default=1)
    parser.add_argument("--realisations", default="1,4,16", help="numbers of draws, as 1,4,16")
    parser.add_argument("--loop", type=int, default=24, help="rows of the plain loop to time")
    given = parser.parse_args(arguments)
    keep_freed_memory()
    try:
        path = find_settings(given.config, "experiments.configs")
        sweep = load_sweep(path)
        data = sweep.data.model_copy(update={"limit": given.pictures})
        sweep = sweep.model_copy(update={"data": data})
        with torch.inference_mode(), full_precision():
            for count in given.realisations.split(","):
                print(measured(sweep, path.name, int(count), given.loop), flush=True)
    except SQLinkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
