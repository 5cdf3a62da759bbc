"""The format of packets that can each be read alone, or with the map.

    kept tokens of a stream and layer, in sending order (see `sending_order`)
        . a . . b c . . . d . e . .|. f g . . . h ...
          └────── chunk ──────┘       └─ chunk ─┘       a packet holds one chunk, or several where a
          └────────── packet ──────────┘                layer ends within it

Each packet is one range-coded number. It holds, for every chunk, a head (which stream, which
places), which of the places are kept, and the indices of the kept places. A chunk begins and ends
with a kept place; these two cost nothing to signal.

The context of a place is its left neighbours in its run. A chunk may also depend on the map: then
the map's tokens around the place are context too, and the chunk holds a checksum of the map that it
was coded with. It is lost where that map did not arrive whole. Units of the refinement (see
`refinement_table`) are coded in chunks as well; they have no neighbours as context, and in a
map-dependent chunk the map's token at the same place.

`independent_writer` cuts tokens into packets.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import AROUND, LEVELS
from sqlink.bitstream.neighbourhood import Window, window
from sqlink.bitstream.range_coder import Coded, Port, Reader, Writer
from sqlink.bitstream.refinement_table import (
    MASKED,
    ZERO,
    Below,
    ExpectedToken,
    geometry,
)
from sqlink.bitstream.sending_order import Order, sending_order
from sqlink.bitstream.tables import Tables
from sqlink.bitstream.unit_coding import code_fixed, read_units, write_tokens
from sqlink.errors import DataError

LAYERS = 4
"""Largest number of layers of relevance in a stream."""
MAX_CHUNK = 1024
"""Places in a chunk: the head then takes at most 4 bytes on a grid of up to 8192 places."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Symbols = NDArray[np.signedinteger[Any]]
"""What a stream codes: indices int64 [...] of the base, or units int16 [..., S]."""

GROUPS = ((0, False), (1, False), (1, True), (2, False), (2, True), (3, False), (3, True))
"""Pairs of a stream and whether its chunk depends on the map."""
# How often a chunk belongs to each group and, within it, to each of the four layers.
KINDS = np.array(
    [
        [20.0, 2, 1, 1],
        [16, 4, 1, 1],
        [14, 2, 1, 1],
        [16, 2, 1, 1],
        [14, 2, 1, 1],
        [16, 2, 1, 1],
        [14, 2, 1, 1],
    ]
).reshape(1, -1)
_MORE = np.array([1 / 8])
"""Probability that another chunk follows."""
ALL_KEPT = LEVELS
"""Level of a chunk without masked places."""
CHECK = 256
"""Values of a map's checksum."""
_MOST_TOKENS = 2 + 1 + 4
"""Tokens and units, at most, for each place of the base's grid."""
_LEFT = (AROUND.index((0, -1)), AROUND.index((0, -2)))


@dataclass(frozen=True)
class Chunk:
    """A stretch of the sending order of one stream and layer.

    given_map: whether it depends on the map. start: its first place's position in sending order.
    kept: bool [n], first and last True. indices: int64 [n], -1 where not kept, or units int16 [n,
    S]. level: of the kept fraction, 16 where all are kept.
    """

    stream: int
    layer: int
    given_map: bool
    start: int
    kept: Bools
    indices: Symbols
    level: int


class NeedsMapError(Exception):
    """Raised by `read` for a packet that depends on the map where there is none.

    chunks: those of the packet that precede the first one that depends on the map.
    """

    def __init__(self, chunks: list[Chunk]) -> None:
        super().__init__("a packet depends on a map that did not arrive")
        self.chunks = chunks


@dataclass(frozen=True)
class Expected:
    """The coder's expectations at the n places of a chunk that is written.

    chances: [n], to be kept; mask_bits: [n], what each mask costs. weights: [k, J], of every index
    at the kept places; index_bits: [k], what each index costs. tokens: for units, instead of
    weights and index_bits, their expectations, of which `first` is the chunk's first; empty where
    indices have equal length.
    """

    chances: Floats
    weights: Floats
    mask_bits: Floats
    index_bits: Floats
    tokens: tuple[ExpectedToken, ...] = ()
    first: int = 0


@dataclass(frozen=True)
class Grid:
    """What both ends know: the grid, the tables, and the map where chunks depend on it.

    map_states: int64 [P + 1], indices of the map's places, masked or, the last, unknown; None where
    no chunk depends on it. fixed: indices of equal length. step: row of the tables for the
    quantiser's step, 0..15.
    """

    size: tuple[int, int]
    order: Order
    finer: Order
    window: Window
    tables: Tables
    fixed: bool
    map_states: Ints | None
    step: int

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        tables: Tables,
        fixed: bool,
        map_: Ints | None = None,
        step: int = 0,
    ) -> Grid:
        """Build one. map_: int64 [h, w], -1 where masked."""
        states = None
        if map_ is not None:
            masked = tables.map.masked
            states = np.append(np.where(map_ < 0, masked, map_).reshape(-1), masked + 1)
        return cls(
            (height, width),
            sending_order(height, width),
            sending_order(2 * height, 2 * width),
            window(height, width),
            tables,
            fixed,
            states,
            step,
        )

    @property
    def check(self) -> int:
        """Checksum of the map, 0..255."""
        assert self.map_states is not None
        return zlib.crc32(self.map_states.astype("<i8").tobytes()) % CHECK

    def order_of(self, stream: int) -> Order:
        """Return the sending order of a stream: units of the layer at 1/4 form a grid at 1/8."""
        return self.finer if stream == 3 else self.order

    def hidden_of_units(
        self, stream: int, given_map: bool, places: Ints, level: int
    ) -> NDArray[np.float32]:
        """Return the hidden values of units of the refinement at `places` (raster): [n, H]."""
        table = self.tables.refining(stream)
        height, width = self.size if stream == 2 else (2 * self.size[0], 2 * self.size[1])
        below = table.unknown
        if given_map and self.map_states is not None:
            row, column = np.divmod(places, width)
            if stream == 3:
                row, column = row // 2, column // 2
            under = self.map_states[row * self.size[1] + column]
            below = Below(under, below.base, below.coarser)
        return table.hidden_values(
            None, below, geometry(height, width).bands[places], level, self.step
        )

    def hidden_of_tokens(
        self, stream: int, given_map: bool, places: Ints, left: Ints, level: int
    ) -> NDArray[np.float32]:
        """Return the hidden values, [n, H], of tokens at `places` (raster).

        left: int64 [n, 2], states of the two left neighbours.
        """
        table = self.tables.of(stream)
        around = np.full((places.size, len(AROUND)), table.masked + 1)
        around[:, _LEFT] = left
        under = None
        if given_map and self.map_states is not None:
            under = self.map_states[self.window.under[places]]
        return table.hidden_values(around, under, self.window.bands[places], level)


def read(data: bytes, grid: Grid) -> tuple[list[Chunk], list[Coded], int]:
    """Return a packet's chunks, the coded symbols, and the number of bytes before the padding.

    Raises DataError for bytes that are not a packet, NeedsMapError for a packet that depends on a
    map where the grid has none.
    """
    reader, writer = Reader(data), Writer()
    limit = 8 * len(data) + 64
    chunks: list[Chunk] = []
    held = 0
    while True:
        chunks.append(code(reader, grid, before=chunks))
        held += int(chunks[-1].kept.sum())
        if held > _MOST_TOKENS * grid.order.places.size:
            raise DataError("a packet is damaged: it holds more tokens than there are places")
        if not more(reader, False):
            break
        if reader.bits > limit:
            raise DataError("a packet is cut short or damaged: it says more than it can hold")
    writer.replay(reader.coded)
    core = writer.to_bytes()
    if core.ljust(len(data), b"\0") != data:
        raise DataError("a packet is cut short or damaged: it does not read as it was written")
    return chunks, reader.coded, len(core)


def more(port: Port, follows: bool) -> bool:
    """Code whether another chunk follows."""
    return bool(port.flags("header", np.array([follows]), _MORE)[0])


def code(
    port: Port,
    grid: Grid,
    given: Chunk | None = None,
    expected: Expected | None = None,
    before: Sequence[Chunk] = (),
) -> Chunk:
    """Code one chunk: write the `given` one, with what is `expected` of it, or else read one.

    before: chunks of the packet that were read already.
    """
    kind = GROUPS.index((given.stream, given.given_map)) * LAYERS + given.layer if given else 0
    kind = int(port.indices("header", np.array([kind]), KINDS)[0])
    group, layer = divmod(kind, LAYERS)
    stream, given_map = GROUPS[group]
    if stream >= grid.tables.streams:
        raise DataError("a packet holds tokens of a layer that these weights do not have")
    if given_map and grid.map_states is None:
        raise NeedsMapError(list(before))
    order = grid.order_of(stream)
    size = order.places.size
    start = port.number("header", given.start if given else 0, size)
    most = min(MAX_CHUNK, size - start)
    length = port.number("header", given.kept.size - 1 if given else 0, most) + 1
    level = port.number("header", given.level if given else 0, ALL_KEPT + 1)
    if given_map and port.number("header", grid.check, CHECK) != grid.check:
        raise DataError("a packet is damaged, or depends on a map that did not arrive whole")

    if given is not None:
        assert expected is not None
        (_write_places if stream < 2 else _write_chunk_of_units)(port, grid, given, expected)
        return given
    places = order.places[start : start + length]
    if stream >= 2:
        return _read_chunk_of_units(port, grid, (stream, layer, given_map, start), places, level)
    table = grid.tables.of(stream)
    kept = np.ones(length, dtype=np.bool_)
    indices = np.full(length, -1, dtype=np.int64)
    # States of the chunk's places, after two unknown ones.
    states = np.full(length + 2, table.masked + 1)
    by_offset, ends = _by_offset(order.offsets[start : start + length])
    for offset, (first, last) in enumerate(pairwise(ends)):
        which = by_offset[first:last]
        left = np.full((which.size, 2), table.masked + 1)
        for back in range(min(offset, 2)):
            left[:, back] = states[which + 1 - back]
        seen = grid.hidden_of_tokens(stream, given_map, places[which], left, level)
        flagged = (which > 0) & (which < length - 1) & (level != ALL_KEPT)
        if flagged.any():
            chances = table.chance_kept(seen, level)[flagged]
            kept[which[flagged]] = port.flags("mask", kept[which[flagged]], chances)
        own = kept[which]
        chosen = which[own]
        if grid.fixed:
            indices[chosen] = port.numbers("index", indices[chosen], table.size)
        elif chosen.size:
            weights = table.index_weights_of(seen[own])
            indices[chosen] = port.indices("index", indices[chosen], weights)
        states[which + 2] = np.where(own, indices[which], table.masked)
    return Chunk(stream, layer, given_map, start, kept, indices, level)


def _read_chunk_of_units(
    port: Port, grid: Grid, head: tuple[int, int, bool, int], places: Ints, level: int
) -> Chunk:
    """Read the units of a chunk; head: stream, layer, given_map, start."""
    stream, layer, given_map, start = head
    table = grid.tables.refining(stream)
    kept = np.ones(len(places), dtype=np.bool_)
    hidden = grid.hidden_of_units(stream, given_map, places, level)
    if level != ALL_KEPT and len(places) > 2:
        chances = table.chance_kept(hidden[1:-1], level)
        kept[1:-1] = port.flags("mask", kept[1:-1], chances)
    indices = np.full((len(places), table.digits), MASKED, dtype=np.int16)
    indices[kept] = read_units(port, table, hidden[kept], grid.fixed)
    return Chunk(stream, layer, given_map, start, kept, indices, level)


def _write_chunk_of_units(port: Port, grid: Grid, chunk: Chunk, expected: Expected) -> None:
    """Write what `_read_chunk_of_units` reads, in the same order, from known expectations."""
    if chunk.level != ALL_KEPT and chunk.kept.size > 2:
        chances, bits = expected.chances[1:-1], expected.mask_bits[1:-1]
        port.flags("mask", chunk.kept[1:-1], chances, bits)
    if grid.fixed:
        code_fixed(port, chunk.indices[chunk.kept].astype(np.int64) - ZERO)
    else:
        count = int(chunk.kept.sum())
        write_tokens(port, expected.tokens, expected.first, expected.first + count)


def _by_offset(offsets: Ints) -> tuple[Ints, list[int]]:
    """Return places ordered by their offsets, and where each offset begins and the last ends."""
    return np.argsort(offsets, kind="stable"), [0, *np.cumsum(np.bincount(offsets)).tolist()]


def _write_places(port: Port, grid: Grid, chunk: Chunk, expected: Expected) -> None:
    """Write what `code` reads of a chunk's places, in the same order, from known expectations."""
    length, size = chunk.kept.size, grid.tables.of(chunk.stream).size
    order, ends = _by_offset(grid.order.offsets[chunk.start : chunk.start + length])
    flagged = (order > 0) & (order < length - 1) & (chunk.level != ALL_KEPT)
    own = chunk.kept[order]
    asked, chosen = order[flagged], order[own]
    kept = chunk.kept[asked]
    chances, mask_bits = expected.chances[asked], expected.mask_bits[asked]
    rank = (np.cumsum(chunk.kept) - 1)[chosen]
    indices = chunk.indices[chosen]
    if not grid.fixed:
        weights, index_bits = expected.weights[rank], expected.index_bits[rank]
    flags_before, indices_before = (
        np.concatenate([[0], np.cumsum(which)])[ends].tolist() for which in (flagged, own)
    )
    for (a, b), (c, d) in zip(pairwise(flags_before), pairwise(indices_before), strict=True):
        if a < b:
            port.flags("mask", kept[a:b], chances[a:b], mask_bits[a:b])
        if grid.fixed:
            port.numbers("index", indices[c:d], size)
        elif c < d:
            port.indices("index", indices[c:d], weights[c:d], index_bits[c:d])
