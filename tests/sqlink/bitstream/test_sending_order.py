"""The sending order: a permutation whose every stretch is spread over the picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlink.bitstream.sending_order import RUN, sending_order


@given(st.integers(1, 60), st.integers(1, 60))
def test_every_place_comes_once_and_runs_go_right(height: int, width: int) -> None:
    order = sending_order(height, width)
    assert sorted(order.places.tolist()) == list(range(height * width))
    inside = np.flatnonzero(order.offsets)
    np.testing.assert_array_equal(order.places[inside], order.places[inside - 1] + 1)
    np.testing.assert_array_equal(order.places[inside] // width, order.places[inside - 1] // width)
    lengths = np.diff(np.append(np.flatnonzero(order.offsets == 0), height * width))
    assert lengths.max() <= RUN
    np.testing.assert_array_equal(order.offsets[inside], order.offsets[inside - 1] + 1)


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_every_stretch_is_spread_over_the_rows(share: float) -> None:
    """Row numbers of any stretch have the mean and the spread of the whole picture's."""
    height, width = 23, 30
    order, length = sending_order(height, width), int(share * 690)
    for start in range(0, 690 - length, 10):
        rows = order.places[start : start + length] // width
        assert abs(rows.mean() - 11) < 3.5
        assert 4.5 < rows.std() < 9
