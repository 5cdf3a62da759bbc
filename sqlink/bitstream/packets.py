"""Tokens of a picture to packets, and whatever packets came back to tokens.

    independent     each packet can be read alone                             (`independent`)
    map-dependent   the map's packets can be read alone, others need the map  (`independent`)
    single          one stream, cut into slices                               (`single`)

Packets are ordered by relevance: layer by layer, in each the base's before the refinement's.
Independent packets hold tokens of the map and of the image in like proportion, so that none is
worth more than another; otherwise all layers of the map come first. All but the last have
`packet_bytes` bytes; the last is shorter. See docs/reference/bitstream.md for the formats field by
field and for what each costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from channels.registry import nearest
from sqlink.bitstream import independent, independent_writer, single
from sqlink.bitstream.independent import LAYERS, Chunk, Grid, NeedsMapError, Symbols
from sqlink.bitstream.range_coder import Coded
from sqlink.bitstream.refinement_table import LIMIT, MASKED, STEP_ROWS, ZERO, Units
from sqlink.bitstream.tables import Tables
from sqlink.codecs.base import MAX_PACKET_BYTES, Packet
from sqlink.errors import ConfigError, DataError

MODES = ("independent", "map-dependent", "single")
"""Modes of packetisation; a session stores a mode as its position here."""
MIN_PACKET_BYTES = 32
_MAX_PLACES = 1 << 23

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """How tokens become packets.

    mode: one of MODES. fixed: code indices and digits with equal lengths, log2 of the alphabet's
    size, instead of by their contexts (an ablation). Raises ConfigError for an unknown mode.
    """

    mode: str = MODES[0]
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"unknown packing '{self.mode}': {nearest(self.mode, list(MODES))}")

    @property
    def number(self) -> int:
        """Number of the packing in a session's header, 0..7."""
        return MODES.index(self.mode) + 4 * self.fixed

    @classmethod
    def of(cls, number: int) -> Packing:
        """Return the packing with that number. Raises DataError if there is none."""
        if not 0 <= number < 8 or number % 4 >= len(MODES):
            raise DataError(f"packing {number} is damaged or of a later version")
        return cls(MODES[number % 4], number >= 4)


@dataclass(frozen=True)
class Tokens:
    """Tokens of one picture that are sent.

    map_indices, image_indices: int64 [h, w], -1 where nothing is sent. map_layers, image_layers:
    int64 [h, w], 0 the most relevant, below LAYERS; read where something is sent. refinements:
    units at 1/8, int16 [h, w, S], and at 1/4, [2 h, 2 w, S'], each with its layers of relevance,
    int64 [h, w] and [2 h, 2 w]. step: row of the tables for the quantiser's step, 0..15.
    """

    map_indices: Ints
    image_indices: Ints
    map_layers: Ints
    image_layers: Ints
    refinements: tuple[tuple[Units, Ints], ...] = ()
    step: int = 0
    _plans: list[tuple[Tables, Packing, independent_writer.Plan]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def plan(self, tables: Tables, packing: Packing) -> independent_writer.Plan:
        """Return what independent or map-dependent packets of the tokens hold.

        It is made once: `expected_bytes` and then `packetise` ask for it.
        """
        for other, of, plan in self._plans:
            if other is tables and of == packing:
                return plan
        given_map = packing.mode == "map-dependent"
        map_ = self.map_indices if given_map else None
        height, width = self.map_indices.shape
        grid = Grid.of(height, width, tables, packing.fixed, map_, self.step)
        plan = independent_writer.planned(*self.streams, grid, given_map)
        self._plans.append((tables, packing, plan))
        return plan

    @property
    def streams(self) -> tuple[list[Symbols], list[Ints]]:
        """Indices or units of every stream, and their layers of relevance."""
        pairs: tuple[tuple[Symbols, Ints], ...] = (
            (self.map_indices, self.map_layers),
            (self.image_indices, self.image_layers),
            *self.refinements,
        )
        return [indices for indices, _ in pairs], [layers for _, layers in pairs]


@dataclass(frozen=True)
class Contents:
    """Contents of a packet: its chunks, and its ledger in bits, which adds up to 8 * len(data)."""

    chunks: tuple[Chunk, ...]
    bits: dict[str, int]


def packetise(
    tokens: Tokens, tables: Tables, packet_bytes: int, packing: Packing = Packing()
) -> list[Packet]:
    """Return packets of at most packet_bytes (32..65535), the most relevant first.

    Raises ConfigError for a packet size out of range, DataError for a grid of over 2^23 places.
    """
    if not MIN_PACKET_BYTES <= packet_bytes <= MAX_PACKET_BYTES:
        raise ConfigError(
            f"packet_bytes={packet_bytes} must be from {MIN_PACKET_BYTES} to {MAX_PACKET_BYTES}"
        )
    height, width = tokens.map_indices.shape
    _check_grid(height, width)
    indices, layers = tokens.streams
    sent = [part.reshape(*part.shape[:2], -1)[..., 0] >= 0 for part in indices]
    if not any(there.any() for there in sent):
        return []
    named = np.concatenate([layer[there] for layer, there in zip(layers, sent, strict=True)])
    if not 0 <= named.min() <= named.max() < LAYERS:
        raise ValueError(f"layers must be 0..{LAYERS - 1}")
    if not 0 <= tokens.step < STEP_ROWS:
        raise ValueError(f"step must be 0..{STEP_ROWS - 1}")
    for units, _ in tokens.refinements:
        if (np.abs(np.where(units == MASKED, ZERO, units) - ZERO) > LIMIT).any():
            raise ValueError(f"digits must be -{LIMIT}..{LIMIT}")
    if packing.mode == "single":
        data, coded = single.write(indices, layers, tables, packing.fixed, tokens.step)
        return _slices(data, coded, packet_bytes)
    found = independent_writer.write(tokens.plan(tables, packing), packet_bytes)
    packets = []
    for rank, (data, writer) in enumerate(found):
        whole = data if rank == len(found) - 1 else data.ljust(packet_bytes, b"\0")
        packets.append(Packet(whole, rank, _ledger(writer.coded, len(data), len(whole))))
    return packets


def expected_bytes(
    tokens: Tokens, tables: Tables, packet_bytes: int, packing: Packing
) -> float | None:
    """Return about how many bytes the packets of `packetise` take, much sooner than that; None
    where this is not known, of a `single` stream.
    """
    if packing.mode == "single":
        return None
    return independent_writer.expected_bytes(tokens.plan(tables, packing), packet_bytes)


def read_packet(
    data: bytes,
    height: int,
    width: int,
    tables: Tables,
    fixed: bool = False,
    map_indices: Ints | None = None,
    step: int = 0,
) -> Contents:
    """Read one packet, independent or map-dependent, of a picture with a grid of height x width.

    map_indices: int64 [h, w], the map that arrived, for packets that depend on it. step: row of the
    tables for the quantiser's step. Raises DataError for bytes that `packetise` cannot have written
    (cut short, damaged or hostile) and for a packet that depends on another map, or on a map where
    none is given. The format cannot express positions or indices out of range.
    """
    return _read(data, Grid.of(height, width, tables, fixed, map_indices, step))


def parse_packets(
    pieces: Sequence[bytes],
    height: int,
    width: int,
    tables: Tables,
    packing: Packing,
    step: int = 0,
) -> list[Packet]:
    """Return all packets of a picture with their ledgers, from their bytes.

    Raises DataError if they are not what `packetise` wrote.
    """
    _check_grid(height, width)
    if packing.mode == "single":
        data = b"".join(pieces)
        coded = single.read(data, height, width, tables, packing.fixed, step)
        return _slices(data, coded, max(len(piece) for piece in pieces))
    map_ = _recover(pieces, height, width, tables, packing.fixed, step)[0]
    grid = Grid.of(height, width, tables, packing.fixed, map_, step)
    return [Packet(piece, rank, _read(piece, grid).bits) for rank, piece in enumerate(pieces)]


def unpacketise(
    packets: Sequence[bytes | None],
    height: int,
    width: int,
    tables: Tables,
    packing: Packing = Packing(),
    step: int = 0,
) -> tuple[Symbols, ...]:
    """Return the indices of every stream from the packets that arrived, -1 elsewhere.

    Of map and image: int64 [h, w]; where the tables have refinements, also units int16 [h, w, S]
    and [2 h, 2 w, S']. A packet that cannot be read counts as lost, and so does one that depends on
    it. Never raises for what packets hold.
    """
    _check_grid(height, width)
    found = (
        single.recover(packets, height, width, tables, packing.fixed, step)
        if packing.mode == "single"
        else _recover(packets, height, width, tables, packing.fixed, step)
    )
    return tuple(found)


def _recover(
    packets: Sequence[bytes | None],
    height: int,
    width: int,
    tables: Tables,
    fixed: bool,
    step: int,
) -> list[Symbols]:
    """Return the indices of every stream: packets that need no map first, then those that do."""
    grid = Grid.of(height, width, tables, fixed, step=step)
    found = single.nothing(height, width, tables)
    waiting = []
    for data in packets:
        if not data:
            continue
        try:
            _place(_chunks(data, grid)[0], grid, found)
        except NeedsMapError as needs:
            # A chunk of the map may precede the first that depends on it.
            _place(needs.chunks, grid, found)
            waiting.append(data)
        except DataError:
            continue
    if waiting:
        grid = Grid.of(height, width, tables, fixed, found[0], step)
    for data in waiting:
        try:
            _place(_chunks(data, grid)[0], grid, found)
        except DataError:
            continue
    return found


def _place(held: Sequence[Chunk], grid: Grid, found: Sequence[Symbols]) -> None:
    for chunk in held:
        places = grid.order_of(chunk.stream).places[chunk.start : chunk.start + chunk.kept.size]
        own = found[chunk.stream]
        row, column = np.divmod(places[chunk.kept], own.shape[1])
        own[row, column] = chunk.indices[chunk.kept]


def _chunks(data: bytes, grid: Grid) -> tuple[list[Chunk], list[Coded], int]:
    if len(data) > MAX_PACKET_BYTES:
        raise DataError(f"a packet of {len(data)} bytes is longer than the format allows")
    return independent.read(data, grid)


def _read(data: bytes, grid: Grid) -> Contents:
    """Return a packet's contents. Raises DataError, also where the packet needs a map."""
    try:
        held, coded, size = _chunks(data, grid)
    except NeedsMapError as error:
        raise DataError(f"{error}: give the map's indices") from error
    return Contents(tuple(held), _ledger(coded, size, len(data)))


def _slices(data: bytes, coded: Sequence[Coded], packet_bytes: int) -> list[Packet]:
    ledgers = single.slices(coded, len(data), packet_bytes)
    return [
        Packet(data[rank * packet_bytes : (rank + 1) * packet_bytes], rank, bits)
        for rank, bits in enumerate(ledgers)
    ]


def _ledger(coded: Sequence[Coded], size: int, whole: int) -> dict[str, int]:
    """Return whole bits by kind, 8 * whole in all.

    header, mask and index are rounded so that their sum is that of their information; coder is the
    rest of the range coder's last byte.
    """
    names = ("header", "mask", "index")
    sums = np.cumsum([sum(part.total for part in coded if part.what == n) for n in names])
    ends = np.minimum(np.rint(sums).astype(int), 8 * size).tolist()
    return {
        "header": ends[0],
        "mask": ends[1] - ends[0],
        "index": ends[2] - ends[1],
        "coder": 8 * size - ends[2],
        "padding": 8 * (whole - size),
    }


def _check_grid(height: int, width: int) -> None:
    if height * width > _MAX_PLACES:
        raise DataError(f"a grid of {height}x{width} places exceeds the format's {_MAX_PLACES}")
