"""An interleaver spreads neighbours, breaks bursts, and lets packets wait for their block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, fisher_exact

from channels.base import Packets, Reception
from channels.config.builder import build
from channels.errors import ConfigError
from channels.link.coded import CodedLink
from channels.packet.erasure import Lossless
from channels.packet.interleaver import Interleave
from channels.packet.occupancy import uses_of_group
from channels.random import Randomness


def streams(links: int) -> Randomness:
    return Randomness.derive(31, [("interleave", n) for n in range(links)])


def packets(links: int, slots: int) -> Packets:
    payload = torch.arange(links * slots * 2).reshape(links, slots, 2).to(torch.uint8)
    order = torch.arange(slots).expand(links, slots)
    return Packets(payload, torch.full((links, slots), 2), order)


class Watched(Lossless):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.seen: list[Packets] = []

    def transmit(self, packets: Packets, conditions: object, randomness: Randomness) -> Reception:
        self.seen.append(packets)
        return super().transmit(packets, {}, randomness)


def watched(depth: int, width: int, span: str = "picture") -> tuple[Interleave, Watched]:
    link, inner = Interleave("lossless", depth, width, span), Watched()
    link.over = inner
    return link, inner


@settings(max_examples=40, deadline=None)
@given(
    depth=st.integers(1, 9),
    width=st.integers(1, 9),
    slots=st.integers(1, 60),
    span=st.sampled_from(["picture", "sequence"]),
    seed=st.integers(0, 1000),
)
def test_what_goes_in_comes_out(depth: int, width: int, slots: int, span: str, seed: int) -> None:
    words = Randomness.derive(seed, [("case",)]).integers(slots)[0]
    sent = packets(1, slots)
    sent = replace(sent, group=(words % 7 == 0).cumsum(0)[None]).keep((words % 5 > 0)[None])
    link, inner = watched(depth, width, span)
    got = link.transmit(sent, {}, streams(1))
    assert torch.equal(got.packets.payload, sent.payload)
    assert torch.equal(got.packets.lengths, sent.lengths)
    assert torch.equal(got.delivered, sent.present)
    assert got.packets.group is sent.group
    picture = inner.seen[0].groups
    assert bool((picture.diff(dim=1) >= 0).all())
    came = [bytes(p) for p in inner.seen[0].to_bytes()[0] if p]
    assert sorted(came) == sorted(p for p in sent.to_bytes()[0] if p)


def test_rows_are_written_and_columns_read() -> None:
    link, inner = watched(depth=3, width=4)
    link.transmit(packets(1, 12), {}, streams(1))
    first = inner.seen[0].payload[0, :, 0] // 2
    assert first.tolist() == torch.arange(12).reshape(3, 4).T.flatten().tolist()
    assert link.order(12).tolist() == first.tolist()


def test_blocks_start_anew_with_each_picture_or_run_across() -> None:
    picture = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    sent = replace(packets(1, 8), group=picture)
    link, inner = watched(2, 2)
    link.transmit(sent, {}, streams(1))
    assert (inner.seen[0].payload[0, :, 0] // 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    link, inner = watched(2, 4, "sequence")
    link.transmit(sent, {}, streams(1))
    assert (inner.seen[0].payload[0, :, 0] // 2).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    # A place keeps the picture in whose time it stands.
    assert inner.seen[0].groups.tolist() == picture.tolist()


def test_a_gap_is_left_where_a_block_is_not_full() -> None:
    sent = replace(packets(1, 5), group=torch.tensor([[0, 0, 0, 1, 1]]))
    link, inner = watched(2, 2)
    link.transmit(sent, {}, streams(1))
    assert inner.seen[0].present.tolist() == [[True, True, True, False, True, False, True]]
    assert (inner.seen[0].payload[0, :, 0] // 2).tolist() == [0, 2, 1, 0, 3, 0, 4]
    assert inner.seen[0].groups.tolist() == [[0, 0, 0, 0, 1, 1, 1]]


def losses_of_neighbours(depth: int, width: int, loss: float, burst: float) -> list[list[int]]:
    """How often of two neighbours in a row none, one or both are lost: a 2 x 2 table."""
    over = {"gilbert_elliott": {"loss": loss, "burst": burst}}
    sent = packets(150, depth * width)
    lost = (
        ~build({"interleave": {"over": over, "depth": depth, "width": width}})
        .transmit(sent, {}, streams(150))
        .delivered
    )
    rows = lost.reshape(150, depth, width)
    one, other = rows[..., 0].flatten(), rows[..., 1].flatten()  # each packet in one pair only
    return [[int(((one == a) & (other == b)).sum()) for b in (0, 1)] for a in (0, 1)]


def test_bursts_hit_neighbours_alike_until_they_are_interleaved() -> None:
    assert fisher_exact(losses_of_neighbours(1, 32, 0.2, 8.0)).pvalue < 1e-6
    assert fisher_exact(losses_of_neighbours(64, 2, 0.2, 4.0)).pvalue > 1e-3


@pytest.mark.parametrize("depth", [2, 6])
def test_neighbours_are_as_dependent_as_packets_so_far_apart(depth: int) -> None:
    loss, burst = 0.25, 8.0
    sent = packets(8000, 2 * depth)
    over = {"gilbert_elliott": {"loss": loss, "burst": burst}}
    lost = ~Interleave(over, depth, 2).transmit(sent, {}, streams(8000)).delivered
    both = int((lost[:, 0] & lost[:, 1]).sum())
    # Of a two-state chain: the dependence falls by 1 - p - r with each step.
    decay = 1 - loss / ((1 - loss) * burst) - 1 / burst
    law = loss * (loss + (1 - loss) * decay**depth)
    assert binomtest(both, 8000, law).pvalue > 1e-3


def test_the_share_lost_is_what_it_was() -> None:
    over = {"gilbert_elliott": {"loss": 0.2, "burst": 4}}
    lost = ~Interleave(over, 50, 1).transmit(packets(4000, 50), {}, streams(4000)).delivered
    assert binomtest(int(lost[:, 17].sum()), 4000, 0.2).pvalue > 1e-3


def test_a_packet_waits_for_the_last_of_its_block() -> None:
    times = torch.tensor([[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0]], dtype=torch.float64)
    sent = replace(packets(1, 9), offered_s=times, group=times.to(torch.int64))
    link, inner = watched(2, 4, "sequence")
    got = link.transmit(sent, {}, streams(1))
    # The block is complete after 3 s and takes as long to send as it took to collect.
    assert inner.seen[0].times_s.tolist() == [[3.0, 3.0, 4.0, 4.0, 5.0, 5.0, 6.0, 6.0, 4.0]]
    arrives = (times + got.delay_s)[0]
    assert arrives.tolist() == [3.0, 4.0, 5.0, 6.0, 3.0, 4.0, 5.0, 6.0, 4.0]
    link, inner = watched(2, 1)
    got = link.transmit(sent, {}, streams(1))
    assert got.delay_s.tolist() == [[0.0] * 9]
    assert link.transmit(packets(1, 9), {}, streams(1)).delay_s.tolist() == [[0.0] * 9]


@settings(max_examples=30, deadline=None)
@given(
    depth=st.integers(1, 5),
    width=st.integers(1, 5),
    slots=st.integers(1, 40),
    span=st.sampled_from(["picture", "sequence"]),
    seed=st.integers(0, 1000),
)
def test_nothing_leaves_before_its_block_is_offered(
    depth: int, width: int, slots: int, span: str, seed: int
) -> None:
    words = Randomness.derive(seed, [("times",)]).integers(2 * slots)[0]
    times = (words[:slots] % 4).cumsum(0).double()[None]
    sent = replace(packets(1, slots), offered_s=times, group=(times / 10).to(torch.int64))
    sent = sent.keep((words[slots:] % 4 > 0)[None])
    link, _ = watched(depth, width, span)
    arrives = times + link.transmit(sent, {}, streams(1)).delay_s
    start = 0
    for p in range(slots):
        new = span == "picture" and p and int(sent.groups[0, p] - sent.groups[0, p - 1])
        if new or p - start == depth * width:
            start = p
        block = [
            q
            for q in range(start, min(start + depth * width, slots))
            if bool(sent.present[0, q])
            and (span == "sequence" or int(sent.groups[0, q]) == int(sent.groups[0, start]))
        ]
        if bool(sent.present[0, p]):
            assert float(arrives[0, p]) >= max(float(times[0, q]) for q in block)
            assert float(arrives[0, p]) <= 2 * max(float(times[0, q]) for q in block) - min(
                float(times[0, q]) for q in block
            )


def test_packets_of_one_offer_do_not_wait() -> None:
    sent = replace(packets(1, 6), offered_s=torch.full((1, 6), 7.0, dtype=torch.float64))
    link, _ = watched(3, 2)
    assert link.transmit(sent, {}, streams(1)).delay_s.tolist() == [[0.0] * 6]


@pytest.mark.parametrize("span", ["picture", "sequence"])
def test_fates_depend_on_neither_batch_nor_empty_slots_behind(span: str) -> None:
    words = Randomness.derive(2, [("held", n) for n in range(20)]).integers(24)
    sent = replace(
        packets(20, 24),
        group=(torch.arange(24) // 9).expand(20, 24),
        offered_s=(torch.arange(24) // 9).double().expand(20, 24),
    ).keep(words % 4 > 0)
    over = {"gilbert_elliott": {"loss": 0.3}}
    link, keys = Interleave(over, 3, 3, span), streams(20)
    whole = link.transmit(sent, {}, keys)
    for part in (slice(3, 4), slice(7, 14)):
        got = link.transmit(sent.select(part), {}, keys.select(part))
        assert torch.equal(got.delivered, whole.delivered[part])
        assert torch.equal(got.delay_s, whole.delay_s[part])
    wide = Packets(
        torch.nn.functional.pad(sent.payload, (0, 0, 0, 5)),
        torch.nn.functional.pad(sent.lengths, (0, 5)),
        torch.nn.functional.pad(sent.priority, (0, 5)),
        torch.nn.functional.pad(sent.times_s, (0, 5), value=2.0),
        torch.nn.functional.pad(sent.groups, (0, 5), value=2),
    )
    got = link.transmit(wide, {}, keys)
    assert torch.equal(got.delivered[:, :24], whole.delivered)
    assert torch.equal(got.delay_s[:, :24], whole.delay_s)
    # A whole block in front meets the same, whatever follows.
    front = Packets(
        sent.payload[:, :9],
        sent.lengths[:, :9],
        sent.priority[:, :9],
        sent.times_s[:, :9],
        sent.groups[:, :9],
    )
    assert torch.equal(link.transmit(front, {}, keys).delivered, whole.delivered[:, :9])


def test_classes_over_an_interleaver_keep_to_their_own_places() -> None:
    over = {"interleave": {"over": {"gilbert_elliott": {"loss": 0.3}}, "depth": 4, "width": 3}}
    sent, keys = packets(40, 12), streams(40)
    plain = build(over).transmit(sent, {}, keys)
    classes = [{"packets": 5, "width": 3}, {}]
    assert torch.equal(
        build({"unequal": {"over": over, "classes": classes}}).transmit(sent, {}, keys).delivered,
        plain.delivered,
    )


def test_uses_and_bits_are_those_of_the_inner_channel() -> None:
    link = Interleave({"coded": {"packet_bytes": 4}}, 2, 3)
    inner = CodedLink(packet_bytes=4)
    got = link.transmit(packets(2, 6), {"snr_db": torch.full((2,), 20.0)}, streams(2))
    assert link.needs == ("snr_db",)
    assert link.uses_per_packet(2) == inner.uses_per_packet(2)
    assert uses_of_group(link, 6, 2) == 6 * (inner.uses_per_packet(2) or 0)
    assert got.channel_uses.tolist() == [uses_of_group(link, 6, 2)] * 2
    assert bool(got.correct.all())
    empty = packets(2, 6).keep(torch.zeros(2, 6, dtype=torch.bool))
    assert not bool(Interleave("lossless", 2, 3).transmit(empty, {}, streams(2)).delivered.any())
    assert Interleave("lossless", 2, 3).transmit(packets(0, 0), {}, streams(0)).delivered.shape == (
        0,
        0,
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 0, "width": 1}, "depth=0 must be an integer from 1 to 100000"),
        ({"depth": 2, "width": True}, "width=True must be an integer from 1 to 100000"),
        ({"depth": 2.0, "width": 2}, "depth=2.0 must be an integer"),
        ({"depth": 2}, "option 'width' is missing"),
        ({"depth": 2, "width": 2, "span": "pictures"}, "did you mean 'picture'"),
        ({"depth": 2, "width": 2, "over": "lossles"}, "did you mean 'lossless'"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"interleave": {"over": "lossless", **parameters}})
    assert "\n" not in str(caught.value)
