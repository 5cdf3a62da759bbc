"""What stands in a YAML file becomes a channel, or one line that says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.base import Chain
from channels.config.builder import build, load, names
from channels.config.description import READY
from channels.errors import ConfigError
from channels.fading.block import Rayleigh
from channels.link.coded import CodedLink
from channels.link.uncoded import UncodedLink
from channels.packet.erasure import IidErasure, Lossless
from channels.packet.queueing import Bottleneck


def test_ready_channels_are_what_their_names_say() -> None:
    assert isinstance(build("lossless"), Lossless)
    assert build("iid").needs == ("loss",)
    awgn, rayleigh = build("awgn"), build("rayleigh")
    assert isinstance(awgn, CodedLink)
    assert isinstance(rayleigh, CodedLink)
    assert (awgn.over.name, awgn.modulation, awgn.code_rate) == ("awgn", "qpsk", 0.5)
    assert isinstance(rayleigh.over, Rayleigh)
    assert rayleigh.over.coherence == "packet"
    assert {*READY, "coded", "iid_erasure", "lossless", "uncoded"} <= set(names())


def test_parameters_reach_the_channel() -> None:
    coded = build(
        {
            "coded": {
                "over": {"rayleigh": {"coherence": "picture"}},
                "modulation": "16qam",
                "code_rate": 0.75,
            }
        }
    )
    assert isinstance(coded, CodedLink)
    assert isinstance(coded.over, Rayleigh)
    assert (coded.over.coherence, coded.modulation, coded.code_rate) == ("picture", "16qam", 0.75)
    changed = build({"awgn": {"modulation": "64qam"}})
    assert isinstance(changed, CodedLink)
    assert (changed.modulation, changed.code_rate) == ("64qam", 0.5)
    assert isinstance(build({"uncoded": None}), UncodedLink)


def test_a_list_is_a_chain() -> None:
    chain = build([{"iid_erasure": {"loss": 0.1}}, "awgn"])
    assert isinstance(chain, Chain)
    assert isinstance(chain.links[0], IidErasure)
    assert chain.needs == ("snr_db",)
    assert chain.uses_per_packet(96) == 792


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("awng", "unknown channel 'awng': did you mean 'awgn'"),
        ({"codet": {}}, "did you mean 'coded'"),
        ({"coded": {"modulaton": "qpsk"}}, "has no option 'modulaton': did you mean 'modu"),
        ({"lossless": {"loss": 0.1}}, "has no option 'loss': it takes none"),
        ({"iid_erasure": {"loss": 2}}, "loss=2 must be from 0 to 1"),
        ({"coded": {}, "iid_erasure": {}}, "one name with its parameters"),
        ({"coded": "qpsk"}, "one name with its parameters"),
        (None, "got None"),
        (7, "got 7"),
        ([], "must name at least one"),
        (["awgn", "nothing"], "unknown channel 'nothing'"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(spec: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


def test_files_are_read_and_names_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "link.yaml"
    path.write_text("- iid_erasure: {loss: 0.2}\n- coded:\n    modulation: 256qam\n")
    chain = load(path)
    assert isinstance(chain, Chain)
    assert isinstance(chain.links[1], CodedLink)
    assert load("rayleigh").needs == ("snr_db",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("coded: {modulation: [", "line 1: not valid YAML"),
        ("coded: {modulation: 8psk}", "unknown modulation='8psk'"),
        ("", "got None"),
        ("\x00\x01", "not valid YAML"),
        ("coded: {packet_bytes: 2001-13-45}", "looks like a number"),
        ("coded: {packet_bytes: 0x_}", "looks like a number"),
        ("[" * 5000, "nested too deeply"),
        ("&a [*a]", "contains itself"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert "bad.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot read channel file nowhere\.yaml"):
        load("nowhere.yaml")


def test_a_name_too_long_for_a_file_is_an_unknown_channel() -> None:
    with pytest.raises(ConfigError, match="unknown channel"):
        load("awgn" * 100)


def test_a_channel_file_has_each_key_once_and_reads_1e6_as_a_number(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("lookup: {over: awgn, over: rayleigh}")
    with pytest.raises(ConfigError, match="key 'over' is given twice"):
        load(path)
    path.write_text("bottleneck: {bandwidth_bits_s: 2e6}")
    line = load(path)
    assert isinstance(line, Bottleneck)
    assert line.bandwidth_bits_s == 2e6


def test_two_channels_of_symbols_in_a_chain_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Each packet pays for both, which is hardly ever meant by [awgn, rayleigh]."""
    build([{"iid_erasure": {"loss": 0.1}}, "awgn"])
    assert not caplog.records
    build(["awgn", "rayleigh"])
    (said,) = (record.getMessage() for record in caplog.records)
    assert "[awgn, rayleigh] is a chain" in said
    assert "`channels:`" in said
