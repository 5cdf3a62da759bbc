"""Unequal protection: closed forms, every bit counted, one fade for all classes."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest

from channels.config.builder import build
from channels.errors import ConfigError
from channels.link.coded import CodedLink
from channels.packet.occupancy import Ranks
from channels.packet.unequal import Unequal
from tests.channels.packet.conftest import Late, around, assert_same, packets, ragged, snr, streams


@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_m_copies_come_with_the_probability_that_any_does(copies: int) -> None:
    link = Unequal({"iid_erasure": {"loss": 0.4}}, [{"copies": copies}])
    got = link.transmit(packets(200, 40), {}, streams(200))
    assert binomtest(int(got.delivered.sum()), 8000, 1 - 0.4**copies).pvalue > 1e-3


def test_classes_take_counts_shares_and_the_rest_of_each_picture() -> None:
    sent = ragged(40, 16)
    link = Unequal("lossless", [{"packets": 1}, {"share": 0.4, "copies": 2}, {"copies": 3}])
    ranks, number_of = Ranks.of(sent), link.classes_of(sent)
    for n, p in sent.present.nonzero().tolist():
        rank, count = int(ranks.rank[n, p]), int(ranks.count[n, p])
        edge = 1 + math.ceil(0.4 * count - 1e-9)
        assert int(number_of[n, p]) == (0 if rank < 1 else 1 if rank < edge else 2)
    got = link.transmit(sent, {}, streams(40))
    bits = 8 * sent.lengths
    assert torch.equal(got.ledger["payload"], bits.sum(dim=1))
    assert torch.equal(got.ledger["fec"], (bits * number_of).sum(dim=1))
    assert torch.equal(got.packets.payload, sent.payload)


def test_without_classes_a_packet_meets_what_it_would_meet_anyway() -> None:
    sent, keys = packets(30, 12), streams(30)
    bare = build("bursts").transmit(sent, {"loss": torch.full((30,), 0.3)}, keys)
    for classes in ([{}], [{"packets": 4, "burst": 4.0}, {}]):
        link = Unequal("bursts", classes)
        assert link.needs == ("loss",)
        assert_same(link.transmit(sent, {"loss": torch.full((30,), 0.3)}, keys), bare)


def test_copies_stand_next_to_each_other_in_a_burst() -> None:
    one, two = (
        Unequal({"gilbert_elliott": {"loss": 0.3, "burst": 10}}, [{"copies": m}]) for m in (1, 2)
    )
    sent = packets(4000, 1)
    assert (
        binomtest(int((~one.transmit(sent, {}, streams(4000)).delivered).sum()), 4000, 0.3).pvalue
        > 1e-3
    )
    lost = ~two.transmit(sent, {}, streams(4000)).delivered
    assert binomtest(int(lost.sum()), 4000, 0.3 * 0.9).pvalue > 1e-3


def test_code_rates_copies_and_modulations_are_counted_in_uses_and_bits() -> None:
    over = {"coded": {"over": {"rayleigh": {"coherence": "picture"}}, "packet_bytes": 12}}
    classes = [
        {"packets": 1, "code_rate": 0.25, "copies": 2},
        {"share": 0.5, "modulation": "16qam"},
        {"code_rate": 0.8},
    ]
    link, sent = Unequal(over, classes), packets(5, 6, 12)
    parts = [
        CodedLink(over=over["coded"]["over"], packet_bytes=12, code_rate=0.25),
        CodedLink(over=over["coded"]["over"], packet_bytes=12, modulation="16qam"),
        CodedLink(over=over["coded"]["over"], packet_bytes=12, code_rate=0.8),
    ]
    each = [part.uses_per_packet(12) or 0 for part in parts]
    total = 2 * each[0] + 3 * each[1] + 2 * each[2]
    got = link.transmit(sent, snr(5, 30.0), streams(5))
    assert got.channel_uses.tolist() == [total] * 5
    assert link.uses_of_group(6, 12) == total
    assert link.uses_per_packet(12) == 2 * each[0]
    bits = 2 * (2 * each[0] + 2 * each[2]) + 4 * 3 * each[1]
    assert torch.stack(list(got.ledger.values())).sum(dim=0).tolist() == [bits] * 5
    assert got.ledger["payload"].tolist() == [6 * 96] * 5
    assert got.ledger["crc"].tolist() == [7 * 24] * 5
    assert bool(got.delivered.all())
    assert torch.equal(got.packets.payload, sent.payload)
    assert {"snr_db", "class 1.snr_db", "class 2.snr_db"} <= set(got.statistics)


def test_classes_of_a_picture_meet_one_fade() -> None:
    over = {"coded": {"over": {"rayleigh": {"coherence": "picture"}}, "packet_bytes": 12}}
    link = Unequal(over, [{"packets": 1, "code_rate": 0.25}, {"code_rate": 0.8, "copies": 2}])
    got = link.transmit(packets(16, 3, 12), snr(16, 5.0), streams(16))
    first, second = got.statistics["snr_db"], got.statistics["class 1.snr_db"]
    assert torch.allclose(first, second, atol=1e-5)
    assert float(first.std()) > 1


def test_the_first_copy_to_arrive_counts() -> None:
    link = around(Unequal("lossless", [{"packets": 1, "copies": 3}, {}]), Late())
    got = link.transmit(packets(1, 2), {}, streams(1))
    assert got.delay_s.tolist() == [[6.0, 5.0]]


def test_a_class_may_be_left_out() -> None:
    link = Unequal("lossless", [{"packets": 2}, {"copies": 0}])
    got = link.transmit(packets(3, 5), {}, streams(3))
    assert got.delivered.tolist() == [[True, True, False, False, False]] * 3
    assert got.ledger["payload"].tolist() == [128] * 3
    assert Unequal("awgn", [{"packets": 2}, {"copies": 0}]).uses_of_group(5, 96) == 2 * 792


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"classes": []}, "must be a list of mappings"),
        ({"classes": "all"}, "must be a list of mappings"),
        ({"classes": [3]}, "a class is a mapping"),
        ({"classes": [{"packets": 2}]}, "the last class takes all other packets"),
        ({"classes": [{}, {}]}, "every class but the last needs one of packets and share"),
        ({"classes": [{"packets": 1, "share": 0.1}, {}]}, "needs one of packets and share"),
        ({"classes": [{"packets": 0}, {}]}, "packets=0 must be an integer from 1 to 1000000"),
        ({"classes": [{"packets": True}, {}]}, "packets=True must be an integer"),
        ({"classes": [{"share": float("nan")}, {}]}, "share=nan must be from 0 to 1"),
        ({"classes": [{"share": "half"}, {}]}, "share='half' must be a number from 0 to 1"),
        ({"classes": [{"share": 0.7}, {"share": 0.7}, {}]}, "add up to at most 1"),
        ({"classes": [{"copies": 65}]}, "copies=65 must be an integer from 0 to 64"),
        ({"classes": [{"copies": 1.5}]}, "copies=1.5 must be an integer"),
        ({"classes": [{"copies": 0}]}, "give at least one class copies"),
        ({"classes": [{"packets": 1}, {"copies": 0, "code_rate": 0.5}]}, "sends nothing"),
        ({"classes": [{"code_rat": 0.5}]}, "did you mean 'code_rate'"),
        ({"classes": [{"code_rate": 2}]}, "code_rate=2 must be from"),
        ({"over": ["awgn"], "classes": [{"code_rate": 0.5}]}, "cannot change a list"),
        ({"over": "nothing", "classes": [{}]}, "unknown channel 'nothing'"),
        (
            {"over": {"raptorq": {"over": "awgn", "repair": 1}}, "classes": [{}]},
            "put it around",
        ),
        (
            {"over": [{"unequal": {"over": "awgn", "classes": [{}]}}], "classes": [{}]},
            "put it around",
        ),
    ],
)
def test_wrong_classes_are_refused_in_one_line(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"unequal": {"over": "awgn", **parameters}})
    assert "\n" not in str(caught.value)


def test_classes_of_a_link_meet_one_state_of_a_channel_of_bursts() -> None:
    bursts = {"depth_db": 40, "bad": 0.5, "burst": 10_000}
    over = {"ideal": {"over": {"gilbert_elliott": bursts}, "law": "capacity", "packet_bytes": 8}}
    classes = [{"packets": 2, "code_rate": 0.1}, {"code_rate": 0.9}]
    channel = build({"unequal": {"over": over, "classes": classes}})
    came = channel.transmit(packets(400, 6), snr(400, 10.0), streams(400)).delivered
    assert torch.equal(came.all(dim=1), came.any(dim=1))
    assert 150 < int(came[:, 0].sum()) < 250


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([{"packet": 2}, {}], r"classes\[0\]: every class but the last .* not 'packet'"),
        (
            [{"packets": 2, "copis": 2}, {}],
            r"classes\[0\]: .*'copis'.*\(a class's own keys: packets",
        ),
        ([{"packets": 2}, {"modulation": "8psk"}], r"classes\[1\]: .*unknown modulation='8psk'"),
    ],
)
def test_an_error_says_which_class_it_is_of(classes: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"unequal": {"over": "awgn", "classes": classes}})
