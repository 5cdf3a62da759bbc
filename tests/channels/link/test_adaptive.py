"""Link adaptation: 3GPP's tables, the target that is kept, and what it gains."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from channels.base import Channel, Conditions, Packets, Reception
from channels.config.builder import build
from channels.errors import ConfigError
from channels.fading.base import SYMBOL_CHANNELS, Observation, Timing
from channels.fading.block import Awgn
from channels.link import bler_table
from channels.link.adaptive import AdaptiveLink
from channels.link.bler_table import BlerTable
from channels.link.coded import CodedLink
from channels.random import Randomness

pytestmark = pytest.mark.usefixtures("cache")
FADING = {"rayleigh": {"coherence": "packet"}}


def adaptive(**parameters: object) -> AdaptiveLink:
    """A link by lookup, each of whose MCS falls from 1 to 0 about 2 dB over its capacity."""
    link = build({"adaptive": {"fidelity": "lookup", "over": FADING, **parameters}})
    assert isinstance(link, AdaptiveLink)
    for one, scheme in zip(link.links, link.schemes, strict=True):
        middle = 10 * math.log10(2**scheme.efficiency - 1) + 2
        table = BlerTable((middle - 0.5, middle, middle + 0.5), (977, 500, 23), (1000,) * 3)
        bler_table.write(bler_table.cache_folder() / f"{bler_table.key(one)}.json", one, table)
    return link


def run(
    link: Channel,
    snr_db: float,
    links: int = 200,
    slots: int = 20,
    size: int = 96,
    every_s: float | None = None,
) -> Reception:
    """every_s: packets are offered so many seconds apart, each two of one picture."""
    packets = Packets.from_bytes([[bytes(size)] * slots] * links)
    if every_s is not None:
        number = torch.arange(slots, dtype=torch.float64).expand(links, slots)
        packets = replace(packets, offered_s=number * every_s, group=(number // 2).long())
    streams = Randomness.derive(5, [("n", n) for n in range(links)])
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
        assert bler_table.table_of(link.links[row]).rate(one).item() <= 0.1
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


OVER = [
    "awgn",
    FADING,
    {"rayleigh": {"coherence": "picture"}},
    {"rician": {"k_db": 3.0}},
    {"gilbert_elliott": {"depth_db": 20, "bad": 0.4, "burst": 2}},
]


def equal(one: Reception, other: Reception) -> None:
    for name in ("delivered", "correct", "channel_uses", "delay_s"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.equal(one.packets.payload, other.packets.payload)
    assert one.ledger.keys() == other.ledger.keys()
    assert all(torch.equal(bits, other.ledger[name]) for name, bits in one.ledger.items())
    assert one.statistics.keys() == other.statistics.keys()
    assert all(torch.equal(v, other.statistics[name]) for name, v in one.statistics.items())


@pytest.mark.parametrize("fidelity", ["full", "lookup"])
@pytest.mark.parametrize("over", OVER)
def test_packets_sent_one_by_one_meet_what_they_would_in_company(
    monkeypatch: pytest.MonkeyPatch, over: object, fidelity: str
) -> None:
    link = adaptive(
        fidelity=fidelity,
        over=over,
        outer_loop=True,
        step_db=2.0,
        packet_bytes=6,
        crc="crc16",
        symbol_rate_hz=1e5,
    )
    alone = run(link, 12.0, links=3, slots=6, size=6, every_s=2e-4)
    monkeypatch.setattr("channels.link.adaptive._BY_SLOT", ())
    equal(alone, run(link, 12.0, links=3, slots=6, size=6, every_s=2e-4))
    assert 0 < alone.delivered.sum() < 18 or over == "awgn"


def test_the_outer_loop_sends_each_packet_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = Awgn.apply

    def counted(
        self: Awgn, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        seen.append(symbols.numel())
        return plain(self, symbols, snr_db, randomness, timing)

    monkeypatch.setattr(Awgn, "apply", counted)
    link = adaptive(fidelity="full", over="awgn", outer_loop=True, packet_bytes=6, crc="crc16")
    reception = run(link, 12.0, links=2, slots=12, size=6)
    assert sum(seen) == int(reception.channel_uses.sum())


def test_the_outer_loop_reads_every_table_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []
    plain = CodedLink.transmit

    def counted(
        self: CodedLink, packets: Packets, conditions: Conditions, randomness: Randomness
    ) -> Reception:
        sent.append(self.code_rate)
        return plain(self, packets, conditions, randomness)

    monkeypatch.setattr(CodedLink, "transmit", counted)
    run(adaptive(outer_loop=True), 12.0, links=4, slots=100)
    assert len(sent) <= 2 * 29


@pytest.mark.parametrize("fidelity", ["full", "lookup"])
def test_one_scheme_alone_takes_the_time_that_a_coded_link_takes(fidelity: str) -> None:
    parameters = {"packet_bytes": 6, "crc": "crc16", "over": FADING, "symbol_rate_hz": 1e5}
    link = adaptive(fidelity=fidelity, highest=0, **parameters)
    name = "coded" if fidelity == "full" else "lookup"
    scheme = {"modulation": "qpsk", "code_rate": 120 / 1024}
    plain = build({name: {**scheme, **parameters}})
    for every_s in (None, 1e-4, 1.0):
        ours = run(link, -3.0, links=4, slots=6, size=6, every_s=every_s)
        theirs = run(plain, -3.0, links=4, slots=6, size=6, every_s=every_s)
        assert torch.equal(ours.delay_s, theirs.delay_s)
        assert torch.equal(ours.channel_uses, theirs.channel_uses)
        assert torch.equal(ours.delivered, theirs.delivered)
        assert ours.delivered.any()


@pytest.mark.parametrize("outer_loop", [False, True])
def test_packets_of_all_schemes_wait_for_one_another(outer_loop: bool) -> None:
    parameters = {"knows": "instantaneous", "margin_db": 5.0, "outer_loop": outer_loop}
    link = adaptive(symbol_rate_hz=1e6, **parameters)
    together = run(link, 15.0, links=30, slots=12)
    assert together.statistics["mcs"].unique().numel() > 20
    last = together.delivered[:, -1]
    assert last.sum() > 15
    seconds = together.channel_uses[last] / 1e6
    assert together.delay_s[last, -1].tolist() == pytest.approx(seconds.tolist())
    apart = run(link, 15.0, links=30, slots=12, every_s=10.0)
    free = run(adaptive(**parameters), 15.0, links=30, slots=12)
    assert torch.equal(free.delivered, together.delivered)
    assert (free.delay_s[free.delivered] == 0).all()
    for reception in (together, apart):
        assert torch.equal(reception.channel_uses, free.channel_uses)
    alone = torch.where(apart.delivered, apart.delay_s, 0.0).sum(dim=1)
    whole = apart.delivered.all(dim=1)
    assert whole.any()
    spent = apart.channel_uses[whole] / 1e6
    assert alone[whole].tolist() == pytest.approx(spent.tolist(), rel=1e-6)
    few = run(link, 15.0, links=3, slots=7)
    assert torch.equal(few.delay_s, together.delay_s[:3, :7])


class Eclipse(Awgn):
    """Nothing is heard of a packet that starts at or after 1 ms."""

    name = "eclipse"

    def apply(
        self, symbols: Tensor, snr_db: Tensor, randomness: Randomness, timing: Timing
    ) -> Observation:
        seen = super().apply(symbols, snr_db, randomness, timing)
        return replace(seen, symbols=seen.symbols * self.gains(randomness, timing)[..., None])

    def gains(self, randomness: Randomness, timing: Timing) -> Tensor:
        return (timing.start_s < 1e-3).to(torch.float32)


@pytest.mark.parametrize("fidelity", ["full", "lookup"])
@pytest.mark.parametrize("outer_loop", [False, True])
def test_a_packet_meets_the_channel_when_it_is_on_the_air(
    monkeypatch: pytest.MonkeyPatch, outer_loop: bool, fidelity: str
) -> None:
    monkeypatch.setitem(SYMBOL_CHANNELS._factories, "eclipse", Eclipse)
    parameters = {"outer_loop": outer_loop, "packet_bytes": 6, "crc": "crc16", "highest": 0}
    link = adaptive(fidelity=fidelity, over="eclipse", symbol_rate_hz=1e6, **parameters)
    each = link.uses_per_packet(6) / 1e6
    reception = run(link, 30.0, links=2, slots=5, size=6)
    starts = [each * slot for slot in range(5)]
    assert starts[1] < 1e-3 < starts[4]
    expected = [[start < 1e-3 for start in starts]] * 2
    assert reception.delivered.tolist() == expected


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
        ({"over": {"rayleigh": {"csi": "estimated"}}}, "known gain.*csi perfect"),
        ({"packet_bytes": 65536}, "adaptive: packet_bytes=65536 must be an integer from 1"),
        ({"outer_loop": 1}, "true or false"),
        ({"symbol_rate_hz": 0}, "symbol_rate_hz=0 must be from 1 to 1e\\+12"),
        ({"symbol_rate_hz": float("nan")}, "symbol_rate_hz=nan must be from 1 to 1e\\+12"),
        ({"symbol_rate_hz": True}, "symbol_rate_hz=True must be a number from 1"),
        ({"symbol_rate_hz": "1e6"}, "symbol_rate_hz='1e6' must be a number from 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        build({"adaptive": parameters})
    assert "\n" not in str(caught.value)
