"""Colour and resampling, against floating point and what filters must keep."""

from __future__ import annotations

import numpy as np
import pytest

from sqlink.codecs.bpg.colour import double, halve, rgb_to_ycc, ycc_to_rgb

COLOURS = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
MATRIX = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.5],
        [0.5, -0.587 / 1.402, -0.114 / 1.402],
    ]
)


def test_colours_are_bt601_of_full_range() -> None:
    expected = COLOURS @ MATRIX.T + [0, 128, 128]
    got = np.stack(rgb_to_ycc(COLOURS), axis=-1)
    assert np.abs(got - expected.clip(0, 255)).max() <= 0.501
    back = (got - [0, 128, 128]) @ np.linalg.inv(MATRIX).T
    assert np.abs(ycc_to_rgb(*rgb_to_ycc(COLOURS)) - back.clip(0, 255)).max() <= 0.501


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (17, 33), (64, 64)])
def test_a_flat_plane_stays_flat(value: int, height: int, width: int) -> None:
    plane = np.full((height, width), value, np.uint8)
    small = halve(plane)
    assert small.shape == ((height + 1) // 2, (width + 1) // 2)
    assert (small == value).all()
    assert (double(small, height, width) == plane).all()


def test_resampling_moves_nothing() -> None:
    """A ramp keeps its place inside: samples of half size lie in the middle of four pixels."""
    ramp = np.add.outer(np.arange(40), 2 * np.arange(40)).astype(np.uint8)
    small = halve(ramp)
    inside = (slice(3, -3), slice(3, -3))
    expected = np.add.outer(2 * np.arange(20) + 0.5, 2 * (2 * np.arange(20) + 0.5))
    assert np.abs(small - expected)[inside].max() <= 0.5
    inside = (slice(10, -10), slice(10, -10))
    assert np.abs(double(small, 40, 40).astype(int) - ramp)[inside].max() <= 1


def test_rows_and_columns_are_treated_alike() -> None:
    plane = COLOURS[..., 0]
    difference = halve(plane).astype(int) - halve(np.ascontiguousarray(plane.T)).T
    assert np.abs(difference).max() <= 1
