"""Erasures lose whole packets, at the rate they are told, and nothing else."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from channels.base import Chain, Packets
from channels.erasure import GilbertElliott, IidErasure, Lossless
from channels.errors import ChannelError, ConfigError
from channels.random import Streams


def packets(links: int, slots: int) -> Packets:
    return Packets.from_bytes(
        [[bytes([n % 256, p % 256]) for p in range(slots)] for n in range(links)]
    )


def streams(links: int) -> Streams:
    return Streams.derive(3, [("erasure", n) for n in range(links)])


def test_lossless_delivers_what_is_sent_and_leaves_empty_slots_empty() -> None:
    sent = Packets.from_bytes([[b"ab", b"c"], [b"d"]])
    got = Lossless().transmit(sent, {}, streams(2))
    assert got.packets.to_bytes() == sent.to_bytes()
    assert torch.equal(got.delivered, sent.present)
    assert torch.equal(got.correct, sent.present)
    assert got.delay_s[0].tolist() == [0, 0]
    assert got.delay_s[1, 1] == torch.inf
    assert got.channel_uses.tolist() == [0, 0]
    assert got.ledger["payload"].tolist() == [24, 8]


def test_lost_packets_are_emptied_and_the_rest_is_untouched() -> None:
    sent = packets(20, 30)
    got = IidErasure(0.5).transmit(sent, {}, streams(20))
    lost = ~got.delivered
    assert 0 < int(lost.sum()) < 600
    assert not bool(got.packets.payload[lost].any())
    assert not bool(got.packets.lengths[lost].any())
    assert torch.equal(got.packets.payload[got.delivered], sent.payload[got.delivered])
    assert torch.equal(got.correct, got.delivered)


@pytest.mark.parametrize("loss", [0.05, 0.4])
def test_the_loss_rate_is_the_one_asked_for(loss: float) -> None:
    got = IidErasure(loss).transmit(packets(200, 100), {}, streams(200))
    assert binomtest(int((~got.delivered).sum()), 20_000, loss).pvalue > 1e-3


def test_each_link_has_its_own_loss_and_the_ends_are_exact() -> None:
    channel = IidErasure()
    assert channel.needs == ("loss",)
    loss = torch.tensor([0.0, 1.0, 0.3])
    got = channel.transmit(packets(3, 1000), {"loss": loss}, streams(3))
    share = got.delivered.double().mean(dim=1)
    assert share[0] == 1
    assert share[1] == 0
    assert abs(share[2] - 0.7) < 0.06


def test_what_is_lost_at_a_low_rate_is_lost_at_a_higher_one() -> None:
    sent = packets(10, 50)
    low, high = (IidErasure(p).transmit(sent, {}, streams(10)).delivered for p in (0.1, 0.3))
    assert not bool((high & ~low).any())


def test_fates_depend_on_neither_batch_nor_order_nor_number_of_packets() -> None:
    sent, keys = packets(64, 12), streams(64)
    whole = IidErasure(0.3).transmit(sent, {}, keys).delivered
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    mixed = Packets(sent.payload[order], sent.lengths[order], sent.priority[order])
    assert torch.equal(
        IidErasure(0.3).transmit(mixed, {}, keys.select(order)).delivered, whole[order]
    )
    for batch in (1, 7):
        for start in range(0, 64, batch):
            part = slice(start, start + batch)
            few = Packets(sent.payload[part], sent.lengths[part, :5], sent.priority[part, :5])
            few = Packets(few.payload[:, :5], few.lengths, few.priority)
            got = IidErasure(0.3).transmit(few, {}, keys.select(part)).delivered
            assert torch.equal(got, whole[part, :5])


def test_a_chain_of_erasures_counts_the_payload_once() -> None:
    sent = packets(50, 40)
    got = Chain([IidErasure(0.2), IidErasure(0.3)]).transmit(sent, {}, streams(50))
    assert got.ledger["payload"].tolist() == [16 * 40] * 50
    assert binomtest(int(got.delivered.sum()), 2000, 0.8 * 0.7).pvalue > 1e-3


@pytest.mark.parametrize("loss", [-0.1, 1.5, float("nan"), "0.1", True])
def test_a_wrong_loss_is_refused_with_its_range(loss: object) -> None:
    with pytest.raises(ConfigError, match=r"loss=.* from 0 to 1$"):
        IidErasure(loss)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({}, "condition loss is missing"),
        ({"loss": torch.tensor([0.1, 2.0])}, "loss=2 of link 1 must be from 0 to 1"),
        ({"loss": torch.tensor([float("nan"), 0.0])}, "loss=NaN of link 0"),
        ({"loss": torch.tensor([0.1])}, r"shape \[1\]"),
    ],
)
def test_wrong_conditions_are_refused(conditions: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ChannelError, match=message) as caught:
        IidErasure().transmit(packets(2, 3), conditions, streams(2))
    assert "\n" not in str(caught.value)


def lengths_of_bursts(lost: torch.Tensor) -> torch.Tensor:
    """Lengths of the runs of losses of [N, P] that end before the last slot."""
    edges = torch.nn.functional.pad(lost.int(), (1, 0)).diff(dim=1)
    starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
    return torch.tensor(
        [
            int(end - start)
            for link in range(lost.shape[0])
            for start, end in zip(
                starts[starts[:, 0] == link, 1], ends[ends[:, 0] == link, 1], strict=False
            )
        ]
    ).double()


@pytest.mark.parametrize(("loss", "burst"), [(0.1, 4.0), (0.4, 4.0), (0.2, 1.0), (0.5, 1.5)])
def test_bursts_have_the_loss_and_the_mean_length_asked_for(loss: float, burst: float) -> None:
    lost = ~GilbertElliott(loss, burst).transmit(packets(60, 2000), {}, streams(60)).delivered
    runs = lengths_of_bursts(lost)
    assert float(runs.mean()) == pytest.approx(burst, rel=0.05)
    # Runs are geometric: so much for the law of their lengths.
    assert float((runs == 1).double().mean()) == pytest.approx(1 / burst, abs=0.02)
    assert float(lost.double().mean()) == pytest.approx(loss, rel=0.06)


def test_a_chain_starts_from_its_stationary_law() -> None:
    lost = ~GilbertElliott(0.3, 4).transmit(packets(4000, 3), {}, streams(4000)).delivered
    for slot in range(3):
        assert binomtest(int(lost[:, slot].sum()), 4000, 0.3).pvalue > 1e-3


def test_bursts_equal_a_loop_over_the_chain() -> None:
    keys, loss = streams(30), torch.tensor([0.1, 0.3, 0.45] * 10)
    draws = keys.child("loss").uniform(50)
    for burst in (1.0, 1.4, 6.0):
        got = GilbertElliott(burst=burst).transmit(packets(30, 50), {"loss": loss}, keys)
        for link in range(30):
            p = float(loss[link].double())
            bad = bool(draws[link, 0] < p)
            for slot in range(50):
                if slot:
                    chance = 1 - 1 / burst if bad else p / ((1 - p) * burst)
                    bad = bool(draws[link, slot] < chance)
                assert bool(got.delivered[link, slot]) != bad


def test_bursts_depend_on_neither_what_follows_nor_on_the_batch() -> None:
    sent, keys = packets(16, 12), streams(16)
    whole = GilbertElliott(0.3).transmit(sent, {}, keys).delivered
    few = Packets(sent.payload[3:7, :5], sent.lengths[3:7, :5], sent.priority[3:7, :5])
    assert torch.equal(
        GilbertElliott(0.3).transmit(few, {}, keys.select(torch.arange(3, 7))).delivered,
        whole[3:7, :5],
    )


def test_a_burst_channel_without_loss_loses_nothing_and_impossible_ones_are_refused() -> None:
    assert bool(GilbertElliott(0.0).transmit(packets(9, 40), {}, streams(9)).delivered.all())
    with pytest.raises(ConfigError, match=r"loss=0.9 must be from 0 to 0.8$"):
        GilbertElliott(0.9, burst=4)
    with pytest.raises(ConfigError, match=r"burst=0.5 must be from 1 to 10000$"):
        GilbertElliott(0.1, burst=0.5)
    with pytest.raises(ChannelError, match=r"loss=0.85 of link 1 must be from 0 to 0.8$"):
        GilbertElliott().transmit(packets(2, 3), {"loss": torch.tensor([0.1, 0.85])}, streams(2))
