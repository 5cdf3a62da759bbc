"""`sqlink compare`: what codecs of results folders come to against each other."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student_t
from typer.testing import CliRunner

from channels.errors import ConfigError
from experiments.report.compare import compare
from experiments.report.comparison_tables import tables, write_comparison
from experiments.report.deltas import folded, rate_delta
from experiments.report.picture_sheets_equal_bytes import draw_like_bytes
from experiments.report.results import Results
from experiments.sweep.runner import run_sweep
from experiments.sweep.store import read_parquet, read_results
from sqlink.cli.app import app
from sqlink.metrics.bjontegaard import Curve, bd_metric, front

Write = Callable[..., Path]

SWEEP = """
data: {name: patterns, options: {count: 6, height: 64, width: 96}}
codecs:
  - {name: mosaic, label: ours, rates: {bytes: [60, 150, 400]}}
  - {name: mosaic, label: anchor, rates: {bytes: [100, 260, 700]}}
  - {name: mosaic, label: far, rates: {bytes: [2000]}}
channel: lossless
packet_bytes: 32
segmenter: levels-tx
judge: judge
metrics: [psnr, miou, fd_judge]
compare: {anchors: anchor}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compare")
    (place / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    return run_sweep(place / "sweep.yaml", place / "out", progress=False)


def test_deltas_are_those_of_the_sweeps_own_tables(folder: Path) -> None:
    found = {
        (line["codec"], line["metric"]): line
        for line in compare([folder]).deltas
        if line["reason"] is None
    }
    held = [
        line
        for line in read_parquet(folder / "bjontegaard.parquet").to_pylist()
        if line["reason"] is None
    ]
    assert {(line["codec"], line["metric"]) for line in held} == set(found) != set()
    for line in held:
        one = found[line["codec"], line["metric"]]
        for name in ("bd_rate_percent", "bd_rate_percent_low", "bd_rate_percent_high", "overlap"):
            assert one[name] == pytest.approx(line[name])


def test_the_gain_at_equal_rate_is_that_of_the_two_curves(folder: Path) -> None:
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    curves = [
        front(
            Curve(
                [line["bpp"] for line in lines if line["codec"] == codec],
                [line["psnr_db"] for line in lines if line["codec"] == codec],
            ),
            higher_is_better=True,
        )
        for codec in ("anchor", "ours")
    ]
    (found,) = (
        line
        for line in compare([folder], metrics=["psnr"]).deltas
        if line["codec"] == "ours" and line["metric"] == "psnr_db"
    )
    assert found["bd_metric"] == pytest.approx(bd_metric(*curves).value)


def test_differences_at_a_rate_of_both_are_those_of_the_pictures(folder: Path) -> None:
    rows = read_results(folder).to_pylist()
    psnr = {
        cell: np.array([r["psnr_db"] for r in rows if (r["codec"], r["rate"]) == cell])
        for cell in (("ours", "bytes=150"), ("ours", "bytes=400"))
    }
    bpp = {
        r["rate"]: 8 * r["bytes"] / (64 * 96) for r in rows if r["codec"] == "ours"
    }  # every picture of a mosaic takes as many bytes
    found = compare([folder], metrics=["psnr_db"], rates=[bpp["bytes=150"], bpp["bytes=400"]])
    values = [line for line in found.values if line["codec"] == "ours"]
    for line, pictures in zip(values, psnr.values(), strict=True):
        assert line["value"] == pytest.approx(pictures.mean())
        blocks = pictures.reshape(3, 2).mean(axis=1)
        half = student_t.ppf(0.975, 2) * blocks.std(ddof=1) / np.sqrt(3)
        assert line["high"] - line["value"] == pytest.approx(half)
    reasons = {line["reason"] for line in found.values if line["codec"] == "far"}
    assert len(reasons) == 1
    assert "its lowest is" in str(reasons.pop())


def test_a_codec_against_itself_differs_by_nothing(folder: Path, write: Write) -> None:
    other = run_sweep(write(SWEEP), folder.parent / "twin", progress=False)
    found = compare([folder, other], against=["ours (out)"], rates=[0.3])
    twins = [line for line in found.differences if line["codec"] == "ours (twin)"]
    assert {line["metric"] for line in twins} == {"psnr_db", "miou", "fd_judge"}
    assert all(line["value"] == line["low"] == line["high"] == 0 for line in twins)


def test_what_has_no_number_is_one_line(folder: Path) -> None:
    bd, values, differences = tables(compare([folder], rates=[0.3]))
    assert all(row[0] == "ours" for row in bd.rows)
    assert len(bd.rows) == 3
    assert bd.rest.startswith("None for 3 of 6 (far): the codec's worst is better than the anchor")
    assert "far" in values.rest
    assert all(row[0] != "far" for row in values.rows)
    assert differences.rest.startswith("None for 3 of 6 (far): far: its lowest is")
    assert "n = 6 pictures in 3 blocks, 1 realisation each" in bd.note
    assert folded([]) == ""


def test_tables_are_written_as_text_csv_and_latex(folder: Path, tmp_path: Path) -> None:
    text, written = write_comparison(compare([folder]), tmp_path / "deep" / "out")
    names = {
        f"{name}.{kind}" for name in ("bd", "values", "differences") for kind in ("csv", "tex")
    }
    assert {path.name for path in written} == names | {"compare.md"}
    with (tmp_path / "deep" / "out" / "bd.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[0]["codec"] == "ours"
    assert float(rows[0]["overlap"]) > 0
    latex = (tmp_path / "deep" / "out" / "bd.tex").read_text(encoding="utf-8")
    assert r"BD-rate, \%" in latex
    assert latex.count(r"\hline") == 3
    body = [line for line in latex.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in body} == {body[0].count("&")}
    assert "| ours | anchor |" in text


OVER_SNR = """
data: {name: patterns, options: {count: 3, height: 64, width: 96}}
codecs: [{name: mosaic, label: ours}, {name: mosaic, label: anchor}]
rates: {channel_uses: [800, 1600]}
channels:
  robust: {ideal: {over: awgn, modulation: qpsk, code_rate: 0.5, law: capacity}}
  fast: {ideal: {over: awgn, modulation: 16qam, code_rate: 0.75, law: capacity}}
skip: [{codec: ours, channel: fast}]
conditions: {snr_db: [3, 20, 25]}
packet_bytes: 32
segmenter: levels-tx
judge: levels
metrics: [psnr]
compare: {anchors: anchor}
"""


def test_places_without_a_picture_and_repeated_values_are_folded(
    write: Write, tmp_path: Path
) -> None:
    found = compare([run_sweep(write(OVER_SNR), tmp_path / "out", progress=False)])
    bd, values, differences = tables(found)
    assert [row[:4] for row in values.rows if row[1] == "fast"] == [
        ("anchor", "fast", "20 to 25", f"channel_uses={uses}") for uses in (800, 1600)
    ]
    assert {row[2] for row in values.rows if row[1] == "robust"} == {"3 to 25"}
    assert values.rest == "At 2 further points all pictures are outages (the mean colour)."
    assert len(found.values) == 18  # the CSV has them all
    assert "snr_db" in differences.head
    assert "channel" not in differences.head
    assert "All rows have channel robust. n = 3 pictures" in differences.note
    assert "robust" in bd.note


def test_a_rate_each_is_no_curve() -> None:
    found = rate_delta(Curve([0.1], [20.0]), Curve([0.2], [25.0]), higher_is_better=True)
    assert found.reason == "one rate of each codec is no curve"


def test_sheets_show_like_bytes(folder: Path, tmp_path: Path) -> None:
    (path,) = draw_like_bytes(Results.read(folder), tmp_path, [0.2, 0.5])
    assert path.name == "like_bytes.pattern-0.png"
    with Image.open(path) as page:
        pixels = np.asarray(page)
    assert pixels.shape[1] > 4 * 96
    assert pixels.shape[0] > 2 * 64
    amber = (pixels == (0xD9, 0x82, 0x00)).all(axis=-1)
    assert amber.any()  # `far` has no picture of a like size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}", "--against", "anchr"], "--against anchr: no such codec: did you mean"),
        (["{folder}", "--metric", "psnr_d"], "--metric psnr_d: not measured: did you mean"),
        (["{folder}", "--bpp", "0"], "rate bpp=0.0 must be above 0"),
        (["{folder}", "gallery"], "gallery: no results here"),
        (["{folder}", "{folder}"], "is given twice"),
        (["gallery", "--pictures"], "--against, --metric and --pictures need results folders"),
        (["gallery", "other"], "one gallery or folder of pictures at a time"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    filled = [text.format(folder=folder) for text in arguments]
    found = CliRunner().invoke(app, ["compare", *filled, "-o", str(tmp_path / "out")])
    assert found.exit_code == 2
    assert message in found.output
    assert len(found.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_folders_of_other_pictures_are_refused(folder: Path, write: Write) -> None:
    text = SWEEP.replace("count: 6", "count: 4")
    other = run_sweep(write(text), folder.parent / "fewer", progress=False)
    with pytest.raises(ConfigError, match="were measured on different pictures"):
        compare([folder, other])


def test_a_single_codec_and_no_kept_pictures_are_refused(
    write: Write, tmp_path: Path, folder: Path
) -> None:
    text = SWEEP.split("  - {name: mosaic, label: anchor")[0]
    text += "channel: lossless\npacket_bytes: 32\nsegmenter: levels-tx\njudge: judge\n"
    out = run_sweep(write(text + "metrics: [psnr]\nexamples: 0\n"), tmp_path / "o", progress=False)
    with pytest.raises(ConfigError, match="holds one codec, ours"):
        compare([out])
    with pytest.raises(ConfigError, match="no pictures were kept"):
        draw_like_bytes(Results.read(out), tmp_path)


def test_equal_channel_uses_are_compared_row_by_row(write: Write, tmp_path: Path) -> None:
    text = SWEEP.split("channel: lossless")[0]
    text = text.replace("rates: {bytes: [60, 150, 400]}", "rates: {channel_uses: 1200}")
    text = text.replace("rates: {bytes: [100, 260, 700]}", "rates: {channel_uses: 1200}")
    text = "\n".join(line for line in text.splitlines() if "far" not in line)
    text += "\nchannel: awgn\nconditions: {snr_db: [20]}\npacket_bytes: 32\nmetrics: [psnr]\n"
    out = run_sweep(
        write(text + "segmenter: levels-tx\njudge: judge\ncompare: {anchors: anchor}\n"),
        tmp_path / "out",
        progress=False,
    )
    found = compare([out])
    assert {line["at"] for line in found.values} == {"channel_uses=1200"}
    (line,) = found.differences
    assert (line["value"], line["low"], line["high"]) == (0, 0, 0)
