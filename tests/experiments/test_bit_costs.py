"""What tokens cost, against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.bit_costs import bit_cost, table
from sqlink.bitstream import Packing, Tables
from sqlink.bitstream.tables import BASE
from sqlink.bitstream.token_selection import ranks
from sqlink.weights.manifest import load

ROWS, COLUMNS = 12, 16
RNG = np.random.default_rng(3)
PICTURES = [
    (
        *(RNG.integers(512, size=(ROWS, COLUMNS)) for _ in BASE),
        *(ranks(RNG.random((ROWS, COLUMNS))) for _ in BASE),
    )
    for _ in range(2)
]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables.from_tensors(load("streets", "sqgan").tensors)


def test_the_table_has_a_row_for_each_packing_size_and_fraction(tables: Tables) -> None:
    rows = table(PICTURES, tables).splitlines()[2:]
    assert len(rows) == (1 + 3 + 3 + 1) * 4
    assert all(len(row.split("|")) == 13 for row in rows)


def test_indices_of_fixed_length_cost_as_much_as_the_formula_says(tables: Tables) -> None:
    found = bit_cost(PICTURES, tables, Packing("single", fixed=True), 96, 1.0)
    places = ROWS * COLUMNS
    assert (found.tokens, found.places) == (places, places)
    assert found.formula == 2 * (9 * places + places)
    assert found.indices == (9 * places, 9 * places)
    assert found.masks == (0, 0)  # all are kept
    parts = sum(found.masks) + sum(found.indices) + found.header + found.rest
    assert found.total == pytest.approx(parts)


def test_contexts_save_bits_where_indices_are_alike(tables: Tables) -> None:
    calm = [(np.full_like(a, 7), np.full_like(b, 7), c, d) for a, b, c, d in PICTURES]
    costs = [bit_cost(own, tables, Packing("single"), 96, 0.4).share for own in (calm, PICTURES)]
    assert costs[0] < 0.8 * costs[1]
