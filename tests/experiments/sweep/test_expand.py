"""Bases, variables, files and swept values stand for what one would write out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.sweep.expand import expand, swept
from experiments.sweep.grid import Identities, Point, points
from experiments.sweep.schema import Sweep, load_sweep, parse_sweep
from sqlink.errors import ConfigError

BASE = "{data: streets, codecs: jpeg2000, rates: {bpp: 0.1}"


def grid(sweep: Sweep, **needs: list[str]) -> list[Point]:
    return points(sweep, Identities(needs=needs))


def said(point: Point) -> tuple[str, dict[str, float], dict[str, object]]:
    return point.channel, dict(point.conditions), dict(point.axes)


def test_a_file_takes_from_its_base_what_it_does_not_give_itself(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.yaml").write_text(
        f"{BASE}, channel: iid, conditions: {{loss: [0.1]}}, realisations: 3}}"
    )
    (tmp_path / "own.yaml").write_text(
        "{extends: bases/base.yaml, channels: {a: awgn, b: rayleigh}, conditions: {snr_db: 3}}"
    )
    found = load_sweep(tmp_path / "own.yaml")
    assert found.codecs[0].name == "jpeg2000"
    assert found.realisations == 3
    assert found.channel is None
    assert found.links() == {"a": "awgn", "b": "rayleigh"}
    assert found.conditions == {"snr_db": [3.0]}


def test_a_range_may_be_a_text_with_a_variable_in_it() -> None:
    found = parse_sweep(
        "{data: streets, codecs: jpeg2000, variables: {top: 10}, channel: [iid, awgn],"
        " rates: {bpp: '0.1:0.3:0.1'},"
        " conditions: {snr_db: '0:${top}:5', loss: ['0:0.2:0.1', 0.5]}}"
    )
    assert found.conditions == {"snr_db": [0, 5, 10], "loss": [0, 0.1, 0.2, 0.5]}
    assert found.rates is not None
    assert found.rates.bpp == [0.1, 0.2, 0.3]
    with pytest.raises(ConfigError, match="a range is from:to:step"):
        parse_sweep(f"{BASE}, channel: awgn, conditions: {{snr_db: '9:0:1'}}}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{extends: none.yaml}", "extends: .*none.yaml: No such file"),
        ("{extends: own.yaml}", "own.yaml extends itself"),
        ("{extends: 3}", "extends: should be the name of a file, got 3"),
        ("{variables: 3}", "variables: should be a mapping"),
        (f"{BASE}, channel: none.yaml}}", "channel: .*none.yaml: No such file"),
        (f"{BASE}}}", "give `channel`, or `channels`"),
        (f"{BASE}, channel: iid, channels: {{a: iid}}}}", "one of both"),
        (f"{BASE}, channel: iid, zip: [[rate, rates]]}}", "zip: no axis 'rates'.*'rate'"),
        (
            f"{BASE}, channel: iid, conditions: {{loss: [0, 1]}}, zip: [[loss, seed]]}}",
            "as many values each: loss 2, seed 1",
        ),
        (f"{BASE}, channel: iid, skip: {{snr: 3}}}}", "skip: no axis 'snr'"),
        (
            f"{BASE}, channel: iid, realisations: 9, until: {{metric: miou, width: 1, most: 8}}}}",
            "until: most=8 is less than realisations=9",
        ),
        (f"{BASE}, channel: {{coded: {{code_rate: {{sweep: []}}}}}}}}", "list of numbers or words"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_sweep(tmp_path / "own.yaml")
    assert "\n" not in str(caught.value)


def test_a_variable_is_its_value_and_in_a_text_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", "there")
    found = parse_sweep(
        "{variables: {rates: [0.1, 0.2], place: here}, data: streets, codecs: jpeg2000,"
        " rates: {bpp: '${rates}'}, channel: lossless, output: 'at/${place}/${PLACE}'}"
    )
    assert found.rates is not None
    assert found.rates.bpp == [0.1, 0.2]
    assert found.output == "at/here/there"


def test_a_channel_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "link.yaml").write_text("[{rate_limit: {bytes: 900}}, awgn]")
    (tmp_path / "own.yaml").write_text(
        f"{BASE}, channels: {{far: link.yaml, near: awgn}}, conditions: {{snr_db: 1}}}}"
    )
    links = load_sweep(tmp_path / "own.yaml").links()
    assert links == {"far": [{"rate_limit": {"bytes": 900}}, "awgn"], "near": "awgn"}


def test_values_are_swept_wherever_they_stand() -> None:
    spec = [
        {"iid": {"loss": {"sweep": [0.1, 0.2]}}},
        {"coded": {"over": {"rician": {"k_db": {"sweep": [3, 6]}}}, "code_rate": 0.5}},
    ]
    found = list(swept(spec))
    assert [values for _, values in found] == [
        {"loss": loss, "k_db": k_db} for loss in (0.1, 0.2) for k_db in (3, 6)
    ]
    assert found[3][0] == [
        {"iid": {"loss": 0.2}},
        {"coded": {"over": {"rician": {"k_db": 6}}, "code_rate": 0.5}},
    ]
    assert list(swept({"a": {"b": {"sweep": [1]}}, "c": {"b": {"sweep": [2]}}})) == [
        ({"a": {"b": 1}, "c": {"b": 2}}, {"a.b": 1, "c.b": 2})
    ]


def test_a_swept_option_makes_a_point_and_a_column_of_each_value() -> None:
    sweep = parse_sweep(
        "{data: streets, codecs: [{name: jpeg2000, options: {layers: {sweep: [1, 8]}}}],"
        " rates: {bpp: 0.1}, channel: {coded: {code_rate: {sweep: [0.25, 0.5]}}},"
        " conditions: {snr_db: [1, 2]}}"
    )
    found = grid(sweep)
    assert len(found) == len({point.hash for point in found}) == 8
    assert [said(point) for point in found[:3]] == [
        ("coded code_rate=0.25", {"snr_db": 1.0}, {"codec_layers": 1, "channel_code_rate": 0.25}),
        ("coded code_rate=0.25", {"snr_db": 2.0}, {"codec_layers": 1, "channel_code_rate": 0.25}),
        ("coded code_rate=0.5", {"snr_db": 1.0}, {"codec_layers": 1, "channel_code_rate": 0.5}),
    ]
    assert {p.encoding.codec.title for p in found} == {"jpeg2000 layers=1", "jpeg2000 layers=8"}
    assert found[4].encoding.codec.options == {"layers": 8}


def test_each_channel_meets_the_conditions_that_it_needs() -> None:
    sweep = parse_sweep(
        f"{BASE}, channels: {{a: awgn, lossy: iid}},"
        " conditions: {snr_db: [1, 2, 3], loss: [0, 0.5]}}"
    )
    found = grid(sweep, a=["snr_db"], lossy=["loss"])
    assert [said(point)[:2] for point in found] == [
        *(("a", {"snr_db": value}) for value in (1.0, 2.0, 3.0)),
        *(("lossy", {"loss": value}) for value in (0.0, 0.5)),
    ]


def test_zipped_axes_run_side_by_side_and_rules_leave_points_out() -> None:
    text = (
        "{data: streets, codecs: [jpeg2000, bpg], rates: {bpp: [0.1, 0.2]}, channel: x,"
        " conditions: {snr_db: [1, 2], loss: [0, 0.5]}"
    )
    assert len(grid(parse_sweep(f"{text}}}"))) == 16
    zipped = grid(parse_sweep(f"{text}, zip: [[snr_db, loss]]}}"))
    assert {tuple(point.conditions) for point in zipped} == {
        (("loss", 0.0), ("snr_db", 1.0)),
        (("loss", 0.5), ("snr_db", 2.0)),
    }
    skipped = grid(parse_sweep(f"{text}, skip: {{codec: bpg, snr_db: 1}}}}"))
    assert len(skipped) == 16 - 4
    assert all(
        point.encoding.codec.name != "bpg" or dict(point.conditions)["snr_db"] == 2
        for point in skipped
    )
    only = grid(parse_sweep(f"{text}, only: [{{rate: bpp=0.1, loss: 0}}, {{codec: bpg}}]}}"))
    assert len(only) == 8 + 2
    with pytest.raises(ConfigError, match="leave no point"):
        grid(parse_sweep(f"{text}, only: {{codec: webp}}}}"))


def test_what_needs_no_expanding_stays_as_it_is() -> None:
    raw = {"data": "streets", "codecs": ["jpeg2000"], "channel": {"awgn": {"modulation": "bpsk"}}}
    assert expand(raw, "a", Path()) == raw
