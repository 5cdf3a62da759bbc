"""Noise in periodic tiles, made once, sampled by world coordinates.

Only additions, products and table look-ups are used, so that the values are the same on every
machine.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.dice import Dice

SIZE = 512
Array = NDArray[np.float32]


def _octave(cells: int, name: str) -> Array:
    """Return smooth, periodic value noise of `cells` x `cells` lattice points over the tile."""
    lattice = Dice(0, "noise", name, cells).many(cells, cells).astype(np.float32)
    step = SIZE // cells
    at = (np.arange(SIZE) // step) % cells
    part = ((np.arange(SIZE) % step) / np.float32(step)).astype(np.float32)
    part = part * part * (3 - 2 * part)
    rows = lattice[at] * (1 - part[:, None]) + lattice[(at + 1) % cells] * part[:, None]
    mixed = rows[:, at] * (1 - part) + rows[:, (at + 1) % cells] * part
    return np.asarray(mixed, np.float32)


@lru_cache(maxsize=8)
def tile(kind: str) -> Array:
    """Return a tile 512 x 512 in [0, 1]; kind: `grain` (white), `fine`, `fractal` (1/f), `soft`."""
    if kind == "grain":
        return Dice(0, "grain").many(SIZE, SIZE).astype(np.float32)
    first, last, fall = {"fine": (64, 512, 0.8), "fractal": (4, 512, 0.56), "soft": (4, 64, 0.5)}[
        kind
    ]
    total = np.zeros((SIZE, SIZE), np.float32)
    weight, cells = 1.0, first
    while cells <= last:
        total += np.float32(weight) * _octave(cells, kind)
        weight *= fall
        cells *= 2
    low, high = total.min(), total.max()
    scaled: Array = (total - low) / (high - low)
    return scaled


def whole(values: Array) -> NDArray[np.int32]:
    """Round down to int32; values beyond int32, near the horizon, are clipped."""
    return np.clip(np.floor(values), -2e9, 2e9).astype(np.int32)


def sample(kind: str, u: Array, v: Array, scale: float) -> Array:
    """Return the tile's nearest texel at (u, v), `scale` texels per unit."""
    table = tile(kind).ravel()
    iu = whole(u * np.float32(scale)) & (SIZE - 1)
    iv = whole(v * np.float32(scale)) & (SIZE - 1)
    return table.take(iv * SIZE + iu)


def smooth(kind: str, u: Array, v: Array, scale: float) -> Array:
    """Return the tile at (u, v), interpolated bilinearly, `scale` texels per unit."""
    table = tile(kind).ravel()
    fu, fv = np.broadcast_arrays(u * np.float32(scale), v * np.float32(scale))
    ru, rv = np.floor(fu), np.floor(fv)
    pu, pv = fu - ru, fv - rv
    iu, iv = whole(ru), whole(rv)
    left, right = iu & (SIZE - 1), (iu + 1) & (SIZE - 1)
    top, bottom = (iv & (SIZE - 1)) * SIZE, ((iv + 1) & (SIZE - 1)) * SIZE
    upper = table.take(top + left) * (1 - pu) + table.take(top + right) * pu
    lower = table.take(bottom + left) * (1 - pu) + table.take(bottom + right) * pu
    between: Array = upper * (1 - pv) + lower * pv
    return between


def hashed(a: Array, b: Array, salt: int) -> Array:
    """Return a number in [0, 1) for each pair of integers, to make each window different."""
    mixed = (
        whole(a).astype(np.uint32) * np.uint32(0x9E3779B1)
        + whole(b).astype(np.uint32) * np.uint32(0x85EBCA77)
        + np.uint32((salt * 0xC2B2AE3D) & 0xFFFFFFFF)
    )
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x2C1B3C6D)
    mixed ^= mixed >> np.uint32(12)
    return (mixed >> np.uint32(8)).astype(np.float32) * np.float32(1 / (1 << 24))
