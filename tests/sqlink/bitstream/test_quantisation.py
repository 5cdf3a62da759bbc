"""Quantisation by bits: no digit could go closer to zero at a profit, and a bit saves its worth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sqlink.bitstream.quantisation import WORTH, quantised_by_bits
from sqlink.bitstream.refinement_table import (
    LIMIT,
    UNKNOWN,
    ZERO,
    Below,
    RefinementTable,
    geometry,
    units_of,
)
from sqlink.bitstream.tables import Tables
from sqlink.weights.manifest import load

ROW = 6


@pytest.fixture(scope="module")
def table() -> RefinementTable:
    return Tables.from_tensors(load("streets", "sqgan").tensors).refinements[0]


def coefficients(values: int, seed: int = 0) -> NDArray[np.float32]:
    """Of 4 by 5 units, in steps; large ones are few, of long waves."""
    sizes = 2 / (1 + np.arange(values) / 2)
    drawn = np.random.default_rng(seed).laplace(0, 1, (8, 10, values)) * sizes
    return drawn.astype(np.float32)


def bits_of(
    digits: NDArray[np.int16], context: NDArray[np.int16], table: RefinementTable, alone: bool
) -> NDArray[np.float64]:
    """Bits of each unit, float64 [n], with neighbours as in `context`; both int16 [2 h, 2 w, D]."""
    units, shown = (units_of((part + ZERO).astype(np.int16)) for part in (digits, context))
    h, w, count = units.shape
    flat = np.concatenate([shown.reshape(-1, count), np.full((1, count), UNKNOWN, np.int16)])
    places = geometry(h, w)
    around = None if alone else table.features(flat)[places.around]
    below = Below(*(np.repeat(part, h * w, 0) for part in vars(table.unknown).values()))
    hidden = table.hidden_values(around, below, places.bands, 15, ROW)
    return table.unit_bits(hidden, units.reshape(-1, count))


def rounded(z: NDArray[np.float32], round_up: float) -> NDArray[np.int16]:
    return (np.sign(z) * np.floor(np.abs(z) + round_up)).astype(np.int16)


@pytest.mark.parametrize("alone", [True, False])
def test_the_cost_falls_for_every_unit_and_below_that_of_any_fixed_rounding(
    table: RefinementTable, alone: bool
) -> None:
    z = coefficients(table.values)
    found = quantised_by_bits(z, table, ROW, alone)
    context = rounded(z, 0.45)

    def cost(digits: NDArray[np.int16]) -> NDArray[np.float64]:
        error = units_error(z, digits)
        return error + WORTH * bits_of(digits, context, table, alone)

    assert (cost(found) <= cost(context) + 1e-9).all()
    totals = [cost(rounded(z, up)).sum() for up in (0.2, 0.25, 0.3, 0.33, 0.4, 0.5)]
    assert cost(found).sum() < 0.995 * min(totals)


def units_error(z: NDArray[np.float32], digits: NDArray[np.int16]) -> NDArray[np.float64]:
    """Squared error of each unit, float64 [n]."""
    squared = ((z - digits).astype(np.float64) ** 2).sum(-1)
    return squared.reshape(len(z) // 2, 2, -1, 2).sum((1, 3)).reshape(-1)


def test_digits_are_the_nearest_or_closer_to_zero(table: RefinementTable) -> None:
    z = 3 * coefficients(table.values, 1)
    found, nearest = quantised_by_bits(z, table, ROW, True), rounded(z, 0.45)
    assert ((found == nearest) | (found == nearest - np.sign(nearest))).all()
    assert (found != nearest).any()
    assert (found[np.abs(nearest - z) < 0.05] == nearest[np.abs(nearest - z) < 0.05]).mean() > 0.8


def test_what_is_small_or_far_out_of_range_is_still_in_range(table: RefinementTable) -> None:
    z = 0.4 * np.ones((4, 4, table.values), dtype=np.float32)
    assert not quantised_by_bits(z, table, ROW, False).any()
    z[0, 0, 0] = -1e4
    found = quantised_by_bits(z, table, ROW, False)
    assert found[0, 0, 0] == -LIMIT
    assert np.count_nonzero(found) == 1
