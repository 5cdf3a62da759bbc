"""The path of rates: linear between its rows, one step of the quantiser at a time."""

from __future__ import annotations

import numpy as np
import pytest

from sqlink.codecs.sqgan.rate_path import (
    AIMS,
    BASE_ROWS,
    POINTS,
    RatePath,
    checked_rows,
    default_rows,
    stored_rows,
)
from sqlink.errors import ConfigError

PLACES = 690


def test_a_point_lies_between_its_rows() -> None:
    path = RatePath(((0.1, 0.2), (0.5, 0.2), (1.0, 1.0)), 2)
    found = path.at(np.array([0, POINTS // 4, POINTS // 2, 3 * POINTS // 4, POINTS]), 1000)
    assert found.counts[0].tolist() == [100, 300, 500, 750, 1000]
    assert found.counts[1].tolist() == [200, 200, 200, 600, 1000]
    assert found.steps.tolist() == [0] * 5


def test_a_token_of_each_base_stream_is_always_sent() -> None:
    found = RatePath(((1e-6, 1e-6), (1.0, 1.0)), 2).at(np.array([0]), PLACES)
    assert [own.tolist() for own in found.counts] == [[1], [1]]


@pytest.mark.parametrize(("refinements", "steps"), [(0, 0), (2, 1), (2, 13)])
def test_rows_for_weights_without_any_reach_everything(refinements: int, steps: int) -> None:
    rows = default_rows(refinements, steps)
    assert checked_rows(rows, 2 + refinements, steps) == rows
    found = RatePath(rows, 2 + refinements).whole(PLACES)
    sizes = (PLACES, PLACES, PLACES, 4 * PLACES)
    assert [own[-1] for own in found.counts] == list(sizes[: 2 + refinements])
    assert found.steps[-1] == max(0, steps - 1)
    assert (np.diff(found.steps) >= 0).all()
    for own in found.counts:  # rising within a step
        assert (np.diff(own)[np.diff(found.steps) == 0] >= 0).all()


@pytest.mark.parametrize(
    "rows",
    [
        [(0.5, 0.5)],
        [(0.5, 0.5), (0.4, 1.0)],
        [(0.0, 0.5), (1.0, 1.0)],
        [(0.5, 0.5), (1.0, 1.5)],
        [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0)],
        [("a", "b"), (1.0, 1.0)],
    ],
)
def test_rows_that_are_no_path_are_refused(rows: list[tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match="split"):
        checked_rows(rows)


def test_a_step_that_the_weights_do_not_have_is_refused() -> None:
    rows = [(0.5, 0.5, 0.0, 0.0, 0), (1.0, 1.0, 1.0, 1.0, 0), (1.0, 1.0, 1.0, 1.0, 3)]
    with pytest.raises(ConfigError, match="steps must be whole numbers from 0 to 1"):
        checked_rows(rows, 4, 2)


def test_one_stored_path_is_every_aims() -> None:
    assert stored_rows(BASE_ROWS, 2, 0) == dict.fromkeys(AIMS, BASE_ROWS)
    with pytest.raises(ConfigError, match="no path for aim 'natural'"):
        stored_rows({"legible": BASE_ROWS}, 2, 0)
