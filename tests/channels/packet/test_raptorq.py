"""Unequal protection and repair packets: closed forms, real RaptorQ bytes, every bit counted."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from scipy.stats import binom, binomtest

from channels.base import Chain, Channel, Packets, Reception
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.link.coded import CodedLink
from channels.packet.erasure import IidErasure, Lossless
from channels.packet.occupancy import MOST_PACKETS, Ranks, packets_within, uses_of_picture
from channels.packet.raptorq import RaptorQ
from channels.packet.unequal import Unequal
from channels.random import Streams


def streams(links: int) -> Streams:
    return Streams.derive(23, [("protection", n) for n in range(links)])


def packets(links: int, slots: int, size: int = 8) -> Packets:
    """Full links of random packets of `size` bytes."""
    words = Streams.derive(4, [("data", n) for n in range(links)]).integers(slots * size) & 0xFF
    payload = words.to(torch.uint8).reshape(links, slots, size)
    order = torch.arange(slots).expand(links, slots)
    return Packets(payload, torch.full((links, slots), size), order)


def ragged(links: int, slots: int, size: int = 12) -> Packets:
    """Two pictures a link, packets of many lengths, empty slots, priorities out of order."""
    words = Streams.derive(9, [("ragged", n) for n in range(links)]).integers(2 * slots)
    lengths = 1 + words[:, :slots] % size
    lengths[words[:, :slots] % 5 == 0] = 0
    held = torch.arange(size) < lengths[..., None]
    return Packets(
        packets(links, slots, size).payload * held,
        lengths,
        words[:, slots:] % 6,
        0.25 * torch.arange(slots, dtype=torch.float64).expand(links, slots),
        (torch.arange(slots) * 2 // slots).expand(links, slots),
    )


def snr(links: int, snr_db: float) -> dict[str, torch.Tensor]:
    return {"snr_db": torch.full((links,), snr_db)}


def assert_same(got: Reception, expected: Reception) -> None:
    slots = got.delivered.shape[1]
    assert torch.equal(got.delivered, expected.delivered[:, :slots])
    assert torch.equal(got.correct, expected.correct[:, :slots])
    assert torch.equal(got.delay_s, expected.delay_s[:, :slots])
    assert torch.equal(got.packets.payload, expected.packets.payload[:, :slots])
    assert torch.equal(got.packets.lengths, expected.packets.lengths[:, :slots])


COMPOSED: list[object] = [
    {
        "unequal": {
            "over": {"gilbert_elliott": {"loss": 0.3}},
            "classes": [{"packets": 2, "copies": 3}, {"share": 0.4, "copies": 2}, {"copies": 1}],
        }
    },
    {
        "unequal": {
            "over": {"iid_erasure": {"loss": 0.4}},
            "classes": [{"share": 0.3, "channel": "lossless"}, {"share": 0.3}, {"copies": 0}],
        }
    },
    {"raptorq": {"over": {"iid_erasure": {"loss": 0.3}}, "repair": 2, "window": 3}},
    {"raptorq": {"over": {"iid_erasure": {"loss": 0.3}}, "overhead": 0.5, "protect": 0.6}},
    {
        "raptorq": {
            "over": {"gilbert_elliott": {"loss": 0.3, "burst": 2}},
            "repair": 2,
            "rule": "real",
        }
    },
    {
        "raptorq": {
            "over": {
                "interleave": {
                    "over": {
                        "unequal": {
                            "over": {"gilbert_elliott": {"loss": 0.3}},
                            "classes": [{"packets": 1, "copies": 2}, {}],
                        }
                    },
                    "depth": 3,
                    "width": 2,
                }
            },
            "overhead": 0.4,
        }
    },
]


@pytest.mark.parametrize("spec", COMPOSED)
def test_fates_depend_on_neither_batch_nor_order_nor_empty_slots(spec: object) -> None:
    channel, sent, keys = build(spec), ragged(24, 10), streams(24)
    if "real" in str(spec):
        pytest.importorskip("raptorq")
    whole = channel.transmit(sent, {}, keys)
    assert 0 < int(whole.delivered.sum()) < int(sent.present.sum())
    assert not bool((whole.delivered & ~sent.present).any())
    assert not bool((whole.packets.payload != sent.payload)[whole.correct].any())
    order = torch.arange(23, -1, -1)
    assert_same(channel.transmit(sent.select(order), {}, keys.select(order)), whole.select(order))
    for batch in (1, 7):
        part = slice(batch, 2 * batch)
        few = channel.transmit(sent.select(part), {}, keys.select(part))
        assert_same(few, whole.select(part))
    wider = Packets(
        torch.nn.functional.pad(sent.payload, (0, 3, 0, 4)),
        torch.nn.functional.pad(sent.lengths, (0, 4)),
        torch.nn.functional.pad(sent.priority, (0, 4)),
        None
        if sent.offered_s is None
        else torch.nn.functional.pad(sent.offered_s, (0, 4), value=9.0),
        None if sent.picture is None else torch.nn.functional.pad(sent.picture, (0, 4), value=1),
    )
    got = channel.transmit(wider, {}, keys)
    assert torch.equal(got.delivered[:, :10], whole.delivered)
    assert torch.equal(got.packets.payload[:, :10, :12], whole.packets.payload)
    assert torch.equal(got.delay_s[:, :10], whole.delay_s)


def test_ranks_are_those_of_a_sort_picture_by_picture() -> None:
    sent = ragged(30, 11)
    ranks = Ranks.of(sent)
    assert sent.picture is not None
    for n in range(30):
        for picture in (0, 1):
            slots = [p for p in range(11) if int(sent.picture[n, p]) == picture]
            held = [p for p in slots if int(sent.lengths[n, p])]
            held.sort(key=lambda p: (int(sent.priority[n, p]), p))
            assert [int(ranks.rank[n, p]) for p in held] == list(range(len(held)))
            assert {int(ranks.count[n, p]) for p in slots} == {len(held)}
            assert {int(ranks.start[n, p]) for p in slots} == {slots[0]}


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
    assert link.uses_of_picture(6, 12) == total
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


class Late(Lossless):
    """Slot t arrives after 8 - t seconds."""

    def transmit(self, packets: Packets, conditions: object, randomness: Streams) -> Reception:
        got = super().transmit(packets, {}, randomness)
        wait = 8.0 - torch.arange(packets.lengths.shape[1], dtype=torch.float64)
        delay = wait.expand_as(got.delay_s).masked_fill(~got.delivered, torch.inf)
        return Reception(
            got.packets, got.delivered, got.correct, got.channel_uses, delay, got.ledger
        )


def around(outer: Unequal | RaptorQ, inner: Channel) -> Unequal | RaptorQ:
    if isinstance(outer, Unequal):
        outer.channels = (inner,)
    else:
        outer.over = inner
    return outer


def test_the_first_copy_to_arrive_counts() -> None:
    link = around(Unequal("lossless", [{"packets": 1, "copies": 3}, {}]), Late())
    got = link.transmit(packets(1, 2), {}, streams(1))
    assert got.delay_s.tolist() == [[6.0, 5.0]]


def test_a_class_may_be_left_out() -> None:
    link = Unequal("lossless", [{"packets": 2}, {"copies": 0}])
    got = link.transmit(packets(3, 5), {}, streams(3))
    assert got.delivered.tolist() == [[True, True, False, False, False]] * 3
    assert got.ledger["payload"].tolist() == [128] * 3
    assert Unequal("awgn", [{"packets": 2}, {"copies": 0}]).uses_of_picture(5, 96) == 2 * 792


def survived(links: int, k: int, repair: int, loss: float) -> tuple[int, int]:
    """Windows recovered whole, and packets delivered."""
    link = RaptorQ({"iid_erasure": {"loss": loss}}, repair=repair)
    got = link.transmit(packets(links, k), {}, streams(links)).delivered
    return int(got.all(dim=1).sum()), int(got.sum())


@pytest.mark.parametrize(("k", "repair", "loss"), [(8, 3, 0.2), (10, 1, 0.1), (5, 5, 0.5)])
def test_the_ideal_rule_follows_the_binomial_tail(k: int, repair: int, loss: float) -> None:
    whole, came = survived(3000, k, repair, loss)
    n = k + repair
    tail = float(binom.sf(k - 1, n, 1 - loss))
    assert binomtest(whole, 3000, tail).pvalue > 1e-3
    # A packet is there if it comes itself, or if k of the n - 1 others do.
    each = 1 - loss + loss * float(binom.sf(k - 1, n - 1, 1 - loss))
    # Packets of a window are not independent: bound the mean by its largest variance.
    assert abs(came / (3000 * k) - each) < 4 * math.sqrt(each * (1 - each) / 3000)


def by_loop(sent: Packets, arrived: torch.Tensor, window: int, repair: int) -> torch.Tensor:
    """Which packets the receiver has, by the definition, from which transmissions arrived."""
    out = torch.zeros_like(sent.present)
    ranks = Ranks.of(sent)
    for n in range(len(out)):
        position, places, groups = 0, {}, {}
        members: dict[tuple[int, int], list[int]] = {}
        for p in range(out.shape[1]):
            if bool(sent.present[n, p]):
                key = (int(sent.pictures[n, p]), int(ranks.rank[n, p]) // window)
                members.setdefault(key, []).append(p)
        for p in range(out.shape[1]):
            places[p] = position
            position += 1
            for key, slots in members.items():
                if slots[-1] == p:
                    groups[key] = [*range(position, position + repair)]
                    position += repair
        for key, slots in members.items():
            at = [places[p] for p in slots] + groups[key]
            enough = sum(bool(arrived[n, t]) for t in at) >= len(slots)
            for p in slots:
                out[n, p] = enough or bool(arrived[n, places[p]])
    return out


@pytest.mark.parametrize(("window", "repair"), [(2, 1), (3, 2), (20, 4)])
def test_windows_are_those_of_a_loop(window: int, repair: int) -> None:
    sent, keys = ragged(40, 12), streams(40)
    loss = IidErasure(0.35)
    arrived = loss.transmit(packets(40, 60), {}, keys).delivered
    got = RaptorQ({"iid_erasure": {"loss": 0.35}}, repair=repair, window=window)
    assert torch.equal(
        got.transmit(sent, {}, keys).delivered, by_loop(sent, arrived, window, repair)
    )


def test_real_bytes_recover_where_the_ideal_rule_does() -> None:
    pytest.importorskip("raptorq")
    sent, keys = ragged(150, 24, 40), streams(150)
    ideal, real = (
        RaptorQ({"iid_erasure": {"loss": 0.25}}, overhead=0.3, rule=rule).transmit(sent, {}, keys)
        for rule in ("ideal", "real")
    )
    assert torch.equal(real.correct, real.delivered)
    assert torch.equal(real.packets.payload, sent.keep(real.delivered).payload)
    assert not bool((real.delivered & ~ideal.delivered).any())
    helped = ideal.statistics["recovered"] > 0
    same = (real.delivered == ideal.delivered).all(dim=1)
    assert int(helped.sum()) > 50
    # RFC 6330, section 1: k packets suffice in all but about one case in a hundred.
    failed = binomtest(int((~same).sum()), int(helped.sum()), 0.01, alternative="greater")
    assert failed.pvalue > 1e-3


def test_real_bytes_are_those_of_the_package() -> None:
    library = pytest.importorskip("raptorq")
    seen: list[Packets] = []

    class Seen(Lossless):
        def transmit(self, packets: Packets, conditions: object, randomness: Streams) -> Reception:
            seen.append(packets)
            return super().transmit(packets, {}, randomness)

    sent = packets(1, 5, 16)
    link = around(RaptorQ("lossless", repair=3, rule="real"), Seen())
    got = link.transmit(sent, {}, streams(1))
    data = sent.payload[0].numpy().tobytes()
    expected = library.Encoder.with_defaults(data, 16).get_encoded_packets(3)
    assert seen[0].to_bytes() == [expected]
    assert got.ledger["payload"].tolist() == [640]
    assert got.ledger["fec"].tolist() == [8 * (3 * 20 + 5 * 4)]


@pytest.mark.parametrize("rule", ["ideal", "real"])
def test_repair_packets_are_counted_and_cost_channel_uses(rule: str) -> None:
    if rule == "real":
        pytest.importorskip("raptorq")
    extra = 4 if rule == "real" else 0
    over = {"coded": {"packet_bytes": 16}}
    link = RaptorQ(over, overhead=0.5, window=4, protect=0.75, rule=rule)
    inner = CodedLink(packet_bytes=16)
    sent = packets(3, 8, 12)  # 6 of 8 covered: windows of 4 and 2, with 2 and 1 repair packets
    got = link.transmit(sent, snr(3, 30.0), streams(3))
    uses = 11 * (inner.uses_per_packet(16) or 0)
    assert got.channel_uses.tolist() == [uses] * 3
    assert link.uses_of_picture(8, 12) == uses
    assert link.uses_per_packet(12) == 2 * uses // 11
    bits = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert bits.tolist() == [2 * uses] * 3
    assert got.ledger["payload"].tolist() == [8 * 12 * 8] * 3
    parity = 11 * inner.layout.blocks * (inner.layout.n - inner.layout.k)
    assert got.ledger["fec"].tolist() == [parity + 8 * (3 * 12 + extra * 9)] * 3
    assert torch.equal(got.packets.payload, sent.payload)


@pytest.mark.parametrize("rule", ["ideal", "real"])
def test_what_is_recovered_comes_with_the_packet_that_completes_its_window(rule: str) -> None:
    if rule == "real":
        pytest.importorskip("raptorq")

    class FirstLost(Late):
        def transmit(self, packets: Packets, conditions: object, randomness: Streams) -> Reception:
            got = super().transmit(packets, {}, randomness)
            came = got.delivered & (torch.arange(got.delivered.shape[1]) > 0)
            return Reception(
                got.packets.keep(came),
                came,
                came,
                got.channel_uses,
                got.delay_s.masked_fill(~came, torch.inf),
                got.ledger,
            )

    link = around(RaptorQ("lossless", repair=2, rule=rule), FirstLost())
    sent = packets(1, 3)
    got = link.transmit(sent, {}, streams(1))
    # Slots 1 to 4 arrive after 7, 6, 5 and 4 s: the last three solve the window after 6 s.
    assert got.delay_s.tolist() == [[6.0, 6.0, 6.0]]
    late = Packets(
        sent.payload, sent.lengths, sent.priority, torch.tensor([[0.0, 1.0, 2.0]]).double()
    )
    # Repair packets are made once the last is offered, at 2 s: arrivals at 8, 8, 7 and 6 s.
    assert link.transmit(late, {}, streams(1)).delay_s.tolist() == [[8.0, 7.0, 6.0]]
    assert got.statistics["recovered"].tolist() == [1]


def test_repair_across_an_unequal_link_and_in_a_chain() -> None:
    link = build(
        [
            {"iid_erasure": {"loss": 0.1}},
            {
                "raptorq": {
                    "over": {
                        "unequal": {
                            "over": {"coded": {"packet_bytes": 12}},
                            "classes": [{"packets": 1, "code_rate": 0.25}, {}],
                        }
                    },
                    "repair": 1,
                }
            },
        ]
    )
    assert isinstance(link, Chain)
    got = link.transmit(packets(20, 4, 12), snr(20, 20.0), streams(20))
    strong, plain = (
        CodedLink(packet_bytes=12, code_rate=r).uses_per_packet(12) for r in (0.25, 0.5)
    )
    assert uses_of_picture(link, 4, 12) == (strong or 0) + 4 * (plain or 0)
    assert uses_of_picture(build("iid"), 4, 12) is None
    assert bool((got.channel_uses <= uses_of_picture(link, 4, 12)).all())  # type: ignore[operator]


@pytest.mark.parametrize(
    "spec",
    [
        {"unequal": {"over": "awgn", "classes": [{"packets": 2, "code_rate": 0.25}, {}]}},
        {"raptorq": {"over": "awgn", "overhead": 0.3, "window": 7}},
        "awgn",
    ],
)
def test_a_budget_carries_the_most_packets_that_fit(spec: object) -> None:
    channel = build(spec)
    for budget in (100, 3000, 20_000):
        most = packets_within(channel, budget, 96)
        assert most is not None
        assert (uses_of_picture(channel, most, 96) or 0) <= budget
        assert (uses_of_picture(channel, most + 1, 96) or 0) > budget
    assert packets_within(build("iid"), 1000, 96) is None
    free = Unequal("awgn", [{"packets": 1}, {"copies": 0}])
    assert packets_within(free, 800, 96) == MOST_PACKETS


@pytest.mark.parametrize("slots", [0, 3])
@pytest.mark.parametrize("links", [0, 2])
def test_nothing_to_send_is_no_trouble(links: int, slots: int) -> None:
    empty = Packets(
        torch.zeros(links, slots, 4, dtype=torch.uint8),
        torch.zeros(links, slots, dtype=torch.int64),
        torch.zeros(links, slots, dtype=torch.int64),
    )
    for spec in COMPOSED[:4]:
        got = build(spec).transmit(empty, {}, streams(links))
        assert got.delivered.shape == (links, slots)
        assert not bool(got.delivered.any())


def test_the_package_is_asked_for_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    RaptorQ("lossless", repair=1)
    with pytest.raises(ConfigError, match=r"needs the package raptorq: pip install") as caught:
        RaptorQ("lossless", repair=1, rule="real")
    assert "\n" not in str(caught.value)


def test_a_real_window_too_large_is_refused() -> None:
    pytest.importorskip("raptorq")
    link = RaptorQ("lossless", repair=1, rule="real")
    with pytest.raises(ChannelError, match=r"window of 200 packets of 40000 bytes .* lower window"):
        link.transmit(
            Packets(
                torch.zeros(1, 200, 40_000, dtype=torch.uint8),
                torch.full((1, 200), 40_000),
                torch.zeros(1, 200, dtype=torch.int64),
            ),
            {},
            streams(1),
        )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"classes": []}, "must be a list of mappings"),
        ({"classes": "all"}, "must be a list of mappings"),
        ({"classes": [3]}, "a class is a mapping"),
        ({"classes": [{"packets": 2}]}, "the last class takes the rest"),
        ({"classes": [{}, {}]}, "every class but the last has packets or share"),
        ({"classes": [{"packets": 1, "share": 0.1}, {}]}, "packets or share, one of both"),
        ({"classes": [{"packets": 0}, {}]}, "packets=0 must be an integer from 1 to 1000000"),
        ({"classes": [{"packets": True}, {}]}, "packets=True must be an integer"),
        ({"classes": [{"share": float("nan")}, {}]}, "share=nan must be from 0 to 1"),
        ({"classes": [{"share": "half"}, {}]}, "share='half' must be a number from 0 to 1"),
        ({"classes": [{"share": 0.7}, {"share": 0.7}, {}]}, "add up to at most 1"),
        ({"classes": [{"copies": 65}]}, "copies=65 must be an integer from 0 to 64"),
        ({"classes": [{"copies": 1.5}]}, "copies=1.5 must be an integer"),
        ({"classes": [{"copies": 0}]}, "at least one must send"),
        ({"classes": [{"packets": 1}, {"copies": 0, "code_rate": 0.5}]}, "sends nothing"),
        ({"classes": [{"code_rat": 0.5}]}, "did you mean 'code_rate'"),
        ({"classes": [{"code_rate": 2}]}, "code_rate=2 must be from"),
        ({"over": ["awgn"], "classes": [{"code_rate": 0.5}]}, "not a list"),
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


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "give repair or overhead"),
        ({"repair": 1, "overhead": 0.5}, "give repair or overhead"),
        ({"repair": -1}, "repair=-1 must be an integer from 0 to 10000"),
        ({"repair": True}, "repair=True must be an integer"),
        ({"overhead": float("inf")}, "overhead=inf must be from 0 to 100"),
        ({"overhead": float("nan")}, "overhead=nan must be from 0 to 100"),
        ({"repair": 1, "window": 0}, "window=0 must be an integer from 1"),
        ({"repair": 1, "protect": 1.1}, "protect=1.1 must be from 0 to 1"),
        ({"repair": 1, "protect": "all"}, "protect='all' must be a number from 0 to 1"),
        ({"repair": 1, "rule": "reel"}, "did you mean 'real'"),
    ],
)
def test_wrong_repair_is_refused_in_one_line(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"raptorq": {"over": "awgn", **parameters}})
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
