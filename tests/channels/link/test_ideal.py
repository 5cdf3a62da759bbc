"""Ideal codes lose what the bounds say they must, on the fades that real codes meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from channels import theory
from channels.base import Packets, Reception
from channels.config.builder import build
from channels.errors import ChannelError, ConfigError
from channels.fading.base import Timing
from channels.fading.block import Rayleigh
from channels.link.coded import CodedLink
from channels.link.ideal import IdealLink
from channels.random import Randomness
from channels.validation.error_rates import Proportion
from tests.channels.link.conftest import snr

RAYLEIGH = {"rayleigh": {"coherence": "packet"}}


def streams(links: int) -> Randomness:
    return Randomness.derive(21, [("link", n) for n in range(links)])


def full(links: int, slots: int, size: int = 96) -> Packets:
    shape = (links, slots)
    return Packets(
        torch.ones(*shape, size, dtype=torch.uint8),
        torch.full(shape, size),
        torch.zeros(shape, dtype=torch.int64),
    )


def lost(link: IdealLink, snr_db: float, count: int = 40_000) -> Proportion:
    """Of independent packets, one a link."""
    size = link.packet_bytes
    got = link.transmit(full(count, 1, size), snr(count, snr_db), streams(count))
    return Proportion(count - int(got.delivered.sum()), count)


@pytest.mark.parametrize("inputs", ["qam", "gaussian"])
@pytest.mark.parametrize(("modulation", "m"), [("qpsk", 2), ("16qam", 4)])
def test_under_rayleigh_fading_capacity_loses_with_the_outage_probability(
    inputs: str, modulation: str, m: int
) -> None:
    link = IdealLink(RAYLEIGH, modulation, inputs=inputs, law="capacity")
    rate = m * link.layout.k / link.layout.n
    alphabet = modulation if inputs == "qam" else theory.GAUSSIAN
    for snr_db in (3.0, 15.0):
        low, high = lost(link, snr_db).interval(0.999)
        assert low <= float(theory.outage(alphabet, rate, snr_db)) <= high


def test_on_awgn_capacity_is_a_threshold() -> None:
    link = IdealLink(code_rate=0.5, law="capacity")
    edge = theory.snr_db_for("qpsk", 2 * link.layout.k / link.layout.n)
    assert lost(link, edge - 1e-3, 10).errors == 10
    assert lost(link, edge + 1e-3, 10).errors == 0


@pytest.mark.parametrize(("packet_bytes", "blocks"), [(96, 1), (1500, 2)])
def test_on_awgn_finite_length_loses_as_the_normal_approximation_says(
    packet_bytes: int, blocks: int
) -> None:
    link = IdealLink(packet_bytes=packet_bytes, modulation="16qam", code_rate=0.6)
    plan = link.layout
    assert plan.blocks == blocks
    snr_db = theory.normal_snr_db("16qam", plan.k, plan.n // 4, 0.05)
    expected = 1 - 0.95**blocks
    found = float(link.error_probability(torch.tensor(snr_db, dtype=torch.float64)))
    assert found == pytest.approx(expected, rel=2e-3)
    low, high = lost(link, snr_db, 20_000).interval(0.999)
    assert low <= expected <= high


def test_under_fading_finite_length_loses_as_its_mean_over_the_gain() -> None:
    link = IdealLink(RAYLEIGH)
    plan = link.layout
    low, high = lost(link, 8.0).interval(0.999)
    assert low <= float(theory.fading_bler("qpsk", plan.k, plan.n // 2, 8.0)) <= high


@pytest.mark.parametrize("modulation", ["qpsk", "256qam"])
@pytest.mark.parametrize("inputs", ["qam", "gaussian"])
def test_error_probabilities_are_those_of_theory_at_every_snr(modulation: str, inputs: str) -> None:
    link = IdealLink(modulation=modulation, inputs=inputs)
    snr_db = np.array([-100, -60, -8, -1, 0.33, 0.71, 2, 9.17, 14.2, 30, 68, 120])
    name = modulation if inputs == "qam" else theory.GAUSSIAN
    symbols = link.layout.n // link.bits_per_symbol
    expected = theory.normal_bler(
        theory.qam_information(name, np.clip(snr_db, -50, 70)), link.layout.k, symbols
    )
    found = link.error_probability(torch.from_numpy(snr_db)).numpy()
    assert found == pytest.approx(expected, rel=5e-3, abs=1e-12)


def test_no_real_code_beats_it_on_the_same_fades_and_uses() -> None:
    sent, count = full(25, 2), 25
    for code_rate, snr_db in ((0.5, 3.0), (0.1, -3.0)):
        ideal = IdealLink(RAYLEIGH, code_rate=code_rate)
        real = CodedLink(RAYLEIGH, code_rate=code_rate)
        best = ideal.transmit(sent, snr(count, snr_db), streams(count))
        got = real.transmit(sent, snr(count, snr_db), streams(count))
        assert torch.equal(best.channel_uses, got.channel_uses)
        assert {k: v.tolist() for k, v in best.ledger.items()} == {
            k: v.tolist() for k, v in got.ledger.items()
        }
        assert torch.allclose(best.statistics["snr_db"], got.statistics["snr_db"], atol=1e-4)
        assert int((got.delivered & ~best.delivered).sum()) <= 1
        assert 0 < int(got.delivered.sum()) <= int(best.delivered.sum())


def test_what_is_delivered_is_what_was_sent_and_adds_up() -> None:
    link = IdealLink(RAYLEIGH, packet_bytes=20)
    sent = Packets.from_bytes([[b"ab", b"a longer packet"], [b"x"]] * 20)
    got = link.transmit(sent, snr(40, 3.0), streams(40))
    assert 0 < int(got.delivered.sum()) < int(sent.present.sum())
    assert torch.equal(got.correct, got.delivered)
    assert torch.equal(got.packets.payload[got.delivered], sent.payload[got.delivered])
    assert int(got.packets.lengths[~got.delivered].sum()) == 0
    assert bool((got.delay_s[got.delivered] == 0).all())
    assert bool(torch.isinf(got.delay_s[~got.delivered]).all())
    total = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert torch.equal(total, got.channel_uses * 2)
    empty = link.transmit(full(0, 0, 5), {"snr_db": torch.zeros(0)}, streams(0))
    assert empty.delivered.shape == (0, 0)


@pytest.mark.parametrize("coherence", ["packet", "picture"])
@pytest.mark.parametrize("law", ["capacity", "finite_length"])
def test_a_link_meets_the_same_alone_in_company_and_with_more_packets(
    coherence: str, law: str
) -> None:
    link = IdealLink({"rayleigh": {"coherence": coherence}}, law=law)
    sent, values = full(30, 6), snr(30, 3.0)

    def run(index: Tensor, slots: int = 6) -> Reception:
        part = Packets(*(t[index, :slots] for t in (sent.payload, sent.lengths, sent.priority)))
        return link.transmit(part, {"snr_db": values["snr_db"][index]}, streams(30).select(index))

    everything = torch.arange(30)
    whole = run(everything)
    turned = run(everything.flip(0))
    assert torch.equal(turned.delivered.flip(0), whole.delivered)
    assert torch.equal(run(torch.tensor([7])).delivered[0], whole.delivered[7])
    assert torch.equal(run(everything, 3).delivered, whole.delivered[:, :3])


def test_it_fades_as_the_symbol_channel_does() -> None:
    link = IdealLink(RAYLEIGH, law="capacity")
    got = link.transmit(full(50, 4), snr(50, 4.0), streams(50))
    gain_db = 10 * torch.log10(Rayleigh().gains(streams(50), Timing.together(50, 4)).double())
    edge = theory.snr_db_for("qpsk", 2 * link.layout.k / link.layout.n)
    assert torch.equal(got.delivered, 4.0 + gain_db > edge)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"law": "shannon"}, "unknown law='shannon'"),
        ({"inputs": "laplace"}, "unknown inputs='laplace'"),
        ({"modulation": "8psk"}, "unknown modulation='8psk'"),
        ({"code_rate": math.nan}, "code_rate=nan must be from"),
        ({"code_rate": True}, "code_rate=True must be a number"),
        ({"packet_bytes": 0}, "packet_bytes=0 must be an integer from 1 to 65535"),
        ({"crc": "crc8"}, "unknown crc='crc8'"),
        ({"over": "tdl-z"}, "tdl-z"),
        ({"over": {"rayleigh": {"coherence": 10}}}, "is not flat"),
    ],
)
def test_wrong_settings_are_one_line(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build({"ideal": parameters})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_conditions_are_one_line() -> None:
    link = IdealLink()
    with pytest.raises(ChannelError, match="snr_db=NaN of link 1"):
        link.transmit(full(2, 1), {"snr_db": torch.tensor([0, math.nan])}, streams(2))
    with pytest.raises(ChannelError, match="condition snr_db is missing"):
        link.transmit(full(2, 1), {}, streams(2))
    with pytest.raises(ChannelError, match="97 bytes is too long"):
        link.transmit(full(2, 1, 97), snr(2, 1.0), streams(2))
