"""The context model of the base's tokens: probabilities from neighbours, in integers only.

    5x5 places of the stream ── embedding ─┐
    3x3 places of the map    ── embedding ─┼─ weights ─(+ row, column, level)─ ramp ─> hidden
     (image stream only)                   ┘                                             │
    chance that the place is kept  <── weights ──────────────────────────────────────────┤
    chance of every index          <── weights ──────────────────────────────────────────┘

A neighbour is an index, masked, or unknown (not yet coded, lost, in another packet, outside). Any
set of neighbours may be unknown, so that one model serves every packetisation and order. The class
under an image token follows from the decoded map's tokens, whose embedding learns it.

All numbers are integers of 8 and 16 bits. Sums of products stay below 2^24, where float32 is exact,
so that every machine gets the same integers in any order of summation. Probabilities are powers of
two in steps of 1/64 bit, read from a table that is computed in decimal arithmetic.

    tables.STREAM.embedding       int8  [J+2, e]         |.| <= 63; rows: indices, masked, unknown
    tables.STREAM.around          int8  [24, e, H]       weights of the 5x5 window's places
    tables.STREAM.map_embedding   int8  [J'+2, e]        image only
    tables.STREAM.under           int8  [9, e, H]        image only
    tables.STREAM.place           int16 [3, 16, H]       added by row, column and level
    tables.STREAM.index_weights   int8  [H, J]
    tables.STREAM.index_bias      int16 [J]              in 1/64 bit
    tables.STREAM.mask_weights    int8  [H]
    tables.STREAM.mask_bias       int16 [16]             of each level, in 1/64 bit
    tables.STREAM.shifts          int8  [3]              of hidden, index and mask sums
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cache
from math import isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sqlink.errors import WeightsError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

AROUND = tuple((r, c) for r in range(-2, 3) for c in range(-2, 3) if (r, c) != (0, 0))
"""Neighbours in the same stream: (row, column) steps of the 5x5 window without its centre."""
UNDER = tuple((r, c) for r in range(-1, 2) for c in range(-1, 2))
"""Places of the map that are context of an image token."""
LEVELS = 16
"""Number of levels of the kept fraction, of the row and of the column."""
EMBEDDING_LIMIT = 63
HIDDEN_LIMIT = 127
STEPS = 64
"""Steps in a bit of a probability's logarithm."""
_REACH = 16  # bits between the likeliest index and the least likely one
_TOP = 20  # the likeliest index weighs 2^20
_ODDS = 12  # bits that the chance to be kept may be from even
_EXACT = 1 << 24
_BLOCK = 4096  # places that are processed together


@cache
def powers() -> NDArray[np.float64]:
    """round(2^(20 - d/64)) for d = 0..1024, whole numbers.

    >>> powers()[[0, 64, 1024]].tolist()
    [1048576.0, 524288.0, 16.0]
    """
    steps = [Decimal(2) ** (Decimal(_TOP) - Decimal(d) / STEPS) for d in range(_REACH * STEPS + 1)]
    return np.array([int(step.to_integral_value()) for step in steps], dtype=np.float64)


def level_of(kept: int, places: int) -> int:
    """Return the level, 0..15, of a stream with `kept` of `places` tokens.

    Levels are even steps of the square root of the kept fraction.

    >>> [level_of(k, 690) for k in (1, 20, 276, 690)]
    [0, 2, 10, 15]
    """
    return min(LEVELS - 1, isqrt(LEVELS * LEVELS * kept // places))


def information(weights: Floats, indices: NDArray[np.signedinteger[Any]]) -> Floats:
    """Return the information of n indices, bits, [n]; weights: [n, J], of all alternatives."""
    own = weights[np.arange(len(weights)), indices]
    total = np.einsum("nj->n", weights)  # exact: whole numbers, below 2^53
    bits: Floats = np.log2(total) - np.log2(own)
    return bits


@dataclass(frozen=True)
class StreamTable:
    """One stream's table; the arrays are named and shaped above, all of them NumPy integers.

    map_embedding and under are None for a stream that does not depend on the map.
    """

    embedding: NDArray[np.int8]
    around: NDArray[np.int8]
    place: NDArray[np.int16]
    index_weights: NDArray[np.int8]
    index_bias: NDArray[np.int16]
    mask_weights: NDArray[np.int8]
    mask_bias: NDArray[np.int16]
    shifts: NDArray[np.int8]
    map_embedding: NDArray[np.int8] | None = None
    under: NDArray[np.int8] | None = None
    _in_float: dict[str, NDArray[np.float32]] = field(init=False, repr=False, compare=False)
    """The arrays in float32 for computing; `around` and `under` as matrices [n * e, H]."""
    _no_map: NDArray[np.float32] | float = field(init=False, repr=False, compare=False)
    """[H]: contribution of a map that is unknown everywhere."""

    def __post_init__(self) -> None:
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        floats = {n: a.astype(np.float32) for n, a in arrays.items() if a is not None}
        for name in {"around", "under"} & floats.keys():
            floats[name] = floats[name].reshape(-1, floats[name].shape[-1])
        object.__setattr__(self, "_in_float", floats)
        no_map: NDArray[np.float32] | float = 0.0
        if "under" in floats:
            no_map = np.tile(floats["map_embedding"][-1], len(UNDER)) @ floats["under"]
        object.__setattr__(self, "_no_map", no_map)

    @property
    def size(self) -> int:
        """J, entries of the codebook."""
        return int(self.index_bias.size)

    @property
    def masked(self) -> int:
        """The state of a place that is not kept; one more is "unknown"."""
        return self.size

    def hidden_values(
        self, around: Ints, under: Ints | None, place: Ints, level: int
    ) -> NDArray[np.float32]:
        """Return the hidden values of n places, float32 [n, H] of whole numbers 0..127.

        level: 0..15; more is 15.

        around: int64 [n, 24], states of the neighbours. under: [n, 9], states of the map; None:
        all unknown. place: [n, 2], bands 0..15 of row and column.
        """
        floats, count = self._in_float, len(around)
        found = np.empty((count, self.around.shape[2]), dtype=np.float32)
        bands = floats["place"]
        for start in range(0, count, _BLOCK):
            part = slice(start, start + _BLOCK)
            own = floats["embedding"].take(around[part], axis=0)
            sums = own.reshape(len(own), -1) @ floats["around"]
            if under is not None and "under" in floats:
                below = floats["map_embedding"].take(under[part], axis=0)
                sums += below.reshape(len(own), -1) @ floats["under"]
            else:
                sums += self._no_map
            sums += bands[0].take(place[part, 0], axis=0)
            sums += bands[1].take(place[part, 1], axis=0)
            sums += bands[2, min(level, LEVELS - 1)]
            sums *= np.float32(2.0 ** -int(self.shifts[0]))
            np.floor(sums, out=sums)
            found[part] = np.clip(sums, 0, HIDDEN_LIMIT, out=sums)
        return found

    def chance_kept(self, hidden: NDArray[np.float32], level: int) -> Floats:
        """Return the probability that each of n places is kept, float64 [n]."""
        sums = hidden @ self._in_float["mask_weights"]
        odds = (
            np.floor(sums * np.float32(2.0 ** -int(self.shifts[2])))
            + self.mask_bias[min(level, LEVELS - 1)]
        )
        odds = np.clip(odds, -_ODDS * STEPS, _ODDS * STEPS).astype(np.int64)
        kept, masked = powers()[np.maximum(-odds, 0)], powers()[np.maximum(odds, 0)]
        chance: Floats = kept / (kept + masked)
        return chance

    def index_weights_of(self, hidden: NDArray[np.float32]) -> Floats:
        """Return the weight of every index at n places, float64 [n, J] of whole numbers above 0."""
        sums: NDArray[np.float32] = hidden @ self._in_float["index_weights"]
        sums *= np.float32(2.0 ** -int(self.shifts[1]))
        np.floor(sums, out=sums)
        sums += self._in_float["index_bias"]
        np.subtract(sums.max(axis=1, keepdims=True), sums, out=sums)
        np.minimum(sums, _REACH * STEPS, out=sums)
        return powers().take(sums.astype(np.intp))

    def index_bits(self, hidden: NDArray[np.float32], indices: Ints) -> Floats:
        """Return the information of an index at each of n places, bits, float64 [n]."""
        found = np.empty(len(indices))
        for start in range(0, len(indices), _BLOCK):
            weights = self.index_weights_of(hidden[start : start + _BLOCK])
            found[start : start + _BLOCK] = information(weights, indices[start : start + _BLOCK])
        return found

    @classmethod
    def even(cls, codes: int, map_codes: int | None = None) -> StreamTable:
        """Return a table without knowledge: equal indices, places kept as the level says.

        map_codes: of the map's codebook, for the image stream.
        """
        middles = [((level + 0.5) / LEVELS) ** 2 for level in range(LEVELS)]
        bias = [round(STEPS * float(np.log2(m / (1 - m)))) for m in middles]
        return cls(
            embedding=np.zeros((codes + 2, 1), dtype=np.int8),
            around=np.zeros((len(AROUND), 1, 1), dtype=np.int8),
            place=np.zeros((3, LEVELS, 1), dtype=np.int16),
            index_weights=np.zeros((1, codes), dtype=np.int8),
            index_bias=np.zeros(codes, dtype=np.int16),
            mask_weights=np.zeros(1, dtype=np.int8),
            mask_bias=np.array(bias, dtype=np.int16),
            shifts=np.zeros(3, dtype=np.int8),
            map_embedding=None if map_codes is None else np.zeros((map_codes + 2, 1), np.int8),
            under=None if map_codes is None else np.zeros((len(UNDER), 1, 1), dtype=np.int8),
        )

    def to_tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return integer tensors for the weights file, `prefix.NAME`."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return {f"{prefix}.{n}": torch.from_numpy(a) for n, a in arrays.items() if a is not None}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], prefix: str, map_codes: int | None
    ) -> StreamTable:
        """Read a table. map_codes: size of the map's codebook, for the image stream.

        Raises WeightsError if tensors are missing or do not fit together.
        """
        bias = tensors.get(f"{prefix}.index_bias")
        embedding = tensors.get(f"{prefix}.embedding")
        weights = tensors.get(f"{prefix}.index_weights")
        if bias is None or embedding is None or weights is None:
            raise WeightsError(
                f"the weights have no {prefix}: fit the tables with "
                "python -m sqlink.training.context_tables"
            )
        codes, width, hidden = bias.numel(), embedding.shape[-1], weights.shape[0]
        wanted: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "embedding": (torch.int8, (codes + 2, width)),
            "around": (torch.int8, (len(AROUND), width, hidden)),
            "place": (torch.int16, (3, LEVELS, hidden)),
            "index_weights": (torch.int8, (hidden, codes)),
            "index_bias": (torch.int16, (codes,)),
            "mask_weights": (torch.int8, (hidden,)),
            "mask_bias": (torch.int16, (LEVELS,)),
            "shifts": (torch.int8, (3,)),
        }
        if map_codes is not None:
            wanted["map_embedding"] = (torch.int8, (map_codes + 2, width))
            wanted["under"] = (torch.int8, (len(UNDER), width, hidden))
        for name, (dtype, shape) in wanted.items():
            tensor = tensors.get(f"{prefix}.{name}")
            if tensor is None or tensor.dtype != dtype or tuple(tensor.shape) != shape:
                raise WeightsError(f"{prefix}.{name} must be {dtype} {list(shape)}")
        arrays = {name: tensors[f"{prefix}.{name}"].cpu().numpy() for name in wanted}
        books = [arrays[name] for name in ("embedding", "map_embedding") if name in arrays]
        sums = (len(AROUND) + len(UNDER)) * width * EMBEDDING_LIMIT * 128 + 3 * 32768
        if any(np.abs(book.astype(np.int64)).max() > EMBEDDING_LIMIT for book in books):
            raise WeightsError(f"{prefix}: embeddings exceed {EMBEDDING_LIMIT}")
        if codes < 2 or sums >= _EXACT or hidden * HIDDEN_LIMIT * 128 >= _EXACT:
            raise WeightsError(f"{prefix} is too large for exact sums, or has fewer than two codes")
        if arrays["shifts"].min() < 0 or arrays["shifts"].max() > 30:
            raise WeightsError(f"{prefix}.shifts must be 0..30")
        return cls(**arrays)
