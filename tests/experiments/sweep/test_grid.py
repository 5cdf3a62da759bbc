"""A point's hash is of its meaning, and of nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from channels.config.packet_size import with_packet_size
from experiments.sweep.components import files_named, fingerprint
from experiments.sweep.grid import Identities, Point, points
from experiments.sweep.schema import parse_sweep

SWEEP = """
data: streets
codecs: [sqgan, {name: bpg, options: {preset: medium}}]
rates: {bpp: [0.04, 0.1], bytes: [900]}
channel: {coded: {over: awgn, modulation: qpsk}}
conditions: {snr_db: [0, 5.5], loss: [0.1]}
seeds: [0, 1]
packet_bytes: [96]
"""
IDENTITIES = Identities(
    codecs={"sqgan": "ab12"},
    metrics={"psnr": "", "miou": ""},
    judge="cd34",
    maps=frozenset({"sqgan"}),
)


def grid(text: str = SWEEP, identities: Identities = IDENTITIES) -> list[Point]:
    return points(parse_sweep(text), identities)


def hashes(text: str = SWEEP, identities: Identities = IDENTITIES) -> set[str]:
    return {point.hash for point in grid(text, identities)}


def test_the_grid_is_the_product_of_its_axes() -> None:
    found = grid()
    assert len(found) == len({point.hash for point in found}) == 2 * 3 * 2 * 2
    assert found[0].conditions == (("loss", 0.1), ("snr_db", 0.0))
    assert [point.seed for point in found[:2]] == [0, 1]


def test_hashes_are_the_same_in_every_version() -> None:
    assert [point.hash for point in grid()[:2]] == ["20e0b80bf5fb8241", "c87148685c0dbf7a"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[0, 5.5]", "[5.5, 0.0]"),
        ("{over: awgn, modulation: qpsk}", "{modulation: qpsk, over: awgn}"),
        ("[sqgan, {name: bpg", "[{name: sqgan}, {name: bpg"),
        ("bpp: [0.04, 0.1], bytes: [900]", "bytes: 900, bpp: [0.1, 0.04, 0.1]"),
        ("data: streets", "data: {name: streets, limit: 3}"),
        ("packet_bytes: [96]", "realisations: 7\nbatch_size: 3\ndevice: cuda\noutput: there"),
    ],
)
def test_spelling_order_and_amount_do_not_change_them(old: str, new: str) -> None:
    assert old in SWEEP
    assert hashes(SWEEP.replace(old, new)) == hashes()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qpsk", "16qam"),
        ("packet_bytes: [96]", "packet_bytes: [48]"),
        ("seeds: [0, 1]", "seeds: [2, 3]"),
        ("[0.1]", "[0.2]"),
        ("streets", "streets\njudge: other"),
    ],
)
def test_what_changes_a_result_changes_all_of_them(old: str, new: str) -> None:
    assert old in SWEEP
    assert not hashes(SWEEP.replace(old, new)) & hashes()


def test_codec_options_and_weights_change_those_of_their_codec_alone() -> None:
    def of(codec: str, found: list[Point]) -> set[str]:
        return {p.hash for p in found if p.encoding.codec.name == codec}

    slower = grid(SWEEP.replace("medium", "slow"))
    assert of("sqgan", slower) == of("sqgan", grid())
    assert not of("bpg", slower) & of("bpg", grid())
    trained = grid(identities=replace(IDENTITIES, codecs={"sqgan": "ef56"}))
    assert of("bpg", trained) == of("bpg", grid())
    assert not of("sqgan", trained) & of("sqgan", grid())
    other_map = grid(SWEEP + "segmenter: other", replace(IDENTITIES, segmenter="0987"))
    assert of("bpg", other_map) == of("bpg", grid())
    assert not of("sqgan", other_map) & of("sqgan", grid())


def test_where_weights_lie_does_not_matter_but_what_they_are() -> None:
    text = SWEEP.replace("[sqgan,", "[{name: sqgan, options: {weights: here}},")
    assert hashes(text) == hashes(text.replace("here", "there")) == hashes()


def test_rates_that_differ_by_a_byte_are_different_points() -> None:
    many = grid(SWEEP.replace("[900]", "[1234567, 1234568]"))
    labels = {point.encoding.rate.label() for point in many}
    assert {"bytes=1234567", "bytes=1234568"} < labels
    assert len(many) == len(grid()) * 4 // 3


def test_a_codec_can_have_rates_of_its_own() -> None:
    found = grid(SWEEP.replace("preset: medium}", "preset: medium}, rates: {quality: [30, 40]}"))
    rates = {(p.encoding.codec.name, p.encoding.rate.label()) for p in found}
    assert {rate for codec, rate in rates if codec == "bpg"} == {"quality=30", "quality=40"}
    assert ("sqgan", "bpp=0.04") in rates


def test_a_packet_size_reaches_the_channels_inside_others() -> None:
    spec = {
        "unequal": {
            "over": {"coded": {"code_rate": 0.4}},
            "classes": [{"packets": 2, "channel": "awgn"}, {"code_rate": 0.8}],
        }
    }
    assert with_packet_size([{"raptorq": {"over": spec, "repair": 1}}, "iid"], 48) == [
        {
            "raptorq": {
                "over": {
                    "unequal": {
                        "over": {"coded": {"packet_bytes": 48, "code_rate": 0.4}},
                        "classes": [
                            {"packets": 2, "channel": {"awgn": {"packet_bytes": 48}}},
                            {"code_rate": 0.8},
                        ],
                    }
                },
                "repair": 1,
            }
        },
        "iid",
    ]
    limited = {"rate_limit": {"channel_uses": 99, "over": {"lookup": {"packet_bytes": 32}}}}
    assert with_packet_size(limited, 48) == limited


def test_a_point_is_of_what_the_files_hold_that_its_options_name() -> None:
    named = SWEEP.replace("{preset: medium}", "{table: rates.csv}")
    sweep = parse_sweep(named)
    plain = points(sweep, Identities())
    ones = points(sweep, Identities(files={"rates.csv": "1"}))
    twos = points(sweep, Identities(files={"rates.csv": "2"}))
    bpg = [n for n, point in enumerate(plain) if point.encoding.codec.name == "bpg"]
    for n, three in enumerate(zip(plain, ones, twos, strict=True)):
        assert len({point.hash for point in three}) == (3 if n in bpg else 1)
    channel = [points(sweep, Identities(channels={"coded": (content,)})) for content in ("a", "b")]
    assert not {p.hash for p in channel[0]} & {p.hash for p in channel[1]}


def test_parts_inside_a_part_count_with_it(tmp_path: Path) -> None:
    class Network:
        name = "network"
        weights_sha256 = "a"

        def segment(self, images: Tensor) -> Tensor:
            return images[:, 0].long()

    class Owner:
        def __init__(self) -> None:
            self.segmenter = Network()

    first, second = Owner(), Owner()
    second.segmenter.weights_sha256 = "b"
    assert fingerprint(Network()) == "a"
    assert "" != fingerprint(first) != fingerprint(second)
    table = tmp_path / "table.csv"
    table.write_text("1")
    found = files_named({"over": [{"file": str(table)}, "awgn", "no/such.csv"]})
    assert found == {str(table): hashlib.sha256(b"1").hexdigest()}
