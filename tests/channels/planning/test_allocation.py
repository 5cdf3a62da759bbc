"""The allocator finds what trying everything finds, and never does worse than equal protection."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from channels.base import Packets
from channels.config.builder import build
from channels.errors import ConfigError
from channels.link.coded import CodedLink
from channels.packet.unequal import Unequal
from channels.planning import allocation
from channels.planning.allocation import Allocation, Option, allocate, measured_options
from channels.random import Randomness


def streams(links: int) -> Randomness:
    return Randomness.derive(41, [("allocation", n) for n in range(links)])


def worth(
    chosen: Sequence[int],
    options: Sequence[Option],
    relevance: Sequence[float],
    states: Sequence[float],
    dependence: str,
) -> float:
    """Expected relevance by the definition."""
    total = 0.0
    for s, share in enumerate(states):
        together = 1.0
        for i, one in enumerate(chosen):
            p = options[one].delivery[s] if one >= 0 else 0.0
            together *= p
            total += share * relevance[i] * (together if dependence == "prefix" else p)
    return total


def by_trying(
    options: Sequence[Option],
    relevance: Sequence[float],
    budget: int,
    states: Sequence[float],
    dependence: str,
) -> float:
    """The best of all assignments in which uses do not rise."""
    uses = [*(option.uses for option in options), 0]
    best = 0.0
    for chosen in itertools.product(range(-1, len(options)), repeat=len(relevance)):
        spent = [uses[one] for one in chosen]
        if sum(spent) <= budget and all(a >= b for a, b in itertools.pairwise(spent)):
            best = max(best, worth(chosen, options, relevance, states, dependence))
    return best


probability = st.floats(0, 1, allow_nan=False)


@st.composite
def problems(
    draw: st.DrawFn, most_states: int
) -> tuple[list[Option], list[float], int, list[float]]:
    count = draw(st.integers(1, most_states))
    parts = draw(st.lists(st.integers(1, 5), min_size=count, max_size=count))
    states = [part / sum(parts) for part in parts]
    delivery = st.tuples(*[probability] * count)
    options = draw(st.lists(st.builds(Option, st.integers(1, 9), delivery), min_size=1, max_size=3))
    relevance = sorted(draw(st.lists(st.floats(0, 10), min_size=1, max_size=5)), reverse=True)
    budget = draw(st.integers(min(o.uses for o in options), 40))
    return options, relevance, budget, states


def assert_sound(
    got: Allocation,
    options: Sequence[Option],
    relevance: Sequence[float],
    budget: int,
    states: Sequence[float],
    dependence: str,
) -> None:
    spent = [options[one].uses if one >= 0 else 0 for one in got.choice]
    assert len(spent) == len(relevance)
    assert got.uses == sum(spent) <= budget
    assert spent == sorted(spent, reverse=True)
    assert got.value == pytest.approx(worth(got.choice, options, relevance, states, dependence))
    equal = max(
        worth(
            [k if i < budget // option.uses else -1 for i in range(len(relevance))],
            options,
            relevance,
            states,
            dependence,
        )
        for k, option in enumerate(options)
    )
    assert got.equal_value == pytest.approx(equal)
    assert got.value >= got.equal_value


@settings(max_examples=40, deadline=None)
@given(problems(3))
def test_independent_packets_are_allocated_as_well_as_by_trying(
    problem: tuple[list[Option], list[float], int, list[float]],
) -> None:
    options, relevance, budget, states = problem
    got = allocate(options, relevance, budget, states)
    assert got.exact
    assert_sound(got, options, relevance, budget, states, "independent")
    best = by_trying(options, relevance, budget, states, "independent")
    assert got.value == pytest.approx(best, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems(1))
def test_packets_that_need_those_before_are_allocated_as_well_as_by_trying(
    problem: tuple[list[Option], list[float], int, list[float]],
) -> None:
    options, relevance, budget, states = problem
    got = allocate(options, relevance, budget, states, "prefix")
    assert got.exact
    assert_sound(got, options, relevance, budget, states, "prefix")
    best = by_trying(options, relevance, budget, states, "prefix")
    assert got.value == pytest.approx(best, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(problems(3))
def test_in_several_states_the_search_is_never_worse_than_equal_protection(
    problem: tuple[list[Option], list[float], int, list[float]],
) -> None:
    options, relevance, budget, states = problem
    got = allocate(options, relevance, budget, states, "prefix")
    assert got.exact == (len(states) == 1)
    assert_sound(got, options, relevance, budget, states, "prefix")
    assert got.value <= by_trying(options, relevance, budget, states, "prefix") + 1e-9


def test_in_states_of_fading_the_search_finds_what_trying_finds() -> None:
    found = 0
    for seed in range(40):
        draw = Randomness.derive(seed, [("fading",)]).uniform(20)[0].tolist()
        uses = [900, 600, 400, 300]
        # Waterfalls: an option works in a state better than its threshold, nearly not in others.
        edges = sorted(draw[:4])
        options = [
            Option(u, tuple(0.98 if s / 5 > e else 0.03 for s in range(5)))
            for u, e in zip(uses, edges, strict=True)
        ]
        relevance = sorted((1 + 9 * d for d in draw[4:9]), reverse=True)
        arguments = (options, relevance, 2300, [0.2] * 5, "prefix")
        best = by_trying(*arguments)
        found += allocate(*arguments).value >= best * (1 - 1e-9)
    assert found >= 38


def test_a_known_best_split() -> None:
    # One packet worth all the rest: protect it, and send of the others what is left.
    strong, weak = Option(1000, (1.0,)), Option(250, (0.5,))
    got = allocate([weak, strong], [10.0, 1.0, 1.0, 1.0, 1.0], 2000)
    assert got.choice == (1, 0, 0, 0, 0)
    assert (got.value, got.uses) == (pytest.approx(12.0), 2000)
    assert (got.equal, got.equal_value) == (1, pytest.approx(11.0))
    assert got.exact


def test_without_relevance_differences_and_with_a_large_budget_all_get_the_best() -> None:
    options = [Option(100, (0.6,)), Option(300, (0.99,))]
    assert allocate(options, [1.0] * 6, 10**9).choice == (1,) * 6
    assert allocate(options, [1.0] * 6, 10**9, dependence="prefix").choice == (1,) * 6


def test_large_tables_are_rounded_but_never_worse_than_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = [Option(997, (0.99,)), Option(499, (0.8,)), Option(251, (0.5,))]
    relevance = [1 / (1 + i) for i in range(30)]
    exact = allocate(options, relevance, 12_345)
    monkeypatch.setattr(allocation, "_CELLS", 20_000)
    rough = allocate(options, relevance, 12_345)
    assert (exact.exact, rough.exact) == (True, False)
    assert rough.uses <= 12_345
    assert rough.equal_value <= rough.value <= exact.value
    assert rough.value > 0.98 * exact.value


def test_an_allocation_is_a_channel() -> None:
    strong = Option(1600, (0.99,), {"code_rate": 0.25})
    weak = Option(500, (0.6,), {"code_rate": 0.8})
    over = {"coded": {"packet_bytes": 96}}
    got = allocate([weak, strong], [9.0, 4.0, 1.0, 1.0, 0.5], 1600 + 2 * 500)
    assert got.choice == (1, 0, 0, -1, -1)
    assert got.classes() == [
        {"packets": 1, "code_rate": 0.25},
        {"packets": 2, "code_rate": 0.8},
        {"copies": 0},
    ]
    link = build(got.spec(over))
    assert isinstance(link, Unequal)
    uses = [CodedLink(code_rate=rate).uses_per_packet(96) or 0 for rate in (0.25, 0.8)]
    assert link.uses_of_group(5, 96) == uses[0] + 2 * uses[1]


def test_measured_delivery_is_that_of_erasures_in_copies() -> None:
    over = [{"iid_erasure": {"loss": 0.4}}, "awgn"]
    options, states = measured_options(
        over, [{}, {"copies": 2}], 30.0, streams(30), packets=20, packet_bytes=8
    )
    assert states == (1.0,)
    assert options[1].uses == 2 * options[0].uses
    for option, law in zip(options, (0.6, 0.84), strict=True):
        assert binomtest(round(option.delivery[0] * 600), 600, law).pvalue > 1e-3


def test_measured_options_over_block_fading_share_their_states() -> None:
    over = {"coded": {"over": {"rayleigh": {"coherence": "picture"}}, "packet_bytes": 12}}
    settings = [{"code_rate": 0.25}, {"code_rate": 0.75}]
    options, states = measured_options(
        over, settings, 6.0, streams(48), packets=4, packet_bytes=12, states=4
    )
    assert states == (0.25,) * 4
    strong, weak = options
    assert strong.uses > 2 * weak.uses
    # A better state delivers more, and the stronger code delivers in states where the weak fails.
    assert all(sorted(option.delivery) == list(option.delivery) for option in options)
    assert all(s >= w for s, w in zip(strong.delivery, weak.delivery, strict=True))
    assert strong.delivery[1] > weak.delivery[1] + 0.3
    assert weak.delivery[3] > 0.95
    got = allocate(options, [8, 4, 2, 1, 1, 1, 1, 1], 6 * strong.uses, states, "prefix")
    sent = Packets.from_bytes([[bytes([i + 1] * 12) for i in range(8)]] * 40)
    reception = build(got.spec(over)).transmit(
        sent, {"snr_db": torch.full((40,), 6.0)}, streams(40).child("test")
    )
    assert reception.channel_uses.tolist() == [got.uses] * 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": []}, "must not be empty"),
        ({"relevance": []}, "must not be empty"),
        ({"budget": 99}, "budget=99 must be an integer from 100 to"),
        ({"budget": 500.0}, "budget=500.0 must be an integer"),
        ({"relevance": [1.0, 2.0]}, "relevance must not rise"),
        ({"relevance": [float("nan")]}, "relevance=nan must be from 0"),
        ({"relevance": [-1.0]}, "relevance=-1.0 must be from 0"),
        ({"relevance": [True]}, "relevance=True must be a number"),
        ({"states": [0.5, 0.6]}, "states must add up to 1, got 1.1"),
        ({"states": [0.5, 0.5]}, "one value for each of the 2 states"),
        ({"states": [1.5]}, "states=1.5 must be from 0 to 1"),
        ({"options": [Option(0, (0.5,))]}, "uses=0 must be an integer from 1"),
        ({"options": [Option(100, (1.5,))]}, "delivery=1.5 must be from 0 to 1"),
        ({"options": [Option(100, (float("nan"),))]}, "delivery=nan must be from 0 to 1"),
        ({"dependence": "prefixes"}, "did you mean 'prefix'"),
    ],
)
def test_wrong_values_are_refused_in_one_line(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "options": [Option(100, (0.5,))],
        "relevance": [1.0],
        "budget": 500,
        **change,
    }
    with pytest.raises(ConfigError, match=message) as caught:
        allocate(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"over": "lossless"}, "counts no symbols"),
        ({"settings": []}, "at least one option"),
        ({"states": 3}, "states=3 must be an integer from 1 to 2"),
        ({"packets": 0}, "packets=0 must be an integer from 1"),
        ({"settings": [{"packets": 3}]}, "the last class takes all other packets"),
    ],
)
def test_wrong_measurements_are_refused(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"over": "awgn", "settings": [{}], **change}
    with pytest.raises(ConfigError, match=message):
        measured_options(value=3.0, randomness=streams(2), **arguments)  # type: ignore[arg-type]
