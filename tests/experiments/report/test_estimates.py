"""Estimates of a cell: intervals end where the values of a metric end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from experiments.report.compare import compare
from experiments.report.estimates import Measured
from experiments.sweep.grid import Encoding, Point
from experiments.sweep.measuring import Measures
from experiments.sweep.runner import run_sweep
from experiments.sweep.schema import CodecChoice
from experiments.sweep.store import read_parquet, table_of
from sqlink.codecs.base import Rate
from sqlink.metrics import METRICS, load_metric

VALUES = {
    "ms_ssim": (1.0, 1.0, 1.0, 0.5),  # mean .875, half-width .398
    "ssim": (1.0, 1.0, 1.0, 0.5),
    "psnr_db": (1.0, 1.0, 1.0, 0.5),
}


def cell() -> Measured:
    names = ("ms_ssim", "ssim", "psnr")
    point = Point(Encoding(CodecChoice(name="jpeg"), Rate(bytes=9), 96), "lossless", (), 0, "p")
    rows = [
        {
            "point": "p",
            "picture_key": f"{n}",
            "realisation": 0,
            "seed": 0,
            "block": f"{n}",
            "unreachable": 0,
        }
        | {column: values[n] for column, values in VALUES.items()}
        for n in range(4)
    ]
    metrics = dict(zip(VALUES, map(load_metric, names), strict=True))
    return Measured([point], table_of(rows), Measures(metrics))


@pytest.mark.parametrize("name", VALUES)
def test_an_interval_is_cut_off_at_the_bounds_of_its_metric(name: str) -> None:
    found = cell().interval(name)
    assert found is not None
    half = 3.182446 * 0.25 / 2  # Student's t of 3 degrees; s = .25, n = 4
    assert found.low == pytest.approx(0.875 - half, rel=1e-6)
    if name == "psnr_db":
        assert found.high == pytest.approx(0.875 + half, rel=1e-6)
    else:
        assert found.high == 1.0


class Lighter:
    """1 where the picture's mean is above its original's, else 0."""

    name = "lighter"
    unit = ""
    higher_is_better = True
    lowest, highest = 0.0, 1.0

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        return (images.mean(dim=(1, 2, 3)) > reference.mean(dim=(1, 2, 3))).double()


def test_tables_and_comparisons_are_cut_off_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    METRICS.register("lighter")(Lighter)
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    folder = run_sweep(tmp_path / "sweep.yaml", tmp_path / "out", progress=False)
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    compared = [line for line in compare([folder]).values if line["metric"] == "lighter"]
    found = [(line["lighter_low"], line["lighter_high"]) for line in lines]
    found += [(line["low"], line["high"]) for line in compared]
    assert len(compared) > 2
    assert all(0 <= low <= high <= 1 for low, high in found)
    monkeypatch.setattr(Lighter, "highest", np.inf)
    open_ended = run_sweep(tmp_path / "sweep.yaml", tmp_path / "open", progress=False)
    beyond = compare([open_ended]).values
    assert any(line["high"] > 1 for line in beyond if line["metric"] == "lighter")


SWEEP = """
data: {name: patterns, options: {count: 6, height: 64, width: 96}}
codecs:
  - {name: mosaic, label: ours, rates: {bytes: [60, 150, 400]}}
  - {name: mosaic, label: anchor, rates: {bytes: [100, 260, 700]}}
channel: lossless
packet_bytes: 32
segmenter: levels-tx
judge: levels
metrics: [psnr, lighter]
"""
