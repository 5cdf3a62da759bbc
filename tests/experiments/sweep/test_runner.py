"""A sweep's table depends on its questions alone: not on batches, order or interruption."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from channels.errors import ConfigError, SQLinkError
from experiments.report.figures import plot_results
from experiments.sweep.examples import original_path
from experiments.sweep.runner import run_sweep
from experiments.sweep.store import read_parquet, read_results
from sqlink.data import open_dataset
from sqlink.data.pictures import save_picture
from sqlink.settings import find_settings

Write = Callable[..., Path]
Same = Callable[[Path, Path], None]


def test_each_picture_is_encoded_once_and_each_reception_decoded_once(
    write: Write, mosaic: type, tmp_path: Path
) -> None:
    table = read_results(run_sweep(write(), tmp_path / "out", progress=False))
    assert table.num_rows == 3 * 3 * 3 * 4
    assert mosaic.encoded == 3 * 3
    sent = [row for row in table.to_pylist() if not row["unreachable"]]
    # Of n packets, 2^n sets may come: far fewer decodings than the 72 crossings that sent any.
    assert len({row["rate"] for row in sent}) == 2
    lossless = sum(row["loss"] == 0 for row in sent)
    assert lossless == 24
    assert 6 <= mosaic.decoded < len(sent) - lossless


def test_another_batch_size_gives_the_same_table(write: Write, same: Same, tmp_path: Path) -> None:
    path = write()
    one = run_sweep(path, tmp_path / "one", batch_size=1, progress=False)
    same(one, run_sweep(path, tmp_path / "three", batch_size=3, progress=False))


def test_another_number_of_threads_gives_the_same_bits(write: Write, tmp_path: Path) -> None:
    """Networks of every kind, one picture at a time: what threads would share is then largest."""
    path = write(
        """
data: {name: streets, options: {seed: 11, count: 1, height: 144, width: 192}}
codecs: [sqgan, deepjscc]
rates: {channel_uses: [2000]}
channel: awgn
conditions: {snr_db: [10]}
metrics: [psnr, miou, miou_map, fd_judge]
"""
    )
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            folder = run_sweep(path, tmp_path / f"on-{threads}", progress=False)
        finally:
            torch.set_num_threads(before)
        found.append(read_results(folder))
    assert found[0].num_rows == 2
    assert found[0].equals(found[1])


def test_codecs_rates_and_conditions_meet_the_same_channel(write: Write, tmp_path: Path) -> None:
    table = read_results(run_sweep(write(), tmp_path / "out", progress=False)).to_pylist()
    small = {
        (row["picture"], row["realisation"], row["loss"]): row
        for row in table
        if row["rate"] == "bytes=120"
    }
    for row in table:
        if row["rate"] == "bytes=400":
            twin = small[row["picture"], row["realisation"], row["loss"]]
            lost, twin_lost = row["packets"] - row["delivered"], twin["packets"] - twin["delivered"]
            assert twin_lost <= lost
    for (picture, realisation, loss), row in small.items():
        if loss == 0.3:
            assert small[picture, realisation, 0.9]["delivered"] <= row["delivered"]


def test_the_ledger_adds_up_to_the_bytes(write: Write, tmp_path: Path) -> None:
    for row in read_results(run_sweep(write(), tmp_path / "out", progress=False)).to_pylist():
        bits = sum(value for name, value in row.items() if name.startswith("bits_"))
        assert bits == 8 * row["bytes"]


def test_what_cannot_be_coded_is_no_outage_and_stays_in_the_average(
    write: Write, tmp_path: Path
) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    rows = [row for row in read_results(folder).to_pylist() if row["rate"] == "bytes=2"]
    assert len(rows) == 36
    for row in rows:
        assert (row["unreachable"], row["outage"], row["bytes"]) == (True, False, 0)
        assert row["lowest_bytes"] == 5
        assert 5 < row["psnr_db"] < 15
        assert sum(row["confusion_image"]) == sum(row["confusion_map"]) == 30 * 48
        assert sum(row["confusion_sent"]) == 32 * 48
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    assert all(math.isnan(line["outage"]) for line in lines if line["rate"] == "bytes=2")
    assert all(line["unreachable"] == 0 for line in lines if line["rate"] != "bytes=2")
    assert [line["unreachable"] for line in lines if line["rate"] == "bytes=2"] == [1.0] * 3


def test_a_codec_whose_library_is_missing_is_skipped_loudly(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = write()
    text = path.read_text()
    path.write_text(text.replace("[mosaic]", "[heic, mosaic]"))
    assert path.read_text() != text
    folder = run_sweep(path, tmp_path / "out", progress=False)
    said = capsys.readouterr().err
    assert "heic: SKIPPED, no rows of this codec: " in said
    assert "pip install sqlink[heic]" in said
    assert "heic" not in {row["codec"] for row in read_results(folder).to_pylist()}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["skipped"]) == ["heic"]
    assert "heic" not in manifest["codecs"]


def test_the_manifest_holds_versions_and_parameters_of_its_codecs(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "data: {name: streets, options: {count: 1, height: 32, width: 48}}\ncodecs: [jpeg, webp]\n"
        "rates: {bytes: 900}\nchannel: lossless\nmetrics: [psnr]\n"
    )
    folder = run_sweep(path, tmp_path / "out", progress=False)
    codecs = json.loads((folder / "manifest.json").read_text())["codecs"]
    assert codecs["jpeg"]["libjpeg-turbo"]
    assert "method 6" in codecs["webp"]["parameters"]


def test_interrupted_and_resumed_gives_the_same_table(
    write: Write, same: Same, mosaic: type, tmp_path: Path
) -> None:
    path = write()
    whole = run_sweep(path, tmp_path / "whole", progress=False)
    for stop_after in (1, 3, 2):
        mosaic.encoded, mosaic.stop_after = 0, stop_after
        with pytest.raises(KeyboardInterrupt):
            run_sweep(path, tmp_path / "broken", batch_size=1, progress=False)
        assert not (tmp_path / "broken" / "results.parquet").exists()
    mosaic.encoded, mosaic.stop_after = 0, None
    same(whole, run_sweep(path, tmp_path / "broken", progress=False))
    assert mosaic.encoded == 3


SEQUENCE = """
data: {name: patterns, options: {count: 5}}
codecs: [mosaic]
rates: {bytes: [2, 120, 400]}
channel: bursts
conditions: {loss: [0.3, 0.5]}
sequence: {length: 3, picture_rate_hz: 10}
realisations: 6
packet_bytes: 32
segmenter: levels-tx
judge: levels
metrics: [psnr]
batch_size: 2
"""


def test_the_pictures_of_a_sequence_share_a_link(
    write: Write, same: Same, mosaic: type, tmp_path: Path
) -> None:
    path = write(SEQUENCE)
    whole = run_sweep(path, tmp_path / "whole", progress=False)
    same(whole, run_sweep(path, tmp_path / "one", batch_size=1, progress=False))
    mosaic.encoded, mosaic.stop_after = 0, 4
    with pytest.raises(KeyboardInterrupt):
        run_sweep(path, tmp_path / "broken", progress=False)
    mosaic.stop_after = None
    same(whole, run_sweep(path, tmp_path / "broken", progress=False))

    alone = run_sweep(
        write(SEQUENCE.replace("sequence: {length: 3, picture_rate_hz: 10}", "")),
        tmp_path / "alone",
        progress=False,
    )
    rows = read_results(whole).to_pylist()
    assert {row["block"] for row in rows} == {"sequence pattern-0", "sequence pattern-3"}
    first = [row for row in rows if row["picture"] in ("pattern-0", "pattern-3")]
    fates = {_cell(row): row["delivered"] for row in read_results(alone).to_pylist()}
    later = [row for row in rows if row not in first]
    assert all(fates[_cell(row)] == row["delivered"] for row in first)
    assert any(fates[_cell(row)] != row["delivered"] for row in later)
    assert all(row["unreachable"] == (row["rate"] == "bytes=2") for row in rows)


def test_a_burst_reaches_over_the_pictures_of_a_sequence(write: Write, tmp_path: Path) -> None:
    """At one packet a picture, the loss of neighbours goes together in a sequence alone."""
    text = SEQUENCE.replace("[2, 120, 400]", "[32]").replace("realisations: 6", "realisations: 60")
    text = text.replace("count: 5", "count: 6").replace("length: 3", "length: 6")
    text = text.replace("loss: [0.3, 0.5]", "loss: 0.3")

    def together(text: str, name: str) -> float:
        rows = read_results(run_sweep(write(text), tmp_path / name, progress=False)).to_pylist()
        lost = {(row["picture"], row["realisation"]): row["delivered"] == 0 for row in rows}
        pairs = [
            (lost[f"pattern-{n}", r], lost[f"pattern-{n + 1}", r])
            for n in range(5)
            for r in range(60)
        ]
        return sum(a and b for a, b in pairs) / sum(a for a, _ in pairs)

    assert together(text, "run") == pytest.approx(0.75, abs=0.12)  # a burst of 4 stays by 3/4
    without = text.replace("sequence: {length: 6, picture_rate_hz: 10}", "")
    assert together(without, "alone") == pytest.approx(0.3, abs=0.12)


def _cell(row: dict[str, object]) -> tuple[object, ...]:
    return row["picture"], row["rate"], row["loss"], row["realisation"]


def test_what_is_there_is_not_computed_again(
    write: Write, same: Same, mosaic: type, tmp_path: Path
) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    mosaic.encoded = 0
    run_sweep(write(), folder, progress=False)
    assert mosaic.encoded == 0
    text = write().read_text().replace("[2, 120, 400]", "[400, 200]").replace("s: 4", "s: 5")
    changed = run_sweep(write(text), folder, progress=False)
    assert mosaic.encoded == 6
    same(changed, run_sweep(write(text), tmp_path / "fresh", progress=False))
    same(
        run_sweep(write(), folder, progress=False),
        run_sweep(write(), tmp_path / "b", progress=False),
    )


def test_a_kept_picture_that_is_gone_is_made_again(write: Write, tmp_path: Path) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    kept = sorted((folder / "pictures").iterdir())
    assert len(kept) == 3 * (1 + 9)
    assert original_path(folder / "pictures", "pattern-0") in kept
    lost = next(p for p in kept if "original" not in p.name and p.name.count(".") == 2)
    before = lost.read_bytes()
    lost.unlink()
    run_sweep(write(), folder, progress=False)
    assert lost.read_bytes() == before


def test_the_manifest_says_how_it_was_made(write: Write, tmp_path: Path) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    found = json.loads((folder / "manifest.json").read_text())
    assert (found["points"], found["pictures"], found["rows"]) == (9, 3, 108)
    assert found["versions"]["torch"]
    assert found["machine"]["threads"] >= 1
    assert found["config"] == write().read_text()
    assert found["trained_on"] == {"mosaic": ["psnr_db"]}
    (note,) = {row["psnr_db_note"] for row in read_parquet(folder / "summary.parquet").to_pylist()}
    assert note == "also a training loss of this codec"


def test_lpips_without_weights_is_unavailable_and_says_why(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("SQLINK_LPIPS", raising=False)
    monkeypatch.setenv("SQLINK_METRICS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    text = write().read_text().replace("[psnr, ", "[psnr, lpips, ")
    folder = run_sweep(write(text), tmp_path / "out", progress=False)
    assert "lpips" not in read_results(folder).column_names
    (note,) = {row["lpips_note"] for row in read_parquet(folder / "summary.parquet").to_pylist()}
    assert note.startswith("unavailable: LPIPS has no weights")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["asked"] == ["psnr_db", "lpips", "miou", "miou_map", "map_fidelity"]
    assert manifest["unavailable"]["lpips"].startswith("LPIPS has no weights")
    text = (folder / "tables.md").read_text()
    assert "| PSNR, dB | LPIPS | mIoU of the picture, % |" in text
    assert "LPIPS: n/a; LPIPS has no weights" in text
    assert "lpips: not measured: LPIPS has no weights" in capsys.readouterr().err


def test_fewer_pictures_than_others_and_no_labels_are_said_with_n(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "sphere"
    root.mkdir()
    for n, (height, width) in enumerate([(32, 64), (32, 64), (32, 64), (48, 48)]):
        (sample,) = open_dataset("streets", seed=n, count=1, height=height, width=width)
        save_picture(sample.image, root / f"{n}.png")
    text = f"""
        data: {{name: folder, options: {{root: '{root}'}}}}
        codecs: jpeg2000
        rates: {{bpp: [1.0, 2.0, 3.0]}}
        channel: lossless
        judge: levels
        metrics: [psnr, ws_psnr, miou, boundary_f1, consistency, map_fidelity]
    """
    folder = run_sweep(write(text), tmp_path / "out", progress=False)
    table = read_results(folder)
    ws = [value for value in table["ws_psnr_db"].to_pylist() if value is not None]
    lines = read_parquet(folder / "summary.parquet").to_pylist()
    assert {(line["psnr_db_pictures"], line["ws_psnr_db_pictures"]) for line in lines} == {(4, 3)}
    assert np.mean([line["ws_psnr_db"] for line in lines]) == pytest.approx(np.mean(ws))
    said = (folder / "tables.md").read_text()
    assert said.count("(n = 3)") == 3
    assert "WS-PSNR: n = 3 of 4 pictures; WS-PSNR is for equirectangular pictures" in said
    unavailable = json.loads((folder / "manifest.json").read_text())["unavailable"]
    assert unavailable == {
        "miou": "4 of 4 pictures without labels",
        "boundary_f1": "4 of 4 pictures without labels",
        "map_fidelity": "no codec of this sweep carries a map",
    }
    error = capsys.readouterr().err
    assert "ws_psnr_db: n = 3 of 4: WS-PSNR is for" in error
    assert "miou: n = 0 of 4: 4 of 4 pictures without labels" in error
    assert 0 < lines[0]["consistency"] <= lines[-1]["consistency"] <= 1
    captions = [path.read_text() for path in plot_results(folder) if path.suffix == ".svg"]
    assert captions
    for caption in captions:
        assert "WS-PSNR: n = 3 of 4 pictures." in caption
        assert "mIoU of the picture not measured: 4 of 4 pictures without labels." in caption


def test_two_blocks_have_no_interval_and_say_so(write: Write, tmp_path: Path) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)  # 3 pictures in 2 blocks
    assert "Intervals n/a: 2 blocks; 3 are needed." in (folder / "tables.md").read_text()
    for line in read_parquet(folder / "summary.parquet").to_pylist():
        assert line["psnr_db_interval"] == "n/a: 2 blocks"
        assert np.isnan(line["psnr_db_low"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[mosaic]", "[mosaik]", "sweep.yaml: codecs[0]: unknown codec 'mosaik'"),
        ("[mosaic]", "[{name: mosaic, options: {x: 1}}]", "sweep.yaml: codecs[0]: codec 'mosaic'"),
        (
            "[mosaic]",
            "[{name: mosaic, options: {packet_bytes: 9}}]",
            "sweep.yaml: codecs[0]: packet_bytes is the sweep's own",
        ),
        (
            "[mosaic]",
            "[{name: jpeg2000, options: {layers: two}}]",
            "sweep.yaml: codecs[0]: jpeg2000: layers='two' must be an integer from 1 to 32",
        ),
        (
            "[mosaic]",
            "[{name: sqgan, options: {weights: 3}}]",
            "sweep.yaml: codecs[0]: an option has a wrong type or value: ",
        ),
        ("channel: iid", "channel: idd", "sweep.yaml: channel: unknown channel 'idd'"),
        ("{loss: [0.0,", "{snr_db: [0.0,", "sweep.yaml: channel 'iid_erasure' needs"),
        (
            "{loss: [0.0,",
            "{los: 1, loss: [0.0,",
            "sweep.yaml: conditions: channel 'iid_erasure' has",
        ),
        ("[0.0, 0.3", "[0.0, 1.3", "sweep.yaml: channel: "),
        ("count: 3", "cout: 3", "sweep.yaml: data: data set 'patterns'"),
        ("levels-tx", "nobody", "sweep.yaml: segmenter: unknown segmenter 'nobody'"),
        ("[psnr,", "[{name: psnr, options: {a: 1}},", "sweep.yaml: metrics[0]: "),
        ("bytes: [2, 120, 400]", "channel_uses: 50", "channel 'iid_erasure' counts no symbols"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    write: Write, mosaic: type, tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = write().read_text()
    assert old in text
    with pytest.raises(SQLinkError) as caught:
        run_sweep(write(text.replace(old, new)), tmp_path / "out", progress=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert mosaic.encoded == 0
    assert not (tmp_path / "out").exists()


def test_ground_truth_is_sent_when_asked_for(write: Write, tmp_path: Path) -> None:
    text = write().read_text().replace("levels-tx", "ground_truth")
    table = read_results(run_sweep(write(text), tmp_path / "out", progress=False))
    assert table["confusion_sent"].null_count == 0


REAL = """
data: {{name: folder, options: {{root: '{root}'}}}}
codecs: [jpeg2000]
rates: {rates}
channel: awgn
conditions: {{snr_db: [1, 2]}}
realisations: 3
metrics: [psnr]
examples: 0
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Four scenes of two sizes, in a folder."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for n, (height, width) in enumerate([(48, 64), (48, 64), (48, 64), (64, 48)]):
        (sample,) = open_dataset("streets", seed=n, count=1, height=height, width=width)
        save_picture(sample.image, folder / f"{n}.png")
    return folder


def test_jpeg2000_over_a_coded_channel_does_not_depend_on_the_batch(
    write: Write, same: Same, photographs: Path, tmp_path: Path
) -> None:
    path = write(REAL.format(root=photographs, rates="{bpp: 0.8, channel_uses: 1300}"))
    one = run_sweep(path, tmp_path / "one", batch_size=1, progress=False)
    same(one, run_sweep(path, tmp_path / "eight", batch_size=8, progress=False))
    rows = read_results(one).to_pylist()
    assert {row["height"] for row in rows} == {48, 64}
    assert all(row["channel_uses"] <= 1300 for row in rows if "uses" in row["rate"])
    for row in rows:
        on_air = sum(v for k, v in row.items() if k.startswith("bits_")) - row["bits_session"]
        assert on_air == 2 * row["channel_uses"]
    lost = [row["delivered"] < row["packets"] for row in rows]
    assert any(lost)
    assert not all(lost)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
def test_ctrl_c_and_again_gives_the_same_table(
    write: Write, same: Same, photographs: Path, tmp_path: Path
) -> None:
    path = write(REAL.format(root=photographs, rates="{bpp: [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1]}"))
    broken = tmp_path / "broken"
    # A test run in the background inherits SIGINT ignored; the sweep under test must hear it.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from experiments.sweep.runner import run_sweep;"
        "run_sweep(sys.argv[1], sys.argv[2], batch_size=1)"
    )
    command = [sys.executable, "-c", code, str(path), str(broken)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list(broken.glob("parts/*.parquet")):
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "interrupted" not in said  # the command line says it, once
    assert not (broken / "results.parquet").exists()
    kept = len(list(broken.glob("parts/*.parquet")))
    assert 1 <= kept < 28
    run_sweep(path, broken, progress=False)
    same(broken, run_sweep(path, tmp_path / "whole", progress=False))


def test_an_edited_trace_is_another_channel(write: Write, tmp_path: Path) -> None:
    """A trace edited in place between two runs must not give the first one's rows again."""
    trace = tmp_path / "losses.csv"
    text = write().read_text().replace("channel: iid", f"channel: {{trace: {{file: {trace}}}}}")
    text = text.replace("conditions: {loss: [0.0, 0.3, 0.9]}\n", "")
    path = write(text)
    trace.write_text("0\n0\n0\n1\n")
    first = read_results(run_sweep(path, tmp_path / "out", progress=False))
    trace.write_text("1\n1\n1\n1\n")
    second = read_results(run_sweep(path, tmp_path / "out", progress=False))
    assert sum(first["delivered"].to_pylist()) > 0
    assert sum(second["delivered"].to_pylist()) == 0
    assert not set(first["point"].to_pylist()) & set(second["point"].to_pylist())
    moved = tmp_path / "moved.csv"
    moved.write_text(trace.read_text())
    again = write(text.replace(str(trace), str(moved)), "moved.yaml")
    third = read_results(run_sweep(again, tmp_path / "out", progress=False, overwrite=True))
    assert third["point"].to_pylist() == second["point"].to_pylist()


def test_a_trace_lies_beside_the_sweep_and_its_place_means_nothing(
    write: Write, same: Same, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "losses.csv").write_text("0\n0\n1\n0\n1\n")
    text = write().read_text().replace("channel: iid", "channel: {trace: {file: losses.csv}}")
    path = write(text.replace("conditions: {loss: [0.0, 0.3, 0.9]}\n", ""))
    monkeypatch.chdir(tmp_path)
    here = run_sweep("sweep.yaml", "here", progress=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = run_sweep(path, "there", progress=False)
    same(tmp_path / here, tmp_path / "elsewhere" / there)


def test_another_sweep_does_not_take_the_place_of_results(write: Write, tmp_path: Path) -> None:
    folder = run_sweep(write(), tmp_path / "out", progress=False)
    before = (folder / "results.parquet").read_bytes()
    text = write().read_text()
    other = write(text, "other.yaml")
    unlike = text.replace("loss: [0.0, 0.3, 0.9]", "loss: [0.1]")
    for path, name in ((other, "other.yaml"), (write(unlike), "sweep.yaml")):
        with pytest.raises(ConfigError, match=rf"holds the results of sweep.*{name}") as caught:
            run_sweep(path, folder, progress=False)
        assert "--overwrite" in str(caught.value)
        assert (folder / "results.parquet").read_bytes() == before
    run_sweep(other, folder, progress=False, overwrite=True)
    run_sweep(other, folder, progress=False)


def test_a_shipped_sweep_is_named_without_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_settings("quickstart", "experiments.configs").is_file()
    assert find_settings("streets", "sqlink.training.configs").is_file()
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        run_sweep("quickstrt", "out", progress=False)
    (tmp_path / "quickstart").write_text("{}")
    assert find_settings("quickstart", "experiments.configs") == Path("quickstart")
    assert not (tmp_path / "out").exists()


def test_offered_sent_and_delivered_have_columns_of_their_own(write: Write, tmp_path: Path) -> None:
    limited = "channel: [{rate_limit: {bytes: 64}}, iid]"
    path = write(write().read_text().replace("channel: iid", limited))
    table = read_results(run_sweep(path, tmp_path / "out", progress=False))
    for row in table.select(
        ["bytes", "sent_bytes", "delivered_bytes", "bpp", "bpp_sent", "height", "width", "loss"]
    ).to_pylist():
        assert row["sent_bytes"] <= min(row["bytes"], 64 + 1)
        assert row["delivered_bytes"] <= row["sent_bytes"]
        assert row["loss"] > 0 or row["delivered_bytes"] == row["sent_bytes"]
        pixels = row["height"] * row["width"]
        assert row["bpp"] == pytest.approx(8 * row["bytes"] / pixels)
        assert row["bpp_sent"] == pytest.approx(8 * row["sent_bytes"] / pixels)
    ledgers = [name for name in table.column_names if name.startswith("bits_")]
    bits = [sum(row.values()) for row in table.select(ledgers).to_pylist()]
    assert bits == [8 * size for size in table["sent_bytes"].to_pylist()]
    assert max(table["bytes"].to_pylist()) > 300
