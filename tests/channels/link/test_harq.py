"""HARQ: combining gains, incremental redundancy, what is sent and counted, and when."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from channels.base import Packets, Reception
from channels.config.builder import build
from channels.errors import ConfigError
from channels.fading.base import Observation, Timing
from channels.fading.block import Awgn
from channels.link.coded import CodedLink
from channels.link.harq import Airtime, versions_of
from channels.random import Randomness

BYTES = 8
LINKS, SLOTS = 45, 4
DOUBLED_DB = 10 * math.log10(2)


def packets(links: int = LINKS, slots: int = SLOTS) -> Packets:
    words = Randomness.derive(5, [("data", n) for n in range(links)]).integers(slots * BYTES) % 256
    return Packets(
        words.to(torch.uint8).reshape(links, slots, BYTES),
        torch.full((links, slots), BYTES),
        torch.arange(slots).expand(links, slots),
    )


def send(
    snr_db: float, seed: int = 1, sent: Packets | None = None, **parameters: object
) -> Reception:
    link = CodedLink(packet_bytes=BYTES, iterations=8, **parameters)  # type: ignore[arg-type]
    sent = packets() if sent is None else sent
    links = len(sent.lengths)
    keys = Randomness.derive(seed, [("link", n) for n in range(links)])
    got = link.transmit(sent, {"snr_db": torch.full((links,), snr_db)}, keys)
    total = torch.stack(list(got.ledger.values())).sum(dim=0)
    assert torch.equal(total, got.channel_uses * link.bits_per_symbol)
    assert all(bool((bits >= 0).all()) for bits in got.ledger.values())
    return got


def lost(got: Reception) -> tuple[int, int]:
    wrong = int((~got.delivered).sum())
    return wrong, got.delivered.numel() - wrong


def likelihood_of_no_difference(one: Reception, other: Reception, side: str = "two-sided") -> float:
    """Fisher's exact test; `side` "greater": that the first does not lose more."""
    return float(fisher_exact([lost(one), lost(other)], alternative=side).pvalue)


def harq(type: str, rounds: int, round_trip_s: float = 0.0) -> dict[str, object]:
    return {"type": type, "rounds": rounds, "round_trip_s": round_trip_s}


@pytest.mark.parametrize("code", ["ldpc", "polar"])
def test_chase_combining_of_two_rounds_is_worth_three_decibels(code: str) -> None:
    single = send(1.0, 1, code=code)
    assert 30 < lost(single)[0] < 150
    chase = send(1.0 - DOUBLED_DB, 2, code=code, harq=harq("chase", 2))
    assert likelihood_of_no_difference(chase, single) > 1e-3
    without = send(1.0 - DOUBLED_DB, 3, code=code)
    assert likelihood_of_no_difference(without, single, "greater") < 1e-6


def test_incremental_redundancy_is_a_single_shot_of_the_total_rate() -> None:
    redundancy = send(-2.4, 1, code_rate=0.5, harq=harq("ir", 2))
    assert 30 < lost(redundancy)[0] < 150
    better = send(-2.4 + 0.5, 2, code_rate=0.25)
    worse = send(-2.4 - 0.5, 3, code_rate=0.25)
    assert likelihood_of_no_difference(better, redundancy, "greater") > 1e-3
    assert likelihood_of_no_difference(redundancy, worse, "greater") > 1e-3


def test_incremental_redundancy_beats_chase_combining_where_the_rate_is_high() -> None:
    redundancy = send(1.5, 1, code_rate=0.8, harq=harq("ir", 2))
    chase = send(1.5, 2, code_rate=0.8, harq=harq("chase", 2))
    assert likelihood_of_no_difference(chase, redundancy, "greater") < 1e-4


def test_four_rounds_of_chase_are_worth_six_decibels() -> None:
    single = send(1.0, 1)
    chase = send(1.0 - 2 * DOUBLED_DB, 2, harq=harq("chase", 4))
    assert likelihood_of_no_difference(chase, single) > 1e-3


def test_the_lowest_rate_gains_what_repetition_gains_and_a_little_more() -> None:
    """Rate 1/40 is eight words of rate 1/5, of which short blocks have more than one."""
    snr_db, eightfold_db = -3.4, 10 * math.log10(8)
    repeated = send(snr_db, 1, code_rate=0.2)
    assert 30 < lost(repeated)[0] < 150
    lowest = send(snr_db - eightfold_db, 2, code_rate=1 / 40)
    assert likelihood_of_no_difference(lowest, repeated, "greater") > 1e-3
    lower = send(snr_db - eightfold_db - 1.5, 3, code_rate=1 / 40)
    assert likelihood_of_no_difference(lower, repeated, "greater") < 1e-2


def test_only_packets_whose_crc_failed_are_sent_again() -> None:
    sent = packets()
    got = send(2.0, harq=harq("ir", 4))
    link = CodedLink(packet_bytes=BYTES)
    once = send(2.0)
    uses = link.uses_per_packet(BYTES)
    rounds = got.statistics["rounds"]
    assert torch.equal(got.channel_uses.to(torch.float64), rounds * SLOTS * uses)
    assert bool((rounds >= 1).all())
    assert 1 < float(rounds.mean()) < 4
    assert bool((got.delivered | ~once.delivered).all())  # the first attempt is the same
    full = once.delivered.all(dim=1)
    assert bool(full.any())
    assert torch.equal(got.channel_uses[full], once.channel_uses[full])
    assert torch.equal(got.ledger["payload"], 8 * sent.lengths.sum(dim=1))
    more = (rounds - 1) * SLOTS * uses * link.bits_per_symbol
    assert torch.equal((got.ledger["fec"] - once.ledger["fec"]).to(torch.float64), more)
    assert torch.equal(got.ledger["crc"], once.ledger["crc"])
    assert torch.equal(got.ledger["padding"], once.ledger["padding"])


def test_one_round_is_no_harq() -> None:
    got, plain = send(1.0, harq=harq("ir", 1)), send(1.0)
    assert torch.equal(got.delivered, plain.delivered)
    assert torch.equal(got.packets.payload, plain.packets.payload)
    assert torch.equal(got.delay_s, plain.delay_s)


def test_the_channel_is_told_the_attempt_and_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Timing] = []
    original = Awgn.apply

    def apply(
        self: Awgn, symbols: torch.Tensor, snr_db: torch.Tensor, keys: Randomness, timing: Timing
    ) -> Observation:
        seen.append(timing)
        return original(self, symbols, snr_db, keys, timing)

    monkeypatch.setattr(Awgn, "apply", apply)
    sent = Packets.from_bytes([[b"x" * BYTES]])
    sent = Packets(
        sent.payload, sent.lengths, sent.priority, torch.tensor([[2.0]], dtype=torch.float64)
    )
    send(-20.0, sent=sent, harq=harq("ir", 3, 0.5), symbol_rate_hz=88.0)
    assert [timing.attempt for timing in seen] == [0, 1, 2]
    assert [float(timing.start_s) for timing in seen] == [2.0, 3.5, 5.0]  # 88 symbols: 1 s


def test_delay_counts_rounds_and_round_trips() -> None:
    got = send(2.0, harq=harq("ir", 8, 0.01))
    steps = (got.delay_s[got.delivered] / 0.01).round()
    assert torch.allclose(got.delay_s[got.delivered], steps * 0.01)
    assert 0 < float(steps.max()) <= 7
    assert bool(got.delivered.all())
    assert torch.allclose(steps.reshape(LINKS, SLOTS).mean(dim=1) + 1, got.statistics["rounds"])
    on_air = send(2.0, harq=harq("ir", 8, 0.01), symbol_rate_hz=88e3)
    assert torch.equal(on_air.delivered, got.delivered)
    first = on_air.statistics["rounds"] == 1
    assert bool(first.any())
    expected = torch.arange(1, SLOTS + 1, dtype=torch.float64).expand(int(first.sum()), -1) * 1e-3
    assert torch.allclose(on_air.delay_s[first], expected)
    assert bool((on_air.delay_s >= got.delay_s + 1e-3 - 1e-12).all())


@pytest.mark.parametrize("type", ["chase", "ir"])
def test_deliveries_depend_on_neither_batch_nor_followers(type: str) -> None:
    link = build(
        {
            "coded": {
                "over": "rayleigh",
                "packet_bytes": BYTES,
                "iterations": 8,
                "harq": harq(type, 2, 0.004),
            }
        }
    )
    sent, keys = packets(16), Randomness.derive(3, [("link", n) for n in range(16)])
    snr_db = torch.linspace(-5, 4, 16)
    whole = link.transmit(sent, {"snr_db": snr_db}, keys)
    assert 5 < lost(whole)[0] < 59
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    for index in (torch.tensor([9]), torch.arange(7, 14), order):
        got = link.transmit(sent.select(index), {"snr_db": snr_db[index]}, keys.select(index))
        assert torch.equal(got.packets.payload, whole.packets.payload[index])
        assert torch.equal(got.delay_s, whole.delay_s[index])
        assert torch.equal(got.channel_uses, whole.channel_uses[index])
        assert torch.allclose(got.statistics["snr_db"], whole.statistics["snr_db"][index])
    head = Packets(sent.payload[:, :2], sent.lengths[:, :2], sent.priority[:, :2])
    got = link.transmit(head, {"snr_db": snr_db}, keys)
    assert torch.equal(got.packets.payload, whole.packets.payload[:, :2])
    assert torch.equal(got.delay_s, whole.delay_s[:, :2])


def test_words_of_low_rates_go_on_through_the_versions() -> None:
    assert [versions_of(attempt, 1, "ir") for attempt in range(5)] == [(0,), (2,), (3,), (1,), (0,)]
    assert versions_of(1, 2, "ir") == (3, 1)
    low = send(-10.0, sent=packets(4), code_rate=0.1, harq=harq("ir", 4))
    assert float(low.statistics["rounds"].mean()) > 1
    assert bool(low.delivered.any())


def one_symbol_at_a_time(attempts: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """A link that sends a symbol a second, first attempts first, else in the order of readiness.

    attempts: of each attempt (ready, symbols) a slot. Returns (start, end) of each.
    """
    left = {(a, p): n for a, row in enumerate(attempts) for p, (_, n) in enumerate(row) if n}
    ready = {key: attempts[key[0]][key[1]][0] for key in left}
    begun: dict[tuple[int, int], int] = {}
    ended: dict[tuple[int, int], int] = {}
    now = 0
    while left:
        waiting = [key for key in left if ready[key] <= now]
        if waiting:
            key = min(waiting, key=lambda key: (key[0], ready[key], key[1]))
            begun.setdefault(key, now)
            left[key] -= 1
            if not left[key]:
                del left[key]
                ended[key] = now + 1
        now += 1
    return [
        [(begun.get((a, p), when), ended.get((a, p), when)) for p, (when, _) in enumerate(row)]
        for a, row in enumerate(attempts)
    ]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.integers(1, 6).flatmap(
        lambda slots: st.lists(
            st.lists(
                st.tuples(st.integers(0, 25), st.integers(0, 4)), min_size=slots, max_size=slots
            ),
            min_size=1,
            max_size=3,
        )
    )
)
def test_the_air_is_shared_as_by_a_link_that_sends_symbol_after_symbol(
    attempts: list[list[tuple[int, int]]],
) -> None:
    airtime = Airtime(1.0)
    for row, expected in zip(attempts, one_symbol_at_a_time(attempts), strict=True):
        ready, symbols = torch.tensor([row]).unbind(-1)
        start, end = airtime.book(ready.to(torch.float64), symbols)
        assert end[0].tolist() == [float(when) for _, when in expected]
        assert start[0].tolist() == [float(when) for when, _ in expected]


def test_waiting_for_the_link_follows_pollaczek_and_khinchine() -> None:
    """Poisson arrivals, fixed lengths: mean wait load / (2 (1 - load)) transmissions."""
    links, slots, load = 400, 2000, 0.6
    draws = Randomness.derive(9, [("queue", n) for n in range(links)]).uniform(slots)
    offered = (-torch.log(draws) / load).cumsum(dim=1)
    symbols = torch.full((links, slots), 1000)
    start, end = Airtime(1000.0).book(offered, symbols)
    assert torch.allclose(end - start, torch.ones(1, dtype=torch.float64))
    assert bool((start[:, 1:] >= end[:, :-1] - 1e-9).all())
    waits = (start - offered)[:, 500:].mean(dim=1)  # one mean a link: independent
    error = float(waits.std()) / math.sqrt(links)
    assert abs(float(waits.mean()) - load / (2 * (1 - load))) < 4 * error
    alone, _ = Airtime(1000.0).book(offered[:1, :9], symbols[:1, :9])
    assert torch.equal(alone, start[:1, :9])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ir", "harq='ir' must be its parameters"),
        (True, "harq=True must be its parameters"),
        ({"type": "irr"}, "unknown harq type='irr': did you mean 'ir'"),
        ({"round": 2}, "harq has no option 'round': did you mean 'rounds'"),
        ({"rounds": 0}, "harq rounds=0 must be an integer from 1 to 8"),
        ({"rounds": 9}, "harq rounds=9 must be an integer from 1 to 8"),
        ({"rounds": True}, "harq rounds=True must be an integer from 1 to 8"),
        ({"round_trip_s": -1}, "harq round_trip_s=-1 must be from 0 to 3600"),
        ({"round_trip_s": float("nan")}, "harq round_trip_s=nan must be from 0 to 3600"),
        ({"round_trip_s": "8 ms"}, "harq round_trip_s='8 ms' must be a number from 0 to 3600"),
    ],
)
def test_wrong_parameters_are_refused_in_one_line(spec: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        CodedLink(harq=spec)
    assert "\n" not in str(caught.value)


def test_polar_codes_have_no_redundancy_versions() -> None:
    with pytest.raises(ConfigError, match="harq type='ir' must be chase with polar"):
        CodedLink(code="polar", harq={"type": "ir"})
