"""Repair packets: the binomial tail, real RaptorQ bytes, every bit counted."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from scipy.stats import binom, binomtest

from channels.base import Chain, Packets, Reception
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.link.coded import CodedLink
from channels.packet.erasure import IidErasure, Lossless
from channels.packet.occupancy import Ranks, uses_of_group
from channels.packet.raptorq import RaptorQ
from channels.random import Randomness
from tests.channels.packet.conftest import (
    COMPOSED,
    Late,
    around,
    assert_same,
    packets,
    ragged,
    snr,
    streams,
)


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
        None if sent.group is None else torch.nn.functional.pad(sent.group, (0, 4), value=1),
    )
    got = channel.transmit(wider, {}, keys)
    assert torch.equal(got.delivered[:, :10], whole.delivered)
    assert torch.equal(got.packets.payload[:, :10, :12], whole.packets.payload)
    assert torch.equal(got.delay_s[:, :10], whole.delay_s)


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
                key = (int(sent.groups[n, p]), int(ranks.rank[n, p]) // window)
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
        def transmit(
            self, packets: Packets, conditions: object, randomness: Randomness
        ) -> Reception:
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
    assert link.uses_of_group(8, 12) == uses
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
        def transmit(
            self, packets: Packets, conditions: object, randomness: Randomness
        ) -> Reception:
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
    assert uses_of_group(link, 4, 12) == (strong or 0) + 4 * (plain or 0)
    assert uses_of_group(build("iid"), 4, 12) is None
    assert bool((got.channel_uses <= uses_of_group(link, 4, 12)).all())  # type: ignore[operator]


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
        ({}, "give one of repair and overhead"),
        ({"repair": 1, "overhead": 0.5}, "give one of repair and overhead"),
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
