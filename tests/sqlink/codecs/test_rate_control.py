"""The search for a setting is exact on every curve, and encodes little."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sqlink.codecs.rate_control import Ladder, Ladders, finest_setting


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=80), st.integers(1, 6000))
def test_what_is_found_fits_and_the_next_finer_setting_does_not(
    sizes: list[int], budget: int
) -> None:
    found = finest_setting(sizes.__getitem__, budget, len(sizes))
    if found is None:
        assert sizes[0] > budget
    else:
        assert sizes[found] <= budget
        assert found == len(sizes) - 1 or sizes[found + 1] > budget


@given(
    st.integers(0, 1 << 30),
    st.integers(20, 4000),
    st.integers(1, 1 << 20),
)
def test_on_a_rising_curve_it_is_the_finest_of_all(seed: int, floor: int, budget: int) -> None:
    steps = np.random.default_rng(seed).uniform(0.005, 0.2, 199)
    sizes = (floor * np.exp(np.cumsum([0.0, *steps]))).astype(int) + np.arange(200)
    tried: set[int] = set()

    def size(setting: int) -> int:
        tried.add(setting)
        return int(sizes[setting])

    typical = [(0.0, 100.0), (100.0, 5000.0), (199.0, 300000.0)]
    expected = [n for n in range(200) if sizes[n] <= budget]
    assert finest_setting(size, budget, 200, typical) == (expected[-1] if expected else None)
    assert len(tried) <= 4 + math.ceil(math.log2(200))


def test_settings_beyond_one_that_is_too_large_are_tried_where_asked() -> None:
    sizes = [10, 20, 31, 29, 40]
    assert finest_setting(sizes.__getitem__, 30, 5) == 1
    assert finest_setting(sizes.__getitem__, 30, 5, beyond=2) == 3


def test_a_picture_is_encoded_once_at_a_setting_for_all_its_budgets() -> None:
    made: list[int] = []

    def code(picture: np.ndarray, setting: int) -> bytes:
        made.append(setting)
        return bytes(10 * (setting + 1))

    ladders = Ladders()
    picture = np.zeros((16, 16, 3), np.uint8)
    for budget in (55, 300, 55, 410):
        found = finest_setting(ladders.of(picture, code).size, budget, 64)
        assert found == budget // 10 - 1
    assert len(made) == len(set(made))
    ladders.of(picture + 1, code).file(3)
    assert made[-1] == 3


def test_ladders_of_pictures_long_gone_are_let_go() -> None:
    ladders = Ladders(most_bytes=1000)
    first = np.zeros((16, 16, 3), np.uint8)
    kept = ladders.of(first, lambda picture, setting: bytes(600))
    kept.file(0)
    ladders.of(first + 1, lambda picture, setting: bytes(600)).file(0)
    ladders.of(first + 2, lambda picture, setting: bytes(600)).file(0)
    assert ladders.of(first, lambda picture, setting: bytes(600)) is not kept
    assert isinstance(kept, Ladder)
