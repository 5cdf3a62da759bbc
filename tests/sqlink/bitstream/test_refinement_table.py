"""Units of the refinement: what goes in comes out, whatever the packing, at its proper cost."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqlink.bitstream import MODES, Packing, StreamTable, Tables, Tokens, packetise, unpacketise
from sqlink.bitstream.packets import parse_packets
from sqlink.bitstream.refinement_table import (
    Below,
    RefinementTable,
    geometry,
    token_features,
    tokens_of,
    units_of,
)
from sqlink.errors import DataError, WeightsError

LEVELS8, LEVELS4 = (5, 3), (3,)
Ints = NDArray[np.int64]


def drawn_table(levels: tuple[int, ...], coarser: tuple[int, ...], seed: int) -> RefinementTable:
    """Random integers in place of fitted ones."""
    rng = np.random.default_rng(seed)
    even = RefinementTable.even(levels, 16, 32, coarser)
    hidden, wide = 8, even.digits * even.most

    def small(*shape: int) -> NDArray[np.int8]:
        return rng.integers(-40, 41, shape).astype(np.int8)

    return dataclasses.replace(
        even,
        around=small(8, 2 * even.digits + 2, hidden),
        map_embedding=small(18, hidden),
        base_embedding=small(34, hidden),
        coarser=small(len(even.coarser), hidden),
        place=rng.integers(-300, 300, (3, 16, hidden)).astype(np.int16),
        digit_weights=small(hidden, wide),
        digit_bias=rng.integers(-90, 90, wide).astype(np.int16),
        earlier=small(wide, wide),
        mask_weights=small(hidden),
        shifts=np.array([3, 5, 6, 2], dtype=np.int8),
    )


def tables() -> Tables:
    base = StreamTable.even(16), StreamTable.even(32, 16)
    refinements = drawn_table(LEVELS8, (), 1), drawn_table(LEVELS4, LEVELS8, 2)
    return Tables(*base, refinements)


def drawn_tokens(height: int, width: int, share: float, seed: int) -> Tokens:
    rng = np.random.default_rng(seed)
    sizes = [(height, width)] * 3 + [(2 * height, 2 * width)]
    alphabets = (16, 32, 15**4, 3**4)
    indices, layers = [], []
    for size, codes in zip(sizes, alphabets, strict=True):
        kept = rng.random(size) < share
        indices.append(np.where(kept, rng.integers(0, codes, size), -1))
        layers.append(rng.integers(0, 3, size))
    finer = tuple(zip(indices[2:], layers[2:], strict=True))
    return Tokens(indices[0], indices[1], layers[0], layers[1], finer)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.sampled_from(MODES),
    st.booleans(),
    st.integers(0, 1000),
)
def test_every_stream_comes_back(
    height: int, width: int, share: float, mode: str, fixed: bool, seed: int
) -> None:
    tokens, packing = drawn_tokens(height, width, share, seed), Packing(mode, fixed)
    packets = packetise(tokens, tables(), 40, packing)
    found = unpacketise([p.data for p in packets], height, width, tables(), packing)
    for ours, theirs in zip(found, tokens.streams[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert all(len(p.data) <= 40 for p in packets)
    if packets:
        again = parse_packets([p.data for p in packets], height, width, tables(), packing)
        assert again == packets


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_of_a_damaged_set_of_packets_was_sent(mode: str) -> None:
    """Lost packets leave masks, never other values; those of `single` break off."""
    tokens, packing = drawn_tokens(9, 11, 0.8, 3), Packing(mode)
    sent = [p.data for p in packetise(tokens, tables(), 40, packing)]
    for lost in range(0, len(sent), 3):
        came = [None if n == lost else data for n, data in enumerate(sent)]
        found = unpacketise(came, 9, 11, tables(), packing)
        some = 0
        for ours, theirs in zip(found, tokens.streams[0], strict=True):
            assert ((ours == theirs) | (ours == -1)).all()
            some += int((ours >= 0).sum())
        assert some > 0 or lost == 0


def test_units_of_refinement_need_no_other_packet_unless_they_hang_on_the_map() -> None:
    tokens = drawn_tokens(9, 11, 0.8, 4)
    for mode, alone in (("independent", True), ("map-dependent", False)):
        packets = packetise(tokens, tables(), 40, Packing(mode))
        found = unpacketise([packets[-1].data], 9, 11, tables(), Packing(mode))
        assert bool((found[3] >= 0).any()) is alone


def test_a_stream_cut_anywhere_gives_the_units_that_came() -> None:
    tokens, packing = drawn_tokens(9, 11, 1.0, 5), Packing("single")
    sent = [p.data for p in packetise(tokens, tables(), 32, packing)]
    counts = []
    for length in range(1, len(sent) + 1):
        cut = [*sent[:length], *([None] * (len(sent) - length))]
        found = unpacketise(cut, 9, 11, tables(), packing)
        for ours, theirs in zip(found, tokens.streams[0], strict=True):
            assert ((ours == theirs) | (ours == -1)).all()
        counts.append([int((part >= 0).sum()) for part in found])
    assert all(a <= b for p, q in itertools.pairwise(counts) for a, b in zip(p, q, strict=True))
    assert counts[-1] == [99, 99, 99, 396]


def test_bits_in_the_ledger_are_those_of_the_table() -> None:
    """The information of digits, reckoned one by one with exact integers."""
    table = drawn_table(LEVELS4, LEVELS8, 6)
    rng = np.random.default_rng(0)
    units = rng.integers(0, table.size, 5)
    below = Below(
        np.array([3, 17, 16, 0, 5]),
        np.array([31, 33, 2, 32, 9]),
        token_features(np.array([14, -1, -2, 0, 7]), np.array(LEVELS8, dtype=np.uint8)),
    )
    bands = rng.integers(0, 16, (5, 2))
    states = rng.integers(-2, table.size, (5, 8))
    around = np.stack([table.features(row) for row in states])
    hidden = table.look(around, below, bands, 7)
    bits = table.digit_bits(table.prior(hidden), table.to_digits(units))
    for n in range(5):
        sums = np.zeros(8, dtype=object)
        for k in range(8):
            for f, value in enumerate(table.features(states[n])[k].astype(int).tolist()):
                sums += value * table.around[k, f].astype(int)
        own = table.map_embedding[below.map_[n]].astype(int)
        own = own + table.base_embedding[below.base[n]].astype(int)
        own = own + below.coarser[n].astype(int) @ table.coarser.astype(int)
        sums += own * 4
        sums += table.place[0, bands[n, 0]].astype(int) + table.place[1, bands[n, 1]].astype(int)
        sums += table.place[2, 7].astype(int)
        exact = np.array([min(max(int(v) // 8, 0), 127) for v in sums])
        np.testing.assert_array_equal(hidden[n], exact)
        digits = table.to_digits(units[n : n + 1])[0]
        total = 0.0
        for place, digit in enumerate(digits):
            scores = []
            for level in range(3):
                column = place * 3 + level
                score = int(exact @ table.digit_weights[:, column].astype(int)) // 32
                score += int(table.digit_bias[column])
                for earlier in range(place):  # one digit a token here
                    score += int(table.earlier[earlier * 3 + digits[earlier], column])
                scores.append(score)
            weights = [2.0 ** -(min(max(scores) - s, 1024) / 64) for s in scores]
            total -= np.log2(weights[digit] / sum(weights))
        assert bits[n] == pytest.approx(total, abs=1e-3)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 100))
def test_tokens_and_units_are_each_others_inverse(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(-1, 15**4, (height, width))
    tokens = tokens_of(units, 15)
    np.testing.assert_array_equal(units_of(tokens, 15), units)
    assert tokens[0, 1] == (-1 if units[0, 0] < 0 else units[0, 0] // 15**2 % 15)
    table = drawn_table(LEVELS8, (), 0)
    known = units[units >= 0]
    np.testing.assert_array_equal(table.of_digits(table.to_digits(known)), known)


def test_neighbours_of_one_pass_are_of_other_passes() -> None:
    around = geometry(6, 9)
    passes = np.append(around.passes, -1)
    assert (passes[around.around] != around.passes[:, None]).all()


def test_a_layer_that_the_weights_do_not_have_is_refused() -> None:
    tokens = drawn_tokens(5, 5, 1.0, 7)
    packets = packetise(tokens, tables(), 64)
    base = dataclasses.replace(tables(), refinements=())
    with pytest.raises(DataError, match="a layer that these weights do not have"):
        parse_packets([p.data for p in packets], 5, 5, base, Packing())
    assert len(unpacketise([p.data for p in packets], 5, 5, base)) == 2


def test_tables_travel_in_weights_and_wrong_ones_are_refused() -> None:
    tensors = tables().to_tensors()
    again = Tables.from_tensors(tensors)
    tokens = drawn_tokens(5, 5, 0.7, 8)
    assert packetise(tokens, again, 64) == packetise(tokens, tables(), 64)
    for name, wrong in (
        ("levels", torch.tensor([4, 3], dtype=torch.uint8)),
        ("earlier", torch.zeros(3, 3, dtype=torch.int8)),
        ("shifts", torch.tensor([0, 0, 0, 99], dtype=torch.int8)),
    ):
        with pytest.raises(WeightsError, match=name):
            Tables.from_tensors(tensors | {f"tables.refine8.{name}": wrong})
    del tensors["tables.refine4.place"]
    with pytest.raises(WeightsError, match=r"refine4\.place"):
        Tables.from_tensors(tensors)


@pytest.mark.parametrize(
    ("mode", "digest"),
    [
        ("independent", "4ffcee8c7c744569"),
        ("map-dependent", "b0ccbcb179397462"),
        ("single", "9eb3b7063184a3d0"),
    ],
)
def test_the_format_of_refinements_stands(mode: str, digest: str) -> None:
    packets = packetise(drawn_tokens(9, 11, 0.6, 9), tables(), 96, Packing(mode))
    assert hashlib.sha256(b"".join(p.data for p in packets)).hexdigest()[:16] == digest


def test_what_units_usually_take_is_their_information_by_the_table() -> None:
    """All alike in an even table; in one that expects zeros, less for those that have more."""
    even = RefinementTable.even((5, 3), 8, 8)
    units = np.array([[0, 1], [7, even.size - 1]])
    assert even.usual_bits(units) == pytest.approx(np.full((2, 2), 4 * np.log2(15)))
    bias = np.zeros((even.digits, even.most), dtype=np.int16)
    bias[::2, 2] = bias[1::2, 1] = 128  # two bits likelier
    skewed = replace(even, digit_bias=bias.reshape(-1))
    middle = even.of_digits(np.array([[2, 1] * 4, [0, 0] * 4, [2, 1] * 3 + [0, 0]]))
    few, most, some = skewed.usual_bits(middle)
    assert few == pytest.approx(4 * np.log2(8 / 4 * 6 / 4))
    assert (most - few, some - few) == (pytest.approx(16), pytest.approx(4))
