"""Results are listed, shown, merged, exported and pruned as they lie, finished or not."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.sweep import runner as module
from experiments.sweep.dry_run import forecast
from experiments.sweep.results import export, listed, manifest_of, merge, prune, shown
from experiments.sweep.runner import run_sweep
from experiments.sweep.schema import json_schema
from experiments.sweep.store import read_parquet, read_results
from sqlink.errors import ConfigError

Write = Callable[..., Path]
Same = Callable[[Path, Path], None]

CHANNELS = """
data: {name: patterns, options: {count: 3}}
codecs: [mosaic]
rates: {bytes: [120, 400]}
channels:
  lossy: iid
  bursty: {gilbert_elliott: {burst: 2}}
  limited: {rate_limit: {bytes: 64}}
  air: {uncoded: {over: awgn}}
conditions: {loss: [0.0, 0.5], snr_db: [9]}
realisations: 3
packet_bytes: 32
segmenter: levels-tx
judge: levels
metrics: [psnr, miou]
"""


def test_several_channels_are_one_sweep_and_give_what_each_gives_alone(
    write: Write, mosaic: type, tmp_path: Path
) -> None:
    table = read_results(run_sweep(write(CHANNELS), tmp_path / "all", progress=False))
    assert mosaic.encoded == 2 * 3
    assert table.num_rows == 2 * 3 * 3 * (2 + 2 + 1 + 1)
    alone = CHANNELS.replace("channels:", "channel: {gilbert_elliott: {burst: 2}}\nunused:")
    text = "\n".join(
        line for line in alone.splitlines() if not line.startswith(("  ", "unused"))
    ).replace(", snr_db: [9]", "")
    other = read_results(run_sweep(write(text), tmp_path / "one", progress=False))
    ours = [row for row in table.to_pylist() if row["channel"] == "bursty"]
    assert {row["channel"] for row in other.to_pylist()} == {"gilbert_elliott"}
    same = ("rate", "picture", "realisation", "loss", "delivered", "psnr_db", "confusion_image")
    key = [{name: row[name] for name in same} for row in ours]
    assert key == [{name: row[name] for name in same} for row in other.to_pylist()]
    met = {(row["channel"], row["loss"], row["snr_db"]) for row in table.to_pylist()}
    assert met == {
        ("lossy", 0.0, None),
        ("lossy", 0.5, None),
        ("bursty", 0.0, None),
        ("bursty", 0.5, None),
        ("limited", None, None),
        ("air", None, 9.0),
    }
    lines = read_parquet(tmp_path / "all" / "summary.parquet").to_pylist()
    assert len(lines) == 2 * (2 + 2 + 1 + 1)
    assert [line["channel"] for line in lines[:6]] == [
        "lossy", "lossy", "bursty", "bursty", "limited", "air",
    ]  # fmt: skip
    text = shown(tmp_path / "all")
    assert "lossy, bursty, limited, air" in text
    assert "| limited |" in text


def test_channel_uses_are_bytes_on_their_own_channel(write: Write, tmp_path: Path) -> None:
    text = CHANNELS.replace("rates: {bytes: [120, 400]}", "rates: {channel_uses: 1000}")
    text = text.replace("  lossy: iid\n", "  wide: {uncoded: {over: awgn, modulation: 16qam}}\n")
    text = text.replace("  bursty: {gilbert_elliott: {burst: 2}}\n", "")
    text = text.replace("  limited: {rate_limit: {bytes: 64}}\n", "").replace(
        "loss: [0.0, 0.5], ", ""
    )
    rows = read_results(run_sweep(write(text), tmp_path / "out", progress=False)).to_pylist()
    sizes = {row["channel"]: row["bytes"] for row in rows}
    assert sizes["wide"] > 1.5 * sizes["air"]
    assert {row["uses_asked"] for row in rows} == {1000}
    assert max(row["channel_uses"] for row in rows) <= 1000
    lines = read_parquet(tmp_path / "out" / "summary.parquet").to_pylist()
    for line in lines:
        assert line["channel_uses_asked"] == 1000
        assert 0 < line["channel_uses"] <= line["channel_uses_max"] <= 1000
    assert "| 1000 |" in (tmp_path / "out" / "tables.md").read_text()


def test_a_rate_that_a_codec_cannot_spend_is_no_row_of_its_own(
    write: Write, tmp_path: Path
) -> None:
    text = write().read_text().replace("[2, 120, 400]", "[120, 390, 330, 380]")
    text += "compare: {differences: [[mosaic bytes=390, mosaic bytes=120]]}\n"
    folder = run_sweep(write(text), tmp_path / "out", progress=False)
    assert read_results(folder).num_rows == 4 * 3 * 3 * 4
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    assert {(line["rate"], line["saturated"]) for line in lines} == {
        ("bytes=120", False),
        ("bytes=330", True),
    }
    assert len(lines) == 2 * 3
    tables = (folder / "tables.md").read_text()
    assert "| bytes=330 (saturated) |" in tables
    assert "bytes=380" not in tables
    assert "| mosaic bytes=390 | mosaic bytes=120 |" in tables


def test_two_shards_merged_are_the_undisturbed_run(
    write: Write, mosaic: type, same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = run_sweep(write(), tmp_path / "whole", progress=False)
    text = write().read_text()
    for name, rates in (("a", "[2, 120]"), ("b", "[120, 400]")):
        part = write(text.replace("[2, 120, 400]", rates), f"{name}.yaml")
        run_sweep(part, tmp_path / name, progress=False)
    assert merge([tmp_path / "a", tmp_path / "b"], tmp_path / "both") == 108
    encoded = mosaic.encoded
    run_sweep(write(), tmp_path / "both", progress=False)
    assert mosaic.encoded == encoded
    same(whole, tmp_path / "both")
    parts = [run_sweep(write(), progress=False, shard=(part, 2)) for part in (1, 2)]
    assert [part.name for part in parts] == ["sweep.1-of-2", "sweep.2-of-2"]
    assert [read_results(part).num_rows for part in parts] == [72, 36]
    merge(parts, tmp_path / "pictures")
    run_sweep(write(), tmp_path / "pictures", progress=False)
    same(whole, tmp_path / "pictures")
    with pytest.raises(ConfigError, match="shard 3/2: should be i/n"):
        run_sweep(write(), tmp_path / "c", progress=False, shard=(3, 2))
    with pytest.raises(ConfigError, match="shard 4/4 has no picture"):
        run_sweep(write(), tmp_path / "d", progress=False, shard=(4, 4))
    with pytest.raises(ConfigError, match="one of the folders to merge"):
        merge([tmp_path / "a"], tmp_path / "a")
    with pytest.raises(ConfigError, match="no results here"):
        merge([tmp_path / "none"], tmp_path / "c")
    states = {one.folder.name: one.state for one in listed(tmp_path)}
    assert states == dict.fromkeys(("a", "b", "both", "pictures", "whole"), "finished")


def test_rows_are_exported_with_numbers_in_columns(write: Write, tmp_path: Path) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    assert export(folder, tmp_path / "rows.csv") == 108
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["rate_kind"] for row in rows} == {"bytes"}
    for row in rows:
        assert float(row["rate_value"]) == float(row["rate"].split("=")[1])
        assert float(row["bpp_asked"]) == pytest.approx(8 * float(row["rate_value"]) / (32 * 48))
        assert float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (32 * 48))
        assert row["channel"] == "iid"
    export(folder, tmp_path / "rows.jsonl", ["point", "confusion_image"])
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[40])
    assert list(first) == ["point", "confusion_image"]
    assert len(first["confusion_image"]) == 121
    with pytest.raises(ConfigError, match=r"should end in one of \.csv"):
        export(folder, tmp_path / "rows.xlsx")
    with pytest.raises(ConfigError, match="no column 'psnr'"):
        export(folder, tmp_path / "rows.csv", ["psnr"])


def test_pruning_leaves_what_the_table_names(write: Write, tmp_path: Path) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    text = write().read_text().replace("[2, 120, 400]", "[120]")
    run_sweep(write(text), folder, progress=False)
    before = read_results(folder).to_pylist()
    pictures = len(list((folder / "pictures").iterdir()))
    assert prune(folder, dry_run=True)[0] == 72
    assert prune(folder)[0] == 72
    assert prune(folder) == (0, 0)
    assert len(list((folder / "pictures").iterdir())) < pictures
    run_sweep(write(text), folder, progress=False)
    assert read_results(folder).to_pylist() == before


def test_an_unfinished_sweep_has_tables_of_the_pictures_done(
    write: Write, mosaic: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_TABLES_S", 0.0)
    text = write().read_text().replace("batch_size: 2", "batch_size: 1")
    mosaic.stop_after = 5
    with pytest.raises(KeyboardInterrupt):
        run_sweep(write(text), tmp_path / "out", progress=False)
    found = manifest_of(tmp_path / "out")
    assert (found["finished"], found["pictures"]) == (False, 1)
    assert read_results(tmp_path / "out").num_rows == 36
    (one,) = listed(tmp_path)
    assert one.state == "under way or interrupted"
    assert "n = 1 picture in 1 block" in shown(tmp_path / "out")
    with pytest.raises(ConfigError, match="not finished"):
        prune(tmp_path / "out")
    mosaic.stop_after = None
    run_sweep(write(text), tmp_path / "out", progress=False)
    assert manifest_of(tmp_path / "out")["finished"]


def test_realisations_grow_until_the_interval_is_narrow_or_the_cap_is_reached(
    write: Write, tmp_path: Path
) -> None:
    text = (
        write()
        .read_text()
        .replace("count: 3", "count: 8")
        .replace("realisations: 4", "realisations: 2")
    )
    wide = write(text + "until: {metric: psnr, width: 1000, most: 16}\n")
    run_sweep(wide, tmp_path / "wide", progress=False)
    assert manifest_of(tmp_path / "wide")["realisations"] == 2
    narrow = write(text + "until: {metric: psnr_db, width: 0.000001, most: 6}\n")
    run_sweep(narrow, tmp_path / "narrow", progress=False)
    assert manifest_of(tmp_path / "narrow")["realisations"] == 6
    assert read_results(tmp_path / "narrow").num_rows == 3 * 3 * 8 * 6
    wrong = write(text + "until: {metric: sharpness, width: 1, most: 6}\n")
    with pytest.raises(ConfigError, match="until: no metric of the sweep is 'sharpness': "):
        run_sweep(wrong, tmp_path / "wrong", progress=False)
    assert not list((tmp_path / "wrong").glob("parts/*"))  # before anything is computed


def test_a_dry_run_counts_and_writes_nothing(write: Write, tmp_path: Path) -> None:
    found = forecast(write(CHANNELS), tmp_path / "out")
    assert (len(found.points), found.encodings, found.pictures) == (12, 2, 3)
    assert (found.rows, found.done) == (108, 0)
    assert found.seconds > 0
    assert found.bytes > 0
    assert not (tmp_path / "out").exists()
    assert "12 points, 2 encodings a picture, 3 pictures: 108 rows" in str(found)
    run_sweep(write(CHANNELS), tmp_path / "out", progress=False)
    again = forecast(write(CHANNELS), tmp_path / "out")
    assert (again.done, again.seconds) == (108, 0)


def test_the_schema_names_what_a_sweep_takes() -> None:
    found = json_schema()
    assert {"extends", "variables", "channels", "codecs", "until"} <= set(found["properties"])
    assert "channel_axes" not in found["properties"]
    assert found["additionalProperties"] is False
    assert json.loads(json.dumps(found)) == found


def test_progress_is_lines_of_json_for_batch_systems(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(write(), tmp_path / "out", progress="json")
    said = capsys.readouterr().err.splitlines()
    lines = [json.loads(line) for line in said if line.startswith("{")]
    assert [line["rows"] for line in lines] == sorted(line["rows"] for line in lines)
    assert (lines[-1]["rows"], lines[-1]["total"]) == (108, 108)
    run_sweep(write(), tmp_path / "out", progress="none")
    assert capsys.readouterr().err.splitlines() == [
        line for line in said if not line.startswith("{")
    ]


def test_very_many_rows_are_asked_for_twice(
    write: Write, mosaic: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY", 100)
    with pytest.raises(ConfigError, match=r"108 rows are more than 100.*--yes"):
        run_sweep(write(), tmp_path / "out", progress=False)
    assert mosaic.encoded == 0
    run_sweep(write(), tmp_path / "out", progress=False, many=True)
