"""Figures are drawn of what a sweep found, and of nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from channels.errors import ConfigError
from experiments.report.figures import plot_results
from experiments.sweep.runner import run_sweep

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A small sweep of two codecs and its figures."""
    folder = tmp_path_factory.mktemp("drawn")
    (folder / "sweep.yaml").write_text(
        "data: {name: patterns, options: {count: 2, height: 48, width: 64}}\n"
        "codecs: [mosaic, {name: mosaic, label: other, rates: {bytes: [60, 400]}}]\n"
        "rates: {bytes: [2, 400]}\n"
        "channel: iid\n"
        "conditions: {loss: [0, 0.4]}\n"
        "realisations: 2\n"
        "segmenter: levels-tx\n"
        "judge: levels\n"
        "metrics: [psnr, miou, miou_map]\n"
    )
    out = run_sweep(folder / "sweep.yaml", folder / "out", progress=False)
    return out, plot_results(out)


def test_every_kind_of_figure_is_there(drawn: tuple[Path, list[Path]]) -> None:
    folder, paths = drawn
    assert all(path.parent == folder and path.exists() for path in paths)
    assert {path.name for path in paths if path.suffix == ".png"} == {
        "rate.loss=0.png",
        "rate.loss=0.4.png",
        "loss.bytes=2.png",
        "loss.bytes=60.png",
        "loss.bytes=400.png",
        *(f"pictures.pattern-0.bytes={n}.png" for n in (2, 60, 400)),
        *(f"channel.loss.pattern-0.bytes={n}.png" for n in (2, 60, 400)),
    }
    assert not list(folder.glob(".*.png"))


def test_figures_have_content(drawn: tuple[Path, list[Path]]) -> None:
    for path in drawn[1]:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            assert min(pixels.shape[:2]) > 300
            colours = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
            assert len(np.unique(colours)) > 50


def test_curves_say_units_n_and_intervals(drawn: tuple[Path, list[Path]]) -> None:
    folder, _ = drawn
    text = (folder / "rate.loss=0.svg").read_text()
    ElementTree.fromstring(text)
    for words in (
        "bit/pixel, true bytes",
        "PSNR (dB)",
        "n = 2 pictures in 1 blocks, 2 realisations each",
        "intervals n/a: 1 block",
        "PSNR was also a training loss of mosaic, other.",
    ):
        assert words in text.replace("<!-- ", "").replace(" -->", ""), words


def test_drawing_again_gives_the_same_files(drawn: tuple[Path, list[Path]]) -> None:
    folder, paths = drawn
    before = {path: path.read_bytes() for path in paths if path.suffix == ".svg"}
    assert plot_results(folder) == paths
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_without_results_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run `sqlink sweep` first"):
        plot_results(tmp_path)


def test_results_without_their_manifest_are_refused(
    drawn: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    (tmp_path / "results.parquet").write_bytes((drawn[0] / "results.parquet").read_bytes())
    with pytest.raises(ConfigError, match="run the sweep again to write them"):
        plot_results(tmp_path)
