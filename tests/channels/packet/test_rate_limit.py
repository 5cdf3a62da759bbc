"""Budgets of groups: the most relevant packets first, up to the first that does not fit."""

from __future__ import annotations

import torch

from channels.base import Chain, Packets
from channels.config.builder import build
from channels.link.coded import CodedLink
from channels.packet.erasure import IidErasure
from channels.packet.occupancy import uses_of_group
from channels.packet.rate_limit import RateLimit
from tests.channels.packet.conftest import of, streams

SNR = {"snr_db": torch.full((1,), 30.0)}


def test_a_budget_is_spent_on_the_most_relevant_packets_of_each_picture() -> None:
    sent = Packets(
        torch.ones(1, 6, 50, dtype=torch.uint8),
        torch.tensor([[50, 20, 30, 40, 40, 10]]),
        torch.tensor([[2, 0, 1, 2, 1, 1]]),
        group=torch.tensor([[0, 0, 0, 1, 1, 1]]),
    )
    # By priority: 20, 30, 50 bytes, then 40, 10, 40.
    for size, fits in ((50, [0, 1, 1, 0, 1, 1]), (99, [0, 1, 1, 1, 1, 1]), (100, [1] * 6)):
        for limit in ({"bytes": size}, {"bits": 8 * size}):
            got = RateLimit(**limit).transmit(sent, {}, streams(1))
            assert got.delivered.int().tolist() == [fits]
            assert got.delay_s[0, 1] == 0


def test_nothing_is_carried_after_the_first_packet_that_does_not_fit() -> None:
    sent = Packets.from_bytes([[bytes(10), bytes(30), bytes(5)]])
    got = RateLimit(bytes=30).transmit(sent, {}, streams(1))
    assert got.delivered.tolist() == [[True, False, False]]
    assert got.statistics["cut_packets"].tolist() == [2]
    assert got.statistics["cut_bits"].tolist() == [280]


def test_channel_uses_are_counted_as_the_channel_beneath_counts_them() -> None:
    sent = Packets.from_bytes([[bytes(96)] * 5, [bytes(96)] * 2])
    each = CodedLink().uses_per_packet(96)
    assert each is not None
    for uses, carried in ((3 * each, 3), (4 * each - 1, 3), (4 * each, 4)):
        limit = build({"rate_limit": {"channel_uses": uses, "over": "awgn"}})
        assert limit.needs == ("snr_db",)
        assert limit.uses_per_packet(96) == each
        got = limit.transmit(sent, {"snr_db": torch.full((2,), 30.0)}, streams(2))
        assert got.delivered.sum(dim=1).tolist() == [carried, 2]
        assert got.channel_uses.tolist() == [carried * each, 2 * each]
        assert got.statistics["snr_db"].tolist() == [30, 30]


def test_the_tighter_of_two_limits_holds_and_limits_nest() -> None:
    sent = Packets.from_bytes([[bytes(10)] * 9])
    both = build({"rate_limit": {"bytes": 50, "channel_uses": 121, "over": "uncoded"}})
    got = both.transmit(sent, SNR, streams(1))
    assert got.delivered.sum() == 3
    nested = build({"rate_limit": {"bytes": 50, "over": {"rate_limit": {"bits": 160}}}})
    got = nested.transmit(sent, {}, streams(1))
    assert got.statistics["cut_packets"].tolist() == [4]
    assert got.statistics["over.cut_packets"].tolist() == [3]


def test_a_limit_shares_its_budget_among_what_reaches_it() -> None:
    chain = Chain([IidErasure(0.5), RateLimit(bytes=30)])
    got = chain.transmit(of(torch.full((200, 8), 10)), {}, streams(200))
    reached = IidErasure(0.5).transmit(
        of(torch.full((200, 8), 10)), {}, streams(200).child("0:iid_erasure")
    )
    assert torch.equal(got.delivered.sum(dim=1), reached.delivered.sum(dim=1).clamp(max=3))


def test_channel_uses_are_those_of_what_is_sent_class_by_class() -> None:
    classes = [{"packets": 2, "code_rate": 0.25}, {"code_rate": 0.5}]
    over = {"unequal": {"over": {"ideal": {"packet_bytes": 8}}, "classes": classes}}
    channel, picture = build(over), [bytes(8)] * 6
    whole = uses_of_group(channel, 6, 8) or 0
    assert whole < 6 * (channel.uses_per_packet(8) or 0)
    sent, snr_db = Packets.from_bytes([picture] * 3), torch.full((3,), 60.0)
    for packets in range(1, 7):
        uses = uses_of_group(channel, packets, 8) or 0
        for spare in (0, -1):
            if packets == 1 and spare:
                continue
            limit = build({"rate_limit": {"channel_uses": uses + spare, "over": over}})
            got = limit.transmit(sent, {"snr_db": snr_db}, streams(3))
            assert got.delivered.sum(dim=1).tolist() == [packets + spare] * 3
            assert int(got.channel_uses.max()) <= uses + spare


def test_repair_packets_are_paid_for_once_a_window() -> None:
    over = {"raptorq": {"over": {"ideal": {"packet_bytes": 8}}, "repair": 3}}
    uses = uses_of_group(build(over), 5, 8)
    limit = build({"rate_limit": {"channel_uses": uses, "over": over}})
    sent = Packets.from_bytes([[bytes(8)] * 7])
    got = limit.transmit(sent, {"snr_db": torch.full((1,), 60.0)}, streams(1))
    assert got.delivered.tolist() == [[True] * 5 + [False] * 2]
    assert got.channel_uses.tolist() == [uses]
