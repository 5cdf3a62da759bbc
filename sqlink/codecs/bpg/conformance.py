"""Comparison with libbpg 0.9.8: `python -m sqlink.codecs.bpg.conformance SHARED [--frames N]`.

Decoder: every file of SHARED/vectors/bpg must give the reference decoder's pixels. Encoder: on the
frames of SHARED/vectors/bpg/reference_rd.csv (CamVid validation, every fifth), its rate against
that of the reference encoder at equal PSNR (RGB, dB), as a Bjøntegaard delta (pchip) of each
frame's curve, averaged over frames. Equal QPs cannot be compared: the reference codes x265's intra
pictures at QP - 3.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sqlink.codecs.bpg.colour import Plane
from sqlink.codecs.bpg.decoder import decode_bpg, load_av
from sqlink.codecs.bpg.encoder import X265_PARAMS, encode_bpg
from sqlink.errors import DataError, SQLinkError

QPS = (28, 32, 36, 40, 44, 48, 51)
"""QPs of our encoder: on every frame their PSNR covers that of the reference's QPs, 31 to 51."""
REFERENCES = ("x265", "jctvc")


@dataclass(frozen=True)
class Point:
    """QP, size and PSNR of one file."""

    qp: float
    size: int
    psnr: float


def read_picture(path: Path) -> Plane:
    """Read a picture as uint8 [H, W, 3]. Raises DataError."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise DataError(f"{path} is missing or not a picture") from error


def psnr(one: Plane, other: Plane) -> float:
    """Return the peak signal-to-noise ratio over all samples, dB; infinite for equal pictures."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def vectors(shared: Path) -> Iterator[tuple[str, int, float]]:
    """Yield name, number of wrong samples and their share for every conformance file."""
    files = sorted((shared / "vectors" / "bpg").glob("*.bpg"))
    if not files:
        raise DataError(f"{shared} holds no vectors/bpg/*.bpg")
    for file in files:
        expected = read_picture(file.with_suffix(".png"))
        decoded = decode_bpg(file.read_bytes())
        if decoded.shape != expected.shape:
            yield file.name, expected.size, 1.0
        else:
            wrong = int(np.count_nonzero(decoded != expected))
            yield file.name, wrong, wrong / expected.size


def reference_curves(shared: Path) -> dict[str, dict[str, list[Point]]]:
    """Read libbpg's points: frame -> encoder -> points, in the order of the table. Raises
    DataError.
    """
    path = shared / "vectors" / "bpg" / "reference_rd.csv"
    curves: dict[str, dict[str, list[Point]]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                point = Point(int(row["qp"]), int(row["bytes"]), float(row["psnr_rgb_db"]))
                curves.setdefault(row["image"], {}).setdefault(row["encoder"], []).append(point)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is missing or not the reference's table") from error
    return curves


def own_curve(image: Plane, qps: Sequence[float] = QPS) -> list[Point]:
    """Measure our encoder's points on one picture."""
    points = []
    for qp in qps:
        data = encode_bpg(image, qp)
        points.append(Point(qp, len(data), psnr(image, decode_bpg(data))))
    return points


def bd_rate(anchor: Sequence[Point], test: Sequence[Point]) -> float:
    """Return the BD-rate of `test` against `anchor` at equal PSNR, per cent; below 0 is better."""
    from bjontegaard import bd_rate as bjontegaard_rate

    a, t = (sorted(points, key=lambda p: p.psnr) for points in (anchor, test))
    return float(
        bjontegaard_rate(
            [p.size for p in a],
            [p.psnr for p in a],
            [p.size for p in t],
            [p.psnr for p in t],
            method="pchip",
            require_matching_points=False,
        )
    )


def report(shared: Path, frames: int | None = None) -> bool:
    """Print the tables; return whether all vectors are equal and the BD-rate to x265 is within +3
    %.
    """
    av = load_av()
    codec = av.library_versions["libavcodec"]
    print(f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, codec))}; 4:2:0, {X265_PARAMS}\n")
    equal = True
    for name, wrong, share in vectors(shared):
        print(f"{name:36} {'equal' if not wrong else f'{wrong} samples wrong ({share:.2%})'}")
        equal = equal and not wrong

    curves = dict(list(reference_curves(shared).items())[:frames])
    deltas: dict[str, list[float]] = {name: [] for name in REFERENCES}
    rows: dict[float, list[Point]] = {}
    print(f"\nBD-rate of this encoder (PSNR RGB)\n{'frame':24} to x265  to jctvc")
    for frame, reference in curves.items():
        points = own_curve(read_picture(shared / "data" / "camvid" / "val" / frame))
        for point in points:
            rows.setdefault(point.qp, []).append(point)
        for name in REFERENCES:
            deltas[name].append(bd_rate(reference[name], points))
        print(f"{frame:24}{deltas['x265'][-1]:+7.2f} % {deltas['jctvc'][-1]:+7.2f} %", flush=True)
    print(f"\n{'mean of':>9} {len(curves)} frames\n{'encoder':>9} QP   bytes  PSNR dB")
    for name in REFERENCES:
        for n in range(len(next(iter(curves.values()))[name])):
            _print_mean(name, [reference[name][n] for reference in curves.values()])
    for qp in sorted(rows, reverse=True):
        _print_mean("ours", rows[qp])
    print()
    for name, values in deltas.items():
        spread = f", {min(values):+.2f} to {max(values):+.2f}"
        print(f"BD-rate to libbpg-{name}: {statistics.fmean(values):+.2f} %{spread}")
    return equal and statistics.fmean(deltas["x265"]) <= 3.0


def _print_mean(name: str, points: Sequence[Point]) -> None:
    size = statistics.fmean(p.size for p in points)
    print(
        f"{name:>9} {points[0].qp:2} {size:7.0f}  {statistics.fmean(p.psnr for p in points):7.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0 if all checks pass, 1 if not, 2 for a user error."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.codecs.bpg.conformance")
    parser.add_argument("shared", type=Path, help="the folder of development data")
    parser.add_argument("--frames", type=int, help="only the first N frames of the table")
    options = parser.parse_args(arguments)
    if options.frames is not None and options.frames < 1:
        parser.error("--frames must be at least 1")
    try:
        return 0 if report(options.shared, options.frames) else 1
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
