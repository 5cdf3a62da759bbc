"""Erasure channels: shares, bursts, and fates that depend on nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare, geom

from channels.base import Chain, Packets
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.packet.erasure import GilbertElliott, IidErasure, Lossless
from channels.random import Randomness
from tests.channels.packet.conftest import plain


def packets(links: int, slots: int) -> Packets:
    return Packets.from_bytes(
        [[bytes([n % 256, p % 256]) for p in range(slots)] for n in range(links)]
    )


def streams(links: int) -> Randomness:
    return Randomness.derive(3, [("erasure", n) for n in range(links)])


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
    lost = ~GilbertElliott(loss, burst).transmit(plain(60, 2000), {}, streams(60)).delivered
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


def first_run(states: torch.Tensor) -> torch.Tensor:
    """Length of each link's first run of True in [N, P] that begins after a False and ends."""
    begins = (~states[:, :-1] & states[:, 1:]).int().argmax(dim=1) + 1
    after = torch.arange(states.shape[1]) > begins[:, None]
    ends = (after & ~states).int().argmax(dim=1)
    assert bool((ends > begins).all())
    return ends - begins


@pytest.mark.parametrize(("p", "r"), [(0.2, 0.3), (0.7, 0.8), (0.25, 0.9)])
def test_bursts_and_gaps_are_geometric(p: float, r: float) -> None:
    lost = ~GilbertElliott(p=p, r=r).transmit(plain(2000, 100), {}, streams(2000)).delivered
    for runs, leave in ((first_run(lost), r), (first_run(~lost), p)):
        most = int(geom.ppf(0.98, leave))
        counts = [int((runs == k).sum()) for k in range(1, most + 1)]
        law = [geom.pmf(k, leave) for k in range(1, most + 1)]
        expected = 2000 * np.array([*law, geom.sf(most, leave)])
        assert chisquare([*counts, 2000 - sum(counts)], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("p", "r", "good", "bad"), [(0.05, 0.2, 0.02, 0.6), (0.9, 0.7, 0.3, 0.1), (0.3, 0.0, 0.0, 0.4)]
)
def test_elliotts_model_has_its_share_and_its_pairs_of_losses(
    p: float, r: float, good: float, bad: float
) -> None:
    channel = GilbertElliott(p=p, r=r, loss_good=good, loss_bad=bad)
    lost = ~channel.transmit(plain(8000, 7), {}, streams(8000)).delivered
    in_bad = p / (p + r)
    share = (1 - in_bad) * good + in_bad * bad
    pair = (1 - in_bad) * good * ((1 - p) * good + p * bad)
    pair += in_bad * bad * (r * good + (1 - r) * bad)
    for slot in (0, 6):
        assert binomtest(int(lost[:, slot].sum()), 8000, share).pvalue > 1e-3
    for slot in (0, 5):
        both = lost[:, slot] & lost[:, slot + 1]
        assert binomtest(int(both.sum()), 8000, pair).pvalue > 1e-3


def test_both_ways_of_giving_a_burst_channel_are_one() -> None:
    sent, keys = packets(40, 60), streams(40)
    by_loss = GilbertElliott(0.2, 5).transmit(sent, {}, keys).delivered
    by_states = GilbertElliott(p=0.2 / (0.8 * 5), r=1 / 5)
    assert by_states.needs == ()
    assert torch.equal(by_states.transmit(sent, {}, keys).delivered, by_loss)
    full = GilbertElliott(p=0.05, r=0.2, loss_good=0.0, loss_bad=1.0)
    assert torch.equal(full.transmit(sent, {}, keys).delivered, by_loss)


def test_draws_of_a_burst_channel_stay_what_they_were() -> None:
    got = GilbertElliott(0.3).transmit(packets(2, 24), {}, streams(2)).delivered
    assert ["".join(str(int(x)) for x in row) for row in got] == [
        "011111110001000000000000",
        "111111111111100011111001",
    ]


def test_elliotts_model_depends_on_neither_what_follows_nor_on_the_batch() -> None:
    channel = build({"gilbert_elliott": {"p": 0.2, "r": 0.3, "loss_good": 0.2, "loss_bad": 0.7}})
    sent, keys = packets(16, 12), streams(16)
    whole = channel.transmit(sent, {}, keys).delivered
    few = Packets(sent.payload[3:7, :5], sent.lengths[3:7, :5], sent.priority[3:7, :5])
    got = channel.transmit(few, {}, keys.select(torch.arange(3, 7))).delivered
    assert torch.equal(got, whole[3:7, :5])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": 0.1, "p": 0.1, "r": 0.5}, "loss and p exclude each other: give loss and burst"),
        ({"burst": 4, "loss_bad": 0.9}, "burst and loss_bad exclude each other"),
        ({"p": 0.1}, "p needs r: give r"),
        ({"loss_good": 0.1}, "loss_good needs p: give p"),
        ({"p": 1.5, "r": 0.5}, "p=1.5 must be from 0 to 1"),
        ({"p": 0.1, "r": float("nan")}, "r=nan must be from 0 to 1"),
        ({"p": True, "r": 0.5}, "p=True must be a number from 0 to 1"),
        ({"p": 0, "r": 0}, "are both 0"),
        ({"p": 0.1, "r": 0.5, "loss_good": False}, "loss_good=False must be a number"),
        ({"p": 0.1, "r": 0.5, "loss_bad": "1"}, "loss_bad='1' must be a number"),
    ],
)
def test_a_wrong_burst_channel_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"gilbert_elliott": parameters})
    assert "\n" not in str(caught.value)
