"""A sweep's file is understood, or refused in one line that says where and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

import experiments.configs
from channels.config.builder import build
from channels.errors import ConfigError
from experiments.gallery import load_gallery
from experiments.sweep.schema import DEFAULT_METRICS, load_sweep, parse_sweep
from experiments.uep.comparison import Protection
from sqlink.analogue import BUILT_IN as ANALOGUE
from sqlink.codecs import BUILT_IN
from sqlink.settings import load_settings

BASE = "data: streets\ncodecs: [jpeg2000]\nrates: {bpp: [0.1]}\nchannel: awgn\n"
FOLDER = Path(experiments.configs.__file__).parent
COMPARISONS = sorted(FOLDER.glob("uep_*.yaml"))
CONFIGS = sorted({*FOLDER.glob("*.yaml")} - {FOLDER / "gallery.yaml", *COMPARISONS})


def test_the_shortest_sweep_has_defaults() -> None:
    sweep = parse_sweep(BASE)
    assert sweep.packet_bytes == [96]
    assert (sweep.segmenter.name, sweep.judge.name) == ("tx", "judge")
    assert [metric.name for metric in sweep.metrics] == list(DEFAULT_METRICS)


def test_one_value_stands_for_a_list_and_a_name_for_a_mapping() -> None:
    short = parse_sweep("{data: streets, codecs: bpg, rates: {bpp: 0.1, bytes: 5}, channel: awgn}")
    long = parse_sweep(
        "{data: {name: streets}, codecs: [{name: bpg}], rates: {bpp: [0.1], bytes: [5]},"
        " channel: awgn}"
    )
    assert short == long


@pytest.mark.parametrize(
    ("channel", "layers"),
    [
        ("channel: lossless", 1),
        ("channel: {lossless: {}}", 1),
        ("channels: {a: lossless}", 1),
        ("channels: {a: lossless, b: awgn}\nconditions: {snr_db: 5}", None),
        ("channel: awgn", None),
    ],
)
def test_jpeg2000_has_one_layer_where_nothing_is_lost(channel: str, layers: int | None) -> None:
    text = BASE.replace(
        "[jpeg2000]", "[bpg, jpeg2000, {name: jpeg2000, label: b, options: {layers: 3}}]"
    )
    codecs = parse_sweep(text.replace("channel: awgn", channel)).codecs
    assert [one.options.get("layers") for one in codecs] == [None, layers, 3]


def test_exponents_are_numbers() -> None:
    assert parse_sweep(BASE + "conditions: {loss: [1e-3, 5E-2]}").conditions["loss"] == [1e-3, 5e-2]


def test_environment_variables_are_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    text = BASE.replace("streets", "{name: camvid, options: {root: '${PLACE}/camvid'}}")
    monkeypatch.setenv("PLACE", "/pictures")
    assert parse_sweep(text).data.options["root"] == "/pictures/camvid"
    monkeypatch.delenv("PLACE")
    with pytest.raises(ConfigError, match=r"^sweep: data\.options\.root: .* PLACE is not set"):
        parse_sweep(text)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("sed: 1", "f.yaml: unknown key 'sed': did you mean 'seeds'? known: "),
        ("realisations: 0", "f.yaml: realisations: should be greater than 0, got 0"),
        ("realisations: yes", "f.yaml: realisations: should be a valid integer, got True"),
        ("packet_bytes: [96, 4]", "f.yaml: packet_bytes[1]: should be greater than or equal to 8"),
        ("conditions: {snr_db: [0, a]}", "f.yaml: conditions.snr_db[1]: should be a valid number"),
        ("conditions: {snr_db: []}", "f.yaml: conditions.snr_db: needs at least one value"),
        ("conditions: {snr_db: .inf}", "f.yaml: conditions.snr_db[0]: should be a finite number"),
        ("metrics: [psnr, lpip]", "f.yaml: metrics: unknown metric 'lpip': did you mean 'lpips'?"),
        ("device: gpu", "f.yaml: device: 'gpu' is not a device: use cpu, cuda or cuda:N"),
        ("judge: 3", "f.yaml: judge: should be a mapping of keys, got 3"),
        ("segmenter: {nam: tx}", "f.yaml: segmenter: unknown key 'nam': did you mean 'name'?"),
        ("channel: awgn", "f.yaml: line 5: key 'channel' is given twice"),
        ("a: [", "f.yaml: line 5: "),
        ("segmenter: {name: tx, 4: 5}", "f.yaml: segmenter: a key must be a word, not 4"),
    ],
)
def test_mistakes_are_named_in_one_line(extra: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sweep(BASE + extra, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml: should be a mapping"),
        ("- 1", "f.yaml: should be a mapping"),
        (BASE.replace("rates: {bpp: [0.1]}", "rates: {}"), "f.yaml: rates: name at least one rate"),
        (BASE.replace("bpp", "bbp"), "f.yaml: rates: unknown key 'bbp': did you mean 'bpp'?"),
        (BASE.replace("0.1", "0"), "f.yaml: rates.bpp[0]: should be greater than 0, got 0"),
        (BASE.replace("rates: {bpp: [0.1]}\n", ""), "f.yaml: no rates: name `rates`, or those of"),
        (BASE.replace("data: streets\n", ""), "f.yaml: key 'data' is missing"),
        (
            BASE.replace("data: streets", "data: {name: streets, every: 0}"),
            "f.yaml: data.every: should be greater than 0, got 0",
        ),
        (
            BASE.replace("data: streets", "data: {name: streets, every: 2}")
            + "sequence: {length: 2, picture_rate_hz: 1}",
            "f.yaml: data.every=2: a `sequence` is of pictures in a row: leave it out",
        ),
        (
            BASE.replace("[jpeg2000]", "[{name: bpg, rates: {bp: 1}}]"),
            "f.yaml: codecs[0].rates: unknown key 'bp': did you mean 'bpp'?",
        ),
        (
            BASE.replace("[jpeg2000]", "[bpg, bpg]"),
            "f.yaml: codecs: two codecs are called 'bpg': give each its own `label`",
        ),
    ],
)
def test_wrong_shapes_are_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sweep(text, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_sweep(tmp_path / "nowhere.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_sweep(tmp_path / "b.yaml")


def test_every_kind_of_question_has_a_shipped_config() -> None:
    assert {path.stem for path in CONFIGS} == {
        "quickstart",
        "snr",
        "loss",
        "rate",
        "fading",
        "codec",
        "bursts",
        "interleaved",
        "analogue",
        "raptorq",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLINK_CAMVID", "camvid")
    sweep = load_sweep(path)
    assert {codec.name for codec in sweep.codecs} <= {*BUILT_IN, *ANALOGUE}


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_shipped_comparisons_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLINK_CAMVID", "camvid")
    plan = load_settings(path, Protection)
    condition, values = plan.condition
    assert condition in build(plan.over).needs
    assert len(values) >= 3
    for option in plan.options:
        build({"unequal": {"over": plan.over, "classes": [option]}})


def test_the_shipped_gallery_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLINK_CAMVID", "camvid")
    gallery = load_gallery(FOLDER / "gallery.yaml")
    assert (gallery.every, gallery.bpp) == (4, [0.02, 0.08, 0.15])
