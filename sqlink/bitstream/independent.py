"""Packets that each read alone, or given the map.

    kept tokens of a stream and layer, in sending order (see `scan_order`)
        . a . . b c . . . d . e . .|. f g . . . h ...
          └────── chunk ──────┘       └─ chunk ─┘       a packet holds one chunk, or several where a
          └────────── packet ──────────┘                layer ends within it

Units of the refinement (see `refinement_table`) are chunks like any others, of whose neighbours
nothing is known; one that hangs on the map knows the map's token under it.

Each packet is one range-coded number: for every chunk its head (what and where), which of its
places are kept, and the kept places' indices. Chunks begin and end with a kept place, the only ones
whose keeping costs nothing. A place knows its left neighbours in its run and, in a chunk that hangs
on the map, the map's tokens around it; such a chunk names the map it was made with, and is lost
where another map, or only part of it, came.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import AROUND, LEVELS, information, level_of
from sqlink.bitstream.neighbourhood import Window, window
from sqlink.bitstream.range_coder import Coded, Port, Reader, Writer, flag_bits
from sqlink.bitstream.refinement_table import (
    ESCAPE,
    ESCAPES,
    MASKED,
    SIZES,
    TOKENS,
    ZERO,
    Below,
    ExpectedToken,
    RefinementTable,
    Units,
    bits_of,
    classes_of,
    geometry,
    most_of,
    states_of,
)
from sqlink.bitstream.scan_order import Order, sending_order
from sqlink.bitstream.tables import Tables
from sqlink.errors import DataError

LAYERS = 4
"""Most layers of relevance in a stream."""
MAX_CHUNK = 1024
"""Places; keeps the head within 4 bytes up to a grid of 8192 places."""

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Symbols = NDArray[np.signedinteger[Any]]
"""Of a stream: indices int64 [...] of the base, or units int16 [..., S]."""

_GROUPS = ((0, False), (1, False), (1, True), (2, False), (2, True), (3, False), (3, True))
"""Streams, and whether hanging on the map."""
# How often a chunk is of which group and, within it, of which of the four layers.
_KINDS = np.array(
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
_CHECK = 256
_MOST_TOKENS = 2 + 1 + 4
"""Tokens and units for a place of the base's grid."""
_HELD = 4096
"""Tokens of a layer whose weights are all held at once; more are reckoned packet by packet."""
_LEFT = (AROUND.index((0, -1)), AROUND.index((0, -2)))


@dataclass(frozen=True)
class Chunk:
    """A stretch of the sending order of one stream and layer.

    hangs: whether it is coded given the map. start: its first place's position in sending order.
    kept: bool [n], first and last True. indices: int64 [n], -1 where not kept, or units int16 [n,
    S]. level: of the kept fraction, 16 where all are kept.
    """

    stream: int
    layer: int
    hangs: bool
    start: int
    kept: Bools
    indices: Symbols
    level: int


class NeedsMapError(DataError):
    """A packet hangs on the map, which is not there. chunks: those before."""

    def __init__(self, chunks: list[Chunk]) -> None:
        super().__init__("a packet hangs on a map that did not come")
        self.chunks = chunks


@dataclass(frozen=True)
class Expected:
    """What is expected at the n places of a chunk that is written: their chances to be kept, [n],
    and the weights of every index at the kept ones, [k, J]; with the bits that either costs.
    tokens: instead of the indices' weights and bits, what is expected of units, from the `first`
    one on; none where indices are of equal length.
    """

    chances: Floats
    weights: Floats
    mask_bits: Floats
    index_bits: Floats
    tokens: tuple[ExpectedToken, ...] = ()
    first: int = 0


@dataclass(frozen=True)
class Grid:
    """What both ends know: the grid, the tables, and the map where image chunks hang on it.

    map_states: int64 [P + 1], indices of the map's places, masked or, the last, unknown; None where
    nothing hangs on it. fixed: indices of equal length. step: of the quantiser, 0..15.
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
        """map_: int64 [h, w], -1 where masked."""
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
        """0..255, of the map."""
        assert self.map_states is not None
        return zlib.crc32(self.map_states.astype("<i8").tobytes()) % _CHECK

    def order_of(self, stream: int) -> Order:
        """The sending order of a stream: the layer at 1/4 has units at 1/8."""
        return self.finer if stream == 3 else self.order

    def look_at_units(
        self, stream: int, hangs: bool, places: Ints, level: int
    ) -> NDArray[np.float32]:
        """Hidden values of units of the refinement at `places` (raster)."""
        table = self.tables.refining(stream)
        height, width = self.size if stream == 2 else (2 * self.size[0], 2 * self.size[1])
        below = table.unknown
        if hangs and self.map_states is not None:
            row, column = np.divmod(places, width)
            if stream == 3:
                row, column = row // 2, column // 2
            under = self.map_states[row * self.size[1] + column]
            below = Below(under, below.base, below.coarser)
        return table.look(None, below, geometry(height, width).bands[places], level, self.step)

    def look(
        self, stream: int, hangs: bool, places: Ints, left: Ints, level: int
    ) -> NDArray[np.float32]:
        """Hidden values of places (raster) whose left neighbours' states, [n, 2], are `left`."""
        table = self.tables.of(stream)
        around = np.full((places.size, len(AROUND)), table.masked + 1)
        around[:, _LEFT] = left
        under = None
        if hangs and self.map_states is not None:
            under = self.map_states[self.window.under[places]]
        return table.look(around, under, self.window.bands[places], level)


def read(data: bytes, grid: Grid) -> tuple[list[Chunk], list[Coded], int]:
    """A packet's chunks, what stands in it, and its bytes before the padding.

    Raises DataError for bytes that are no packet, NeedsMapError where it hangs on a map and the
    grid has none.
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
    """Whether another chunk follows."""
    return bool(port.flags("header", np.array([follows]), _MORE)[0])


def code(
    port: Port,
    grid: Grid,
    given: Chunk | None = None,
    expected: Expected | None = None,
    before: Sequence[Chunk] = (),
) -> Chunk:
    """One chunk, written where it is given with what is `expected` of it, else read.

    before: what was already read of the packet.
    """
    kind = _GROUPS.index((given.stream, given.hangs)) * LAYERS + given.layer if given else 0
    kind = int(port.indices("header", np.array([kind]), _KINDS)[0])
    group, layer = divmod(kind, LAYERS)
    stream, hangs = _GROUPS[group]
    if stream >= grid.tables.streams:
        raise DataError("a packet holds tokens of a layer that these weights do not have")
    if hangs and grid.map_states is None:
        raise NeedsMapError(list(before))
    order = grid.order_of(stream)
    size = order.places.size
    start = port.number("header", given.start if given else 0, size)
    most = min(MAX_CHUNK, size - start)
    length = port.number("header", given.kept.size - 1 if given else 0, most) + 1
    level = port.number("header", given.level if given else 0, ALL_KEPT + 1)
    if hangs and port.number("header", grid.check, _CHECK) != grid.check:
        raise DataError("a packet is damaged, or hangs on a map that did not come whole")

    if given is not None:
        assert expected is not None
        (_write_places if stream < 2 else _write_chunk_of_units)(port, grid, given, expected)
        return given
    places = order.places[start : start + length]
    if stream >= 2:
        return _read_chunk_of_units(port, grid, (stream, layer, hangs, start), places, level)
    table = grid.tables.of(stream)
    kept = np.ones(length, dtype=np.bool_)
    indices = np.full(length, -1, dtype=np.int64)
    # States of the chunk's places, before which stand two that are unknown.
    states = np.full(length + 2, table.masked + 1)
    by_offset, ends = _by_offset(order.offsets[start : start + length])
    for offset, (first, last) in enumerate(pairwise(ends)):
        which = by_offset[first:last]
        left = np.full((which.size, 2), table.masked + 1)
        for back in range(min(offset, 2)):
            left[:, back] = states[which + 1 - back]
        seen = grid.look(stream, hangs, places[which], left, level)
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
    return Chunk(stream, layer, hangs, start, kept, indices, level)


def _read_chunk_of_units(
    port: Port, grid: Grid, head: tuple[int, int, bool, int], places: Ints, level: int
) -> Chunk:
    """The units of a chunk; head: stream, layer, hangs, start."""
    stream, layer, hangs, start = head
    table = grid.tables.refining(stream)
    kept = np.ones(len(places), dtype=np.bool_)
    hidden = grid.look_at_units(stream, hangs, places, level)
    if level != ALL_KEPT and len(places) > 2:
        chances = table.chance_kept(hidden[1:-1], level)
        kept[1:-1] = port.flags("mask", kept[1:-1], chances)
    indices = np.full((len(places), table.digits), MASKED, dtype=np.int16)
    indices[kept] = read_units(port, table, hidden[kept], grid.fixed)
    return Chunk(stream, layer, hangs, start, kept, indices, level)


def _write_chunk_of_units(port: Port, grid: Grid, chunk: Chunk, expected: Expected) -> None:
    """What `_read_chunk_of_units` reads, in the same order: all is known, nothing looked at."""
    if chunk.level != ALL_KEPT and chunk.kept.size > 2:
        chances, bits = expected.chances[1:-1], expected.mask_bits[1:-1]
        port.flags("mask", chunk.kept[1:-1], chances, bits)
    if grid.fixed:
        _code_fixed(port, chunk.indices[chunk.kept].astype(np.int64) - ZERO)
    else:
        count = int(chunk.kept.sum())
        write_tokens(port, expected.tokens, expected.first, expected.first + count)


def write_units(
    port: Port, table: RefinementTable, hidden: NDArray[np.float32], units: Units, fixed: bool
) -> None:
    """Write n units int16 [n, S], all of them there, whose hidden values are [n, H]."""
    if fixed:
        _code_fixed(port, units.astype(np.int64) - ZERO)
    else:
        write_tokens(port, table.expected(hidden, units), 0, len(units))


def write_tokens(port: Port, tokens: Sequence[ExpectedToken], start: int, stop: int) -> None:
    """Write the units start..stop - 1 of which this is expected."""
    for token in tokens:
        units = slice(start, stop)
        port.indices(
            "index", token.classes[units], token.class_weights[units], token.class_bits[units]
        )
        part = slice(*np.searchsorted(token.which, [start, stop]).tolist())
        live = token.live[part].T
        if not live.size:
            continue
        symbols, bits = token.symbols[part].T[live], token.bits[part].T[live]
        port.indices("index", symbols, token.weights[part].swapaxes(0, 1)[live], bits)
        rest = token.rest[part]
        rest = rest[rest >= 0]
        if rest.size:
            port.numbers("index", rest, ESCAPES)


def read_units(
    port: Port, table: RefinementTable, hidden: NDArray[np.float32], fixed: bool
) -> Units:
    """Read n units, int16 [n, S], whose hidden values are [n, H].

    Raises DataError for a token that is not of the class that was read.
    """
    count, values = len(hidden), table.values
    digits = np.zeros((count, table.digits), dtype=np.int64)
    if fixed:
        return _stored(_code_fixed(port, digits))
    classes = np.zeros((count, TOKENS), dtype=np.int64)
    known = np.zeros((count, 2, table.digits), dtype=np.float32)
    class_scores = table.class_scores(hidden)
    for token in range(TOKENS):
        weights = table.class_weights_of(class_scores, token, classes)
        classes[:, token] = port.indices("index", classes[:, token], weights)
        which = np.flatnonzero(classes[:, token])
        if not which.size:
            continue
        kind = classes[which, token]
        scores = table.token_scores(hidden[which], token, known[which])
        first = _read_token(port, table, token, kind, scores)
        own = slice(token * values, (token + 1) * values)
        known[which, 0, own], known[which, 1, own] = first, np.abs(first)
        _code_rest(port, first, first)
        if (classes_of(first) != kind).any():
            raise DataError("a packet is damaged: digits are not of their token's class")
        digits[which, own] = first
    return _stored(digits)


def _read_token(
    port: Port, table: RefinementTable, token: int, classes: Ints, scores: NDArray[np.float32]
) -> Ints:
    """First parts of the digits, int64 [m, D], of one of the four tokens of m units; scores:
    `token_scores` of the tokens before.
    """
    found = np.zeros(scores.shape[:2], dtype=np.int64)
    known = np.zeros((len(found), 2, table.values), dtype=np.float32)
    used, most = np.zeros(len(found), dtype=np.int64), most_of(classes)
    for value in range(table.values):
        coded = used < most
        live = slice(None) if coded.all() else np.flatnonzero(coded)
        states = states_of(classes[live], used[live])
        if not states.size:
            break
        seen = known[live].reshape(states.size, -1)
        digit = token * table.values + value
        weights = table.digit_weights_of(scores[live, value], digit, states, seen)
        own = port.indices("index", found[live, value], weights) - ESCAPE
        sizes = np.abs(own)
        found[live, value] = own
        known[live, 0, value], known[live, 1, value] = own, sizes
        used[live] += sizes
    return found


def _code_fixed(port: Port, digits: Ints) -> Ints:
    """Digits int64 [n, S], all of equal length."""
    first = np.clip(digits, -ESCAPE, ESCAPE)
    found = port.numbers("index", first.reshape(-1) + ESCAPE, SIZES).reshape(first.shape) - ESCAPE
    _code_rest(port, digits, found)
    return found


def _code_rest(port: Port, digits: Ints, first: Ints) -> None:
    """What is left of the sizes of digits int64 [n, D] whose first parts are `first`, where they
    are put together.
    """
    large = np.abs(first) == ESCAPE
    if large.any():
        rest = port.numbers("index", np.abs(digits[large]) - ESCAPE, ESCAPES)
        first[large] = np.sign(first[large]) * (ESCAPE + rest)


def _stored(digits: Ints) -> Units:
    """Digits as units."""
    return (digits + ZERO).astype(np.int16)


def _by_offset(offsets: Ints) -> tuple[Ints, list[int]]:
    """Places in the order of their offsets, and where each offset begins and the last one ends."""
    return np.argsort(offsets, kind="stable"), [0, *np.cumsum(np.bincount(offsets)).tolist()]


def _write_places(port: Port, grid: Grid, chunk: Chunk, expected: Expected) -> None:
    """What `code` reads of a chunk's places, in the same order: all is known, nothing looked at."""
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


def write(
    indices: Sequence[Symbols],
    layers: Sequence[Ints],
    grid: Grid,
    hangs: bool,
    packet_bytes: int,
) -> list[tuple[bytes, Writer]]:
    """The packets of a picture, most relevant first, none longer than packet_bytes.

    indices: int64 [h, w] of the base's streams and units int16 [h, w, S] of the refinement's, -1
    where nothing is sent; layers: int64 [h, w], 0..3. hangs: whether all but the map's chunks hang
    on the map, which is then the grid's. A unit that is too long for a packet is not sent.
    """
    queue = [
        segment
        for stream in range(len(indices))
        for segment in _segments(indices[stream], layers[stream], stream, grid, hangs)
    ]
    if not hangs:  # the image's chunks that hang on the map need all of it
        queue.sort(key=lambda segment: segment.layer)
    found: list[tuple[bytes, Writer]] = []
    number, first = 0, 0
    while number < len(queue):
        writer, empty = Writer(), True
        while number < len(queue):
            fitted = queue[number].fit(writer, empty, first, packet_bytes)
            if fitted is None:
                break
            writer, tokens = fitted
            empty = False
            number, first = _after(queue, number, first + tokens)
        if empty:
            if queue[number].stream < 2:
                raise ValueError(f"not one token fits {packet_bytes} bytes")
            number, first = _after(queue, number, first + 1)
            continue
        more(writer, False)
        found.append((writer.to_bytes(), writer))
    return found


def _after(queue: Sequence[_Segment], number: int, first: int) -> tuple[int, int]:
    """The segment and its token that stand at `first` of segment `number`, or in the next one."""
    return (number, first) if first < queue[number].positions.size else (number + 1, 0)


@dataclass(frozen=True)
class _Segment:
    """One stream's layer, ready to be cut into chunks: costs are running sums, in bits."""

    stream: int
    layer: int
    hangs: bool
    grid: Grid
    level: int
    kept: Bools  # [G], sending order
    indices: Symbols  # [G], or units [G, S], -1 where masked
    positions: Ints  # [K], where kept
    hidden: NDArray[np.float32]  # [G, H], as if every run were whole
    chances: Floats  # [G], to be kept
    weights: Floats | None  # [K, J] of the indices where kept; None: too many to be held
    tokens: tuple[ExpectedToken, ...]  # of the units where kept; empty: likewise
    mask_bits: Floats  # [G], of each place
    index_bits: Floats  # [K], of each token
    mask_cost: Floats  # [G + 1], of all places before this one
    index_cost: Floats  # [K + 1], of all tokens before this one

    def fit(
        self, writer: Writer, empty: bool, first: int, packet_bytes: int
    ) -> tuple[Writer, int] | None:
        """Encode as many tokens from `first` on as the packet still takes.

        Returns a new writer and the number of tokens, or None where not even one fits.
        """
        start = int(self.positions[first])
        room = 8.0 * packet_bytes - writer.bits - self._head_bits(start)
        reach = self.mask_cost[self.positions] + self.index_cost[1:]
        limit = room + self.mask_cost[start] + self.index_cost[first]
        last = int(np.searchsorted(reach, limit, side="right")) - 1
        bound = int(np.searchsorted(self.positions, start + MAX_CHUNK)) - 1
        last = min(max(last, first), bound)
        best: tuple[Writer, int] | None = None
        begins = self._begins(start)
        while first <= last <= bound:
            trial = writer.fork()
            if not empty:
                more(trial, True)
            self._encode(trial, first, last, begins)
            ended = trial.fork()
            more(ended, False)
            if len(ended.to_bytes()) > packet_bytes:
                if best is not None:
                    break
                last -= 1
            else:
                best = trial, last + 1 - first
                left = 8 * packet_bytes - ended.bits
                if last == bound or reach[last + 1] - reach[last] > left + 8:
                    break
                last += 1
        return best

    def _head_bits(self, start: int) -> float:
        size = self.kept.size
        group = _GROUPS.index((self.stream, self.hangs))
        kind = _KINDS[0, group * LAYERS + self.layer] / _KINDS.sum()
        ranges = np.log2(size) + np.log2(min(MAX_CHUNK, size - start)) + np.log2(ALL_KEPT + 1)
        return float(ranges - np.log2(kind) + (np.log2(_CHECK) if self.hangs else 0.0))

    def _begins(self, start: int) -> Expected | None:
        """What is expected of the first two places of a chunk from `start` on, or of one, where it
        begins within a run whose places before are in another packet.
        """
        if self.stream >= 2:
            return None
        table, level = self.grid.tables.of(self.stream), self.level
        offsets = self.grid.order.offsets[start : start + 2]
        if not offsets[0]:
            return None
        count = 1 + int(offsets[1:].any())
        left = np.full((count, 2), table.masked + 1)
        left[1:, 0] = self.indices[start]
        places = self.grid.order.places[start : start + count]
        kept, indices = self.kept[start : start + count], self.indices[start : start + count]
        hidden = self.grid.look(self.stream, self.hangs, places, left, level)
        chances = table.chance_kept(hidden, level)
        weights, index_bits = np.empty((0, 0)), np.empty(0)
        if not self.grid.fixed:
            weights = table.index_weights_of(hidden[kept])
            index_bits = information(weights, indices[kept])
        return Expected(chances, weights, flag_bits(kept, chances), index_bits)

    def _encode(self, writer: Writer, first: int, last: int, begins: Expected | None) -> None:
        """Append the chunk of tokens first..last."""
        start, stop = int(self.positions[first]), int(self.positions[last]) + 1
        kept, indices = self.kept[start:stop], self.indices[start:stop]
        chunk = Chunk(self.stream, self.layer, self.hangs, start, kept, indices, self.level)
        if self.stream >= 2:
            code(writer, self.grid, chunk, self._of_units(first, start, stop))
            return
        chances, mask_bits = self.chances[start:stop], self.mask_bits[start:stop]
        index_bits = self.index_bits[first : last + 1]
        weights = np.empty((0, 0))
        if self.weights is not None:
            weights = self.weights[first : last + 1]
        elif not self.grid.fixed:
            table = self.grid.tables.of(self.stream)
            weights = table.index_weights_of(self.hidden[start:stop][kept])
        if begins is not None:
            chances, mask_bits = (
                np.concatenate([new[: old.size], old[new.size :]])
                for new, old in ((begins.chances, chances), (begins.mask_bits, mask_bits))
            )
            if not self.grid.fixed:
                weights, index_bits = (
                    np.concatenate([new[: len(old)], old[len(new) :]])
                    for new, old in ((begins.weights, weights), (begins.index_bits, index_bits))
                )
        code(writer, self.grid, chunk, Expected(chances, weights, mask_bits, index_bits))

    def _of_units(self, first: int, start: int, stop: int) -> Expected:
        """What is expected of the units at start..stop - 1, of which token `first` is first."""
        chances, mask_bits = self.chances[start:stop], self.mask_bits[start:stop]
        tokens = self.tokens
        if not tokens and not self.grid.fixed:
            kept = self.kept[start:stop]
            table, first = self.grid.tables.refining(self.stream), 0
            tokens = table.expected(
                self.hidden[start:stop][kept], self.indices[start:stop][kept].astype(np.int16)
            )
        return Expected(chances, np.empty((0, 0)), mask_bits, np.empty(0), tokens, first)


def _segments(
    grid_indices: Symbols, layers: Ints, stream: int, grid: Grid, hangs: bool
) -> list[_Segment]:
    """The layers of one stream that hold tokens."""
    order = grid.order_of(stream)
    hangs = hangs and stream > 0
    indices = grid_indices.reshape(order.places.size, -1)[order.places]
    ranks = layers.reshape(-1)[order.places]
    found = []
    for layer in range(LAYERS):
        kept = (indices[:, 0] >= 0) & (ranks == layer)
        if not kept.any():
            continue
        level = ALL_KEPT if kept.all() else level_of(int(kept.sum()), kept.size)
        own = np.where(kept[:, None], indices, indices.dtype.type(-1))
        if stream >= 2:
            found.append(_units(own, kept, stream, layer, grid, hangs, level))
            continue
        own = own[:, 0]
        table = grid.tables.of(stream)
        states = np.concatenate([np.full(2, table.masked + 1), np.where(kept, own, table.masked)])
        left = np.stack([states[1:-1], states[:-2]], axis=1)
        left[order.offsets[:, None] < [1, 2]] = table.masked + 1
        hidden = grid.look(stream, hangs, order.places, left, level)
        positions = np.flatnonzero(kept)
        mask_bits = np.zeros(kept.size)
        chances = table.chance_kept(hidden, level)
        if level != ALL_KEPT:
            mask_bits = flag_bits(kept, chances)
        weights = None
        if grid.fixed:
            index_bits = np.full(positions.size, np.log2(table.size))
        elif positions.size <= _HELD:
            weights = table.index_weights_of(hidden[kept])
            index_bits = information(weights, own[kept])
        else:
            index_bits = table.index_bits(hidden[kept], own[kept])
        found.append(
            _Segment(
                stream=stream,
                layer=layer,
                hangs=hangs,
                grid=grid,
                level=level,
                kept=kept,
                indices=own,
                positions=positions,
                hidden=hidden,
                chances=chances,
                weights=weights,
                tokens=(),
                mask_bits=mask_bits,
                index_bits=index_bits,
                mask_cost=np.concatenate([[0.0], np.cumsum(mask_bits)]),
                index_cost=np.concatenate([[0.0], np.cumsum(index_bits)]),
            )
        )
    return found


def _units(
    own: Units, kept: Bools, stream: int, layer: int, grid: Grid, hangs: bool, level: int
) -> _Segment:
    """A layer of relevance of a refinement; own: int16 [G, S]."""
    table = grid.tables.refining(stream)
    hidden = grid.look_at_units(stream, hangs, grid.order_of(stream).places, level)
    chances = table.chance_kept(hidden, level)
    mask_bits = flag_bits(kept, chances) if level != ALL_KEPT else np.zeros(kept.size)
    tokens: tuple[ExpectedToken, ...] = ()
    if grid.fixed:
        large = np.abs(own[kept].astype(np.int64) - ZERO) >= ESCAPE
        index_bits = table.digits * np.log2(SIZES) + np.log2(ESCAPES) * large.sum(1)
    else:
        if kept.sum() <= _HELD:
            tokens = table.expected(hidden[kept], own[kept])
        index_bits = bits_of(tokens) if tokens else table.unit_bits(hidden[kept], own[kept])
    return _Segment(
        stream=stream,
        layer=layer,
        hangs=hangs,
        grid=grid,
        level=level,
        kept=kept,
        indices=own,
        positions=np.flatnonzero(kept),
        hidden=hidden,
        chances=chances,
        weights=None,
        tokens=tokens,
        mask_bits=mask_bits,
        index_bits=index_bits,
        mask_cost=np.concatenate([[0.0], np.cumsum(mask_bits)]),
        index_cost=np.concatenate([[0.0], np.cumsum(index_bits)]),
    )
