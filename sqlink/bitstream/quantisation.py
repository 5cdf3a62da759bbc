"""Quantisation of the refinement's coefficients that weighs each digit's bits against its error.

    coefficients / step ── nearest digits ── closer to zero where bits are worth less ── digits

Rate-distortion optimised quantisation, by the tables that code the digits: a digit is worth its
bits where they lower the squared error by at least WORTH of a squared step each. (Karczewicz, Ye,
Chong, "Rate distortion optimized quantization", ITU-T VCEG-AH21, 2008.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import LEVELS
from sqlink.bitstream.refinement_table import (
    LIMIT,
    UNKNOWN,
    ZERO,
    Below,
    RefinementTable,
    Units,
    geometry,
    tokens_of,
    units_of,
)

WORTH = 0.13
"""Fall of the squared error for which a bit is spent, in squared steps."""
_ROUND_UP = 0.45
"""Added to a size before it is rounded down, to begin with."""
_ROUNDS = 60
"""Most digits of a unit that are tried."""


def quantised_by_bits(
    coefficients: NDArray[np.float32], table: RefinementTable, row: int, alone: bool
) -> Units:
    """Quantise one picture's coefficients of a layer, in steps: float32 [2 h, 2 w, D].

    row: of the table, for the quantiser's step. alone: whether units are coded without their
    neighbours. Returns digits, int16 [2 h, 2 w, D].
    """
    rounded = np.sign(coefficients) * np.floor(np.abs(coefficients) + _ROUND_UP)
    units = units_of((np.clip(rounded, -LIMIT, LIMIT) + ZERO).astype(np.int16))
    h, w, count = units.shape
    found = units.reshape(h * w, count)
    there = np.flatnonzero((found != ZERO).any(1))
    if not there.size:
        return tokens_of(units) - np.int16(ZERO)
    hidden = _hidden(units, table, row, alone)[there]
    wanted = _flat(coefficients)[there]
    units_ = found[there]
    digits = units_.astype(np.int64) - ZERO
    lower = digits - np.sign(digits)
    extra = (wanted - lower) ** 2 - (wanted - digits) ** 2
    extra[digits == 0] = np.inf
    bits = table.unit_bits(hidden, units_)
    for _ in range(_ROUNDS):
        place = extra.argmin(1)
        least = np.take_along_axis(extra, place[:, None], 1)[:, 0]
        rows = np.flatnonzero(np.isfinite(least))
        if not rows.size:
            break
        at = place[rows]
        tried = units_[rows]
        value = tried[np.arange(len(rows)), at].astype(np.int64) - ZERO
        tried[np.arange(len(rows)), at] = value - np.sign(value) + ZERO
        fewer = table.unit_bits(hidden[rows], tried)
        better = least[rows] < WORTH * (bits[rows] - fewer)
        units_[rows[better]], bits[rows[better]] = tried[better], fewer[better]
        extra[rows, at] = np.inf
    found[there] = units_
    return tokens_of(found.reshape(h, w, count)) - np.int16(ZERO)


def _flat(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    """Arrange values [2 h, 2 w, D] by units: [h w, 4 D]."""
    h, w, values = tokens.shape[0] // 2, tokens.shape[1] // 2, tokens.shape[2]
    four = tokens.reshape(h, 2, w, 2, values).transpose(0, 2, 1, 3, 4)
    return four.reshape(h * w, 4 * values)


def _hidden(units: Units, table: RefinementTable, row: int, alone: bool) -> NDArray[np.float32]:
    """Return the hidden values of all units of a layer, int16 [h, w, S], none masked."""
    h, w, count = units.shape
    places = geometry(h, w)
    around = None
    if not alone:
        flat = np.concatenate([units.reshape(-1, count), np.full((1, count), UNKNOWN, np.int16)])
        around = table.features(flat)[places.around]
    below = table.unknown
    each = Below(
        np.repeat(below.map_, h * w),
        np.repeat(below.base, h * w),
        np.repeat(below.coarser, h * w, 0),
    )
    return table.hidden_values(around, each, places.bands, LEVELS - 1, row)
