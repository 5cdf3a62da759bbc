"""Delays follow their laws, reorder packets as the laws say, and end at the deadline."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest, expon, kstest, pareto

from channels.base import Chain, Packets
from channels.config.builder import build
from channels.errors import ConfigError
from channels.packet.delay import Delay
from channels.packet.queueing import Bottleneck
from channels.random import Randomness


def packets(links: int, slots: int, interval_s: float = 0.0) -> Packets:
    """One byte each, one every interval_s."""
    ranks = torch.arange(slots).expand(links, slots)
    payload = torch.full((links, slots, 1), 7, dtype=torch.uint8)
    return Packets(payload, torch.ones_like(ranks), ranks, ranks.double() * interval_s)


def streams(links: int) -> Randomness:
    return Randomness.derive(5, [("delay", n) for n in range(links)])


def test_a_fixed_delay_is_the_same_for_all_and_reorders_none() -> None:
    got = Delay(0.25, propagation_s=0.5).transmit(packets(3, 6, 0.01), {}, streams(3))
    assert bool((got.delay_s == 0.75).all())
    assert bool(got.delivered.all())
    assert got.statistics["reordered"].tolist() == [0, 0, 0]
    assert got.channel_uses.tolist() == [0, 0, 0]
    assert got.ledger["payload"].tolist() == [48] * 3


@pytest.mark.parametrize(
    ("parameters", "law"),
    [
        ({"law": "exponential", "mean_s": 0.2}, expon(scale=0.2)),
        ({"law": "exponential", "mean_s": 2, "propagation_s": 1}, expon(loc=1, scale=2)),
        ({"law": "pareto", "mean_s": 0.2}, pareto(2.5, scale=0.2 * 1.5 / 2.5)),
        ({"law": "pareto", "mean_s": 0.3, "shape": 1.2}, pareto(1.2, scale=0.3 * 0.2 / 1.2)),
    ],
)
def test_random_delays_have_their_law(parameters: dict[str, object], law: object) -> None:
    got = build({"delay": parameters}).transmit(packets(100, 100), {}, streams(100))
    assert bool(got.delivered.all())
    assert kstest(got.delay_s.flatten().numpy(), law.cdf).pvalue > 1e-3  # type: ignore[attr-defined]


def test_delays_of_successive_packets_are_independent() -> None:
    got = Delay(1.0, "exponential").transmit(packets(5000, 2), {}, streams(5000))
    # The smaller part of two exponentials over their sum is uniform.
    share = got.delay_s[:, 0] / got.delay_s.sum(dim=1)
    assert kstest(share.numpy(), "uniform").pvalue > 1e-3


def test_a_deadline_loses_the_tail_of_the_law() -> None:
    got = Delay(0.1, "exponential", deadline_s=0.25).transmit(packets(200, 50), {}, streams(200))
    late = int((~got.delivered).sum())
    assert binomtest(late, 10_000, math.exp(-2.5)).pvalue > 1e-3
    assert int(got.statistics["late_packets"].sum()) == late
    assert bool((got.delay_s[got.delivered] <= 0.25).all())
    assert bool(got.delay_s[~got.delivered].isinf().all())
    assert not bool(got.packets.lengths[~got.delivered].any())
    exactly = Delay(0.25, deadline_s=0.25).transmit(packets(1, 3), {}, streams(1))
    assert bool(exactly.delivered.all())


@pytest.mark.parametrize("interval_s", [0.0, 0.5, 2.0])
def test_two_packets_change_places_as_often_as_exponentials_do(interval_s: float) -> None:
    sent = packets(6000, 2, interval_s)
    got = Delay(1.0, "exponential").transmit(sent, {}, streams(6000))
    share = got.statistics["reordered"]
    assert set(share.tolist()) <= {0.0, 0.5}
    assert torch.equal(share, got.statistics["overtaken"])
    changed = int((share > 0).sum())
    assert binomtest(changed, 6000, math.exp(-interval_s) / 2).pvalue > 1e-3


def test_reordering_counts_who_overtakes_and_who_is_overtaken() -> None:
    sent = packets(400, 12, 0.3)
    sent = sent.keep(torch.rand(400, 12, generator=torch.Generator().manual_seed(2)) < 0.8)
    got = Delay(1.0, "pareto", shape=1.5, deadline_s=3).transmit(sent, {}, streams(400))
    arrival = sent.times_s + got.delay_s
    for link in range(400):
        came = [p for p in range(12) if got.delivered[link, p]]
        ahead = [p for p in came if any(arrival[link, p] < arrival[link, q] for q in came if q < p)]
        late = [p for p in came if any(arrival[link, p] > arrival[link, q] for q in came if q > p)]
        count = max(1, len(came))
        assert float(got.statistics["reordered"][link]) == len(ahead) / count
        assert float(got.statistics["overtaken"][link]) == len(late) / count


def test_delays_depend_on_neither_what_follows_nor_on_the_batch() -> None:
    channel = Delay(0.1, "pareto", deadline_s=0.4)
    sent, keys = packets(16, 12), streams(16)
    whole = channel.transmit(sent, {}, keys)
    few = Packets(sent.payload[3:7, :5], sent.lengths[3:7, :5], sent.priority[3:7, :5])
    got = channel.transmit(few, {}, keys.select(torch.arange(3, 7)))
    assert torch.equal(got.delay_s, whole.delay_s[3:7, :5])
    assert torch.equal(got.delivered, whole.delivered[3:7, :5])


def test_a_channel_after_a_delay_meets_packets_as_they_arrive() -> None:
    sent, keys = packets(50, 6), streams(50)
    chain = Chain([Delay(1.0, "exponential"), Bottleneck(8, queue_packets=0)])
    got = chain.transmit(sent, {}, keys)
    arrival = Delay(1.0, "exponential").transmit(sent, {}, keys.child("0:delay")).delay_s
    for link in range(50):
        free = 0.0
        for slot in arrival[link].argsort().tolist():
            begin = float(arrival[link, slot])
            assert bool(got.delivered[link, slot]) == (begin >= free)
            if begin >= free:
                free = begin + 1
                assert float(got.delay_s[link, slot]) == pytest.approx(free)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "option 'mean_s' is missing"),
        ({"mean_s": -1}, "mean_s=-1 must be from 0 to 10000"),
        ({"mean_s": float("nan")}, "mean_s=nan must be from 0 to 10000"),
        ({"mean_s": True}, "mean_s=True must be a number"),
        ({"mean_s": "0.1"}, "mean_s='0.1' must be a number"),
        ({"mean_s": 1, "law": "paretto"}, "unknown law='paretto': did you mean 'pareto'"),
        ({"mean_s": 1, "law": "pareto", "shape": 1}, "shape=1 must be from 1.01 to 1000"),
        ({"mean_s": 1, "shape": 3}, "shape=3 needs law: pareto"),
        ({"mean_s": 1, "deadline_s": float("inf")}, "deadline_s=inf must be from 0 to 10000"),
        ({"mean_s": 1, "propagation_s": None}, "propagation_s=None must be a number"),
    ],
)
def test_a_wrong_delay_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"delay": parameters})
    assert "\n" not in str(caught.value)
