"""Figures are drawn of what a sweep found, and of nothing else, at the size they are printed at."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from channels.errors import ConfigError
from experiments.report.curves import Question, panel
from experiments.report.figures import plot_results
from experiments.report.picture_sheets import grid, over_channel
from experiments.report.results import Results, read_all
from experiments.report.style import COLOURS, FORMATS
from experiments.sweep.runner import run_sweep

Write = Callable[..., Path]

SWEEP = (
    "data: {name: patterns, options: {count: 2, height: 48, width: 64}}\n"
    "codecs: [mosaic, {name: mosaic, label: other_one, rates: {bytes: [60, 400]}}]\n"
    "rates: {bytes: [2, 400]}\n"
    "channel: iid\n"
    "conditions: {loss: [0, 0.4]}\n"
    "realisations: 2\n"
    "segmenter: levels-tx\n"
    "judge: levels\n"
    "metrics: [psnr, miou, miou_map]\n"
)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep of two codecs."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "sweep.yaml").write_text(SWEEP)
    return run_sweep(folder / "sweep.yaml", folder / "out", progress=False)


@pytest.fixture(scope="module")
def drawn(swept: Path) -> tuple[Path, list[Path]]:
    """The sweep and every figure of it."""
    return swept, plot_results(swept, formats=["svg", "png"])


@pytest.fixture(scope="module")
def column(swept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One metric over the loss, for a column of a paper."""
    folder = tmp_path_factory.mktemp("column")
    plot_results(swept, x="loss", metrics=["psnr"], made_for="ieee-column", output=folder)
    return folder


def test_every_kind_of_figure_is_there(drawn: tuple[Path, list[Path]]) -> None:
    folder, paths = drawn
    assert all(path.parent == folder and path.exists() for path in paths)
    assert {path.stem for path in paths if path.suffix == ".png"} == {
        *(f"{kind}_loss-{loss}" for kind in ("rate", "classes") for loss in ("0", "0p4")),
        *(f"loss_bytes-{n}" for n in (2, 60, 400)),
        "heat_miou_loss",
        *(f"pictures_pattern-0_bytes-{n}" for n in (2, 60, 400)),
        *(f"channel_loss_pattern-0_bytes-{n}" for n in (2, 60, 400)),
    }
    curves = {path.stem for path in paths if path.suffix == ".svg"}
    for suffix in (".png", ".csv", ".tex"):
        assert curves <= {path.stem for path in paths if path.suffix == suffix}
    assert not list(folder.glob(".*.png*"))


def test_names_suit_latex_and_shells(drawn: tuple[Path, list[Path]]) -> None:
    for path in drawn[1]:
        assert re.fullmatch(r"[A-Za-z0-9_-]+\.(pdf|svg|png|csv|tex)", path.name), path.name


def test_figures_have_content(drawn: tuple[Path, list[Path]]) -> None:
    for path in drawn[1]:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            assert min(pixels.shape[:2]) > 200
            colours = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
            assert len(np.unique(colours)) > 50


def test_text_is_text_of_eight_points_at_the_width_of_a_column(column: Path) -> None:
    root = ElementTree.parse(column / "loss_psnr_db_bytes-400.svg").getroot()
    assert root.attrib["width"] == "252pt"  # 3.5 inches
    sizes = {}
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        found = re.search(r"font(?:-size)?:[^;]*?([\d.]+)px", text.attrib["style"])
        assert found is not None
        sizes["".join(text.itertext())] = float(found[1])
    assert sizes["PSNR* (dB) ↑"] == sizes["Packet loss (%)"] == sizes["mosaic"] == 8
    assert min(sizes.values()) == 7
    assert any("independent losses" in text for text in sizes)
    pdf = (column / "loss_psnr_db_bytes-400.pdf").read_bytes()
    assert b"/FontFile2" in pdf or b"/Type42" in pdf or b"/CIDFontType2" in pdf


def test_curves_say_units_n_and_intervals(drawn: tuple[Path, list[Path]]) -> None:
    folder, _ = drawn
    text = " ".join(
        "".join(one.itertext())
        for one in ElementTree.parse(folder / "rate_loss-0.svg").getroot().iter()
        if one.tag.endswith("text")
    )
    for words in (
        "Rate (bit/pixel)",
        "PSNR* (dB)",
        "rate not reachable",
        "n = 2 pictures in 1 block, 2 realisations each",
        "intervals n/a: 1 block",
        "PSNR was also a training loss of mosaic, other_one.",
    ):
        assert words in text, words


def test_colours_are_told_apart_in_grey_by_marker_and_dash(column: Path) -> None:
    text = (column / "loss_psnr_db_bytes-400.svg").read_text().lower()
    used = [colour for colour in COLOURS if colour.lower() in text]
    assert len(used) >= 2
    assert len(set(re.findall(r"stroke-dasharray: ([^;]+)", text))) >= 1


def test_csv_and_tex_hold_the_summary_s_numbers(column: Path, swept: Path) -> None:
    lines = [
        line
        for line in Results.read(swept).lines
        if line["rate"] == "bytes=400" and line["codec"] == "mosaic"
    ]
    with (column / "loss_psnr_db_bytes-400.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["curve"] == "mosaic"]
    tex = (column / "loss_psnr_db_bytes-400.tex").read_text()
    assert len(rows) == len(lines) == 2
    for row, line in zip(rows, sorted(lines, key=lambda one: one["loss"]), strict=True):
        assert float(row["x"]) == pytest.approx(100 * line["loss"])
        assert float(row["y"]) == pytest.approx(line["psnr_db"])
        assert f"({100 * line['loss']:.5g},{line['psnr_db']:.5g})" in tex
    assert r"other\_one" in tex
    assert tex.count(r"\begin{") == tex.count(r"\end{")
    assert tex.count("{") == tex.count("}")


def _check_tex(text: str) -> None:
    """Braces and environments balance, math is closed, and nothing stands there unescaped that TeX
    takes for a command: a small reader, as there is no LaTeX in CI.
    """
    assert text.isascii()
    opened: list[str] = []
    math = False
    code = re.sub(r"(?<!\\)%.*", "", text)
    assert "%" not in code.replace(r"\%", "")
    for found in re.finditer(r"\\(begin|end)\{(\w+)\}|\\[A-Za-z]+|\\.|.", code):
        token, kind, name = found[0], found[1], found[2]
        if kind == "begin":
            opened.append(name)
        elif kind == "end":
            assert opened.pop() == name
        elif token == "{":
            opened.append(token)
        elif token == "}":
            assert opened.pop() == "{"
        elif token == "$":
            math = not math
        elif token in "_^":
            assert math, code[max(0, found.start() - 40) : found.end() + 20]
        else:
            assert token not in "&#~", code[max(0, found.start() - 40) : found.end() + 20]
    assert not opened
    assert not math


def test_exported_tex_is_sound(drawn: tuple[Path, list[Path]], column: Path) -> None:
    folder, _ = drawn
    exported = [*folder.glob("*.tex"), *column.glob("*.tex")]
    assert len(exported) >= 4
    for path in exported:
        text = path.read_text()
        _check_tex("\n".join(line for line in text.splitlines() if not line.startswith("%")))
        assert all(line.isprintable() for line in text.splitlines())
        assert r"\begin{tikzpicture}" in text
    assert any(r"other\_one" in path.read_text() for path in exported)


@pytest.mark.parametrize(
    "text",
    [
        r"\begin{a}{",
        r"\begin{a}\begin{b}\end{a}\end{b}",
        "a_b",
        "$a_b",
        "a & b",
        "é",
    ],
)
def test_the_reader_of_tex_refuses_what_latex_would(text: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        _check_tex(text)


def test_drawing_again_gives_the_same_files(swept: Path, column: Path) -> None:
    before = {path: path.read_bytes() for path in sorted(column.iterdir())}
    plot_results(swept, x="loss", metrics=["psnr_db"], made_for="ieee-column", output=column)
    assert {path: path.read_bytes() for path in before} == before


def test_two_folders_are_drawn_together_and_their_envelope_is_the_best_of_them(
    swept: Path, tmp_path: Path
) -> None:
    (tmp_path / "b.yaml").write_text(SWEEP.replace("channel: iid", "channel: bursts"))
    other = run_sweep(tmp_path / "b.yaml", tmp_path / "other", progress=False)
    results = read_all([swept, other])
    question = Question("loss", ("psnr_db",), {"rate": "bytes=400"})
    both = panel(results, question, "psnr_db")
    assert {"mosaic (out)", "mosaic (other)"} <= {curve.title for curve in both.curves}
    best = panel(
        results, Question("loss", ("psnr_db",), {"rate": "bytes=400"}, envelope=True), "psnr_db"
    )
    (joined,) = [curve for curve in best.curves if curve.title == "mosaic, best of 2"]
    members = [curve for curve in both.curves if curve.title.startswith("mosaic ")]
    assert joined.y.tolist() == np.max([curve.y for curve in members], axis=0).tolist()
    paths = plot_results(
        [swept, other],
        x="loss",
        metrics=["psnr_db"],
        envelope=True,
        formats=["svg"],
        output=tmp_path / "figures",
    )
    assert any("best of 2" in path.read_text() for path in paths)


def test_channels_that_meet_different_conditions_are_drawn_together(tmp_path: Path) -> None:
    """A condition that a channel does not take is empty in its rows, and no figure stumbles."""
    path = tmp_path / "mixed.yaml"
    text = SWEEP.replace("channel: iid", "channels: {lossy: iid, clean: lossless, air: AIR}")
    text = text.replace("AIR", "{uncoded: {over: awgn, modulation: qpsk}}")
    text = text.replace("[2, 400]", "[200]").replace("count: 2", "count: 1")
    path.write_text(text.replace("loss: [0, 0.4]", "loss: [0, 0.4], snr_db: [4, 9]"))
    folder = run_sweep(path, tmp_path / "out", progress=False)
    names = {one.stem for one in plot_results(folder, metrics=["psnr_db"], formats=["svg"])}
    assert any("loss" in name for name in names)
    assert any("snr-db" in name for name in names)
    for by in ("channel", "loss"):
        assert plot_results(
            folder, x="snr_db", by=by, metrics=["psnr_db"], formats=["svg"], output=tmp_path
        )
    results = read_all([folder])[0]
    rows = [results.row(shot.row) for shot in results.shots]
    assert {row["channel"] for row in rows} == {"lossy", "clean", "air"}
    assert grid(results, rows[0]["picture"], rows).axes
    assert over_channel(results, rows, "snr_db").axes


def test_curves_by_rate_have_a_marker_each(swept: Path, tmp_path: Path) -> None:
    paths = plot_results(
        swept, x="loss", metrics=["miou"], by="rate", formats=["svg"], output=tmp_path
    )
    text = next(path for path in paths if path.suffix == ".svg").read_text()
    assert "mosaic, 400 bytes" in text
    assert "mosaic, 2 bytes" in text


def test_a_style_of_one_s_own_goes_on_top(swept: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.mplstyle"
    own.write_text("# mine\nfont.size: 11\nlines.linewidth: 3.25\n")
    plot_results(swept, x="loss", metrics=["miou"], formats=["svg"], style=own, output=tmp_path)
    text = next(tmp_path.glob("*.svg")).read_text()
    assert "stroke-width: 3.25" in text
    own.write_text("font.sizes: 11\n")
    with pytest.raises(ConfigError, match=r"line 1: no setting 'font.sizes'"):
        plot_results(swept, style=own, output=tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"x": "snr"}, "nothing was measured over 'snr'"),
        ({"metrics": ["lpips"]}, "--metric lpips was not measured"),
        ({"made_for": "ieee"}, "unknown --for 'ieee'"),
        ({"formats": ["jpg"]}, "--format jpg"),
        ({"by": "colour"}, "--by colour"),
        ({"at": {"loss": 0.2}}, "--at loss=0.2 was not measured: there is 0, 0.4"),
        ({"x": "loss", "by": "loss"}, "give another"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    swept: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plot_results(swept, output=tmp_path, **options)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_results_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `sqlink sweep` first"):
        plot_results(tmp_path)


def test_results_without_their_manifest_are_refused(swept: Path, tmp_path: Path) -> None:
    (tmp_path / "results.parquet").write_bytes((swept / "results.parquet").read_bytes())
    with pytest.raises(ConfigError, match="run the sweep again to write them"):
        plot_results(tmp_path)


def test_formats_are_those_that_papers_and_slides_take() -> None:
    assert FORMATS == ("pdf", "svg", "png")
