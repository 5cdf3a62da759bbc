"""The best protection at each SNR, and what it was."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

import experiments.configs
from experiments.report.best import best_lines, main, protection, write_best
from experiments.report.reference import Series, crossings, reference_page
from experiments.report.reference import main as page_main
from experiments.sweep.runner import run_sweep
from experiments.sweep.schema import load_sweep
from experiments.sweep.store import read_results
from sqlink.codecs.bpg.encoder import encode_bpg
from sqlink.data import open_dataset

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
    assert [row["code"] for row in rows] == ["capacity"] * 2
    assert main([str(folder), "--metric", "psnr"]) == 2
    assert "did you mean 'psnr_db'" in capsys.readouterr().err
    assert main([str(folder / "none")]) == 2


def test_each_nth_picture_and_the_setting_chosen_for_it(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    text = SWEEP.replace("codecs: [mosaic]", "codecs: [bpg]").replace("[400]", "[2500]")
    text = text.replace("{count: 2}", "{count: 5, height: 64, width: 96}, every: 2")
    out = run_sweep(write(text), tmp_path / "out", progress=False)
    rows = read_results(out).to_pylist()
    assert [*dict.fromkeys(row["picture"] for row in rows)] == [
        "pattern-0",
        "pattern-2",
        "pattern-4",
    ]
    (line,) = (line for line in best_lines(out, "psnr_db") if line["snr_db"] == 20)
    chosen = [row for row in rows if row["channel"] == "fast" and row["snr_db"] == 20]
    assert line["setting"] == pytest.approx(sum(row["setting"] for row in chosen) / 3)
    for row in chosen:  # a file of that very QP has as many bytes
        image = open_dataset("patterns", count=5, height=64, width=96)[
            int(row["picture"][-1])
        ].image
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        assert len(encode_bpg(pixels, row["setting"])) == row["bytes"]


def test_the_page_of_reference_curves(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, table, figure = reference_page([folder], tmp_path / "docs")
    text = page.read_text(encoding="utf-8")
    assert "### PSNR, dB over AWGN, 400 channel uses: CBR 1/11.52 complex, 1/5.76 real" in text
    assert "n = 2 pictures in 1 block" in text
    assert "mosaic, capacity" in text
    with table.open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert page_main([str(folder / "none"), "-o", str(tmp_path / "docs")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_crossings_are_interpolated() -> None:
    first = Series("a", "ldpc", {0.0: {"psnr_db": 20}, 4.0: {"psnr_db": 20}, 8.0: {"psnr_db": 30}})
    second = Series("b", "none", {0.0: {"psnr_db": 22}, 4.0: {"psnr_db": 21}, 8.0: {"psnr_db": 27}})
    assert crossings(first, second, "psnr_db") == [pytest.approx(5.0)]
    assert crossings(second, second, "psnr_db") == []


def test_a_codec_of_symbols_has_no_code_and_fading_an_outage_capacity() -> None:
    fade = {"rayleigh": {"coherence": "picture"}}
    assert protection({"ideal": {"over": fade, "law": "capacity"}}, 96)["code"] == "outage capacity"
    met = protection({"ideal": {"over": "awgn", "law": "finite_length"}}, 96)
    assert met["code"] == "normal approximation"
    link = {"lookup": {"over": "awgn", "modulation": "16qam", "code_rate": 0.6015625}}
    assert protection(link, 96)["mcs"] == "qam64 15"  # 616 / 1024


def test_lengths_of_a_packet_add_up() -> None:
    over = {"rayleigh": {"csi": "estimated", "pilots": 4}}
    met = protection({"coded": {"over": over, "modulation": "16qam", "code_rate": 0.5}}, 96)
    assert met["csi"] == "estimated"
    assert met["information_bits"] == 8 * 96 + 24
    assert met["uses_per_packet"] * 4 >= met["coded_bits"] == 2 * met["information_bits"]


RAPTORQ = """
data: {name: patterns, options: {count: 3, height: 64, width: 96}}
codecs: [bpg]
rates: {channel_uses: [6000]}
channels:
  alone: {lookup: {over: {rayleigh: {coherence: packet}}, code_rate: 0.587890625}}
  repaired:
    raptorq:
      over: {lookup: {over: {rayleigh: {coherence: packet}}, code_rate: 0.587890625}}
      overhead: 1
conditions: {snr_db: [6]}
realisations: 4
segmenter: levels-tx
judge: levels
metrics: [psnr]
"""


def test_a_link_with_raptorq_across_the_picture_competes_with_the_link_alone(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("av")
    out = run_sweep(write(RAPTORQ), tmp_path / "out", progress=False)
    (line,) = best_lines(out, "psnr_db")
    assert (line["over"], line["channel"]) == ("rayleigh", "repaired")
    assert (line["code"], line["across"]) == ("ldpc", 'raptorq {"overhead":1}')
    assert line["channel_uses"] == 8 * line["uses_per_packet"] <= 6000
    assert line["bytes"] <= 4 * 96
    page, *_ = reference_page([out], tmp_path / "docs")
    text = page.read_text(encoding="utf-8")
    assert "over Rayleigh fading, one fade per packet, 6000 channel uses" in text
    assert "| qpsk 0.59 + 100 %, " in text


def test_a_links_packets_are_longer_by_the_identifiers_of_real_raptorq() -> None:
    link = {"coded": {"over": "awgn", "code_rate": 0.5}}
    for rule, packet in (("ideal", 96), ("real", 100)):
        if rule == "real":
            pytest.importorskip("raptorq")
        met = protection({"raptorq": {"over": link, "repair": 2, "rule": rule}}, 96)
        assert met["information_bits"] == 8 * packet + 24
        assert met["over"] == "awgn"


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
        kind = {"capacity": "capacity ", "outage capacity": "capacity "}.get(met["code"], "")
        kind = "normal " if met["code"] == "normal approximation" else kind
        assert name == f"{kind}{met['modulation']} {met['code_rate']:.2f}"
        assert met["mcs"] is not None
