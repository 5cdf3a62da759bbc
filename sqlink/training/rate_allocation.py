"""Allocate a budget of bytes to the streams; the weights hold the result, a path for each aim.

    pictures ─ keep a share of every stream ─ bytes, and the cost of what is rebuilt, for each aim
        ─ from the least point on: whichever stream lowers the cost most for its bytes gets more
        ─ the rising path through all that was measured along which the cost is least, over budgets
        ─ where it takes a finer step of the quantiser: fewer tokens at first, of as many bytes

The streams are the map, the picture and, where the weights have them, the refinements at 1/8 and
1/4, whose quantiser's step counts as one more. The cost is, by aim (see `sqlink.codecs.sqgan`):
`legible`, 1 - mIoU + LPIPS / 2, the mIoU weighted by the task, of what the transmitter's segmenter
sees in the rebuilt pictures against what it saw in the true ones; `natural`, LPIPS; `faithful`,
minus PSNR, at realism 0. The segmenter that only measures is not asked.

    python -m sqlink.training.rate_allocation --weights FILE --camvid DIR -o FILE

writes the weights again with `rate_path`, fractions of the streams, and the step, by aim, and
`rate_table`, what was measured: fractions, step, bytes, PSNR in dB, LPIPS and mIoU of every point.
Pictures are training ones (CamVid `fit`); the same command gives the same path.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqlink.bitstream.packets import MODES
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.codecs.sqgan.codec import SQGANCodec
from sqlink.codecs.sqgan.rate_path import AIMS
from sqlink.errors import ConfigError, SQLinkError
from sqlink.metrics.psnr import psnr
from sqlink.metrics.semantic import confusion
from sqlink.metrics.task_miou import WeightedIou

FRACTIONS = (
    (0.02, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0),
    (0.01, 0.04, 0.1, 0.2, 0.35, 0.6, 1.0),
    (0.0, 0.1, 0.3, 0.6, 1.0),
    (0.0, 0.1, 0.3, 0.6, 1.0),
)
"""Shares of each stream that are tried: map, picture, 1/8, 1/4."""
_FINEST_AFTER = 1
"""Rises of the layer at 1/8 before that at 1/4, or a finer step, is tried."""
_OVERLAP = 0.95
"""Bytes at which a finer step begins, of those at which the one before it ends."""
_RISES = (2, 2, 2, 2, 1)
"""By how much the path may rise at once, of each stream and of the quantiser's step."""
_HALVINGS = 5

Point = tuple[int, ...]
"""A step of each stream."""


@dataclass(frozen=True)
class Measured:
    """Means over pictures: bytes, PSNR in dB, LPIPS, and the mIoU of their summed matrix."""

    bytes: float
    psnr: float
    lpips: float
    miou: float

    def cost(self, aim: str) -> float:
        """Return what is to be lowered for an aim."""
        if aim == "faithful":
            return -self.psnr
        return self.lpips if aim == "natural" else 1 - self.miou + self.lpips / 2


def explore(steps: Sequence[int], measure: Callable[[Point], tuple[float, float]]) -> list[Point]:
    """Measure points from the first to the last, and return the best path through them.

    steps: of each stream; measure: of a point, its size and its cost. From each point one stream
    goes up by one step or by two, whichever lowers the cost most for the logarithm of the size.

    >>> explore((3, 3), lambda p: (1.0 + p[0] + p[1], 0.8 ** p[0]))
    [(0, 0), (2, 0), (2, 2)]
    """
    found: dict[Point, tuple[float, float]] = {}

    def known(point: Point) -> tuple[float, float]:
        if point not in found:
            found[point] = measure(point)
        return found[point]

    at: Point = (0,) * len(steps)
    known(at)
    while any(have + 1 < most for have, most in zip(at, steps, strict=True)):
        size, cost = found[at]
        gains = {}
        for stream, most in enumerate(steps):
            early = stream >= 3 and at[2] < min(_FINEST_AFTER, steps[2] - 1)
            for up in range(1, _RISES[stream] + 1):
                if at[stream] + up >= most or early:
                    continue
                after = (*at[:stream], at[stream] + up, *at[stream + 1 :])
                larger, less = known(after)
                gains[after] = (cost - less) / max(math.log(larger / size), 1e-6)
        at = max(gains, key=lambda point: gains[point])
    return best_path(found)


def best_path(measured: Mapping[Point, tuple[float, float]]) -> list[Point]:
    """Return the rising path from the least point to the greatest along which the integral of cost
    over the logarithm of size is least; no stream rises by more than two steps at once.

    measured: size and cost by point. The integral is the mean cost over budgets of all sizes, if
    the cost between two points is interpolated.

    >>> best_path({(0, 0): (1, 9), (0, 1): (2, 1), (1, 0): (2, 9), (1, 1): (3, 0)})
    [(0, 0), (0, 1), (1, 1)]
    """
    points = sorted(measured, key=lambda point: (sum(point), point))
    total = {points[0]: 0.0}
    before: dict[Point, Point] = {}
    for number, point in enumerate(points[1:], 1):
        for start in points[:number]:
            ups = [b - a for a, b in zip(start, point, strict=True)]
            if start not in total or not all(
                0 <= up <= most for up, most in zip(ups, _RISES, strict=False)
            ):
                continue
            (small, high), (large, low) = measured[start], measured[point]
            span = max(math.log(large / small), 0.0)
            cost = total[start] + span * (high + low) / 2
            if cost < total.get(point, math.inf):
                total[point], before[point] = cost, start
    path = [points[-1]]
    while path[-1] in before:
        path.append(before[path[-1]])
    return path[::-1]


def measure(
    codec: SQGANCodec,
    fractions: Sequence[float],
    images: Tensor,
    maps: Tensor,
    segment: Callable[[Tensor], Tensor],
    distance: Callable[[Tensor, Tensor], Tensor],
    class_weights: Tensor,
) -> Measured:
    """Measure what keeping `fractions` of the streams costs and gives, through the codec's own
    bytes.

    images: float32 [N, 3, H, W]; maps: int64 [N, H, W]; segment: pictures to maps; distance: two
    batches of pictures to [N]; class_weights: float32 [C], of the IoUs.
    """
    codec.split = (tuple(fractions), tuple(fractions))
    streams = [s for s in codec.encode(images, Rate(quality=1.0), maps) if isinstance(s, Stream)]
    pictures = codec.decode([Received.whole(stream) for stream in streams]).images
    parts = list(zip(pictures.split(1), images.split(1), maps.split(1), strict=True))
    matrix = torch.stack(
        [confusion(segment(x), truth, len(class_weights))[0] for x, _, truth in parts]
    ).sum(0)
    return Measured(
        float(np.mean([stream.size for stream in streams])),
        float(psnr(pictures, images).mean()),
        float(np.mean([float(distance(x, truth)) for x, truth, _ in parts])),
        float(WeightedIou("mIoU", class_weights).value(matrix)),
    )


def calibrate(
    weights: str,
    camvid: Path,
    output: Path,
    pictures: int = 6,
    packing: str = MODES[0],
    segmenter: str = "tx",
    aims: Sequence[str] = AIMS,
    report: Callable[[str], None] = print,
) -> dict[str, list[tuple[float, ...]]]:
    """Write the weights with their paths of fractions, by aim, and return these.

    aims: those that are calibrated; the others keep the path that they have, or get that of
    the first.
    Raises ConfigError for the measuring segmenter, WeightsError or DataError where files are amiss.
    """
    from sqlink.data.base import open_dataset
    from sqlink.metrics.lpips import load_lpips
    from sqlink.segmentation import load_segmenter
    from sqlink.training.task import Task, load_task
    from sqlink.weights.manifest import load, save

    if segmenter == "judge":
        raise ConfigError("segmenter: 'judge' only measures and may not be tuned to; use 'tx'")
    if pictures < 1:
        raise ConfigError(f"pictures={pictures} must be at least 1")
    loaded = load(weights, "sqgan")
    sees, lpips = load_segmenter(segmenter), load_lpips()
    data = open_dataset("camvid", root=str(camvid), split="fit")
    chosen = np.unique(np.linspace(0, len(data) - 1, pictures).astype(int))
    images = torch.stack([data[int(n)].image for n in chosen])
    maps = torch.cat([sees.segment(image[None]) for image in images])
    record = loaded.metadata.get("task")
    paths: dict[str, list[tuple[float, ...]]] = {}
    table: dict[str, list[list[float]]] = {}
    if set(aims) < set(AIMS):
        paths, table = (_by_aim(loaded.metadata.get(name)) for name in ("rate_path", "rate_table"))
    for aim in aims:
        codec = _codec(weights, aim, packing)
        task = Task.from_json(record) if record else load_task("driving", codec.classes)

        def taken(
            shares: Sequence[float], codec: SQGANCodec = codec, task: Task = task
        ) -> Measured:
            return measure(codec, shares, images, maps, sees.segment, lpips, task.tensors()[0])

        tried: list[Sequence[float]] = [*FRACTIONS[: codec.tables.streams]]
        if codec.tables.refinements:
            tried.append(range(0, len(codec.steps), codec.steps_per_row))
        paths[aim], table[aim] = path_of(aim, tried, taken, report)
        if codec.tables.refinements:

            def size(row: tuple[float, ...], codec: SQGANCodec = codec) -> float:
                return _bytes(codec, row, images, maps)

            paths[aim] = joined(interpolated(paths[aim], len(codec.steps)), size)
    for aim in AIMS:
        paths.setdefault(aim, paths[aims[0]])
    facts = {"rate_path": json.dumps(paths), "rate_table": json.dumps(table)}
    save(output, loaded.tensors, {**loaded.metadata, **facts})
    return paths


def interpolated(path: Sequence[tuple[float, ...]], steps: int) -> list[tuple[float, ...]]:
    """Return a path of (map, image, 1/8, 1/4, step) with rows at the steps between its own.

    It ends with everything at the finest of `steps` steps.

    >>> interpolated([(1, 1, 0.5, 0.0, 0), (1, 1, 1.0, 0.5, 2)], 4)[1:3]
    [(1.0, 1.0, 0.75, 0.25, 1), (1, 1, 1.0, 0.5, 2)]
    """
    path = _from_first_step(path)
    found = [path[0]]
    for before, row in pairwise(path):
        first, last = int(before[-1]), int(row[-1])
        for step in range(first + 1, last):
            share = (step - first) / (last - first)
            mixed = (a + share * (b - a) for a, b in zip(before[:-1], row[:-1], strict=True))
            found.append((*(round(value, 3) for value in mixed), step))
        found.append(row)
    last = int(path[-1][-1])
    everything = (1.0,) * (len(path[-1]) - 1)
    if path[-1][:-1] != everything:
        found.append((*everything, last))
    return [*found, *((*everything, step) for step in range(last + 1, steps))]


def joined(
    path: Sequence[tuple[float, ...]], size: Callable[[tuple[float, ...]], float]
) -> list[tuple[float, ...]]:
    """Insert a row into a path of (map, image, 1/8, 1/4, step) before the first row of each step:
    the same with fewer tokens of the refinement, and nearly the bytes of the row before. Rows
    without refinement get the step of the first row that has some.

    size: bytes of a row.

    >>> path = [(1, 1, 0.0, 0.0, 0), (1, 1, 1.0, 0.0, 0), (1, 1, 1.0, 0.0, 1)]
    >>> joined(path, lambda row: 100 + 300 * row[2] * (1 + row[4]))[2]
    (1, 1, 0.438, 0.0, 1)
    """
    path = _from_first_step(path)
    found = [path[0]]
    for before, row in pairwise(path):
        if row[-1] != before[-1]:
            wanted = _OVERLAP * size(before)
            low, high = 0.0, 1.0
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                if size(_scaled(row, middle)) <= wanted:
                    low = middle
                else:
                    high = middle
            found.append(_scaled(row, low))
        found.append(row)
    return found


def _from_first_step(path: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Give rows without tokens of the refinement the step of the first row that has some."""
    first = next((row[-1] for row in path if row[2] or row[3]), path[-1][-1])
    return [row if row[2] or row[3] else (*row[:-1], first) for row in path]


def _scaled(row: tuple[float, ...], share: float) -> tuple[float, ...]:
    map_, image, coarse, fine, step = row
    return map_, image, round(coarse * share, 3), round(fine * share, 3), step


def _bytes(codec: SQGANCodec, row: Sequence[float], images: Tensor, maps: Tensor) -> float:
    """Return the mean bytes of pictures at a row."""
    codec.split = (tuple(row), tuple(row))
    streams = codec.encode(images, Rate(quality=1.0), maps)
    return float(np.mean([s.size for s in streams if isinstance(s, Stream)]))


def path_of(
    aim: str,
    fractions: Sequence[Sequence[float]],
    taken: Callable[[Sequence[float]], Measured],
    report: Callable[[str], None],
) -> tuple[list[tuple[float, ...]], list[list[float]]]:
    """Return the path of an aim, and all that was measured: fractions, bytes, PSNR, LPIPS, mIoU.

    fractions: of each stream, rising; taken: measures some.
    """
    rows: list[list[float]] = []

    def costs(point: Point) -> tuple[float, float]:
        shares = [fractions[stream][step] for stream, step in enumerate(point)]
        found = taken(shares)
        figures = (found.bytes, found.psnr, found.lpips, found.miou)
        rows.append([*shares, *(round(value, 4) for value in figures)])
        report(
            f"{aim} {shares}: {found.bytes:.0f} bytes, {found.psnr:.2f} dB, LPIPS "
            f"{found.lpips:.3f}, mIoU {found.miou:.3f}"
        )
        return found.bytes, found.cost(aim)

    with torch.inference_mode():
        steps = explore([len(shares) for shares in fractions], costs)
    path = [tuple(fractions[s][step] for s, step in enumerate(point)) for point in steps]
    return path, rows


def _codec(weights: str, aim: str, packing: str) -> SQGANCodec:
    """Make the codec as it draws for an aim."""
    from sqlink.codecs import load_codec

    codec = load_codec("sqgan", weights=weights, aim=aim, packing=packing)
    assert isinstance(codec, SQGANCodec)
    if codec.tables.refinements:
        codec.realism = 0.0 if aim == "faithful" else 1.0
    return codec


def _by_aim(record: str | None) -> dict[str, Any]:
    """Return what weights hold for each aim; nothing where they hold one thing for all."""
    found = json.loads(record or "{}")
    return found if isinstance(found, dict) else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.training.rate_allocation")
    parser.add_argument("--weights", default="streets", help="a shipped name or a file")
    parser.add_argument("--camvid", type=Path, required=True, help="folder of CamVid")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the weights to write")
    parser.add_argument("--pictures", type=int, default=6, help="of fit, evenly spread")
    parser.add_argument("--packing", default=MODES[0], help="whose bytes are counted")
    parser.add_argument("--segmenter", default="tx", help="what makes and reads the maps")
    parser.add_argument("--aim", choices=AIMS, nargs="+", default=AIMS, help="those to calibrate")
    options = parser.parse_args(arguments)
    try:
        paths = calibrate(
            options.weights,
            options.camvid,
            options.output,
            options.pictures,
            options.packing,
            options.segmenter,
            options.aim,
        )
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output}: rate_path {paths}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
