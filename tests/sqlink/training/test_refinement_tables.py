"""Fitted tables code digits about as short as can be, and as their network reckons."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sqlink.bitstream.refinement_table import (
    LIMIT,
    ZERO,
    Below,
    RefinementTable,
    Units,
    token_features,
)
from sqlink.bitstream.token_selection import ranks
from sqlink.training.refinement_tables import (
    PictureTokens,
    UnitsOfPictures,
    _descend,
    _draw,
    _Network,
    fit_refinement_tables,
)

CODES = (5, 7)
VALUES = (3, 2)
SPREADS = np.array([0.15, 0.8, 4.0])
"""Of a unit's digits, at step 0: as likely each, twice as large at step 1."""


def chances_of(spread: float, value: int) -> NDArray[np.float64]:
    """Of digits from -70 to 70, [141], that fall off geometrically, the later ones of a token the
    faster.
    """
    fall = np.exp(-(1 + value) / spread)
    chances: NDArray[np.float64] = fall ** np.abs(np.arange(-LIMIT, LIMIT + 1))
    chances /= chances.sum()
    return chances


def drawn_units(rng: np.random.Generator, count: int, values: int, step: int) -> Units:
    of_units = rng.integers(0, len(SPREADS), count)
    digits = np.empty((count, 4 * values), dtype=np.int16)
    for row, spread in enumerate(SPREADS):
        for digit in range(4 * values):
            below = np.cumsum(chances_of(spread * (1 + step), digit % values))
            own = np.flatnonzero(of_units == row)
            digits[own, digit] = np.searchsorted(below[:-1], rng.random(own.size)) - LIMIT
    return digits + np.int16(ZERO)


def least_bits(units: Units, values: int, step: int) -> NDArray[np.float64]:
    """What units int16 [n, S] take if their distribution is known, bits, [n]."""
    logs = np.zeros((len(SPREADS), len(units)))
    for row, spread in enumerate(SPREADS):
        for digit in range(4 * values):
            chances = chances_of(spread * (1 + step), digit % values)
            logs[row] += np.log(chances[units[:, digit].astype(int) - ZERO + LIMIT])
    bits: NDArray[np.float64] = -np.log(np.exp(logs).mean(0)) / np.log(2)
    return bits


def drawn_pictures(seed: int, count: int, size: int = 8) -> list[PictureTokens]:
    rng = np.random.default_rng(seed)
    return [
        PictureTokens(
            step,
            rng.integers(0, CODES[0], (size, size)),
            rng.integers(0, CODES[1], (size, size)),
            (
                drawn_units(rng, size * size, VALUES[0], step).reshape(size, size, -1),
                drawn_units(rng, 4 * size * size, VALUES[1], step).reshape(2 * size, 2 * size, -1),
            ),
            (
                rng.random((size, size), dtype=np.float32),
                rng.random((2 * size, 2 * size), dtype=np.float32),
            ),
        )
        for _ in range(count)
        for step in (0, 1)
    ]


@pytest.fixture(scope="module")
def fitted() -> tuple[RefinementTable, RefinementTable]:
    return fit_refinement_tables(drawn_pictures(0, 30, 10), VALUES, CODES, 60)


@pytest.mark.parametrize("layer", [0, 1])
def test_fitted_tables_are_near_the_least_bits(
    layer: int, fitted: tuple[RefinementTable, RefinementTable]
) -> None:
    """Of units that were not fitted to, and nearer than tables of another step."""
    table, values = fitted[layer], VALUES[layer]
    even = RefinementTable.even(values, *CODES, VALUES[0] if layer else 0)
    assert table.digits == even.digits == 4 * values
    rng = np.random.default_rng(1)
    for step in (0, 1):
        units = drawn_units(rng, 2000, values, step)
        least = least_bits(units, values, step).mean()
        bits = table.usual_bits(units, step).mean()
        other = table.usual_bits(units, 1 - step).mean()
        assert least - 0.5 < bits < 1.17 * least
        assert bits < other
        assert bits < 0.8 * even.usual_bits(units, step).mean()


def test_a_table_spends_what_its_network_reckoned() -> None:
    """Of masks and of units with all that may be known of them, but for rounding."""
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 2, 4)
    units = np.stack([drawn_units(rng, 16, VALUES[1], step) for step in steps])
    below = np.stack([drawn_units(rng, 16, VALUES[0], 0)[:, : VALUES[0]] for _ in steps])
    part = UnitsOfPictures(
        (4, 4),
        steps,
        units,
        ranks(rng.random((4, 4, 4), dtype=np.float32)).reshape(4, 16),
        rng.integers(0, CODES[0], (4, 16)),
        rng.integers(0, CODES[1], (4, 16)),
        below,
        ranks(rng.random((4, 4, 4), dtype=np.float32)).reshape(4, 16),
        CODES,
    )
    network = _Network(VALUES[1], VALUES[0], CODES)
    network.count(iter(units))
    _descend(network, [part], 40, None, rate=0.02)
    table = network.stored()
    inputs, kept, own = _draw(part, 16, 16, torch.Generator().manual_seed(3))
    with torch.no_grad():
        mask, index = network.bits(network.hidden(*inputs), inputs[-1][:, 2], kept, own)
    around, map_, base, coarser, places = (tensor.numpy() for tensor in inputs)
    around = around.reshape(len(around), 8, -1)
    spent_masks, spent_units = [], []
    for n, (row, column, level, step) in enumerate(places.tolist()):
        one = slice(n, n + 1)
        under = Below(map_[one], base[one], coarser[one])
        hidden = table.hidden_values(around[one], under, np.array([[row, column]]), level, step)
        chance = float(table.chance_kept(hidden, level)[0])
        spent_masks.append(-np.log2(chance if kept[n] else 1 - chance))
        if kept[n]:
            unit = own[int(kept[:n].sum())]
            spent_units.append(float(table.unit_bits(hidden, unit[None])[0]))
    assert 20 < len(spent_units) < len(places)
    np.testing.assert_allclose(spent_masks, mask.numpy(), atol=0.15)
    np.testing.assert_allclose(spent_units, index.numpy(), rtol=0.03, atol=0.5)
    assert np.sum(spent_units) == pytest.approx(float(index.sum()), rel=0.01)


def test_what_is_seen_is_what_packets_allow() -> None:
    """Alone: nothing; given the map: the map; in a single stream: neighbours, and what is below."""
    pictures = drawn_pictures(4, 1, 4)
    rng = np.random.default_rng(4)
    part = UnitsOfPictures(
        (8, 8),
        np.array([p.step for p in pictures]),
        np.stack([p.units[1].reshape(64, -1) for p in pictures]),
        np.stack([ranks(p.gains[1]).reshape(64) for p in pictures]),
        rng.integers(0, CODES[0], (2, 64)),
        rng.integers(0, CODES[1], (2, 64)),
        np.full((2, 64, VALUES[0]), ZERO + 1, dtype=np.int16),
        np.tile(np.arange(64), (2, 1)),
        CODES,
    )
    inputs, kept, units = _draw(part, 200, 64, torch.Generator().manual_seed(5))
    around, map_, base, coarser, places = (t.numpy().reshape(200, 64, -1) for t in inputs)
    unknown = around.reshape(200, 64, 8, -1)[..., -1].all((1, 2))
    unseen = {
        "around": unknown,
        "map": (map_ == CODES[0] + 1).all((1, 2)),
        "base": (base == CODES[1] + 1).all((1, 2)),
        "coarser": coarser[..., -1].all(1),
    }
    np.testing.assert_array_equal(unseen["around"], unseen["base"])
    np.testing.assert_array_equal(unseen["around"], unseen["coarser"])
    assert 0.3 < unseen["map"].mean() < 0.5
    assert 0.5 < unseen["around"].mean() < 0.7
    assert (unseen["around"] | ~unseen["map"]).all()
    assert units.min() >= ZERO - LIMIT
    assert len(units) == int(kept.sum())
    nothing = token_features(np.full((1, 4 * VALUES[1]), -2, dtype=np.int16))
    np.testing.assert_array_equal(around[unknown][0, 0].reshape(8, -1)[:1], nothing)
    assert set(places[..., 3].ravel().tolist()) == {0, 1}
    shares = kept.numpy().reshape(200, 64).mean(1)
    assert (shares == 1).mean() > 0.1
    level = places[:, 0, 2]
    np.testing.assert_array_equal(level, np.minimum(15, np.floor(16 * np.sqrt(shares))))


def test_a_fit_is_the_same_every_time() -> None:
    pictures = drawn_pictures(6, 1, 4)
    first, second = (fit_refinement_tables(pictures, VALUES, CODES, 6) for _ in range(2))
    for ours, theirs in zip(first, second, strict=True):
        for field in fields(ours):
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))
    tensors = first[1].to_tensors("t")
    assert RefinementTable.from_tensors(tensors, "t").values == VALUES[1]
