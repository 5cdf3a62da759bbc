"""The page shows what the sweep found, moves under every control, and asks the network nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from channels.errors import ConfigError
from experiments.report.compare import compare
from experiments.report.embedded import Pictures
from experiments.report.page import page_data, write_page
from experiments.report.results import Results
from experiments.sweep.runner import run_sweep
from sqlink.cli.app import app
from sqlink.errors import DataError
from tests.browser import Watched, chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "</script><b>&amp;"

SWEEP = f"""
data: {{name: patterns, options: {{count: 3, height: 48, width: 64}}}}
codecs: [mosaic, {{name: mosaic, label: "{HOSTILE}", rates: {{bytes: [60, 400]}}}}]
rates: {{bytes: [2, 120, 400]}}
channel: iid
conditions: {{loss: [0, 0.3, 0.9]}}
realisations: 2
packet_bytes: [32, 64]
segmenter: levels-tx
judge: levels
metrics: [psnr, miou, miou_map]
examples: {{pictures: 2, realisations: 2}}
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sweep whose second codec has a hostile name."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "sweep.yaml").write_text(SWEEP)
    return run_sweep(folder / "sweep.yaml", folder / "small", progress=False)


@pytest.fixture(scope="module")
def page(swept: Path) -> Path:
    return write_page([swept])


def embedded(page: Path, name: str) -> Any:
    """The JSON inside an element of the page."""
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text()
    )
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_the_summary_s_numbers(swept: Path, page: Path) -> None:
    data, results = embedded(page, "data"), Results.read(swept)
    assert len(data["lines"]) == len(results.lines) > 0
    for shown, line in zip(data["lines"], results.lines, strict=True):
        assert shown["v"]["psnr_db"][0] == pytest.approx(line["psnr_db"], rel=1e-4)
        assert shown["v"]["miou"][0] == pytest.approx(line["miou"], rel=1e-4)
        assert shown["cond"] == {"loss": line["loss"]}
        sent = sum(shown["bits"].values())
        assert sent == pytest.approx(sum(v for k, v in line.items() if k[:5] == "bits_"), abs=5)


def test_pictures_are_kept_for_every_realisation_asked_for_and_once_each(page: Path) -> None:
    data, pictures = embedded(page, "data"), embedded(page, "uris")
    assert [one["name"] for one in data["pictures"]] == ["pattern-0", "pattern-1"]
    assert {one["r"] for one in data["shots"]} == {0, 1}
    assert len(data["shots"]) == len(data["lines"]) * 2 * 2
    assert len(set(pictures["uris"])) == len(pictures["uris"]) < len(data["shots"])
    assert all(uri.startswith("data:image/webp;base64,") for uri in pictures["uris"])


def test_names_from_outside_stay_text(page: Path) -> None:
    text = page.read_text()
    assert HOSTILE not in text
    assert {one["title"] for one in embedded(page, "data")["series"]} == {"mosaic", HOSTILE}


def test_the_file_names_no_address_to_load_from(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)', text)


def test_worst_pictures_have_the_rows_own_numbers(swept: Path, page: Path) -> None:
    data, results = embedded(page, "data"), Results.read(swept)
    psnr, names = results.metric_of_rows("psnr_db"), results.rows["picture"].to_pylist()
    for one in data["worst"]:
        own = [
            value
            for value, name, line in zip(psnr, names, results.line_of_row, strict=True)
            if name == one["p"] and line == one["l"]
        ]
        assert len(own) == 2
        assert one["v"]["psnr_db"] == pytest.approx(sum(own) / 2, rel=1e-4)


def test_a_budget_coarsens_pictures_and_leaves_out_the_last(swept: Path) -> None:
    pictures = Pictures(6000)
    page_data([Results.read(swept)], pictures)
    uris = pictures.uris()
    assert pictures.quality == 35
    assert sum(len(uri) for uri in uris if uri) <= 6000 + 30 * len(uris)
    assert 0 < pictures.left_out == uris.count(None) < len(uris)
    with pytest.raises(DataError, match="report fewer folders at once"):
        write_page([swept], swept / "tiny.html", max_bytes=1000)
    assert not (swept / "tiny.html").exists()


def test_two_folders_are_told_apart(swept: Path, tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(SWEEP.replace("loss: [0, 0.3, 0.9]", "loss: [0.3]"))
    other = run_sweep(tmp_path / "b.yaml", tmp_path / "other", progress=False)
    data = embedded(write_page([swept, other], tmp_path), "data")
    assert {"mosaic (small)", "mosaic (other)"} <= {one["title"] for one in data["series"]}
    assert len({one["style"] for one in data["series"]}) == 4
    assert data["title"] == "small and other"


def test_codecs_of_two_folders_of_the_same_pictures_are_compared(
    swept: Path, page: Path, tmp_path: Path
) -> None:
    text = SWEEP.split("codecs:")[0] + "codecs: [jpeg]\n" + "rates:" + SWEEP.split("rates:", 2)[2]
    (tmp_path / "other.yaml").write_text(text.replace("[2, 120, 400]", "[600, 900]"))
    other = run_sweep(tmp_path / "other.yaml", tmp_path / "other", progress=False)
    data = embedded(write_page([swept, other], tmp_path / "both.html"), "data")
    wanted = compare([swept, other]).deltas
    assert {(line["codec"], line["against"]) for line in wanted} > {("mosaic", "jpeg")}
    assert len(data["across"]) == len(wanted)
    for shown, line in zip(data["across"], wanted, strict=True):
        assert (shown["codec"], shown["against"]) == (line["codec"], line["against"])
    assert embedded(page, "data")["across"] is None
    fewer = text.replace("count: 3", "count: 2")
    (tmp_path / "fewer.yaml").write_text(fewer)
    less = run_sweep(tmp_path / "fewer.yaml", tmp_path / "fewer", progress=False)
    assert embedded(write_page([swept, less], tmp_path / "apart.html"), "data")["across"] is None


@pytest.mark.parametrize("arguments", [["missing"], [".", "."]])
def test_what_is_no_results_folder_ends_in_one_line(arguments: list[str]) -> None:
    answer = CliRunner().invoke(app, ["report", *arguments])
    assert answer.exit_code == 2
    assert answer.stderr.count("\n") == 1


def test_a_picture_that_is_none_is_named(swept: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    pictures = Pictures(10**6)
    pictures.add(bad)
    with pytest.raises(DataError, match=r"bad\.png: cannot be read as a picture"):
        pictures.uris()


def test_no_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="no results folder"):
        write_page([])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 390)])
def test_every_control_moves_and_nothing_is_asked_of_the_network(
    browser: Browser, page: Path, theme: str, width: int
) -> None:
    tab = browser.new_page(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
        accept_downloads=True,
    )
    watched = Watched(tab, ("file:", "data:", "blob:"))
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.dataset.theme") == theme
    assert watched.fits()
    assert watched.move_everything() > 25
    assert watched.fits()
    watched.check()
    tab.close()


@pytest.mark.slow
def test_what_is_printed_holds_every_part(browser: Browser, page: Path) -> None:
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    watched = Watched(tab, ("file:", "data:", "blob:"))
    tab.goto(page.as_uri())
    parts = ("#plot-curves svg", "#bits-rows *", "#worst-list *", "#cost-table td")
    assert tab.locator("#cost-table td").count() == 0  # far below what shows
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert all(tab.locator(part).count() for part in parts)
    watched.check()
    tab.close()


@pytest.mark.slow
def test_the_setting_moves_pictures_curves_and_tables(
    browser: Browser, page: Path, swept: Path
) -> None:
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    watched = Watched(tab, ("file:", "data:", "blob:"))
    tab.goto(page.as_uri())
    picture = tab.locator("#compare .right img")
    rate, loss = tab.get_by_label("Rate", exact=True), tab.get_by_label("Packet loss", exact=True)
    rate.press("End")
    loss.press("Home")
    clear = picture.get_attribute("src")
    loss.press("End")
    assert tab.locator("#facts").inner_text().count("of") >= 1
    assert picture.get_attribute("src") != clear
    loss.press("Home")
    assert picture.get_attribute("src") == clear

    line = next(
        line
        for line in Results.read(swept).lines
        if line["codec"] == "mosaic"
        and (line["rate"], line["loss"], line["packet_bytes"]) == ("bytes=400", 0, 32)
    )
    tab.get_by_role("radio", name="PSNR").click()
    tab.locator("#curves summary").click()
    # Curves and their table are drawn in a frame to come.
    tab.locator("#curve-table", has_text=f"{line['psnr_db']:.2f}").wait_for()

    divider = tab.get_by_label("Divider between the two pictures")
    divider.press("Home")
    assert tab.locator("#compare").evaluate("n => n.style.getPropertyValue('--at')") == "0%"
    watched.check()
    tab.close()
