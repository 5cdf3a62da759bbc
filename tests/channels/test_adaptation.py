"""Link adaptation: 3GPP's tables, the target that is kept, and what it gains."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from channels import bler
from channels.adaptation import AdaptiveLink
from channels.base import Packets, Reception
from channels.bler import BlerTable
from channels.config import build
from channels.errors import ConfigError
from channels.isolation import untouched_random_state
from channels.mcs import TABLES, mcs_table
from channels.random import Streams

FADING = {"rayleigh": {"coherence": "packet"}}


@pytest.mark.parametrize(("name", "number"), [("qam64", 1), ("qam256", 2), ("qam64-low", 3)])
def test_the_tables_are_those_of_the_standard(name: str, number: int) -> None:
    with untouched_random_state():
        from sionna.phy.nr.utils import decode_mcs_index
    rows = mcs_table(name)
    index = torch.arange(len(rows))
    order, rate = decode_mcs_index(index, number, is_pusch=False)
    assert [row.index for row in rows] == index.tolist()
    bits = {"qpsk": 2, "16qam": 4, "64qam": 6, "256qam": 8}
    assert [bits[row.modulation] for row in rows] == order.tolist()
    assert [row.code_rate for row in rows] == pytest.approx(rate.tolist(), rel=1e-6)


def test_there_are_three_tables() -> None:
    assert TABLES == ("qam64", "qam256", "qam64-low")
    with pytest.raises(ConfigError, match="did you mean 'qam64'"):
        mcs_table("qam46")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bler.CACHE, str(tmp_path))
    monkeypatch.setattr(bler, "_shipped", dict)


def adaptive(**parameters: object) -> AdaptiveLink:
    """A link by lookup, each of whose MCS falls from 1 to 0 about 2 dB over its capacity."""
    link = build({"adaptive": {"fidelity": "lookup", "over": FADING, **parameters}})
    assert isinstance(link, AdaptiveLink)
    for one, scheme in zip(link.links, link.schemes, strict=True):
        middle = 10 * math.log10(2**scheme.efficiency - 1) + 2
        table = BlerTable((middle - 0.5, middle, middle + 0.5), (977, 500, 23), (1000,) * 3)
        bler.write(bler.cache_folder() / f"{bler.key(one)}.json", one, table)
    return link


def run(link: AdaptiveLink, snr_db: float, links: int = 200, slots: int = 20) -> Reception:
    packets = Packets.from_bytes([[bytes(96)] * slots] * links)
    streams = Streams.derive(5, [("n", n) for n in range(links)])
    conditions = {"snr_db": torch.full((links,), snr_db, dtype=torch.float64)}
    return link.transmit(packets, conditions, streams)


def test_the_most_efficient_that_keeps_the_target_is_picked() -> None:
    link = adaptive()
    thresholds = sorted(link.thresholds_db)
    picked = link.pick(torch.tensor([-40.0, *thresholds, 60.0], dtype=torch.float64))
    efficiency = [link.schemes[i].efficiency for i in picked.tolist()]
    assert efficiency == sorted(efficiency)
    assert picked[0] == 0
    assert picked[-1] == 28
    for snr_db, row in zip(thresholds, picked[1:-1].tolist(), strict=True):
        assert link.thresholds_db[row] <= snr_db
        one = torch.tensor([snr_db], dtype=torch.float64)
        assert bler.table_of(link.links[row]).rate(one).item() <= 0.1
    assert link.uses_per_packet(96) == link.links[0].uses_per_packet(96)


def test_knowing_each_packets_snr_keeps_the_loss_and_spends_less() -> None:
    blind, seeing = adaptive(margin_db=10.0), adaptive(knows="instantaneous")
    without, with_it = run(blind, 15.0), run(seeing, 15.0)
    lost = [1 - r.delivered.double().mean().item() for r in (without, with_it)]
    assert lost[1] < 0.1  # the target, kept packet by packet
    uses = [r.channel_uses.double().mean().item() for r in (without, with_it)]
    assert lost[1] < lost[0] + 0.05
    assert uses[1] < 0.7 * uses[0]
    for reception in (without, with_it):
        assert torch.isfinite(reception.delay_s[reception.delivered]).all()
    payload = 8 * 96 * 20
    assert (with_it.ledger["payload"] == payload).all()
    assert (
        with_it.statistics["efficiency"] > without.statistics["efficiency"]
    ).double().mean() > 0.9


def test_the_outer_loop_comes_to_the_target_from_a_wrong_margin() -> None:
    for margin_db in (-8.0, 12.0):
        loop = adaptive(over="awgn", outer_loop=True, target=0.1, step_db=0.5, margin_db=margin_db)
        came = run(loop, 12.0, links=20, slots=500).delivered[:, 250:]
        assert 1 - came.double().mean().item() == pytest.approx(0.1, abs=0.02)


def test_the_mean_snr_alone_gives_every_packet_the_same_scheme() -> None:
    reception = run(adaptive(), 10.0, links=4, slots=3)
    assert len(reception.channel_uses.unique()) == 1
    assert (reception.statistics["mcs"] % 1 == 0).all()


def test_a_link_meets_the_same_fate_alone_and_later_packets_change_nothing() -> None:
    for outer_loop in (False, True):
        link = adaptive(knows="instantaneous", outer_loop=outer_loop)
        whole = run(link, 9.0, links=6, slots=8)
        few = run(link, 9.0, links=2, slots=5)
        assert torch.equal(few.delivered, whole.delivered[:2, :5])


def test_full_decoding_uses_the_same_schemes() -> None:
    fast = adaptive(over="awgn", margin_db=3.0)
    full = build({"adaptive": {"over": "awgn", "margin_db": 3.0}})
    assert isinstance(full, AdaptiveLink)
    assert full.thresholds_db == fast.thresholds_db
    reception = run(full, 12.0, links=3, slots=2)
    assert reception.delivered.all()
    assert torch.equal(reception.channel_uses, run(fast, 12.0, 3, 2).channel_uses)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"table": "qam1024"}, "qam256"),
        ({"target": 0.0}, "0.001 to 0.5"),
        ({"target": float("nan")}, "0.001 to 0.5"),
        ({"highest": 29}, "from 0 to 28"),
        ({"knows": "all"}, "mean"),
        ({"fidelity": "some"}, "lookup"),
        ({"over": {"rayleigh": {"coherence": 8}}}, "known gain"),
        ({"outer_loop": 1}, "true or false"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build({"adaptive": parameters})
    assert "\n" not in str(caught.value)
