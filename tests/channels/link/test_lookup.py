"""Packet errors drawn from tables: they follow the table, in any batch."""

from __future__ import annotations

import math

import pytest
import torch

from channels.base import Packets
from channels.config.builder import build
from channels.errors import ConfigError
from channels.fading.shadowing import GilbertElliott
from channels.link.bler_table import lost
from channels.link.coded import CodedLink
from channels.random import Randomness
from tests.channels.link.conftest import TABLE, keep, rates

pytestmark = pytest.mark.usefixtures("cache")


def test_the_draws_follow_the_table() -> None:
    link = keep(TABLE)
    for snr_db, p in ((1.0, 0.5), (2.0, 0.1)):
        errors = lost(link, snr_db, 0, 20_000)
        assert abs(errors - 20_000 * p) < 4 * math.sqrt(20_000 * p * (1 - p))
    better = [lost(link, snr_db, 0, 500) for snr_db in (0.5, 1.0, 1.5, 2.5)]
    assert better == sorted(better, reverse=True)


def test_under_fading_the_loss_is_the_tables_mean_over_the_gains() -> None:
    link = keep(TABLE, over={"rayleigh": {"coherence": "packet"}})
    gains = -torch.log((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    expected = TABLE.rate(8 + 10 * torch.log10(gains)).mean().item()
    errors = lost(link, 8.0, 0, 20_000)
    assert abs(errors / 20_000 - expected) < 4 * math.sqrt(expected / 20_000)


def test_in_bursts_of_attenuation_the_loss_is_that_of_two_states() -> None:
    link = keep(TABLE, over=BURSTS)
    assert isinstance(link.over, GilbertElliott)
    good, bad = (10 * math.log10(gain) for gain in link.over.state_gains)
    expected = 0.6 * rates(TABLE, 3.0 + good)[0] + 0.4 * rates(TABLE, 3.0 + bad)[0]
    assert 0.3 < expected < 0.5
    errors = lost(link, 3.0, 0, 20_000)
    assert abs(errors / 20_000 - expected) < 4 * math.sqrt(expected / 20_000)


def test_chase_combining_adds_the_snrs_up() -> None:
    once = keep(TABLE)
    twice = CodedLink(fidelity="lookup", harq={"type": "chase", "rounds": 2})
    same = lost(once, 10 * math.log10(2) + 0.0, 0, 4000)
    assert lost(twice, 0.0, 0, 4000) == same < lost(once, 0.0, 0, 4000)
    packets = Packets.from_bytes([[bytes(96)] * 3] * 50)
    streams = Randomness.derive(1, [("n", n) for n in range(50)])
    snr_db = torch.full((50,), 0.0, dtype=torch.float64)
    came = twice.transmit(packets, {"snr_db": snr_db}, streams)
    assert torch.equal(sum(came.ledger.values()), came.channel_uses * 2)
    assert came.statistics["rounds"].mean() == pytest.approx(1.98, abs=0.05)
    assert torch.equal(came.packets.payload, packets.keep(came.delivered).payload)


def test_what_has_no_single_snr_is_refused() -> None:
    for over in ({"rayleigh": {"coherence": 10}}, {"tdl": {}}, "bsc"):
        with pytest.raises(ConfigError, match="known gain"):
            build({"lookup": {"over": over}})
    with pytest.raises(ConfigError, match="must be chase"):
        build({"lookup": {"harq": {"type": "ir"}}})


BURSTS = {"gilbert_elliott": {"depth_db": 6, "bad": 0.4, "burst": 3}}


@pytest.mark.parametrize("over", [{"rayleigh": {"coherence": "packet"}}, BURSTS])
def test_a_link_meets_the_same_fate_alone(over: object) -> None:
    link = keep(TABLE, over=over)
    packets = Packets.from_bytes([[bytes(96)] * 5] * 7)
    streams = Randomness.derive(2, [("n", n) for n in range(7)])
    snr_db = torch.full((7,), 4.0, dtype=torch.float64)
    whole = link.transmit(packets, {"snr_db": snr_db}, streams).delivered
    part = slice(3, 5)
    some = link.transmit(packets.select(part), {"snr_db": snr_db[part]}, streams.select(part))
    assert torch.equal(some.delivered, whole[part])


@pytest.mark.parametrize("over", ["awgn", BURSTS])
def test_groups_of_links_change_nothing(monkeypatch: pytest.MonkeyPatch, over: object) -> None:
    link = keep(TABLE, over=over, harq={"type": "chase", "rounds": 2})
    packets = Packets.from_bytes([[bytes([n]) * 96] * 5 for n in range(7)])
    sent = packets.payload.clone()
    streams = Randomness.derive(2, [("n", n) for n in range(7)])
    conditions = {"snr_db": torch.linspace(-1.0, 3.0, 7, dtype=torch.float64)}
    whole = link.transmit(packets, conditions, streams)
    for size in (1, 10):
        monkeypatch.setattr("channels.link.lookup._GROUP_PACKETS", size)
        grouped = link.transmit(packets, conditions, streams)
        assert torch.equal(grouped.packets.payload, whole.packets.payload)
        assert torch.equal(grouped.delivered, whole.delivered)
        assert torch.equal(grouped.channel_uses, whole.channel_uses)
        assert torch.equal(grouped.statistics["snr_db"], whole.statistics["snr_db"])
    assert whole.delivered.any()
    assert not whole.delivered.all()
    assert torch.equal(whole.packets.payload, sent * whole.delivered[..., None])
    whole.packets.payload.zero_()
    assert torch.equal(packets.payload, sent)


def test_a_lost_packet_of_zeros_is_not_correct() -> None:
    assert lost(keep(TABLE), -40.0, 0, 8) == 8
    packets = Packets.from_bytes([[bytes(96)] * 8])
    streams = Randomness.derive(2, [("n", 0)])
    snr_db = torch.full((1,), -40.0, dtype=torch.float64)
    came = keep(TABLE).transmit(packets, {"snr_db": snr_db}, streams)
    assert not came.correct.any()
    assert not came.packets.payload.any()
