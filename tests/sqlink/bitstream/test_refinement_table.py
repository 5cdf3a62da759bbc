"""Units of the refinement: what goes in comes out, whatever the packing, at its proper cost."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sqlink.bitstream import (
    MODES,
    Packing,
    StreamTable,
    Tables,
    Tokens,
    packetise,
    read_packet,
    unpacketise,
)
from sqlink.bitstream.packets import parse_packets
from sqlink.bitstream.range_coder import Reader, Writer
from sqlink.bitstream.refinement_table import (
    LIMIT,
    ZERO,
    Below,
    RefinementTable,
    Units,
    classes_of,
    geometry,
    token_features,
    tokens_of,
    units_of,
)
from sqlink.bitstream.unit_coding import read_units, write_units
from sqlink.errors import DataError, WeightsError

VALUES8, VALUES4 = 3, 1
STEP = 5
Ints = NDArray[np.int64]


def drawn_table(values: int, coarser: int, seed: int) -> RefinementTable:
    """Random integers in place of fitted ones."""
    rng = np.random.default_rng(seed)
    even = RefinementTable.even(values, 16, 32, coarser)
    hidden, wide = 8, even.digits * 15

    def small(*shape: int) -> NDArray[np.int8]:
        return rng.integers(-40, 41, shape).astype(np.int8)

    return dataclasses.replace(
        even,
        around=small(8, 2 * even.digits + 2, hidden),
        map_embedding=small(18, hidden),
        base_embedding=small(34, hidden),
        coarser=small(len(even.coarser), hidden),
        place=rng.integers(-300, 300, (4, 16, hidden)).astype(np.int16),
        class_weights=small(hidden, 32),
        class_bias=rng.integers(-90, 90, 32).astype(np.int16),
        class_earlier=rng.integers(-90, 90, (32, 32)).astype(np.int16),
        digit_weights=small(hidden, wide),
        digit_bias=rng.integers(-90, 90, wide).astype(np.int16),
        earlier=small(2 * even.digits, wide),
        by_class=rng.integers(-90, 90, (64, 15 * values)).astype(np.int16),
        mask_weights=small(hidden),
        shifts=np.array([3, 5, 6, 2, 4], dtype=np.int8),
    )


def tables(values8: int = VALUES8, values4: int = VALUES4) -> Tables:
    base = StreamTable.even(16), StreamTable.even(32, 16)
    return Tables(*base, (drawn_table(values8, 0, 1), drawn_table(values4, values8, 2)))


def drawn_units(rng: np.random.Generator, *shape: int) -> Units:
    """Digits of every size, most of them small and many tokens all 0; shape: [..., S]."""
    digits = np.rint(rng.laplace(0, rng.choice([0, 0.4, 2, 20], (*shape[:-1], 1)), shape))
    return (np.clip(digits, -LIMIT, LIMIT) + ZERO).astype(np.int16)


def drawn_tokens(
    height: int,
    width: int,
    share: float,
    seed: int,
    values: tuple[int, int] = (VALUES8, VALUES4),
    step: int = STEP,
) -> Tokens:
    rng = np.random.default_rng(seed)
    sizes = [(height, width)] * 3 + [(2 * height, 2 * width)]
    layers = [rng.integers(0, 3, size) for size in sizes]
    kept = [rng.random(size) < share for size in sizes]
    base = [
        np.where(there, rng.integers(0, codes, there.shape), -1)
        for there, codes in zip(kept[:2], (16, 32), strict=True)
    ]
    units = [
        np.where(there[..., None], drawn_units(rng, *there.shape, 4 * n), -1).astype(np.int16)
        for there, n in zip(kept[2:], values, strict=True)
    ]
    finer = tuple(zip(units, layers[2:], strict=True))
    return Tokens(base[0], base[1], layers[0], layers[1], finer, step)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    st.sampled_from(MODES),
    st.booleans(),
    st.integers(0, 1000),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(0, 15),
)
def test_every_stream_comes_back(
    height: int,
    width: int,
    share: float,
    mode: str,
    fixed: bool,
    seed: int,
    values: tuple[int, int],
    step: int,
) -> None:
    tokens = drawn_tokens(height, width, share, seed, values, step)
    packing, own = Packing(mode, fixed), tables(*values)
    packets = packetise(tokens, own, 200, packing)
    pieces = [p.data for p in packets]
    found = unpacketise(pieces, height, width, own, packing, step)
    for ours, theirs in zip(found, tokens.streams[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert all(len(p.data) <= 200 for p in packets)
    for packet in packets:
        assert sum(packet.bits.values()) == 8 * len(packet.data)
    if packets:
        assert parse_packets(pieces, height, width, own, packing, step) == packets


@pytest.mark.parametrize("mode", MODES)
def test_what_comes_of_a_damaged_set_of_packets_was_sent(mode: str) -> None:
    """Lost packets leave masks, never other values; those of `single` break off."""
    tokens, packing = drawn_tokens(9, 11, 0.8, 3), Packing(mode)
    sent = [p.data for p in packetise(tokens, tables(), 64, packing)]
    for lost in range(0, len(sent), 3):
        came = [None if n == lost else data for n, data in enumerate(sent)]
        found = unpacketise(came, 9, 11, tables(), packing, STEP)
        some = 0
        for ours, theirs in zip(found, tokens.streams[0], strict=True):
            assert ((ours == theirs) | (ours == -1)).all()
            some += int((ours >= 0).sum())
        assert some > 0 or lost == 0


def test_units_of_refinement_need_no_other_packet_unless_they_hang_on_the_map() -> None:
    tokens = drawn_tokens(9, 11, 0.8, 4)
    for mode, alone in (("independent", True), ("map-dependent", False)):
        packets = packetise(tokens, tables(), 64, Packing(mode))
        found = unpacketise([packets[-1].data], 9, 11, tables(), Packing(mode), STEP)
        assert bool((found[3] >= 0).any()) is alone


def test_a_stream_cut_anywhere_gives_the_units_that_came() -> None:
    tokens, packing = drawn_tokens(9, 11, 1.0, 5), Packing("single")
    sent = [p.data for p in packetise(tokens, tables(), 64, packing)]
    counts = []
    for length in range(1, len(sent) + 1):
        cut = [*sent[:length], *([None] * (len(sent) - length))]
        found = unpacketise(cut, 9, 11, tables(), packing, STEP)
        for ours, theirs in zip(found, tokens.streams[0], strict=True):
            assert ((ours == theirs) | (ours == -1)).all()
        counts.append(
            [
                int((part.reshape(part.shape[0], part.shape[1], -1)[..., 0] >= 0).sum())
                for part in found
            ]
        )
    assert all(a <= b for p, q in itertools.pairwise(counts) for a, b in zip(p, q, strict=True))
    assert counts[-1] == [99, 99, 99, 396]


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(MODES), st.booleans())
def test_hostile_bytes_are_lost_packets_and_no_digit_leaves_its_range(
    data: st.DataObject, mode: str, fixed: bool
) -> None:
    """Bytes drawn, and bytes of true packets changed."""
    own, packing = tables(), Packing(mode, fixed)
    sent = [p.data for p in packetise(drawn_tokens(4, 5, 0.8, 11), own, 96, packing)]
    pieces = []
    for piece in sent:
        changed = bytearray(piece)
        for _ in range(data.draw(st.integers(0, 2))):
            changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
        pieces.append(bytes(changed))
    pieces += data.draw(st.lists(st.binary(max_size=80), max_size=3))
    for part in unpacketise(pieces, 4, 5, own, packing, STEP)[2:]:
        there = part[part[..., 0] >= 0].astype(np.int64)
        assert (np.abs(there - ZERO) <= LIMIT).all()
        assert (part[part[..., 0] < 0] == -1).all()
    for piece in pieces:
        with suppress(DataError):
            read_packet(piece, 4, 5, own, fixed, step=STEP)
    with suppress(DataError):
        parse_packets([p for p in pieces if p] or [b"\0"], 4, 5, own, packing, STEP)


def exact_weights(scores: list[int]) -> list[int]:
    """Powers of two of scores in 1/64 bit, at most 16 bits apart, as the format rounds them."""
    return [round(2.0 ** (20 - min(max(scores) - s, 1024) / 64)) for s in scores]


def test_bits_in_the_ledger_are_those_of_the_table() -> None:
    """The information of classes and digits, reckoned one by one with exact integers."""
    table, values, units_known = drawn_table(2, VALUES8, 6), 2, 8
    rng = np.random.default_rng(0)
    units = drawn_units(rng, units_known, 8)
    units[0], units[1, :4], units[2, 2] = ZERO, [129, 128, 128, 127], ZERO + LIMIT
    below = Below(
        rng.integers(0, 18, units_known),
        rng.integers(0, 34, units_known),
        token_features(np.where(rng.random((units_known, 1)) < 0.5, -1, drawn_units(rng, 8, 3))),
    )
    bands = rng.integers(0, 16, (units_known, 2))
    kinds = rng.integers(-2, 1, (units_known, 8, 1))
    states = np.where(kinds < 0, kinds, drawn_units(rng, units_known, 8, 8)).astype(np.int16)
    around = np.stack([table.features(row) for row in states])
    hidden = table.hidden_values(around, below, bands, 7, STEP)
    bits = table.unit_bits(hidden, units)
    whole = {f.name: getattr(table, f.name).astype(int) for f in dataclasses.fields(table)}
    for n in range(units_known):
        sums = np.zeros(8, dtype=object)
        for k in range(8):
            for f, value in enumerate(table.features(states[n])[k].astype(int).tolist()):
                sums += value * whole["around"][k, f]
        own = whole["map_embedding"][below.map_[n]] + whole["base_embedding"][below.base[n]]
        own = own + below.coarser[n].astype(int) @ whole["coarser"]
        sums += own * 4
        for axis, band in enumerate((bands[n, 0], bands[n, 1], 7, STEP)):
            sums += whole["place"][axis, band]
        exact = np.array([min(max(int(v) // 8, 0), 127) for v in sums])
        np.testing.assert_array_equal(hidden[n], exact)
        digits = (units[n].astype(int) - ZERO).tolist()
        classes: list[int] = []
        total = 0.0
        for token in range(4):
            mine = digits[token * values : (token + 1) * values]
            size = sum(map(abs, mine))
            own_class = 0 if not size else min(7, 1 + int(np.floor(np.log2(size))))
            scores = []
            for name in range(8):
                column = token * 8 + name
                score = int(exact @ whole["class_weights"][:, column]) // 16
                score += int(whole["class_bias"][column])
                for before, other in enumerate(classes):
                    score += int(whole["class_earlier"][before * 8 + other, column])
                scores.append(score)
            weights = exact_weights(scores)
            total -= np.log2(weights[own_class] / sum(weights))
            classes.append(own_class)
            if not own_class:
                continue
            used, most = 0, [0, 1, 3, 7, 15, 31, 63, 10**9][own_class]
            for place in range(token * values, (token + 1) * values):
                if used >= most:
                    assert not digits[place]
                    continue
                row = own_class * 8 + min(7, used // 2 ** max(0, own_class - 3))
                scores = []
                for level in range(15):
                    column = place * 15 + level
                    score = int(exact @ whole["digit_weights"][:, column]) // 32
                    score += int(whole["digit_bias"][column])
                    score += int(whole["by_class"][row, column % (15 * values)])
                    for earlier in range(place):
                        seen = min(max(digits[earlier], -7), 7)
                        score += seen * int(whole["earlier"][earlier, column])
                        score += abs(seen) * int(whole["earlier"][8 + earlier, column])
                    scores.append(score)
                weights = exact_weights(scores)
                coded = min(max(digits[place], -7), 7)
                total -= np.log2(weights[coded + 7] / sum(weights))
                total += 6 * (abs(coded) == 7)
                used += abs(coded)
        assert bits[n] == pytest.approx(total, abs=1e-3)
    # What the range coder counts is the same, and what it reads.
    writer = Writer()
    write_units(writer, table, hidden, units, False)
    assert writer.bits == pytest.approx(bits.sum(), abs=1e-3)
    reader = Reader(writer.to_bytes())
    np.testing.assert_array_equal(read_units(reader, table, hidden, False), units)
    assert reader.bits == pytest.approx(bits.sum(), abs=1e-3)


def test_the_class_of_a_token_is_the_order_of_the_sum_of_its_sizes() -> None:
    sums = np.arange(200)
    classes = classes_of(np.stack([sums // 2, -(sums - sums // 2)], axis=1))
    expected = [0, *(min(7, 1 + int(np.log2(s))) for s in sums[1:].tolist())]
    assert classes.tolist() == expected


def test_tokens_of_zeros_cost_their_class_alone() -> None:
    """A table that is sure of zeros: a kept unit of zeros is next to free, and so is its packet."""
    even = RefinementTable.even(12, 8, 8)
    bias = np.zeros((4, 8), dtype=np.int16)
    bias[:, 0] = 1024
    sure = replace(even, class_bias=bias.reshape(-1))
    zeros = np.full((20, 48), ZERO, dtype=np.int16)
    assert (sure.unit_bits(np.zeros((20, 1), dtype=np.float32), zeros) < 0.01).all()
    writer = Writer()
    write_units(writer, sure, np.zeros((20, 1), dtype=np.float32), zeros, False)
    assert len(writer.to_bytes()) == 1


def test_digits_up_to_70_escape_and_larger_ones_are_refused() -> None:
    """Six bits more from 7 on; what cannot be said is not sent wrongly."""
    table = RefinementTable.even(1, 16, 32)
    hidden = np.zeros((1, 1), dtype=np.float32)
    cost = {}
    for digit in (2, 6, 7, 8, LIMIT):
        units = np.full((1, 4), ZERO + digit, dtype=np.int16)
        cost[digit] = float(table.unit_bits(hidden, units)[0])
        writer = Writer()
        write_units(writer, table, hidden, units, False)
        again = read_units(Reader(writer.to_bytes()), table, hidden, False)
        np.testing.assert_array_equal(again, units)
    assert cost[6] == cost[2] == pytest.approx(4 * (3 + np.log2(15)))
    assert cost[7] == cost[8] == cost[LIMIT] == pytest.approx(cost[2] + 4 * 6)
    tokens = drawn_tokens(3, 3, 1.0, 0)
    tokens.refinements[0][0][0, 0, 0] = ZERO + LIMIT + 1
    with pytest.raises(ValueError, match=r"digits must be -70\.\.70"):
        packetise(tokens, tables(), 96)


def test_a_unit_that_no_packet_can_hold_is_not_sent() -> None:
    """All others are, also those that come after it."""
    tokens = drawn_tokens(4, 4, 1.0, 13, (8, 1))
    own = tables(8, 1)
    units = tokens.refinements[0][0]
    units[1, 2] = ZERO + np.tile([-LIMIT, LIMIT], 16)
    found = unpacketise([p.data for p in packetise(tokens, own, 40)], 4, 4, own, step=STEP)
    lost = found[2][..., 0] < 0
    assert lost[1, 2]
    assert lost.sum() < 8
    np.testing.assert_array_equal(found[2][~lost], units[~lost])
    np.testing.assert_array_equal(found[3], tokens.refinements[1][0])


def test_digits_that_are_not_of_their_class_are_damage() -> None:
    """What no writer writes is refused, though the range coder can say it."""
    table = RefinementTable.even(2, 16, 32)
    writer = Writer()
    writer.numbers("index", np.array([3]), 8)
    for level in (7, 8):
        writer.numbers("index", np.array([level]), 15)
    with pytest.raises(DataError, match="not of their token's class"):
        read_units(Reader(writer.to_bytes()), table, np.zeros((1, 1), dtype=np.float32), False)


def test_a_class_that_is_used_up_costs_nothing_more() -> None:
    """The digits after the last one that the class allows."""
    table = RefinementTable.even(6, 16, 32)
    units = np.full((3, 24), ZERO, dtype=np.int16)
    units[0, 0] = units[1, 5] = ZERO - 1  # class 1, at the first digit and the last one
    units[2, :2] = ZERO + 1, ZERO - 2  # class 2, used up at the second digit
    bits = table.unit_bits(np.zeros((3, 1), dtype=np.float32), units)
    assert bits == pytest.approx(12 + np.log2(15) * np.array([1, 6, 2]))


def test_the_step_is_a_context() -> None:
    """A table that expects larger digits at finer steps spends fewer bits where they come."""
    even = RefinementTable.even(2, 8, 8)
    place = np.zeros((4, 16, 1), dtype=np.int16)
    place[3, :, 0] = 3 * np.arange(16)
    weights = np.tile(np.array([-8, -4, 0, 2, 4, 5, 6, 7], dtype=np.int8), 4)[None]
    table = replace(even, place=place, class_weights=weights)
    zeros, large = (np.full((1, 8), ZERO + digit, dtype=np.int16) for digit in (0, LIMIT))
    for units, grows in ((zeros, True), (large, False)):
        bits = [float(table.usual_bits(units, step)[0]) for step in range(16)]
        assert bits == sorted(bits, reverse=not grows)
        assert abs(bits[-1] - bits[0]) > 4
    tokens = drawn_tokens(5, 5, 1.0, 12, step=0)
    first, second = (packetise(replace(tokens, step=n), tables(), 96) for n in (0, 9))
    assert [p.data for p in first] != [p.data for p in second]
    with pytest.raises(ValueError, match=r"step must be 0\.\.15"):
        packetise(replace(tokens, step=16), tables(), 96)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 100))
def test_tokens_and_units_are_each_others_inverse(
    height: int, width: int, values: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    there = rng.random((height, width, 1)) < 0.7
    units = np.where(there, drawn_units(rng, height, width, 4 * values), -1).astype(np.int16)
    tokens = tokens_of(units)
    assert tokens.shape == (2 * height, 2 * width, values)
    np.testing.assert_array_equal(units_of(tokens), units)
    np.testing.assert_array_equal(tokens[1, 0], units[0, 0, 2 * values : 3 * values])
    tokens[0, 1] = -1
    assert (units_of(tokens)[0, 0] == -1).all()
    np.testing.assert_array_equal(units_of(tokens)[1:], units[1:])


def test_neighbours_of_one_pass_are_of_other_passes() -> None:
    around = geometry(6, 9)
    passes = np.append(around.passes, -1)
    assert (passes[around.around] != around.passes[:, None]).all()


def test_a_layer_that_the_weights_do_not_have_is_refused() -> None:
    tokens = drawn_tokens(5, 5, 1.0, 7)
    packets = packetise(tokens, tables(), 96)
    base = dataclasses.replace(tables(), refinements=())
    with pytest.raises(DataError, match="a layer that these weights do not have"):
        parse_packets([p.data for p in packets], 5, 5, base, Packing())
    assert len(unpacketise([p.data for p in packets], 5, 5, base)) == 2


def test_tables_travel_in_weights_and_wrong_ones_are_refused() -> None:
    tensors = tables().to_tensors()
    again = Tables.from_tensors(tensors)
    assert [table.values for table in again.refinements] == [VALUES8, VALUES4]
    tokens = drawn_tokens(5, 5, 0.7, 8)
    assert packetise(tokens, again, 96) == packetise(tokens, tables(), 96)
    for name, wrong in (
        ("values", torch.tensor([0], dtype=torch.uint8)),
        ("around", torch.zeros(8, 2, 3, dtype=torch.int8)),
        ("earlier", torch.zeros(3, 3, dtype=torch.int8)),
        ("by_class", torch.zeros(64, 45, dtype=torch.int8)),
        ("around", torch.tensor(0, dtype=torch.int8)),
        ("shifts", torch.tensor([0, 0, 0, 99, 0], dtype=torch.int8)),
    ):
        with pytest.raises(WeightsError, match=name) as caught:
            Tables.from_tensors(tensors | {f"tables.refine8.{name}": wrong})
        assert "\n" not in str(caught.value)
    del tensors["tables.refine4.place"]
    with pytest.raises(WeightsError, match=r"refine4\.place"):
        Tables.from_tensors(tensors)


def test_tables_of_an_earlier_version_are_refused_in_one_line() -> None:
    tensors = tables().to_tensors()
    del tensors["tables.refine8.values"]
    tensors["tables.refine8.levels"] = torch.tensor([9, 5, 5], dtype=torch.uint8)
    with pytest.raises(WeightsError, match=r"tables\.refine8 is of an earlier version") as caught:
        Tables.from_tensors(tensors)
    assert "\n" not in str(caught.value)


def test_a_table_beyond_exact_sums_is_refused() -> None:
    """255 digits a token still add up below 2^24; a thousand hidden values do not."""
    wide = RefinementTable.even(255, 2, 2)
    assert RefinementTable.from_tensors(wide.to_tensors("t"), "t").values == 255
    even = RefinementTable.even(1, 2, 2)
    hidden = 1100
    arrays = {
        name: np.zeros((*shape, hidden) if last else (hidden, *shape), dtype=kind)
        for name, shape, last, kind in (
            ("around", (8, 10), True, np.int8),
            ("map_embedding", (4,), True, np.int8),
            ("base_embedding", (4,), True, np.int8),
            ("coarser", (0,), True, np.int8),
            ("place", (4, 16), True, np.int16),
            ("class_weights", (32,), False, np.int8),
            ("digit_weights", (60,), False, np.int8),
            ("mask_weights", (), False, np.int8),
        )
    }
    with pytest.raises(WeightsError, match="too large for exact sums"):
        RefinementTable.from_tensors(replace(even, **arrays).to_tensors("t"), "t")


@pytest.mark.parametrize(
    ("mode", "digest"),
    [
        ("independent", "0df124390baef0f0"),
        ("map-dependent", "0e434a903ebbd606"),
        ("single", "706d734dabceab8d"),
    ],
)
def test_the_format_of_refinements_stands(mode: str, digest: str) -> None:
    packets = packetise(drawn_tokens(9, 11, 0.6, 9), tables(), 96, Packing(mode))
    assert hashlib.sha256(b"".join(p.data for p in packets)).hexdigest()[:16] == digest


def test_what_units_usually_take_is_their_information_by_the_table() -> None:
    """All alike in an even table; in one that expects zeros, less for those that have more."""
    even = RefinementTable.even(2, 8, 8)
    units = np.full((2, 2, 8), ZERO, dtype=np.int16)
    units[0, 1, 4] += 1
    units[1, 0, :] += 2
    units[1, 1, :4] += 3
    digit = np.log2(15)
    expected = np.array([[12, 12 + digit], [12 + 8 * digit, 12 + 4 * digit]])
    assert even.usual_bits(units, 0) == pytest.approx(expected)
    bias = np.zeros((even.digits, 15), dtype=np.int16)
    bias[:, 9] = 128  # two bits likelier
    skewed = replace(even, digit_bias=bias.reshape(-1))
    bits = skewed.usual_bits(units, 3)
    assert bits[1, 0] == pytest.approx(12 + 8 * np.log2(18 / 4))
    assert bits[1, 1] == pytest.approx(12 + 4 * np.log2(18))
