"""Tables say what a reviewer asks: curves against anchors, and paired differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from channels.errors import ConfigError
from experiments.sweep.measuring import packed, unpacked
from experiments.sweep.runner import run_sweep
from experiments.sweep.store import read_parquet, read_results
from sqlink.metrics import frechet
from sqlink.metrics.bjontegaard import Curve, bd_rate, front

Write = Callable[..., Path]

SWEEP = """
data: {name: patterns, options: {count: 6, height: 64, width: 96}}
codecs:
  - {name: mosaic, label: ours, rates: {bytes: [2, 60, 150, 400]}}
  - {name: mosaic, label: anchor, rates: {bytes: [100, 260, 700, 1500]}}
channel: lossless
packet_bytes: 32
segmenter: levels-tx
judge: judge
metrics: [psnr, miou, miou_map, fd_judge]
compare:
  anchors: anchor
  differences: [[ours bytes=400, anchor bytes=260], [ours bytes=60, ours bytes=60]]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tables")
    (place / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return run_sweep(place / "sweep.yaml", place / "out", progress=False)


def test_the_frechet_distance_is_that_of_all_cells_of_all_pictures(folder: Path) -> None:
    rows = [row for row in read_results(folder).to_pylist() if row["rate"] == "bytes=150"]
    ours, theirs = (
        np.concatenate([unpacked(row[name]) for row in rows])
        for name in ("features_judge", "features_judge_original")
    )
    assert ours.shape == theirs.shape == (6 * 2, 120)
    expected = float(frechet.frechet(frechet.moments(ours), frechet.moments(theirs)))
    (line,) = (
        line
        for line in read_parquet(folder / "summary.parquet").to_pylist()
        if line["rate"] == "bytes=150"
    )
    assert line["fd_judge"] == pytest.approx(expected, rel=1e-6)
    assert line["fd_judge_low"] < line["fd_judge"] < line["fd_judge_high"]
    assert line["blocks"] == 3


def test_more_bytes_bring_pictures_nearer_to_the_originals(folder: Path) -> None:
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    found = [line["fd_judge"] for line in lines if line["codec"] == "anchor"]
    assert found[0] > found[-1]


def test_rates_are_compared_over_what_both_codecs_reach(folder: Path) -> None:
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    curves = {
        codec: front(
            Curve(
                [line["bpp"] for line in lines if line["codec"] == codec and not line["outage"]],
                [
                    line["psnr_db"]
                    for line in lines
                    if line["codec"] == codec and not line["outage"]
                ],
            ),
            higher_is_better=True,
        )
        for codec in ("ours", "anchor")
    }
    expected = bd_rate(curves["anchor"], curves["ours"], higher_is_better=True)
    (found,) = (
        line
        for line in read_parquet(folder / "bjontegaard.parquet").to_pylist()
        if line["metric"] == "psnr_db"
    )
    assert (found["codec"], found["against"]) == ("ours", "anchor")
    assert found["bd_rate_percent"] == pytest.approx(expected.value)
    assert found["overlap"] == pytest.approx(expected.overlap)
    assert found["bd_rate_percent_low"] <= found["bd_rate_percent"] <= found["bd_rate_percent_high"]
    assert (found["pictures"], found["blocks"]) == (6, 3)


def test_differences_are_paired(folder: Path) -> None:
    found = read_parquet(folder / "differences.parquet").to_pylist()
    same = [line for line in found if line["row"] == line["against"]]
    assert {line["metric"] for line in same} == {"psnr_db", "miou", "miou_map", "fd_judge"}
    for line in same:
        ends = [line[key] for key in ("difference", "difference_low", "difference_high")]
        assert ends == [0.0, 0.0, 0.0]
    rows = read_results(folder).to_pylist()
    psnr = [
        [row["psnr_db"] for row in rows if (row["codec"], row["rate"]) == cell]
        for cell in (("ours", "bytes=400"), ("anchor", "bytes=260"))
    ]
    (other,) = (
        line for line in found if line["metric"] == "psnr_db" and line["row"] == "ours bytes=400"
    )
    assert other["difference"] == pytest.approx(np.subtract(*psnr).mean())
    assert 0 < other["difference_low"] < other["difference"] < other["difference_high"]


def test_the_page_of_tables_names_n_and_stars_what_was_trained_on(folder: Path) -> None:
    text = (folder / "tables.md").read_text(encoding="utf-8")
    assert "n = 6 pictures in 3 blocks, 1 realisation each." in text
    assert "* PSNR, dB was also a training loss of ours, anchor." in text
    assert "| ours | bytes=2 | - | - |" in text
    assert "95 % intervals (Student's t, leaving out each block in turn)" in text
    assert text.count("| ours | anchor |") == 4
    assert "Bjøntegaard rates" in text
    assert "Differences, paired" in text


def test_an_anchor_that_a_rule_leaves_out_is_passed_over(write: Write, tmp_path: Path) -> None:
    path = write(
        "{data: {name: streets, options: {seed: 3, count: 1, height: 48, width: 64}},"
        " codecs: [jpeg, jpeg2000], rates: {bpp: [4, 5, 6]}, metrics: [psnr], channel: iid,"
        " conditions: {loss: [0, 0.2]}, skip: {codec: jpeg, loss: 0.2}}"
    )
    folder = run_sweep(path, tmp_path / "out", progress=False)
    found = read_parquet(folder / "bjontegaard.parquet").to_pylist()
    assert {(one["codec"], one["against"], one["loss"]) for one in found} == {
        ("jpeg2000", "jpeg", 0.0),
        ("jpeg", "jpeg2000", 0.0),
    }


def test_curves_that_do_not_meet_say_so(write: Write, tmp_path: Path) -> None:
    text = SWEEP.replace("[2, 60, 150, 400]", "[10, 20, 30]").replace("[100, 260,", "[900, 1100,")
    text = text.replace("[psnr, miou, miou_map, fd_judge]", "psnr").split("  differences")[0]
    out = run_sweep(write(text), tmp_path / "out", progress=False)
    (line,) = read_parquet(out / "bjontegaard.parquet").to_pylist()
    assert np.isnan(line["bd_rate_percent"])
    assert line["reason"] == "the codec's best is worse than the anchor's worst"
    assert f"None for 1 of 1 (ours): {line['reason']}." in (out / "tables.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("anchors: anchor", "anchors: ancor", "no codec 'ancor': did you mean 'anchor'"),
        ("[ours bytes=400,", "[ours bytes=401,", "no row 'ours bytes=401': did you mean 'ours byt"),
        ("[ours bytes=400, anchor bytes=260]", "[ours bytes=400]", "compare.differences\\[0\\]"),
        ("judge: judge", "judge: levels", "metrics\\[3\\]: the segmenter 'levels' has no features"),
    ],
)
def test_what_is_not_there_is_refused(
    write: Write, tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SWEEP
    with pytest.raises(ConfigError, match=message):
        run_sweep(write(SWEEP.replace(old, new)), tmp_path / "out", progress=False)


def test_features_come_back_at_half_precision() -> None:
    import torch

    cells = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    found = np.stack([unpacked(data) for data in packed(cells)])
    np.testing.assert_allclose(found, cells.numpy(), rtol=1e-3)
