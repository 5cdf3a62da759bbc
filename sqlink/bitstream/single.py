"""A picture's tokens as one range-coded stream: the cheapest, and readable as far as it came.

    map, layer 0:    kept count ─ pass 0: mask, indices ─ pass 1: mask, indices ─ ... ─ pass 15
    image, layer 0:  the same, every place knowing the map's tokens around it, as far as they came
    map, layer 1:    ...

A place knows every neighbour coded before it (see `window`), which is what makes the stream cheap
and what it breaks by: after the first packet that is lost, nothing can be read. Its packets are
slices of it; a stream cut anywhere gives all tokens whose information had come.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import product

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import level_of
from sqlink.bitstream.independent import LAYERS
from sqlink.bitstream.neighbourhood import PASSES, window
from sqlink.bitstream.range_coder import Coded, EndedError, Port, Reader, Writer
from sqlink.bitstream.tables import Tables
from sqlink.errors import DataError

Ints = NDArray[np.int64]


def write(indices: Ints, layers: Ints, tables: Tables, fixed: bool) -> tuple[bytes, list[Coded]]:
    """indices: int64 [2, h, w] of map and image, -1 where nothing is sent; layers: [2, h, w],
    0..3. fixed: indices of equal length. Returns the stream and what stands in it.
    """
    writer = Writer()
    _walk(writer, indices.copy(), layers, tables, fixed)
    return writer.to_bytes(), writer.coded


def read(data: bytes, height: int, width: int, tables: Tables, fixed: bool) -> list[Coded]:
    """What stands in a whole stream. Raises DataError if it is none."""
    return _whole(data, np.full((2, height, width), -1, dtype=np.int64), tables, fixed)


def recover(
    pieces: Sequence[bytes | None], height: int, width: int, tables: Tables, fixed: bool
) -> Ints:
    """The indices, int64 [2, h, w], that the slices up to the first missing one hold for sure."""
    came: list[bytes] = []
    for piece in pieces:
        if not piece:
            break
        came.append(piece)
    data = b"".join(came)
    found = np.full((2, height, width), -1, dtype=np.int64)
    if not data:
        return found
    if len(came) == len(pieces):
        try:
            _whole(data, found, tables, fixed)
        except DataError:
            found[:] = -1
        else:
            return found
    with suppress(EndedError, DataError):
        _walk(Reader(data, cut=True), found, None, tables, fixed)
    return found


def slices(coded: Sequence[Coded], size: int, packet_bytes: int) -> list[dict[str, int]]:
    """The ledger, in bits, of each slice of `packet_bytes` of a stream of `size` bytes."""
    names = ("header", "mask", "index", "coder")
    bits = np.concatenate([part.bits for part in coded])
    kinds = np.concatenate([np.full(part.bits.size, names.index(part.what)) for part in coded])
    # A bit of the stream is the symbol's that stands there; those after the last are the coder's.
    which = np.searchsorted(np.cumsum(bits), np.arange(8 * size) + 0.5)
    owner = np.append(kinds, names.index("coder"))[which]
    return [
        dict(zip(names, np.bincount(part, minlength=len(names)).tolist(), strict=True))
        for part in np.split(owner, np.arange(8 * packet_bytes, owner.size, 8 * packet_bytes))
    ]


def _whole(data: bytes, found: Ints, tables: Tables, fixed: bool) -> list[Coded]:
    """Read a stream that ends where its bytes do. Raises DataError if it does not."""
    reader, writer = Reader(data), Writer()
    _walk(reader, found, None, tables, fixed)
    writer.replay(reader.coded)
    if writer.to_bytes() != data:
        raise DataError("the stream is cut short or damaged: it does not read as it was written")
    return reader.coded


def _walk(port: Port, indices: Ints, layers: Ints | None, tables: Tables, fixed: bool) -> None:
    """Everything in its order, to or from `indices`, -1 where nothing is sent.

    layers is None where indices are read; they then hold all that was read, whatever ends it.
    """
    height, width = indices.shape[1:]
    places, around = height * width, window(height, width)
    grids = indices.reshape(2, places)
    ranks = None if layers is None else np.where(grids >= 0, layers.reshape(2, places), LAYERS)
    states = [np.full(places + 1, tables.of(s).masked + 1) for s in range(2)]
    free = [np.ones(places, dtype=np.bool_) for _ in range(2)]
    highest = [0, 0]
    for layer, stream in product(range(LAYERS), range(2)):
        table, state, left = tables.of(stream), states[stream], free[stream]
        if not layer:
            sent = () if ranks is None else ranks[stream][ranks[stream] < LAYERS]
            highest[stream] = port.number("header", int(np.max(sent, initial=0)), LAYERS)
        if layer > highest[stream]:
            continue
        given = np.zeros(places, np.bool_) if ranks is None else ranks[stream] == layer
        open_places = int(left.sum())
        missing = port.number("header", int(given.sum()), open_places + 1)
        level = level_of(missing, places)
        for number in range(PASSES):
            which = np.flatnonzero(left & (around.passes == number))
            if not which.size:
                continue
            hidden = table.look(
                state[around.around[which]],
                states[0][around.under[which]] if stream else None,
                around.bands[which],
                level,
            )
            if 0 < missing < open_places:
                kept = port.flags("mask", given[which], table.chance_kept(hidden, level))
            else:
                kept = np.full(which.size, missing > 0)
            open_places -= which.size
            chosen = which[kept]
            missing -= chosen.size
            state[which] = table.masked
            taken = grids[stream, chosen]
            try:
                if fixed:
                    taken = port.numbers("index", taken, table.size)
                else:
                    taken = port.indices("index", taken, table.index_weights_of(hidden[kept]))
            except EndedError as ended:
                grids[stream, chosen[: ended.values.size]] = ended.values
                raise
            grids[stream, chosen] = state[chosen] = taken
            left[chosen] = False
        state[:-1][left] = table.masked if layer == highest[stream] else table.masked + 1
