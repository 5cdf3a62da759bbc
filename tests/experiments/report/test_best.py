"""The best protection at each SNR, and what it was."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

import experiments.configs
from experiments.report.best import best_lines, main, protection, write_best
from experiments.sweep.runner import run_sweep
from experiments.sweep.schema import load_sweep

SWEEP = """
data: {name: patterns, options: {count: 2}}
codecs: [mosaic]
rates: {channel_uses: [400]}
channels:
  robust: {ideal: {over: awgn, modulation: qpsk, code_rate: 0.5, law: capacity}}
  fast: {ideal: {over: awgn, modulation: 16qam, code_rate: 0.75, law: capacity}}
conditions: {snr_db: [3, 20]}
packet_bytes: 32
segmenter: levels-tx
judge: levels
metrics: [psnr]
"""
PAPER = sorted((Path(experiments.configs.__file__).parent / "paper").glob("*.yaml"))


@pytest.fixture
def folder(write: Callable[..., Path], tmp_path: Path) -> Path:
    return run_sweep(write(SWEEP), tmp_path / "out", progress=False)


def test_the_robust_link_is_best_at_low_snr_and_the_fast_one_at_high_snr(folder: Path) -> None:
    rows = best_lines(folder, "psnr_db")
    chosen = {row["snr_db"]: (row["channel"], row["modulation"]) for row in rows}
    assert chosen == {3: ("robust", "qpsk"), 20: ("fast", "16qam")}
    for row in rows:
        assert row["cbr"] == pytest.approx(400 / (3 * 32 * 48))
        assert row["cbr_real"] == 2 * row["cbr"]
        assert row["channel_uses"] <= 400


def test_the_table_is_written_and_mistakes_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_best(folder, "psnr_db")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["code"] for row in rows] == ["ideal capacity"] * 2
    assert main([str(folder), "--metric", "psnr"]) == 2
    assert "did you mean 'psnr_db'" in capsys.readouterr().err
    assert main([str(folder / "none")]) == 2


def test_lengths_of_a_packet_add_up() -> None:
    over = {"rayleigh": {"csi": "estimated", "pilots": 4}}
    met = protection({"coded": {"over": over, "modulation": "16qam", "code_rate": 0.5}}, 96)
    assert met["csi"] == "estimated"
    assert met["information_bits"] == 8 * 96 + 24
    assert met["uses_per_packet"] * 4 >= met["coded_bits"] == 2 * met["information_bits"]


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_configurations_hold_the_ratios_they_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLINK_CAMVID", "camvid")
    sweep = load_sweep(path)
    uses = [rate.channel_uses for rate in sweep.rates_of(sweep.codecs[0]).all()]
    assert [3 * 480 * 360 / one for one in uses if one] == [96, 48, 24, 12, 6]
    for name, spec in sweep.links().items():
        met = protection(spec, 96)
        assert met["csi"] == "perfect"
        assert name.removeprefix("ideal ") == f"{met['modulation']} {met['code_rate']:.2f}"
