"""What the coder expects of refinement units: integers, the same on every machine.

A unit is the 2x2 tokens of a refinement layer at a place of the next coarser grid, S = 4 D digits
of a few levels each, sent or masked together; as a number it is their mixed radix, the first digit
the most significant.

    8 neighbouring units (single stream only) ── digits, their sizes ─┐
    map token, base token, coarser refinement token (where known) ─────┼─ weights ── ramp ─> hidden
    row, column, share that is kept ──────────────────────────────────┘                     │
    chance that the unit is kept <── weights ───────────────────────────────────────────────┤
    chance of each level of each digit <── weights (+ digits of the unit's earlier tokens) ─┘

The digits of one token are coded together, the four tokens one after the other. Anything that
stands around may be unknown. The arithmetic is that of `context_model`: sums of products stay below
2^24, so that float32 is exact, and chances are powers of two in steps of 1/64 bit.

    tables.STREAM.levels         uint8 [D]               levels of each digit of a token
    tables.STREAM.around         int8  [8, 2 S + 2, H]   digits, their sizes, masked, unknown
    tables.STREAM.map_embedding  int8  [J + 2, H]        of the map token: indices, masked, unknown
    tables.STREAM.base_embedding int8  [J + 2, H]        of the picture's base token
    tables.STREAM.coarser        int8  [2 D' + 2, H]     of the 1/8 token under a 1/4 unit
    tables.STREAM.place          int16 [3, 16, H]        added by row, column and level
    tables.STREAM.digit_weights  int8  [H, S * L]        L: the most levels of a digit
    tables.STREAM.digit_bias     int16 [S * L]           in 1/64 bit
    tables.STREAM.earlier        int8  [S * L, S * L]    of digits of earlier tokens, in 1/64 bit
    tables.STREAM.mask_weights   int8  [H]
    tables.STREAM.mask_bias      int16 [16]
    tables.STREAM.shifts         int8  [4]               of hidden, digit, mask sums, embeddings
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlink.bitstream.context_model import (
    HIDDEN_LIMIT,
    LEVELS,
    STEPS,
    Bools,
    Floats,
    Ints,
    StreamTable,
    powers,
)
from sqlink.errors import WeightsError

TOKENS = 4
"""Tokens of a unit, in raster order."""
NEIGHBOURS = tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0))
PASSES = 4
"""In which a single stream codes a layer: a place of each 2x2 tile after the other."""
_PASS_OF = np.array([[0, 2], [3, 1]])
_REACH = 16
_ODDS = 12
_EXACT = 1 << 24


@dataclass(frozen=True)
class Geometry:
    """Of a grid of P units, in raster order.

    around: int64 [P, 8], neighbours' places, P for outside. bands: int64 [P, 2], 0..15. passes:
    int64 [P], 0..3.
    """

    around: Ints
    bands: Ints
    passes: Ints


@lru_cache(maxsize=32)
def geometry(height: int, width: int) -> Geometry:
    """Of a grid of height x width units.

    >>> geometry(2, 2).passes.tolist()
    [0, 2, 3, 1]
    """
    row, column = np.divmod(np.arange(height * width), width)
    down, right = np.array(NEIGHBOURS).T
    rows, columns = row[:, None] + down, column[:, None] + right
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    around = np.where(inside, rows * width + columns, height * width)
    bands = np.stack([row * LEVELS // height, column * LEVELS // width], axis=1)
    return Geometry(around, bands, _PASS_OF[row % 2, column % 2])


def units_of(tokens: Ints, codes: int) -> Ints:
    """Tokens int64 [2 h, 2 w] to units int64 [h, w], -1 where any of the four is -1.

    codes: size of the token's alphabet.
    """
    h, w = tokens.shape[0] // 2, tokens.shape[1] // 2
    four = tokens.reshape(h, 2, w, 2).transpose(0, 2, 1, 3).reshape(h, w, TOKENS)
    number = np.zeros((h, w), dtype=np.int64)
    for k in range(TOKENS):
        number = number * codes + four[..., k]
    return np.where((four < 0).any(-1), -1, number)


def tokens_of(units: Ints, codes: int) -> Ints:
    """The inverse: int64 [h, w] to [2 h, 2 w], -1 where masked."""
    h, w = units.shape
    rest = np.maximum(units, 0)
    four = np.empty((h, w, TOKENS), dtype=np.int64)
    for k in reversed(range(TOKENS)):
        four[..., k] = rest % codes
        rest = rest // codes
    four[units < 0] = -1
    return four.reshape(h, w, 2, 2).transpose(0, 2, 1, 3).reshape(2 * h, 2 * w)


@dataclass(frozen=True)
class Below:
    """What stands under n units of a grid, states int64 [n] each: indices, masked, unknown.

    map_, base: of the base's tokens. coarser: `token_features` float32 [n, 2 D' + 2] of the 1/8
    token under a 1/4 unit; [n, 0] for the layer at 1/8.
    """

    map_: Ints
    base: Ints
    coarser: NDArray[np.float32]

    def take(self, which: Ints) -> Below:
        """Of some of the units."""
        return Below(self.map_[which], self.base[which], self.coarser[which])


@dataclass(frozen=True)
class RefinementTable:
    """One layer's table; the arrays are named and shaped above, all of them NumPy integers."""

    levels: NDArray[np.uint8]
    around: NDArray[np.int8]
    map_embedding: NDArray[np.int8]
    base_embedding: NDArray[np.int8]
    coarser: NDArray[np.int8]
    place: NDArray[np.int16]
    digit_weights: NDArray[np.int8]
    digit_bias: NDArray[np.int16]
    earlier: NDArray[np.int8]
    mask_weights: NDArray[np.int8]
    mask_bias: NDArray[np.int16]
    shifts: NDArray[np.int8]

    @property
    def values(self) -> int:
        """D, digits of a token."""
        return len(self.levels)

    @property
    def digits(self) -> int:
        """S, digits of a unit."""
        return TOKENS * len(self.levels)

    @property
    def most(self) -> int:
        """L, the most levels of a digit."""
        return int(self.levels.max())

    @property
    def codes(self) -> int:
        """Alphabet of a token."""
        return int(np.prod(self.levels.astype(np.int64)))

    @property
    def size(self) -> int:
        """Alphabet of a unit."""
        return int(self.codes**TOKENS)

    @property
    def unknown(self) -> Below:
        """Nothing known of what stands under a unit, [1]."""
        coarser = np.zeros((1, len(self.coarser)), dtype=np.float32)
        coarser[:, -1:] = 1
        return Below(
            np.array([len(self.map_embedding) - 1]),
            np.array([len(self.base_embedding) - 1]),
            coarser,
        )

    @cached_property
    def _floats(self) -> dict[str, NDArray[np.float32]]:
        arrays = {f.name: getattr(self, f.name).astype(np.float32) for f in fields(self)}
        arrays["around"] = arrays["around"].reshape(-1, self.around.shape[2])
        return arrays

    @cached_property
    def _radix(self) -> Ints:
        """What each digit of a unit counts."""
        levels = np.tile(self.levels.astype(np.int64), TOKENS)
        return np.append(np.cumprod(levels[::-1])[::-1][1:], 1)

    @cached_property
    def _alike(self) -> Bools:
        """[S, L]: which levels a digit has."""
        levels = np.tile(self.levels.astype(np.int64), TOKENS)
        return np.arange(self.most) < levels[:, None]

    def to_digits(self, units: Ints) -> Ints:
        """Units int64 [n], 0 or more, to digits int64 [n, S]."""
        levels = np.tile(self.levels.astype(np.int64), TOKENS)
        return units[:, None] // self._radix % levels

    def of_digits(self, digits: Ints) -> Ints:
        """The inverse."""
        number: Ints = digits @ self._radix
        return number

    def tokens(self, units: Ints) -> Ints:
        """The four tokens of units int64 [n], 0 or more: int64 [n, 4]."""
        places = self.codes ** np.arange(TOKENS - 1, -1, -1)
        return units[:, None] // places % self.codes

    def features(self, units: Ints) -> NDArray[np.float32]:
        """What neighbours see of units int64 [n], -1 masked, -2 unknown: float32 [n, 2 S + 2]."""
        return token_features(units, np.tile(self.levels, TOKENS))

    def look(
        self, around: NDArray[np.float32] | None, below: Below, bands: Ints, level: int
    ) -> NDArray[np.float32]:
        """Hidden values, float32 [n, H] of whole numbers 0..127, of n units.

        around: [n, 8, 2 S + 2], the neighbours' `features`; None: all unknown. below: of n units,
        or of one for all. bands: int64 [n, 2]. level: 0..15, more is 15.
        """
        floats = self._floats
        if around is None:
            sums = self._nothing_around[None]
        else:
            sums = around.reshape(len(around), -1) @ floats["around"]
        scale = np.float32(2.0 ** int(self.shifts[3]))
        sums = sums + scale * floats["map_embedding"].take(below.map_, axis=0)
        sums = sums + scale * floats["base_embedding"].take(below.base, axis=0)
        sums = sums + scale * (below.coarser @ floats["coarser"])
        place = floats["place"]
        sums = sums + place[0].take(bands[:, 0], axis=0)
        sums = sums + place[1].take(bands[:, 1], axis=0)
        sums = sums + place[2, min(level, LEVELS - 1)]
        sums *= np.float32(2.0 ** -int(self.shifts[0]))
        np.floor(sums, out=sums)
        hidden: NDArray[np.float32] = np.clip(sums, 0, HIDDEN_LIMIT, out=sums)
        return hidden

    @cached_property
    def _nothing_around(self) -> NDArray[np.float32]:
        sums: NDArray[np.float32] = self.around[:, -1].astype(np.float32).sum(0)
        return sums

    def chance_kept(self, hidden: NDArray[np.float32], level: int) -> Floats:
        """Probability that each of n units is kept, float64 [n]."""
        sums = hidden @ self._floats["mask_weights"]
        odds = np.floor(sums * np.float32(2.0 ** -int(self.shifts[2])))
        odds = odds + self.mask_bias[min(level, LEVELS - 1)]
        odds = np.clip(odds, -_ODDS * STEPS, _ODDS * STEPS).astype(np.int64)
        kept, masked = powers()[np.maximum(-odds, 0)], powers()[np.maximum(odds, 0)]
        chance: Floats = kept / (kept + masked)
        return chance

    def prior(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """What `weights_of` starts from, float32 [n, S * L]: all but the unit's own digits."""
        sums: NDArray[np.float32] = hidden @ self._floats["digit_weights"]
        sums *= np.float32(2.0 ** -int(self.shifts[1]))
        np.floor(sums, out=sums)
        sums += self._floats["digit_bias"]
        return sums

    def weights_of(self, prior: NDArray[np.float32], token: int, digits: Ints) -> Floats:
        """How much every level of a token's digits weighs, float64 [n * D, L], 0 where a digit has
        no such level.

        digits: int64 [n, S], of which those of earlier tokens are read.
        """
        n, values, most = len(prior), self.values, self.most
        own = slice(token * values * most, (token + 1) * values * most)
        sums = prior[:, own]
        if token:
            columns = self._floats["earlier"][:, own]
            rows = np.arange(token * values) * most + digits[:, : token * values]
            sums = sums + columns.take(rows.reshape(-1), axis=0).reshape(n, token * values, -1).sum(
                axis=1
            )
        sums = sums.reshape(n, values, most)
        there = self._alike[:values]
        sums = np.where(there, sums, -np.inf)
        below = np.minimum(sums.max(axis=2, keepdims=True) - sums, _REACH * STEPS)
        weights: Floats = powers().take(below.astype(np.intp)) * there
        return weights.reshape(n * values, most)

    def digit_bits(self, prior: NDArray[np.float32], digits: Ints) -> Floats:
        """Information of n units given all that is known of each, bits, float64 [n]."""
        total = np.zeros(len(prior))
        for token in range(TOKENS):
            weights = self.weights_of(prior, token, digits)
            own = digits[:, token * self.values : (token + 1) * self.values].reshape(-1)
            bits = np.log2(weights.sum(1)) - np.log2(weights[np.arange(len(own)), own])
            total += bits.reshape(len(prior), self.values).sum(1)
        return total

    def usual_bits(self, units: Ints) -> Floats:
        """About what units int64 [...], 0 or more, take, their masks not counted: their information
        in the middle of a picture of which nothing else is known, half of it kept.
        """
        middle = np.full((1, 2), LEVELS // 2)
        hidden = self.look(None, self.unknown, middle, LEVELS // 2)
        prior = np.repeat(self.prior(hidden), units.size, axis=0)
        return self.digit_bits(prior, self.to_digits(units.reshape(-1))).reshape(units.shape)

    @classmethod
    def even(
        cls,
        levels: tuple[int, ...],
        map_codes: int,
        base_codes: int,
        coarser_levels: tuple[int, ...] = (),
    ) -> RefinementTable:
        """A table for an untrained model: every level alike, masks by the level alone."""
        digits, hidden = TOKENS * len(levels), 1
        wide = digits * max(levels)
        below = 2 * len(coarser_levels) + 2 if coarser_levels else 0
        return cls(
            levels=np.array(levels, dtype=np.uint8),
            around=np.zeros((len(NEIGHBOURS), 2 * digits + 2, hidden), dtype=np.int8),
            map_embedding=np.zeros((map_codes + 2, hidden), dtype=np.int8),
            base_embedding=np.zeros((base_codes + 2, hidden), dtype=np.int8),
            coarser=np.zeros((below, hidden), dtype=np.int8),
            place=np.zeros((3, LEVELS, hidden), dtype=np.int16),
            digit_weights=np.zeros((hidden, wide), dtype=np.int8),
            digit_bias=np.zeros(wide, dtype=np.int16),
            earlier=np.zeros((wide, wide), dtype=np.int8),
            mask_weights=np.zeros(hidden, dtype=np.int8),
            mask_bias=StreamTable.even(2).mask_bias,
            shifts=np.zeros(4, dtype=np.int8),
        )

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """Integer tensors for the weights file, `prefix.NAME`."""
        return {f"{prefix}.{f.name}": torch.from_numpy(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> RefinementTable:
        """Read one. Raises WeightsError if tensors are missing or do not fit together."""
        found: dict[str, NDArray[Any]] = {}
        for field in fields(cls):
            tensor = tensors.get(f"{prefix}.{field.name}")
            if tensor is None:
                raise WeightsError(f"the weights have no {prefix}.{field.name}")
            found[field.name] = tensor.cpu().numpy()
        levels, around = found["levels"], found["around"]
        if levels.ndim != 1 or levels.dtype != np.uint8 or not len(levels) or around.ndim != 3:
            raise WeightsError(f"{prefix}: levels and around do not fit a table")
        if (levels % 2 == 0).any() or levels.min() < 3 or levels.max() > 15:
            raise WeightsError(f"{prefix}.levels must be odd, 3..15")
        if math.prod(levels.tolist()) ** TOKENS >= 1 << 63:
            raise WeightsError(f"{prefix}.levels make units beyond 2^63")
        digits, hidden = TOKENS * len(levels), around.shape[2]
        wide = digits * int(levels.max())
        shapes: dict[str, tuple[type[np.integer[Any]], tuple[int | None, ...]]] = {
            "around": (np.int8, (len(NEIGHBOURS), 2 * digits + 2, hidden)),
            "map_embedding": (np.int8, (None, hidden)),
            "base_embedding": (np.int8, (None, hidden)),
            "coarser": (np.int8, (None, hidden)),
            "place": (np.int16, (3, LEVELS, hidden)),
            "digit_weights": (np.int8, (hidden, wide)),
            "digit_bias": (np.int16, (wide,)),
            "earlier": (np.int8, (wide, wide)),
            "mask_weights": (np.int8, (hidden,)),
            "mask_bias": (np.int16, (LEVELS,)),
            "shifts": (np.int8, (4,)),
        }
        for name, (dtype, shape) in shapes.items():
            array = found[name]
            fits = array.ndim == len(shape) and all(
                want is None or have == want for have, want in zip(array.shape, shape, strict=True)
            )
            if array.dtype != dtype or not fits:
                raise WeightsError(f"{prefix}.{name} must be {dtype.__name__} {list(shape)}")
        shifts = found["shifts"].astype(np.int64)
        if shifts.min() < 0 or shifts.max() > 20 or shifts[3] > 7:
            raise WeightsError(f"{prefix}.shifts are out of range")
        largest = len(NEIGHBOURS) * (2 * digits + 2) * 7 * 128 + 3 * 32768
        largest += (128 * (2 + 2 * 16 * 7)) << int(shifts[3])
        if largest >= _EXACT or hidden * HIDDEN_LIMIT * 128 >= _EXACT:
            raise WeightsError(f"{prefix} is too large for exact sums")
        return cls(**found)


def token_features(tokens: Ints, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is seen of tokens int64 [n], -1 masked, -2 unknown: float32 [n, 2 D + 2], their digits
    from the middle, the sizes of these, and whether masked or unknown.
    """
    counts = levels.astype(np.int64)
    radix = np.append(np.cumprod(counts[::-1])[::-1][1:], 1)
    signed = (np.maximum(tokens, 0)[:, None] // radix % counts - (counts - 1) // 2).astype(
        np.float32
    )
    signed[tokens < 0] = 0
    flags = np.stack([tokens == -1, tokens == -2], axis=1).astype(np.float32)
    return np.concatenate([signed, np.abs(signed), flags], axis=1)
