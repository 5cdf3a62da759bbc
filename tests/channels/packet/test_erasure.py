"""Erasures lose whole packets, at the rate they are told, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare, geom

from channels.base import Chain, Packets
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.packet.erasure import GilbertElliott, IidErasure, Lossless
from channels.packet.trace import Trace
from channels.random import Streams


def packets(links: int, slots: int) -> Packets:
    return Packets.from_bytes(
        [[bytes([n % 256, p % 256]) for p in range(slots)] for n in range(links)]
    )


def plain(links: int, slots: int) -> Packets:
    """The same with one byte each, quickly made."""
    ranks = torch.arange(slots).expand(links, slots)
    return Packets(torch.ones(links, slots, 1, dtype=torch.uint8), torch.ones_like(ranks), ranks)


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
        ({"p": 0.1}, "r is missing beside p"),
        ({"loss_good": 0.1}, "p is missing beside loss_good"),
        ({"p": 1.5, "r": 0.5}, "p=1.5 must be from 0 to 1"),
        ({"p": 0.1, "r": float("nan")}, "r=nan must be from 0 to 1"),
        ({"p": True, "r": 0.5}, "p=True must be a number from 0 to 1"),
        ({"p": 0, "r": 0}, "must not both be 0"),
        ({"p": 0.1, "r": 0.5, "loss_good": False}, "loss_good=False must be a number"),
        ({"p": 0.1, "r": 0.5, "loss_bad": "1"}, "loss_bad='1' must be a number"),
    ],
)
def test_a_wrong_burst_channel_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        build({"gilbert_elliott": parameters})
    assert "\n" not in str(caught.value)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "0\n1\n1\n0\n0\n"),
        ("a.csv", "lost\n0\n1\n\n1\n0\n0"),
        ("a.txt", "0, 1,1\r\n0,0\r\n"),
        ("a.csv", "\ufefflost\n0\n1\n1\n0\n0\n"),
        ("a.jsonl", '0\n1\n{"lost": 1}\n{"lost": 0}\n0\n'),
    ],
)
def test_a_trace_of_losses_is_played_as_recorded(tmp_path: Path, name: str, text: str) -> None:
    channel = build({"trace": {"file": str(write(tmp_path, name, text)), "start": 1}})
    got = channel.transmit(packets(2, 12), {}, streams(2))
    assert got.delivered.int().tolist() == [[0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 0]] * 2
    assert got.delay_s[0, 2] == 0


def test_a_clipped_trace_is_played_once_and_then_nothing_comes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "0\n1\n0\n0\n")
    got = Trace(path, end="clipped", start=1).transmit(packets(1, 6), {}, streams(1))
    assert got.delivered.int().tolist() == [[0, 1, 1, 0, 0, 0]]
    assert got.statistics["beyond_trace"].tolist() == [3]


def test_a_random_start_is_uniform_and_each_links_own(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "1,0,0,0,0,0,0")
    lost = ~Trace(path).transmit(plain(3000, 7), {}, streams(3000)).delivered
    assert bool((lost.sum(dim=1) == 1).all())
    counts = torch.bincount(lost.int().argmax(dim=1), minlength=7)
    assert chisquare(counts.numpy()).pvalue > 1e-3
    alone = Trace(path).transmit(packets(1, 4), {}, streams(3000).select([17])).delivered
    assert torch.equal(~alone[0], lost[17, :4])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "offered_s,arrival_s\n10,10.5\n11,\n12,12.25\n13,inf\n14,14\n"),
        ("a.csv", "arrival_s,offered_s\n10.5,10\n,11\n12.25,12\nnull,13\n14,14\n"),
        ("a.csv", "10,10.5\n\n12,12.25\n13\n14,14\n"),
        (
            "a.ndjson",
            '{"offered_s": 10, "arrival_s": 10.5}\n{"offered_s": 11}\nnull\n'.replace(
                "null", '{"arrival_s": 12.25, "offered_s": 12}'
            )
            + '{"offered_s": 13, "arrival_s": Infinity}\n{"offered_s": 14, "arrival_s": 14}\n',
        ),
    ],
)
def test_recorded_delays_are_arrival_less_sending(tmp_path: Path, name: str, text: str) -> None:
    channel = Trace(write(tmp_path, name, text), records="arrivals", start=0)
    got = channel.transmit(packets(1, 6), {}, streams(1))
    assert got.delay_s.tolist() == [[0.5, torch.inf, 0.25, torch.inf, 0, 0.5]]
    assert got.delivered.int().tolist() == [[1, 0, 1, 0, 1, 1]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "100.5\n\n102.25\ninf\n104\n"),
        ("a.csv", "arrival_s\n100.5\nnull\n102.25\n\n104\n"),
        ("a.jsonl", '100.5\nnull\n{"arrival_s": 102.25}\n"inf"\n104\n'),
    ],
)
def test_arrivals_alone_count_from_the_fastest_packet(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path, name, text)
    spaced = Trace(path, records="arrivals", start=0, interval_s=1.0, deadline_s=0.3)
    got = spaced.transmit(packets(1, 5), {}, streams(1))
    assert spaced.delay_s.tolist() == [0.5, torch.inf, 0.25, torch.inf, 0]
    assert got.delivered.int().tolist() == [[0, 0, 1, 0, 1]]
    assert got.statistics["late_packets"].tolist() == [1]
    at_once = Trace(path, records="arrivals", interval_s=0)
    assert at_once.delay_s.tolist() == [0, torch.inf, 1.75, torch.inf, 3.5]


@pytest.mark.parametrize(
    ("name", "text", "parameters", "message"),
    [
        ("a.csv", "0\n1\n2\n", {}, r"a\.csv, line 3: '2' must be 0 \(came\) or 1 \(lost\)"),
        ("a.csv", "0\nlost\n", {}, r"a\.csv, line 2: 'lost'"),
        ("a.csv", "0,,1\n", {}, r"a\.csv, line 1: ''"),
        ("a.csv", "0;1\n", {}, r"a\.csv, line 1: '0;1'"),
        ("a.csv", '0\n"0\n', {}, r"a\.csv, line 2: is no CSV"),
        ("a.jsonl", "0\ntrue\n", {}, r"a\.jsonl, line 2: True"),
        ("a.jsonl", "0\n1.0\n", {}, r"a\.jsonl, line 2: 1\.0"),
        ("a.jsonl", '{"loss": 1}\n', {}, r"a\.jsonl, line 1: .*'loss'"),
        ("a.jsonl", "[0, 1]\n", {}, r"a\.jsonl, line 1: \[0, 1\]"),
        ("a.jsonl", "0\n{\n", {}, r"a\.jsonl, line 2: is no JSON"),
        ("a.jsonl", "[" * 9000, {}, r"a\.jsonl, line 1: is no JSON"),
        ("a.csv", "1.0\nsoon\n", {"records": "arrivals"}, r"line 2: arrival_s='soon'"),
        ("a.csv", "1.0\nnan\n", {"records": "arrivals"}, r"line 2: arrival_s='nan'"),
        ("a.csv", "1.0\n2,3\n", {"records": "arrivals"}, "line 2: 2 cells, needs 1"),
        ("a.csv", "1,2,3\n", {"records": "arrivals"}, "line 1: 3 cells, needs 2"),
        ("a.csv", "5,4\n", {"records": "arrivals"}, "line 1: arrival_s=4, but offered_s 5 is"),
        ("a.csv", "1,2\n,3\n", {"records": "arrivals"}, "line 2: .* offered_s is missing"),
        ("a.jsonl", "1\ntrue\n", {"records": "arrivals"}, "line 2: arrival_s=True"),
        ("a.jsonl", "1" + "0" * 400, {"records": "arrivals"}, "line 1: arrival_s=10"),
        ("a.jsonl", '{"arrival": 1}', {"records": "arrivals"}, "line 1: 'arrival' must be"),
        ("a.csv", "1\n2\n", {"records": "arrivals"}, "holds no offered_s: give interval_s"),
        ("a.csv", "1,2\n", {"records": "arrivals", "interval_s": 1}, "interval_s=1 beside"),
        ("a.csv", "0\n", {"interval_s": 1}, "interval_s=1 needs records: arrivals"),
        ("a.csv", "", {}, "holds no record"),
        ("a.csv", "lost\n", {}, "holds no record"),
        ("a.csv", "0\n1\n", {"start": 2}, "start=2 must be an integer from 0 to 1"),
        ("a.csv", "0\n", {"start": "here"}, "start='here' must be an integer or random"),
        ("a.csv", "0\n", {"start": True}, "start=True must be an integer or random"),
        ("a.csv", "0\n", {"end": "cycle"}, "unknown end='cycle': did you mean 'cyclic'"),
        ("a.csv", "0\n", {"records": "delays"}, "unknown records='delays'"),
        ("a.csv", "0\n", {"deadline_s": float("inf")}, "deadline_s=inf must be from 0 to 10000"),
        ("a.pcap", "0\n", {}, r"must end in one of \.csv"),
    ],
)
def test_a_wrong_trace_is_refused_with_file_and_line(
    tmp_path: Path, name: str, text: str, parameters: dict[str, object], message: str
) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(ConfigError, match=message) as caught:
        build({"trace": {"file": str(path), **parameters}})
    assert "\n" not in str(caught.value)


def test_a_trace_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.csv: No such file"):
        Trace(tmp_path / "nowhere.csv")
    (tmp_path / "b.csv").write_bytes(b"0\n\xff\n")
    with pytest.raises(ConfigError, match=r"b\.csv is no UTF-8 text"):
        Trace(tmp_path / "b.csv")
    with pytest.raises(ConfigError, match="file=7 must be the path"):
        build({"trace": {"file": 7}})
    with pytest.raises(ConfigError, match="option 'file' is missing"):
        build("trace")
