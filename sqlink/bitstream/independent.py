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

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import AROUND, LEVELS, information, level_of
from sqlink.bitstream.neighbourhood import Window, window
from sqlink.bitstream.range_coder import Coded, Port, Reader, Writer, flag_bits
from sqlink.bitstream.refinement_table import TOKENS, Below, RefinementTable, geometry
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
    kept: bool [n], first and last True. indices: int64 [n], -1 where not kept. level: of the kept
    fraction, 16 where all are kept.
    """

    stream: int
    layer: int
    hangs: bool
    start: int
    kept: Bools
    indices: Ints
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
    """

    chances: Floats
    weights: Floats
    mask_bits: Floats
    index_bits: Floats


@dataclass(frozen=True)
class Grid:
    """What both ends know: the grid, the tables, and the map where image chunks hang on it.

    map_states: int64 [P + 1], indices of the map's places, masked or, the last, unknown; None where
    nothing hangs on it. fixed: indices of equal length.
    """

    size: tuple[int, int]
    order: Order
    finer: Order
    window: Window
    tables: Tables
    fixed: bool
    map_states: Ints | None

    @classmethod
    def of(
        cls, height: int, width: int, tables: Tables, fixed: bool, map_: Ints | None = None
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
        return table.look(None, below, geometry(height, width).bands[places], level)

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
        if reader.bits > limit:
            raise DataError("a packet is cut short or damaged: it says more than it can hold")
        if not more(reader, False):
            break
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

    if stream >= 2:
        places = order.places[start : start + length]
        return _code_units(port, grid, (stream, layer, hangs, start), places, level, given)
    if given is not None:
        assert expected is not None
        _write_places(port, grid, given, expected)
        return given
    table = grid.tables.of(stream)
    places = order.places[start : start + length]
    kept = np.ones(length, dtype=np.bool_)
    indices = np.full(length, -1, dtype=np.int64)
    # States of the chunk's places, before which stand two that are unknown.
    states = np.full(length + 2, table.masked + 1)
    by_offset, ends = _by_offset(order.offsets[start : start + length])
    for offset, (first, last) in enumerate(pairwise(ends)):
        which = by_offset[first:last]
        left = np.full((which.size, 2), table.masked + 1)
        for step in range(min(offset, 2)):
            left[:, step] = states[which + 1 - step]
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


def _code_units(
    port: Port,
    grid: Grid,
    head: tuple[int, int, bool, int],
    places: Ints,
    level: int,
    given: Chunk | None,
) -> Chunk:
    """The units of a chunk, written where it is given, else read; head: stream, layer, hangs,
    start.
    """
    stream, layer, hangs, start = head
    table = grid.tables.refining(stream)
    kept = np.ones(len(places), dtype=np.bool_) if given is None else given.kept.copy()
    hidden = grid.look_at_units(stream, hangs, places, level)
    if level != ALL_KEPT and len(places) > 2:
        chances = table.chance_kept(hidden[1:-1], level)
        kept[1:-1] = port.flags("mask", kept[1:-1], chances)
    count = int(kept.sum())
    digits = np.zeros((count, table.digits), dtype=np.int64)
    if given is not None:
        digits = table.to_digits(given.indices[kept])
    code_digits(port, table, hidden[kept], digits, grid.fixed)
    indices = np.full(len(places), -1, dtype=np.int64)
    indices[kept] = table.of_digits(digits)
    return Chunk(stream, layer, hangs, start, kept, indices, level)


def code_digits(
    port: Port, table: RefinementTable, hidden: NDArray[np.float32], digits: Ints, fixed: bool
) -> None:
    """The digits of n units, token by token, to or from int64 [n, S]."""
    prior = table.prior(hidden)
    for token in range(TOKENS):
        own = digits[:, token * table.values : (token + 1) * table.values]
        if fixed:
            for value, count in enumerate(table.levels.tolist()):
                own[:, value] = port.numbers("index", own[:, value], count)
        else:
            weights = table.weights_of(prior, token, digits)
            own[:] = port.indices("index", own.reshape(-1), weights).reshape(own.shape)


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
    indices: Sequence[Ints], layers: Sequence[Ints], grid: Grid, hangs: bool, packet_bytes: int
) -> list[tuple[bytes, Writer]]:
    """The packets of a picture, most relevant first, none longer than packet_bytes.

    indices: int64 [h, w] of every stream, -1 where nothing is sent; layers: likewise, 0..3.
    hangs: whether all but the map's chunks hang on the map, which is then the grid's.
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
            first += tokens
            if first == queue[number].positions.size:
                number, first = number + 1, 0
        if empty:
            raise ValueError(f"not one token fits {packet_bytes} bytes")
        more(writer, False)
        found.append((writer.to_bytes(), writer))
    return found


@dataclass(frozen=True)
class _Segment:
    """One stream's layer, ready to be cut into chunks: costs are running sums, in bits."""

    stream: int
    layer: int
    hangs: bool
    grid: Grid
    level: int
    kept: Bools  # [G], sending order
    indices: Ints  # [G], -1 where masked
    positions: Ints  # [K], where kept
    hidden: NDArray[np.float32]  # [G, H], as if every run were whole
    chances: Floats  # [G], to be kept
    weights: Floats | None  # [K, J] of the indices where kept; None: too many to be held
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
            code(writer, self.grid, chunk)
            return
        table = self.grid.tables.of(self.stream)
        chances, mask_bits = self.chances[start:stop], self.mask_bits[start:stop]
        index_bits = self.index_bits[first : last + 1]
        weights = np.empty((0, 0))
        if self.weights is not None:
            weights = self.weights[first : last + 1]
        elif not self.grid.fixed:
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


def _segments(
    grid_indices: Ints, layers: Ints, stream: int, grid: Grid, hangs: bool
) -> list[_Segment]:
    """The layers of one stream that hold tokens."""
    order = grid.order_of(stream)
    hangs = hangs and stream > 0
    indices = grid_indices.reshape(-1)[order.places]
    ranks = layers.reshape(-1)[order.places]
    found = []
    for layer in range(LAYERS):
        kept = (indices >= 0) & (ranks == layer)
        if not kept.any():
            continue
        level = ALL_KEPT if kept.all() else level_of(int(kept.sum()), kept.size)
        own = np.where(kept, indices, -1)
        if stream >= 2:
            found.append(_units(own, kept, stream, layer, grid, hangs, level))
            continue
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
                mask_bits=mask_bits,
                index_bits=index_bits,
                mask_cost=np.concatenate([[0.0], np.cumsum(mask_bits)]),
                index_cost=np.concatenate([[0.0], np.cumsum(index_bits)]),
            )
        )
    return found


def _units(
    own: Ints, kept: Bools, stream: int, layer: int, grid: Grid, hangs: bool, level: int
) -> _Segment:
    """A layer of relevance of a refinement."""
    table = grid.tables.refining(stream)
    hidden = grid.look_at_units(stream, hangs, grid.order_of(stream).places, level)
    chances = table.chance_kept(hidden, level)
    mask_bits = flag_bits(kept, chances) if level != ALL_KEPT else np.zeros(kept.size)
    if grid.fixed:
        index_bits = np.full(int(kept.sum()), TOKENS * np.log2(table.levels).sum())
    else:
        index_bits = table.digit_bits(table.prior(hidden[kept]), table.to_digits(own[kept]))
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
        mask_bits=mask_bits,
        index_bits=index_bits,
        mask_cost=np.concatenate([[0.0], np.cumsum(mask_bits)]),
        index_cost=np.concatenate([[0.0], np.cumsum(index_bits)]),
    )
