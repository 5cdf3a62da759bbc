"""Binary symmetric and erasure channels, bare and under codes, against what theory allows."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binom, binomtest, fisher_exact, norm

from channels.base import Packets, Reception
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.fading.base import Timing
from channels.fading.binary import BIT_CHANNELS, BinaryErasure, BinarySymmetric, BitChannel
from channels.link.coded import CodedLink
from channels.link.uncoded import UncodedLink
from channels.random import Randomness

BYTES = 8


def keys(links: int, seed: int = 1) -> Randomness:
    return Randomness.derive(seed, [("link", n) for n in range(links)])


def packets(links: int = 40, slots: int = 5, size: int = BYTES) -> Packets:
    words = keys(links, 5).integers(slots * size) % 256
    return Packets(
        words.to(torch.uint8).reshape(links, slots, size),
        torch.full((links, slots), size),
        torch.arange(slots).expand(links, slots),
    )


def send(
    link: CodedLink | UncodedLink, links: int = 40, seed: int = 1, **conditions: float
) -> Reception:
    values = {name: torch.full((links,), value) for name, value in conditions.items()}
    return link.transmit(packets(links), values, keys(links, seed))


def lost(got: Reception) -> int:
    return int((~got.delivered).sum())


def entropy(p: float) -> float:
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@pytest.mark.parametrize("probability", [0.01, 0.11, 0.5, 0.9])
def test_bits_are_hit_with_the_given_probability_and_llrs_say_so(probability: float) -> None:
    bits = (keys(20, 3).uniform(5 * 400) < 0.5).float().reshape(20, 5, 400)
    p = torch.full((20,), probability, dtype=torch.float64)
    for channel in (BinarySymmetric(), BinaryErasure()):
        llr = channel.apply_bits(bits, p, keys(20), Timing.together(20, 5))
        assert llr.dtype == torch.float32
        agrees = llr * (2 * bits - 1)
        if channel.name == "bsc":
            size = abs(math.log((1 - probability) / probability))
            assert torch.allclose(llr.abs(), torch.tensor(size, dtype=torch.float32))
            hit = agrees < 0 if probability < 0.5 else agrees > 0
            capacity = 1 - entropy(probability)
        else:
            hit = llr == 0
            assert bool((agrees >= 0).all())
            capacity = 1 - probability
        if probability != 0.5 or channel.name == "bec":
            test = binomtest(int(hit.sum()), hit.numel(), probability)
            assert test.pvalue > 1e-3
        information = 1 - torch.log2(1 + torch.exp(-agrees.double()))
        error = float(information.std()) / math.sqrt(information.numel())
        assert abs(float(information.mean()) - capacity) <= 4 * error + 1e-6


@pytest.mark.parametrize(("over", "parameter"), [("bsc", "crossover"), ("bec", "erasure")])
def test_bare_packets_survive_if_no_bit_is_hit(over: str, parameter: str) -> None:
    link = UncodedLink(over=over)
    assert link.needs == (parameter,)
    got = send(link, **{parameter: 0.01})
    assert binomtest(lost(got), 200, 1 - 0.99 ** (8 * BYTES)).pvalue > 1e-3
    assert got.channel_uses.tolist() == [8 * BYTES * 5] * 40
    assert torch.equal(got.ledger["payload"], got.channel_uses)
    fixed = send(UncodedLink(over={over: {parameter: 0.01}}))
    assert torch.equal(fixed.delivered, got.delivered)
    assert not bool(send(link, **{parameter: 0.5}).delivered.any())
    assert bool(send(link, **{parameter: 0.0}).delivered.all())


def test_an_erased_bit_is_no_bit_even_where_a_guess_would_be_right() -> None:
    zeros = Packets.from_bytes([[b"\0"] * 50])
    got = UncodedLink(over={"bec": {"erasure": 0.2}}).transmit(zeros, {}, keys(1))
    assert binomtest(int(got.delivered.sum()), 50, 0.8**8).pvalue > 1e-3


def bec_converse(k: int, n: int, erasure: float) -> float:
    """No code loses fewer blocks (Polyanskiy, Poor, Verdu 2010, theorem 38)."""
    return float(
        sum(
            binom.pmf(lost, n, erasure) * (1 - 2.0 ** (n - k - lost))
            for lost in range(n - k + 1, n + 1)
        )
    )


def bsc_approximation(k: int, n: int, crossover: float) -> float:
    """Least share of lost blocks, normal approximation (the same paper, theorem 52)."""
    spread = crossover * (1 - crossover) * math.log2((1 - crossover) / crossover) ** 2
    slack = n * (1 - entropy(crossover)) - k + 0.5 * math.log2(n)
    return float(norm.sf(slack / math.sqrt(n * spread)))


@pytest.mark.parametrize("code", ["ldpc", "polar"])
@pytest.mark.parametrize("over", ["bsc", "bec"])
def test_codes_work_below_capacity_and_never_better_than_theory_allows(
    over: str, code: str
) -> None:
    link = CodedLink(over=over, packet_bytes=BYTES, code=code)
    k, n = link.layout.k, link.layout.n
    assert (k, n, link.bits_per_symbol) == (88, 176, 1)
    name = {"bsc": "crossover", "bec": "erasure"}[over]
    bound = {"bsc": bsc_approximation, "bec": bec_converse}[over]
    good, near, above = {"bsc": (0.03, 0.07, 0.16), "bec": (0.3, 0.43, 0.65)}[over]
    assert lost(send(link, **{name: good})) <= 4
    got = send(link, **{name: near})
    assert 20 < lost(got) < 180
    assert binomtest(lost(got), 200, bound(k, n, near), "less").pvalue > 1e-3
    assert lost(send(link, **{name: above})) >= 190
    assert torch.equal(torch.stack(list(got.ledger.values())).sum(dim=0), got.channel_uses)


def test_hard_decisions_of_bpsk_are_a_binary_symmetric_channel() -> None:
    crossover = 0.075
    snr_db = 10 * math.log10(norm.isf(crossover) ** 2 / 2)
    over_bits = send(CodedLink(over="bsc", packet_bytes=BYTES), crossover=crossover)
    air = CodedLink(modulation="bpsk", packet_bytes=BYTES, input="hard")
    hard = send(air, seed=2, snr_db=snr_db)
    table = [[lost(over_bits), 200 - lost(over_bits)], [lost(hard), 200 - lost(hard)]]
    assert fisher_exact(table).pvalue > 1e-3
    soft = send(CodedLink(modulation="bpsk", packet_bytes=BYTES), seed=2, snr_db=snr_db)
    assert lost(soft) < lost(hard) // 3


def test_certain_bits_and_certain_opposites_are_read_alike() -> None:
    for crossover in (0.0, 1.0):
        link = CodedLink(over={"bsc": {"crossover": crossover}}, packet_bytes=BYTES)
        assert bool(send(link, links=4).delivered.all())
    assert not bool(send(CodedLink(over="bsc", packet_bytes=BYTES), 4, crossover=0.5).correct.any())


@pytest.mark.parametrize("over", ["bsc", "bec"])
def test_what_a_packet_meets_depends_on_neither_batch_nor_followers(over: str) -> None:
    name = {"bsc": "crossover", "bec": "erasure"}[over]
    sent, streams, p = packets(12), keys(12), torch.linspace(0.02, 0.5, 12)
    for spec in ({"coded": {"over": over, "packet_bytes": BYTES}}, {"uncoded": {"over": over}}):
        link = build(spec)
        whole = link.transmit(sent, {name: p / (1 if "coded" in spec else 20)}, streams)
        assert bool(whole.delivered.any())
        for index in (torch.tensor([3]), torch.arange(11, -1, -1)):
            value = {name: p[index] / (1 if "coded" in spec else 20)}
            got = link.transmit(sent.select(index), value, streams.select(index))
            assert torch.equal(got.packets.payload, whole.packets.payload[index])
        head = Packets(sent.payload[:, :2], sent.lengths[:, :2], sent.priority[:, :2])
        got = link.transmit(head, {name: p / (1 if "coded" in spec else 20)}, streams)
        assert torch.equal(got.packets.payload, whole.packets.payload[:, :2])


def test_another_attempt_meets_other_errors_and_combining_helps() -> None:
    harq = {"type": "chase", "rounds": 2, "round_trip_s": 0.0}
    once = send(CodedLink(over="bsc", packet_bytes=BYTES, code_rate=0.8), crossover=0.06)
    twice = send(
        CodedLink(over="bsc", packet_bytes=BYTES, code_rate=0.8, harq=harq), crossover=0.06
    )
    assert lost(twice) < lost(once) // 2
    assert "rounds" in twice.statistics
    assert "snr_db" not in twice.statistics


def test_third_parties_may_add_bit_channels() -> None:
    assert isinstance(BinarySymmetric(), BitChannel)
    assert {"bsc", "bec"} <= set(BIT_CHANNELS.names())


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"bsc": {"crossover": 1.1}}, r"bsc: crossover=1.1 must be from 0 to 1"),
        ({"bsc": {"crossover": float("nan")}}, "bsc: crossover=nan must be from 0 to 1"),
        ({"bsc": {"crossover": True}}, "bsc: crossover=True must be a number from 0 to 1"),
        ({"bec": {"erasure": -0.1}}, "bec: erasure=-0.1 must be from 0 to 1"),
        ({"bec": {"erasure": "0.1"}}, "bec: erasure='0.1' must be a number from 0 to 1"),
        ({"bec": {"crossover": 0.1}}, "has no option 'crossover'"),
        ("bcs", "unknown symbol or bit channel 'bcs': did you mean 'bsc'"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(over: object, message: str) -> None:
    for kind in (CodedLink, UncodedLink):
        with pytest.raises(ConfigError, match=message) as caught:
            kind(over=over)
        assert "\n" not in str(caught.value)


def test_wrong_conditions_and_a_modulation_are_refused() -> None:
    with pytest.raises(ConfigError, match="modulation='qpsk' must be left out over bsc"):
        CodedLink(over="bsc", modulation="qpsk")
    link = UncodedLink(over="bec")
    for value in (float("nan"), 1.5, -0.1):
        with pytest.raises(ChannelError, match=r"bec: condition erasure=.* must be from 0 to 1"):
            send(link, erasure=value)
    with pytest.raises(ChannelError, match="bec: condition erasure is missing"):
        send(link, snr_db=3.0)
