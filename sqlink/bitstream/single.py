"""All tokens of a picture as one range-coded stream, decodable up to the first missing byte.

    map, layer 0:    kept count ─ pass 0: mask, indices ─ pass 1: mask, indices ─ ... ─ pass 15
    image, layer 0:  the same, with the map's tokens around each place as context
    refinements, layer 0: likewise, in 4 passes of blocks; context of a unit are its neighbours, the
                     tokens of map and image at its place, and at 1/4 the token at 1/8
    map, layer 1:    ...

Every neighbour that was coded before is context (see `neighbourhood`). That saves bytes, but
nothing after the first lost packet can be read. Packets are slices of the stream; a stream that is
cut anywhere gives all tokens whose information arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import level_of
from sqlink.bitstream.independent import LAYERS, Symbols
from sqlink.bitstream.neighbourhood import PASSES, window
from sqlink.bitstream.range_coder import Coded, EndedError, Port, Reader, Writer
from sqlink.bitstream.refinement_table import (
    MASKED,
    TOKENS,
    UNKNOWN,
    Below,
    geometry,
    token_features,
)
from sqlink.bitstream.refinement_table import PASSES as UNIT_PASSES
from sqlink.bitstream.tables import BASE, Tables
from sqlink.bitstream.unit_coding import read_units, write_units
from sqlink.errors import DataError

Ints = NDArray[np.int64]
_Pass = tuple[Ints, NDArray[np.float32], Callable[[], NDArray[np.float64]]]
"""Places that are coded together, their hidden values, and what computes their chances to be kept.
"""
_BLOCK = 64
"""Units of a refinement that are coded together."""


def write(
    indices: Sequence[Symbols],
    layers: Sequence[Ints],
    tables: Tables,
    fixed: bool,
    step: int = 0,
) -> tuple[bytes, list[Coded]]:
    """Write a stream; return it and its coded symbols.

    indices: int64 [h, w] of the base's streams and units int16 [h, w, S] of the refinement's, -1
    where nothing is sent. layers: int64 [h, w], 0..3. fixed: indices of equal length. step: row of
    the tables for the quantiser's step.
    """
    writer = Writer()
    _walk(writer, [part.copy() for part in indices], layers, tables, fixed, step)
    return writer.to_bytes(), writer.coded


def read(
    data: bytes, height: int, width: int, tables: Tables, fixed: bool, step: int = 0
) -> list[Coded]:
    """Return the coded symbols of a whole stream. Raises DataError if it is not valid."""
    return _whole(data, nothing(height, width, tables), tables, fixed, step)


def recover(
    pieces: Sequence[bytes | None],
    height: int,
    width: int,
    tables: Tables,
    fixed: bool,
    step: int = 0,
) -> list[Symbols]:
    """Return the indices of every stream that the slices before the first missing one determine."""
    came: list[bytes] = []
    for piece in pieces:
        if not piece:
            break
        came.append(piece)
    data = b"".join(came)
    found = nothing(height, width, tables)
    if not data:
        return found
    if len(came) == len(pieces):
        try:
            _whole(data, found, tables, fixed, step)
        except DataError:
            found = nothing(height, width, tables)
        else:
            return found
    with suppress(EndedError, DataError):
        _walk(Reader(data, cut=True), found, None, tables, fixed, step)
    return found


def nothing(height: int, width: int, tables: Tables) -> list[Symbols]:
    """Return the indices of a picture of which nothing arrived."""
    found: list[Symbols] = [np.full((height, width), MASKED, dtype=np.int64) for _ in BASE]
    for scale, table in zip((1, 2), tables.refinements, strict=False):
        size = (scale * height, scale * width, table.digits)
        found.append(np.full(size, MASKED, dtype=np.int16))
    return found


def slices(coded: Sequence[Coded], size: int, packet_bytes: int) -> list[dict[str, int]]:
    """Return the ledger, in bits, of each slice of `packet_bytes` of a stream of `size` bytes."""
    names = ("header", "mask", "index", "coder")
    bits = np.concatenate([part.bits for part in coded])
    kinds = np.concatenate([np.full(part.bits.size, names.index(part.what)) for part in coded])
    # Each bit belongs to the symbol that it lies in; those after the last symbol to the coder.
    which = np.searchsorted(np.cumsum(bits), np.arange(8 * size) + 0.5)
    owner = np.append(kinds, names.index("coder"))[which]
    return [
        dict(zip(names, np.bincount(part, minlength=len(names)).tolist(), strict=True))
        for part in np.split(owner, np.arange(8 * packet_bytes, owner.size, 8 * packet_bytes))
    ]


def _whole(
    data: bytes, found: Sequence[Symbols], tables: Tables, fixed: bool, step: int
) -> list[Coded]:
    """Read a stream that ends where its bytes do. Raises DataError if it does not."""
    reader, writer = Reader(data), Writer()
    _walk(reader, found, None, tables, fixed, step)
    writer.replay(reader.coded)
    if writer.to_bytes() != data:
        raise DataError("the stream is cut short or damaged: it does not read as it was written")
    return reader.coded


def _walk(
    port: Port,
    indices: Sequence[Symbols],
    layers: Sequence[Ints] | None,
    tables: Tables,
    fixed: bool,
    step: int,
) -> None:
    """Code everything in order, to or from `indices`, -1 where nothing is sent.

    layers is None for reading; `indices` then hold what was read, even if an error ends it.
    """
    walk = _Walk(port, indices, layers, tables, fixed, step)
    for layer, stream in product(range(LAYERS), range(len(indices))):
        walk.layer(stream, layer)


class _Walk:
    """The state while a stream is written or read.

    states: for each stream, the states of its places and, as the last, of a place outside. For the
    base: indices, masked or unknown, numbered as in its table. For refinements: units, with rows of
    -1 for masked and of -2 for unknown.
    """

    def __init__(
        self,
        port: Port,
        indices: Sequence[Symbols],
        layers: Sequence[Ints] | None,
        tables: Tables,
        fixed: bool,
        step: int,
    ) -> None:
        self.port, self.tables, self.fixed, self.step = port, tables, fixed, step
        self.size = indices[0].shape
        self.grids = [part.reshape(-1, *part.shape[2:]) for part in indices]
        self.ranks = (
            None
            if layers is None
            else [
                np.where(grid.reshape(layer.size, -1)[:, 0] >= 0, layer.reshape(-1), LAYERS)
                for grid, layer in zip(self.grids, layers, strict=True)
            ]
        )
        unknown = [tables.of(0).masked + 1, tables.of(1).masked + 1, UNKNOWN, UNKNOWN]
        self.unknown = unknown[: len(indices)]
        self.states = [
            np.full((len(grid) + 1, *grid.shape[1:]), value, dtype=grid.dtype)
            for grid, value in zip(self.grids, self.unknown, strict=True)
        ]
        self.free = [np.ones(len(grid), dtype=np.bool_) for grid in self.grids]
        self.highest = [-1] * len(indices)

    def layer(self, stream: int, layer: int) -> None:
        """Code one layer of relevance of a stream."""
        port, free = self.port, self.free[stream]
        if not layer:
            sent: Ints | tuple[()] = ()
            if self.ranks is not None:
                sent = self.ranks[stream][self.ranks[stream] < LAYERS]
            self.highest[stream] = port.number("header", int(np.max(sent, initial=0)), LAYERS)
        if layer > self.highest[stream]:
            return
        given = np.zeros(free.size, np.bool_)
        if self.ranks is not None:
            given = self.ranks[stream] == layer
        open_places = int(free.sum())
        missing = port.number("header", int(given.sum()), open_places + 1)
        level = level_of(missing, free.size)
        code = self._tokens if stream < len(BASE) else self._units
        masked = self.tables.of(stream).masked if stream < len(BASE) else MASKED
        for which, hidden, chances in code(stream, level):
            if 0 < missing < open_places:
                kept = port.flags("mask", given[which], chances())
            else:
                kept = np.full(which.size, missing > 0)
            open_places -= which.size
            chosen = which[kept]
            missing -= chosen.size
            self.states[stream][which] = masked
            if chosen.size:
                self._values(stream, chosen, hidden[kept])
            free[chosen] = False
        last = layer == self.highest[stream]
        self.states[stream][:-1][free] = masked if last else self.unknown[stream]

    def _tokens(self, stream: int, level: int) -> Iterator[_Pass]:
        """Yield the passes of a stream of the base."""
        table, free = self.tables.of(stream), self.free[stream]
        around = window(*self.size)
        for number in range(PASSES):
            which = np.flatnonzero(free & (around.passes == number))
            if which.size:
                hidden = table.hidden_values(
                    self.states[stream][around.around[which]],
                    self.states[0][around.under[which]] if stream else None,
                    around.bands[which],
                    level,
                )
                yield which, hidden, partial(table.chance_kept, hidden, level)

    def _units(self, stream: int, level: int) -> Iterator[_Pass]:
        """Yield the passes of a refinement in blocks, so that a cut keeps all blocks before it."""
        table, free = self.tables.refining(stream), self.free[stream]
        height, width = self.size if stream == 2 else (2 * self.size[0], 2 * self.size[1])
        around = geometry(height, width)
        below = self._below(stream, height, width)
        for number in range(UNIT_PASSES):
            own = np.flatnonzero(free & (around.passes == number))
            if not own.size:
                continue
            seen = table.features(self.states[stream])
            hidden = table.hidden_values(
                seen[around.around[own]], below.take(own), around.bands[own], level, self.step
            )
            for start in range(0, own.size, _BLOCK):
                part = slice(start, start + _BLOCK)
                yield own[part], hidden[part], partial(table.chance_kept, hidden[part], level)

    def _below(self, stream: int, height: int, width: int) -> Below:
        """Return what lies under every unit of a refinement."""
        row, column = np.divmod(np.arange(height * width), width)
        if stream == 2:
            nothing = np.zeros((height * width, 0), dtype=np.float32)
            return Below(self.states[0][:-1], self.states[1][:-1], nothing)
        parent = row // 2 * self.size[1] + column // 2
        units = self.states[2][parent]
        four = units.reshape(parent.size, TOKENS, -1)
        seen = token_features(four[np.arange(parent.size), row % 2 * 2 + column % 2])
        return Below(self.states[0][parent], self.states[1][parent], seen)

    def _values(self, stream: int, chosen: Ints, hidden: NDArray[np.float32]) -> None:
        """Code the indices of the places that are kept."""
        grid, state = self.grids[stream], self.states[stream]
        taken: Symbols
        if stream < len(BASE):
            table = self.tables.of(stream)
            try:
                if self.fixed:
                    taken = self.port.numbers("index", grid[chosen], table.size)
                else:
                    weights = table.index_weights_of(hidden)
                    taken = self.port.indices("index", grid[chosen], weights)
            except EndedError as ended:
                grid[chosen[: ended.values.size]] = ended.values
                raise
        else:
            refining = self.tables.refining(stream)
            if self.ranks is None:
                taken = read_units(self.port, refining, hidden, self.fixed)
            else:
                taken = grid[chosen].astype(np.int16)
                write_units(self.port, refining, hidden, taken, self.fixed)
        grid[chosen] = state[chosen] = taken
