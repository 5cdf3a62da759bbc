"""Ranks of packets, and what groups of packets cost."""

from __future__ import annotations

import pytest
import torch

from channels.base import Packets
from channels.config.builder import build
from channels.packet.occupancy import MOST_PACKETS, Ranks, packets_within, uses_of_group
from channels.packet.unequal import Unequal
from tests.channels.packet.conftest import COMPOSED, ragged, streams


def test_ranks_are_those_of_a_sort_picture_by_picture() -> None:
    sent = ragged(30, 11)
    ranks = Ranks.of(sent)
    assert sent.group is not None
    for n in range(30):
        for picture in (0, 1):
            slots = [p for p in range(11) if int(sent.group[n, p]) == picture]
            held = [p for p in slots if int(sent.lengths[n, p])]
            held.sort(key=lambda p: (int(sent.priority[n, p]), p))
            assert [int(ranks.rank[n, p]) for p in held] == list(range(len(held)))
            assert {int(ranks.count[n, p]) for p in slots} == {len(held)}
            assert {int(ranks.start[n, p]) for p in slots} == {slots[0]}


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
        assert (uses_of_group(channel, most, 96) or 0) <= budget
        assert (uses_of_group(channel, most + 1, 96) or 0) > budget
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
