"""The context model of refinement units: probabilities of classes and digits, in integers only.

A token of a refinement is D *digits*: quantised coefficients, whole numbers from -70 to 70. A
*unit* is the 2x2 tokens at a place of the next coarser grid, S = 4 D digits, sent or masked
together. Both are stored as int16 of digit + ZERO, with -1 in every digit where masked or lost.

    8 neighbouring units (single stream only) ── digits, their sizes ─┐
    map token, base token, coarser refinement token (where known) ─────┼─ weights ── ramp ─> hidden
    row, column, share that is kept, quantiser step ──────────────────┘                     │
    chance that the unit is kept <── weights ───────────────────────────────────────────────┤
    chance of each class of a token <── weights (+ classes of the unit's earlier tokens) ───┤
    chance of each digit of it <── weights (+ its class, digits before it) ─────────────────┘

The four tokens are coded one after the other. First comes a token's *class*, the binary order of
the sum of its digits' magnitudes: 0 where all of them are 0, k for sums from 2^(k-1) to 2^k - 1, 7
for all larger ones. Then come its digits, until their magnitudes reach the largest sum of the
class. Context of a digit are the unit's digits before it and the part of the class's sum that is
used up. A digit of magnitude 7 or more is coded as 7 or -7, and counts as such in the sum; the rest
of its magnitude follows after the token's digits.

Any context may be unknown. The arithmetic is that of `context_model`: sums of products stay below
2^24, where float32 is exact, and probabilities are powers of two in steps of 1/64 bit.

    tables.STREAM.values         uint8 [1]               D
    tables.STREAM.around         int8  [8, 2 S + 2, H]   digits, their sizes, masked, unknown
    tables.STREAM.map_embedding  int8  [J + 2, H]        of the map token: indices, masked, unknown
    tables.STREAM.base_embedding int8  [J + 2, H]        of the picture's base token
    tables.STREAM.coarser        int8  [2 D' + 2, H]     of the 1/8 token under a 1/4 unit
    tables.STREAM.place          int16 [4, 16, H]        added by row, column, level and step
    tables.STREAM.class_weights  int8  [H, 4 * 8]
    tables.STREAM.class_bias     int16 [4 * 8]           in 1/64 bit
    tables.STREAM.class_earlier  int16 [4 * 8, 4 * 8]    of classes of earlier tokens, in 1/64 bit
    tables.STREAM.digit_weights  int8  [H, S * 15]
    tables.STREAM.digit_bias     int16 [S * 15]          in 1/64 bit
    tables.STREAM.earlier        int8  [2 S, S * 15]     of the digits before and of their sizes
    tables.STREAM.by_class       int16 [8 * 8, D * 15]   of the class and of how much of it is used
                                                         up, alike for all four tokens
    tables.STREAM.mask_weights   int8  [H]
    tables.STREAM.mask_bias      int16 [16]
    tables.STREAM.shifts         int8  [5]               of hidden, digit, mask sums, embeddings,
                                                         class sums
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    Floats,
    Ints,
    StreamTable,
    information,
    powers,
)
from sqlink.errors import WeightsError

Units = NDArray[np.int16]
"""Units [..., S] or tokens [..., D]: digits + ZERO, -1 where masked."""

ZERO = 128
"""The stored value of a digit of 0."""
LIMIT = 70
"""Largest magnitude of a digit."""
TOKENS = 4
"""Tokens of a unit, in raster order."""
ESCAPE = 7
"""Magnitude from which on a digit is coded in two parts."""
SIZES = 2 * ESCAPE + 1
"""Levels of a digit's first part."""
ESCAPES = LIMIT - ESCAPE + 1
"""Levels of its second part."""
CLASSES = 8
"""Number of classes of a token, by the sum of its digits' magnitudes."""
SHARES = 8
"""Number of parts of a class's sum that may be used up."""
STEP_ROWS = 16
"""Largest number of rows for the quantiser's steps; finer steps may share a row."""
MASKED, UNKNOWN = -1, -2
NEIGHBOURS = tuple((r, c) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0))
PASSES = 4
"""Passes of a layer in a single stream: each codes one place of every 2x2 tile."""
_PASS_OF = np.array([[0, 2], [3, 1]])
_CLASS_OF = np.array([min(CLASSES - 1, size.bit_length()) for size in range(1 << CLASSES - 1)])
_MOST = np.array([(1 << name) - 1 for name in range(CLASSES - 1)] + [1 << 30])
"""Largest sum of magnitudes in each class."""
_REACH = 16
_ODDS = 12
_EXACT = 1 << 24
_BLOCK = 4096  # units that are processed together


@dataclass(frozen=True)
class Geometry:
    """Neighbours, bands and passes of a grid of P units, in raster order.

    around: int64 [P, 8], neighbours' places, P for outside. bands: int64 [P, 2], 0..15. passes:
    int64 [P], 0..3.
    """

    around: Ints
    bands: Ints
    passes: Ints


@lru_cache(maxsize=32)
def geometry(height: int, width: int) -> Geometry:
    """Return the geometry of a grid of height x width units.

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


def units_of(tokens: Units) -> Units:
    """Convert tokens int16 [2 h, 2 w, D] to units [h, w, 4 D], -1 where any of four is masked.

    >>> units_of(np.array([[[128], [129]], [[127], [128]]], dtype=np.int16)).tolist()
    [[[128, 129, 127, 128]]]
    """
    h, w, values = tokens.shape[0] // 2, tokens.shape[1] // 2, tokens.shape[2]
    four = tokens.reshape(h, 2, w, 2, values).transpose(0, 2, 1, 3, 4).reshape(h, w, -1)
    masked = (four < 0).any(-1, keepdims=True)
    return np.where(masked, MASKED, four).astype(np.int16)


def tokens_of(units: Units) -> Units:
    """Convert units int16 [h, w, 4 D] to tokens [2 h, 2 w, D]."""
    h, w, digits = units.shape
    four = units.reshape(h, w, 2, 2, digits // TOKENS)
    return four.transpose(0, 2, 1, 3, 4).reshape(2 * h, 2 * w, digits // TOKENS)


def classes_of(digits: Ints) -> Ints:
    """Return the class, 0..7, of tokens with digits int64 [..., D].

    >>> classes_of(np.array([[0, 0], [0, -1], [2, 1], [-70, 70]])).tolist()
    [0, 1, 2, 7]
    """
    found: Ints = _CLASS_OF[np.minimum(np.abs(digits).sum(-1), len(_CLASS_OF) - 1)]
    return found


def token_features(tokens: Units) -> NDArray[np.float32]:
    """Return tokens int16 [n, D], or units, as context: float32 [n, 2 D + 2].

    These are the digits, limited to 7, their magnitudes, and two flags: masked (rows of -1) and
    unknown (rows of -2).
    """
    first = tokens[:, 0]
    signed = np.clip(tokens.astype(np.float32) - ZERO, -ESCAPE, ESCAPE)
    signed[first < 0] = 0
    flags = np.stack([first == MASKED, first == UNKNOWN], axis=1).astype(np.float32)
    return np.concatenate([signed, np.abs(signed), flags], axis=1)


@dataclass(frozen=True)
class Below:
    """Tokens at the places of n units in coarser grids; states int64 [n]: indices, masked, unknown.

    map_, base: of the base's tokens. coarser: `token_features` float32 [n, 2 D' + 2] of the 1/8
    token under a 1/4 unit; [n, 0] for the layer at 1/8.
    """

    map_: Ints
    base: Ints
    coarser: NDArray[np.float32]

    def take(self, which: Ints) -> Below:
        """Select some of the units."""
        return Below(self.map_[which], self.base[which], self.coarser[which])


@dataclass(frozen=True)
class RefinementTable:
    """One layer's table. The module's docstring names the arrays, all of NumPy integers; `values`
    follows from their shapes.
    """

    around: NDArray[np.int8]
    map_embedding: NDArray[np.int8]
    base_embedding: NDArray[np.int8]
    coarser: NDArray[np.int8]
    place: NDArray[np.int16]
    class_weights: NDArray[np.int8]
    class_bias: NDArray[np.int16]
    class_earlier: NDArray[np.int16]
    digit_weights: NDArray[np.int8]
    digit_bias: NDArray[np.int16]
    earlier: NDArray[np.int8]
    by_class: NDArray[np.int16]
    mask_weights: NDArray[np.int8]
    mask_bias: NDArray[np.int16]
    shifts: NDArray[np.int8]

    @property
    def values(self) -> int:
        """D, digits of a token."""
        return int(self.by_class.shape[1]) // SIZES

    @property
    def digits(self) -> int:
        """S, digits of a unit."""
        return TOKENS * self.values

    @property
    def unknown(self) -> Below:
        """An unknown `Below`, of one unit."""
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
    def _of_tokens(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
        """Return weights [H, D * 15] and bias [D * 15] of each of the four tokens."""
        wide = self.values * SIZES
        owns = [slice(token * wide, (token + 1) * wide) for token in range(TOKENS)]
        weights, bias = self._floats["digit_weights"], self._floats["digit_bias"]
        return tuple((np.ascontiguousarray(weights[:, own]), bias[own]) for own in owns)

    @cached_property
    def _before(self) -> tuple[NDArray[np.float32], ...]:
        """Return contributions of earlier digits, by token: [2 (t + 1) D, D * 15]."""
        before = np.arange(self.digits)[:, None] < np.arange(self.digits)
        both = self._floats["earlier"].reshape(2, self.digits, self.digits, SIZES)
        both = both * before[..., None]
        found = []
        for token in range(TOKENS):
            end = (token + 1) * self.values
            own = both[:, :end, token * self.values : end]
            found.append(np.ascontiguousarray(own.reshape(2 * end, -1)))
        return tuple(found)

    @cached_property
    def _of_digits(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
        """Return for each of S digits contributions of its own token's digits, [2 D, 15], and
        `by_class` [8 * 8, 15], the same for every token.
        """
        values, found = self.values, []
        for digit in range(self.digits):
            token, value = divmod(digit, values)
            own = self._before[token].reshape(2, (token + 1) * values, values, SIZES)
            earlier = own[:, token * values :, value].reshape(2 * values, SIZES)
            by_class = self._floats["by_class"][:, value * SIZES : (value + 1) * SIZES]
            found.append((earlier, np.ascontiguousarray(by_class)))
        return tuple(found)

    def features(self, units: Units) -> NDArray[np.float32]:
        """Return units int16 [n, S] as context of their neighbours: float32 [n, 2 S + 2]."""
        return token_features(units)

    def hidden_values(
        self,
        around: NDArray[np.float32] | None,
        below: Below,
        bands: Ints,
        level: int,
        step: int,
    ) -> NDArray[np.float32]:
        """Return the hidden values of n units, float32 [n, H] of whole numbers 0..127.

        around: [n, 8, 2 S + 2], the neighbours' `features`; None: all unknown. below: of n units,
        or of one for all. bands: int64 [n, 2]. level: 0..15, more is 15. step: row of the tables
        for the quantiser's step, 0..15.
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
        sums = sums + (place[2, min(level, LEVELS - 1)] + place[3, step])
        sums *= np.float32(2.0 ** -int(self.shifts[0]))
        np.floor(sums, out=sums)
        hidden: NDArray[np.float32] = np.clip(sums, 0, HIDDEN_LIMIT, out=sums)
        return hidden

    @cached_property
    def _nothing_around(self) -> NDArray[np.float32]:
        sums: NDArray[np.float32] = self.around[:, -1].astype(np.float32).sum(0)
        return sums

    def chance_kept(self, hidden: NDArray[np.float32], level: int) -> Floats:
        """Return the probability that each of n units is kept, float64 [n]."""
        sums = hidden @ self._floats["mask_weights"]
        odds = np.floor(sums * np.float32(2.0 ** -int(self.shifts[2])))
        odds = odds + self.mask_bias[min(level, LEVELS - 1)]
        odds = np.clip(odds, -_ODDS * STEPS, _ODDS * STEPS).astype(np.int64)
        kept, masked = powers()[np.maximum(-odds, 0)], powers()[np.maximum(odds, 0)]
        chance: Floats = kept / (kept + masked)
        return chance

    def class_scores(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log probabilities of the four tokens' classes, without contributions of earlier
        tokens' classes: float32 [n, 4 * 8] of whole numbers, in 1/64 bit.
        """
        sums: NDArray[np.float32] = hidden @ self._floats["class_weights"]
        sums *= np.float32(2.0 ** -int(self.shifts[4]))
        np.floor(sums, out=sums)
        sums += self._floats["class_bias"]
        return sums

    def class_weights_of(self, scores: NDArray[np.float32], token: int, classes: Ints) -> Floats:
        """Return the weight of every class of a token, float64 [n, 8].

        scores: `class_scores`. classes: int64 [n, 4], of which those of earlier tokens are read.
        """
        own = slice(token * CLASSES, (token + 1) * CLASSES)
        sums = scores[:, own]
        earlier = self._floats["class_earlier"][:, own]
        for before in range(token):
            sums = sums + earlier.take(before * CLASSES + classes[:, before], axis=0)
        return _weights(sums)

    def token_scores(
        self, hidden: NDArray[np.float32], token: int, known: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return log probabilities of a token's digits, without the contribution of its class:
        float32 [n, D, 15] of whole numbers, in 1/64 bit.

        known: float32 [n, 2, S], the unit's digits, limited to 7, and their magnitudes; digits that
        are 0 contribute nothing.
        """
        weights, bias = self._of_tokens[token]
        sums: NDArray[np.float32] = hidden @ weights
        sums *= np.float32(2.0 ** -int(self.shifts[1]))
        np.floor(sums, out=sums)
        sums += bias
        end = (token + 1) * self.values
        sums += known[:, :, :end].reshape(len(known), 2 * end) @ self._before[token]
        return sums.reshape(len(sums), self.values, SIZES)

    def digit_weights_of(
        self, scores: NDArray[np.float32], digit: int, states: Ints, known: NDArray[np.float32]
    ) -> Floats:
        """Return the weight of every level of a digit, 0..S - 1, in n units, float64 [n, 15].

        scores: float32 [n, 15], the digit's `token_scores`, given earlier tokens. states: int64
        [n], `states_of` its token. known: float32 [n, 2 D], its token's digits before it and their
        magnitudes.
        """
        earlier, by_class = self._of_digits[digit]
        return _weights(scores + known @ earlier + by_class.take(states, axis=0))

    def expected(self, hidden: NDArray[np.float32], units: Units) -> tuple[ExpectedToken, ...]:
        """Return the expectations for the four tokens of n units int16 [n, S], none masked."""
        digits = units.astype(np.int64) - ZERO
        classes = classes_of(digits.reshape(len(digits), TOKENS, self.values))
        scores = self.class_scores(hidden)
        first = np.minimum(np.maximum(digits, -ESCAPE), ESCAPE)
        known = np.stack([first, np.abs(first)], axis=1).astype(np.float32)
        found = []
        for token in range(TOKENS):
            weights, own = self.class_weights_of(scores, token, classes), classes[:, token]
            part = slice(token * self.values, (token + 1) * self.values)
            which = np.flatnonzero(own)
            sizes = np.abs(first[which, part])
            before = np.cumsum(sizes, axis=1) - sizes
            kind = own[which, None]
            live = before < _MOST[kind]
            sums = self.token_scores(hidden[which], token, known[which])
            by_class = self._floats["by_class"].reshape(-1, self.values, SIZES)
            sums += by_class[states_of(kind, before), np.arange(self.values)]
            levels = _weights(sums.reshape(-1, SIZES))
            symbols = first[which, part] + ESCAPE
            bits = information(levels, symbols.reshape(-1)).reshape(live.shape)
            found.append(
                ExpectedToken(
                    own,
                    weights,
                    information(weights, own),
                    which,
                    live,
                    symbols,
                    levels.reshape(sums.shape),
                    np.where(live, bits, 0.0),
                    np.abs(digits[which, part]) - ESCAPE,
                )
            )
        return tuple(found)

    def unit_bits(self, hidden: NDArray[np.float32], units: Units) -> Floats:
        """Return the information of n units int16 [n, S], none masked, bits, float64 [n]."""
        total = np.empty(len(units))
        for start in range(0, len(units), _BLOCK):
            part = slice(start, start + _BLOCK)
            total[part] = bits_of(self.expected(hidden[part], units[part]))
        return total

    def usual_bits(self, units: Units, step: int) -> Floats:
        """Estimate the bits of units int16 [..., S], none masked, without their masks: their
        information at the middle of a picture, without context, when half of the units are kept.

        step: row of the tables for the quantiser's step.
        """
        middle = np.full((1, 2), LEVELS // 2)
        hidden = self.hidden_values(None, self.unknown, middle, LEVELS // 2, step)
        flat = units.reshape(-1, self.digits)
        hidden = np.broadcast_to(hidden, (len(flat), hidden.shape[1]))
        bits = self.unit_bits(hidden, flat)
        return bits.reshape(units.shape[:-1])

    @classmethod
    def even(
        cls, values: int, map_codes: int, base_codes: int, coarser_values: int = 0
    ) -> RefinementTable:
        """Return a table for an untrained model: equal classes and digits, masks by level alone.

        values: D. coarser_values: of a 1/8 token under a 1/4 unit, 0 for the layer at 1/8.
        """
        digits, hidden = TOKENS * values, 1
        below = 2 * coarser_values + 2 if coarser_values else 0
        return cls(
            around=np.zeros((len(NEIGHBOURS), 2 * digits + 2, hidden), dtype=np.int8),
            map_embedding=np.zeros((map_codes + 2, hidden), dtype=np.int8),
            base_embedding=np.zeros((base_codes + 2, hidden), dtype=np.int8),
            coarser=np.zeros((below, hidden), dtype=np.int8),
            place=np.zeros((4, LEVELS, hidden), dtype=np.int16),
            class_weights=np.zeros((hidden, TOKENS * CLASSES), dtype=np.int8),
            class_bias=np.zeros(TOKENS * CLASSES, dtype=np.int16),
            class_earlier=np.zeros((TOKENS * CLASSES, TOKENS * CLASSES), dtype=np.int16),
            digit_weights=np.zeros((hidden, digits * SIZES), dtype=np.int8),
            digit_bias=np.zeros(digits * SIZES, dtype=np.int16),
            earlier=np.zeros((2 * digits, digits * SIZES), dtype=np.int8),
            by_class=np.zeros((CLASSES * SHARES, values * SIZES), dtype=np.int16),
            mask_weights=np.zeros(hidden, dtype=np.int8),
            mask_bias=StreamTable.even(2).mask_bias,
            shifts=np.zeros(5, dtype=np.int8),
        )

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return integer tensors for the weights file, `prefix.NAME`."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays["values"] = np.array([self.values], dtype=np.uint8)
        return {f"{prefix}.{name}": torch.from_numpy(array) for name, array in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> RefinementTable:
        """Read a table.

        Raises WeightsError if tensors are missing, do not fit together, or are of an earlier
        version, whose tokens were coded differently.
        """
        names = ("values", *(f.name for f in fields(cls)))
        if f"{prefix}.values" not in tensors and f"{prefix}.levels" in tensors:
            raise WeightsError(
                f"{prefix} is of an earlier version of the refinement, whose tokens are coded "
                "differently: use weights that this version exported"
            )
        found: dict[str, NDArray[Any]] = {}
        for name in names:
            tensor = tensors.get(f"{prefix}.{name}")
            if tensor is None:
                raise WeightsError(f"the weights have no {prefix}.{name}")
            found[name] = tensor.cpu().numpy()
        values, around = found.pop("values"), found["around"]
        if values.dtype != np.uint8 or values.shape != (1,) or not values[0]:
            raise WeightsError(f"{prefix}.values must be uint8 [1], 1 or more")
        digits, hidden = TOKENS * int(values[0]), around.shape[-1] if around.ndim else 0
        shapes: dict[str, tuple[type[np.integer[Any]], tuple[int | None, ...]]] = {
            "around": (np.int8, (len(NEIGHBOURS), 2 * digits + 2, hidden)),
            "map_embedding": (np.int8, (None, hidden)),
            "base_embedding": (np.int8, (None, hidden)),
            "coarser": (np.int8, (None, hidden)),
            "place": (np.int16, (4, LEVELS, hidden)),
            "class_weights": (np.int8, (hidden, TOKENS * CLASSES)),
            "class_bias": (np.int16, (TOKENS * CLASSES,)),
            "class_earlier": (np.int16, (TOKENS * CLASSES, TOKENS * CLASSES)),
            "digit_weights": (np.int8, (hidden, digits * SIZES)),
            "digit_bias": (np.int16, (digits * SIZES,)),
            "earlier": (np.int8, (2 * digits, digits * SIZES)),
            "by_class": (np.int16, (CLASSES * SHARES, int(values[0]) * SIZES)),
            "mask_weights": (np.int8, (hidden,)),
            "mask_bias": (np.int16, (LEVELS,)),
            "shifts": (np.int8, (5,)),
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
        largest = len(NEIGHBOURS) * (2 * digits * ESCAPE + 2) * 128 + 4 * 32768
        largest += (128 * (2 + len(found["coarser"]) * ESCAPE)) << int(shifts[3])
        scores = hidden * HIDDEN_LIMIT * 128 + 2 * digits * ESCAPE * 128 + 2 * 32768
        if largest >= _EXACT or scores >= _EXACT:
            raise WeightsError(f"{prefix} is too large for exact sums")
        return cls(**found)


@dataclass(frozen=True)
class ExpectedToken:
    """The coder's expectations for one of the four tokens of n units that are written.

    classes: int64 [n], with weights [n, 8] and bits [n]. which: int64 [m], the units where the
    class is not 0. live: bool [m, D], the digits that are coded there. symbols: int64 [m, D], their
    levels, 0..14, with weights [m, D, 15] and bits [m, D], 0 where not coded. rest: int64 [m, D],
    the rest of a magnitude, coded where it is 0 or more.
    """

    classes: Ints
    class_weights: Floats
    class_bits: Floats
    which: Ints
    live: NDArray[np.bool_]
    symbols: Ints
    weights: Floats
    bits: Floats
    rest: Ints


def bits_of(tokens: Sequence[ExpectedToken]) -> Floats:
    """Return the information of units by their tokens' expectations, bits, float64 [n]."""
    total: Floats = np.sum([token.class_bits for token in tokens], axis=0)
    for token in tokens:
        total[token.which] += token.bits.sum(1) + np.log2(ESCAPES) * (token.rest >= 0).sum(1)
    return total


def states_of(classes: Ints, before: Ints) -> Ints:
    """Return a row, 0..63, of `by_class`, by the class and the sum of magnitudes so far.

    >>> states_of(np.array([1, 2, 4, 4, 7]), np.array([0, 3, 0, 9, 999])).tolist()
    [8, 19, 32, 36, 63]
    """
    used = np.minimum(before >> np.maximum(classes - 3, 0), SHARES - 1)
    states: Ints = SHARES * classes + used
    return states


def most_of(classes: Ints) -> Ints:
    """Return the largest sum of magnitudes in each class, int64 of their shape."""
    most: Ints = _MOST[classes]
    return most


def _weights(scores: NDArray[np.float32]) -> Floats:
    """Return weights, whole numbers above 0, float64 [n, J], by logarithms [n, J] in 1/64 bit."""
    most = torch.from_numpy(scores).amax(1, keepdim=True).numpy()  # NumPy takes five times as long
    below = np.minimum(most - scores, _REACH * STEPS)
    weights: Floats = powers().take(below.astype(np.intp))
    return weights
