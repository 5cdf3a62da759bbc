"""Tokens of a picture to self-contained packets, and whatever packets came back to tokens.

    kept tokens of a stream and layer, in sending order (see `order`)
        . a . . b c . . . d . e . .|. f g . . . h ...
          └────── chunk ──────┘       └─ chunk ─┘       a packet holds one chunk, or several where a
          └────────── packet ──────────┘                layer ends within it

Each packet is one range-coded number: for every chunk its head (what and where), which of its
places are kept, and the kept places' indices. Nothing in it refers to another packet. Chunks begin
and end with a kept place, the only ones whose keeping costs nothing. See docs/bitstream.md for the
format field by field and for what each field costs.

Packets go by relevance: the map's layers, then the image's, layer by layer. All but the last have
`packet_bytes` bytes, filled with zeros; the last is as long as it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.order import Order, sending_order
from sqlink.bitstream.range_coder import Encoder, decoder, encoder, shortest_bytes
from sqlink.bitstream.tables import STREAMS, IndexTable, Tables
from sqlink.codecs.base import Packet
from sqlink.errors import ConfigError, DataError

LAYERS = 4
"""Most layers of relevance in a stream."""
MIN_PACKET_BYTES = 32
MAX_PACKET_BYTES = 65535
_MAX_PLACES = 1 << 23
_MAX_CHUNK = 1024  # places; keeps the head within 4 bytes up to a grid of 8192 places

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

# How often a chunk is of which stream and layer, of 64: the map's four layers, the image's four,
# and a last kind kept for later modes (packets that hang on others).
_KINDS = np.array([20, 2, 1, 1, 24, 8, 4, 2, 2]) / 64
_MORE = 1 / 8  # probability that another chunk follows
_ALL = 15  # level of a chunk without masked places
_TIES = 8
# Kept fractions, spaced evenly in the arcsine (equal loss between levels) and rounded to 16 bits,
# so that every machine has the same ones.
_FRACTIONS = np.rint(np.sin(np.pi / 2 * (np.arange(_ALL) + 0.5) / _ALL) ** 2 * 65536) / 65536


@dataclass(frozen=True)
class Tokens:
    """What is sent of one picture.

    map_indices, image_indices: int64 [h, w], -1 where nothing is sent. map_layers, image_layers:
    int64 [h, w], 0 the most relevant, below LAYERS; read where something is sent.
    """

    map_indices: Ints
    image_indices: Ints
    map_layers: Ints
    image_layers: Ints


@dataclass(frozen=True)
class Chunk:
    """A stretch of the sending order of one stream and layer.

    start: its first place's position in sending order. kept: bool [n], first and last True.
    indices: int64, one for each kept place. fraction, tie: the mask model's levels (see
    `_mask_model`).
    """

    stream: int
    layer: int
    start: int
    kept: Bools
    indices: Ints
    fraction: int
    tie: int


@dataclass(frozen=True)
class Contents:
    """A packet, read: its chunks and its ledger in bits, which adds up to 8 * len(data)."""

    chunks: tuple[Chunk, ...]
    bits: dict[str, int]


def packetise(tokens: Tokens, tables: Tables, packet_bytes: int) -> list[Packet]:
    """Packets of at most packet_bytes (32..65535), the most relevant first; none for no tokens.

    Raises ConfigError for a packet size out of range, DataError for a grid of over 2^23 places.
    """
    if not MIN_PACKET_BYTES <= packet_bytes <= MAX_PACKET_BYTES:
        raise ConfigError(
            f"packet_bytes={packet_bytes} must be from {MIN_PACKET_BYTES} to {MAX_PACKET_BYTES}"
        )
    height, width = tokens.map_indices.shape
    order = _order(height, width)
    queue = _segments(tokens, order, tables)
    found: list[tuple[bytes, list[Chunk]]] = []
    segment, first = 0, 0
    while segment < len(queue):
        coder, chunks = encoder(), list[Chunk]()
        while segment < len(queue):
            fitted = queue[segment].fit(coder, bool(chunks), first, packet_bytes)
            if fitted is None:
                break
            coder, chunk = fitted
            chunks.append(chunk)
            first += chunk.indices.size
            if first == queue[segment].positions.size:
                segment, first = segment + 1, 0
        coder.encode(0, _more())
        found.append((shortest_bytes(coder) or b"\0", chunks))
    packets = []
    for rank, (data, chunks) in enumerate(found):
        last = rank == len(found) - 1
        whole = data if last else data.ljust(packet_bytes, b"\0")
        bits = _ledger(chunks, order, tables, len(data), len(whole))
        packets.append(Packet(whole, rank, bits))
    return packets


def read_packet(data: bytes, height: int, width: int, tables: Tables) -> Contents:
    """Read one packet of a picture with a grid of height x width places.

    Raises DataError for bytes that `packetise` cannot have written: cut short, damaged or hostile.
    Positions and indices out of range cannot be expressed.
    """
    order = _order(height, width)
    if len(data) > MAX_PACKET_BYTES:
        raise DataError(f"a packet of {len(data)} bytes is longer than any that is written")
    try:
        chunks = _decode(data, order, tables)
    except AssertionError as error:
        raise DataError("a packet is damaged: its range coder has no such symbol") from error
    coder = encoder()
    for number, chunk in enumerate(chunks):
        if number:
            coder.encode(1, _more())
        _encode(coder, chunk, order, tables)
    coder.encode(0, _more())
    core = shortest_bytes(coder) or b"\0"
    if core.ljust(len(data), b"\0") != data:
        raise DataError("a packet is cut short or damaged: it does not read as it was written")
    return Contents(tuple(chunks), _ledger(chunks, order, tables, len(core), len(data)))


def unpacketise(
    packets: Sequence[bytes | None], height: int, width: int, tables: Tables
) -> tuple[Ints, Ints]:
    """Map and image indices, int64 [h, w], from the packets that came; -1 where nothing did.

    A packet that cannot be read counts as lost. Never raises for what packets hold.
    """
    order = _order(height, width)
    grids = np.full((2, height * width), -1, dtype=np.int64)
    for data in packets:
        if not data:
            continue
        try:
            contents = read_packet(data, height, width, tables)
        except DataError:
            continue
        for chunk in contents.chunks:
            places = order.places[chunk.start : chunk.start + chunk.kept.size][chunk.kept]
            grids[chunk.stream, places] = chunk.indices
    return grids[0].reshape(height, width), grids[1].reshape(height, width)


@dataclass(frozen=True)
class _Segment:
    """One stream's layer, ready to be cut into chunks: costs are running sums, in bits."""

    stream: int
    layer: int
    order: Order
    tables: Tables
    kept: Bools  # [G], sending order
    indices: Ints  # [G]
    positions: Ints  # [K], where kept
    fraction: int
    tie: int
    mask_cost: Floats  # [G], of all places up to and with this one
    index_cost: Floats  # [K + 1], of all tokens before this one, each given its left neighbour
    first_cost: Floats  # [K], of a token whose left neighbour is unknown
    reach: Floats  # [K], mask and index cost up to and with this token

    def fit(
        self, coder: Encoder, follows: bool, first: int, packet_bytes: int
    ) -> tuple[Encoder, Chunk] | None:
        """Encode as many tokens from `first` on as the packet still takes.

        Returns a new coder and the chunk, or None where not even one fits.
        """
        size, start = self.kept.size, int(self.positions[first])
        room = (
            8.0 * packet_bytes
            - _spent(coder)
            - _head_bits(self.stream, self.layer, start, size, 3, 0)
        )
        offset = self.mask_cost[start] + self.index_cost[first + 1] - self.first_cost[first]
        last = int(np.searchsorted(self.reach, room + offset, side="right")) - 1
        bound = int(np.searchsorted(self.positions, start + _MAX_CHUNK)) - 1
        # A chunk of one or two places has a shorter head than the estimate's.
        last = max(min(last, bound), min(first + 1, bound))
        while last >= first:
            stop = int(self.positions[last]) + 1
            kept = self.kept[start:stop]
            chunk = Chunk(
                self.stream,
                self.layer,
                start,
                kept,
                self.indices[start:stop][kept],
                self.fraction,
                self.tie,
            )
            trial = coder.clone()
            if follows:
                trial.encode(1, _more())
            _encode(trial, chunk, self.order, self.tables)
            ended = trial.clone()
            ended.encode(0, _more())
            if len(shortest_bytes(ended)) <= packet_bytes:
                return trial, chunk
            last -= 1
        return None


def _segments(tokens: Tokens, order: Order, tables: Tables) -> list[_Segment]:
    """The layers that hold tokens, in sending order."""
    found = []
    for stream, grid, layers in (
        (0, tokens.map_indices, tokens.map_layers),
        (1, tokens.image_indices, tokens.image_layers),
    ):
        indices = grid.reshape(-1)[order.places]
        ranks = layers.reshape(-1)[order.places]
        sent = indices >= 0
        if sent.any() and not 0 <= ranks[sent].min() <= ranks[sent].max() < LAYERS:
            raise ValueError(f"layers must be 0..{LAYERS - 1}")
        for layer in range(LAYERS):
            kept = sent & (ranks == layer)
            if kept.any():
                found.append(_segment(stream, layer, kept, indices, order, tables))
    return found


def _segment(
    stream: int, layer: int, kept: Bools, indices: Ints, order: Order, tables: Tables
) -> _Segment:
    positions = np.flatnonzero(kept)
    table = tables.of(stream)
    fraction, tie = _choose_model(kept, order)
    contexts = _mask_contexts(kept, order.starts)
    probability = _mask_model(fraction, tie)[contexts]
    mask_cost = np.cumsum(-np.log2(np.where(kept, probability, 1 - probability)))
    rows = table.context_of(indices, kept, order.starts)[positions]
    index_cost = np.concatenate([[0.0], np.cumsum(table.cost[rows, indices[positions]])])
    reach = np.concatenate([[0.0], mask_cost])[positions] + index_cost[1:]
    return _Segment(
        stream=stream,
        layer=layer,
        order=order,
        tables=tables,
        kept=kept,
        indices=indices,
        positions=positions,
        fraction=fraction,
        tie=tie,
        mask_cost=mask_cost,
        index_cost=index_cost,
        first_cost=table.cost[-1, indices[positions]],
        reach=reach,
    )


def _choose_model(kept: Bools, order: Order) -> tuple[int, int]:
    """The levels (fraction, tie) under which a layer's mask is shortest."""
    if kept.all():
        return _ALL, 0
    counts = np.bincount(_mask_contexts(kept, order.starts) * 2 + kept, minlength=6).reshape(3, 2)
    masked_bits, kept_bits = _mask_levels()
    bits = masked_bits @ counts[:, 0] + kept_bits @ counts[:, 1]
    return divmod(int(bits.argmin()), _TIES)


@lru_cache(maxsize=1)
def _mask_levels() -> tuple[Floats, Floats]:
    """Bits of a masked and of a kept place at every level: float64 [levels, 3 contexts] each."""
    chances = np.stack([_mask_model(f, t) for f in range(_ALL) for t in range(_TIES)])
    return -np.log2(1 - chances), -np.log2(chances)


@cache
def _mask_model(fraction: int, tie: int) -> Floats:
    """Probability that a place is kept given that its left neighbour is masked, kept or unknown.

    float64 [3]: a stationary chain with the level's mean and a correlation of tie/8.
    """
    if fraction == _ALL:
        return np.ones(3)
    mean, correlation = _FRACTIONS[fraction], tie / _TIES
    return np.array(
        [mean * (1 - correlation), mean + correlation * (1 - mean), mean], dtype=np.float64
    )


def _mask_contexts(kept: Bools, starts: Bools) -> Ints:
    """0: left neighbour masked, 1: kept, 2: unknown. The first place is unknown's."""
    left = np.concatenate([[2], kept[:-1]]).astype(np.int64)
    return np.where(starts, 2, left)


def _encode(coder: Encoder, chunk: Chunk, order: Order, tables: Tables) -> None:
    """Append a chunk."""
    size, length = order.places.size, chunk.kept.size
    coder.encode(chunk.stream * LAYERS + chunk.layer, _kind())
    _encode_uniform(coder, chunk.start, size)
    _encode_uniform(coder, length - 1, min(_MAX_CHUNK, size - chunk.start))
    starts = order.starts[chunk.start : chunk.start + length]
    if length > 2:
        coder.encode(chunk.fraction, _uniform(_ALL + 1))
        if chunk.fraction != _ALL:
            coder.encode(chunk.tie, _uniform(_TIES))
            contexts = _mask_contexts(chunk.kept, starts)[1:-1]
            chances = _mask_model(chunk.fraction, chunk.tie)[contexts]
            coder.encode(chunk.kept[1:-1].astype(np.int32), _bernoulli_family(), chances)
    table = tables.of(chunk.stream)
    symbols = chunk.indices.astype(np.int32)
    if table.clusters is None:
        coder.encode(symbols, table.models[0])
        return
    rows = _index_rows(chunk, starts, table)
    for symbol, row in zip(symbols.tolist(), rows.tolist(), strict=True):
        coder.encode(symbol, table.models[row])


def _index_rows(chunk: Chunk, starts: Bools, table: IndexTable) -> Ints:
    """The context row of each of a chunk's tokens."""
    spread = np.zeros(chunk.kept.size, dtype=np.int64)
    spread[chunk.kept] = chunk.indices
    return table.context_of(spread, chunk.kept, starts)[chunk.kept]


def _decode(core: bytes, order: Order, tables: Tables) -> list[Chunk]:
    """Read chunks. Raises DataError or constriction's AssertionError."""
    coder, size = decoder(core), order.places.size
    limit = 8 * len(core) + 64
    chunks: list[Chunk] = []
    spent, held = 0.0, 0
    while True:
        kind = coder.decode(_kind())
        if kind >= 2 * LAYERS:
            raise DataError("a packet is damaged or of a later version: it has a reserved kind")
        stream, layer = divmod(kind, LAYERS)
        start = _decode_uniform(coder, size)
        length = _decode_uniform(coder, min(_MAX_CHUNK, size - start)) + 1
        fraction = coder.decode(_uniform(_ALL + 1)) if length > 2 else _ALL
        tie = coder.decode(_uniform(_TIES)) if fraction != _ALL else 0
        starts = order.starts[start : start + length]
        kept = _decode_mask(coder, fraction, tie, starts)
        indices = _decode_indices(coder, kept, starts, tables.of(stream))
        chunk = Chunk(stream, layer, start, kept, indices, fraction, tie)
        chunks.append(chunk)
        spent += sum(_chunk_bits(chunk, order, tables))
        held += indices.size
        if held > len(STREAMS) * size:
            raise DataError("a packet is damaged: it holds more tokens than there are places")
        if spent > limit:
            raise DataError("a packet is cut short or damaged: it says more than it can hold")
        if not coder.decode(_more()):
            return chunks
        spent -= float(np.log2(_MORE))


def _decode_mask(coder: Any, fraction: int, tie: int, starts: Bools) -> Bools:
    """Which of a chunk's places are kept; each hangs on the one before, hence one at a time."""
    kept = np.ones(starts.size, dtype=np.bool_)
    if fraction == _ALL:
        return kept
    masked_left, kept_left, unknown = _bernoulli(fraction, tie)
    before = True
    for place, begins in enumerate(starts[1:-1].tolist(), start=1):
        model = unknown if begins else kept_left if before else masked_left
        before = bool(coder.decode(model))
        kept[place] = before
    return kept


def _decode_indices(coder: Any, kept: Bools, starts: Bools, table: IndexTable) -> Ints:
    """The kept places' indices."""
    count = int(kept.sum())
    if table.clusters is None:
        return np.asarray(coder.decode(table.models[0], count)).astype(np.int64)
    unknown = len(table.models) - 1
    masked = unknown - 1
    clusters = table.clusters.tolist()
    indices: list[int] = []
    row = unknown
    for here, begins in zip(kept.tolist(), starts.tolist(), strict=True):
        if begins:
            row = unknown
        if here:
            indices.append(coder.decode(table.models[row]))
            row = clusters[indices[-1]]
        else:
            row = masked
    return np.array(indices, dtype=np.int64)


def _chunk_bits(chunk: Chunk, order: Order, tables: Tables) -> tuple[float, float, float]:
    """Information in a chunk's head, mask and indices, bits."""
    length = chunk.kept.size
    starts = order.starts[chunk.start : chunk.start + length]
    mask = 0.0
    if chunk.fraction != _ALL and length > 2:
        chances = _mask_model(chunk.fraction, chunk.tie)[_mask_contexts(chunk.kept, starts)]
        costs = -np.log2(np.where(chunk.kept, chances, 1 - chances))
        mask = float(costs[1:-1].sum())
    table = tables.of(chunk.stream)
    index = float(table.cost[_index_rows(chunk, starts, table), chunk.indices].sum())
    head = _head_bits(
        chunk.stream, chunk.layer, chunk.start, order.places.size, length, chunk.fraction
    )
    return head, mask, index


def _head_bits(stream: int, layer: int, start: int, size: int, length: int, fraction: int) -> float:
    """Information in a chunk's head, its share of the flags "another chunk follows" apart."""
    model = 0.0 if length <= 2 else 4.0 if fraction == _ALL else 7.0
    ranges = np.log2(size) + np.log2(min(_MAX_CHUNK, size - start))
    return float(ranges - np.log2(_KINDS[stream * LAYERS + layer]) + model)


def _ledger(
    chunks: Sequence[Chunk], order: Order, tables: Tables, coded: int, whole: int
) -> dict[str, int]:
    """Whole bits by what they are, 8 * whole in all.

    header, mask and index are rounded so that their sum is their information's; coder is what the
    range coder's last byte leaves.
    """
    parts = np.array([_chunk_bits(chunk, order, tables) for chunk in chunks]).sum(axis=0)
    parts[0] -= np.log2(1 - _MORE) + (len(chunks) - 1) * np.log2(_MORE)
    ends = np.minimum(np.rint(np.cumsum(parts)).astype(int), 8 * coded).tolist()
    return {
        "header": ends[0],
        "mask": ends[1] - ends[0],
        "index": ends[2] - ends[1],
        "coder": 8 * coded - ends[2],
        "padding": 8 * (whole - coded),
    }


def _spent(coder: Encoder) -> float:
    """Information encoded so far, bits."""
    count, (_, width) = coder.pos()
    return float(32 * count + 64 - np.log2(float(width)))


def _encode_uniform(coder: Encoder, value: int, size: int) -> None:
    if size > 1:
        coder.encode(value, _uniform(size))


def _decode_uniform(coder: Any, size: int) -> int:
    return int(coder.decode(_uniform(size))) if size > 1 else 0


@lru_cache(maxsize=4096)
def _uniform(size: int) -> Any:
    return constriction.stream.model.Uniform(size)


@lru_cache(maxsize=1)
def _kind() -> Any:
    return constriction.stream.model.Categorical(_KINDS, perfect=False)


@lru_cache(maxsize=1)
def _more() -> Any:
    return constriction.stream.model.Bernoulli(_MORE, perfect=False)


@lru_cache(maxsize=1)
def _bernoulli_family() -> Any:
    return constriction.stream.model.Bernoulli(perfect=False)


@cache
def _bernoulli(fraction: int, tie: int) -> tuple[Any, Any, Any]:
    """The mask model's coders: left neighbour masked, kept, unknown."""
    masked, kept, unknown = _mask_model(fraction, tie).tolist()
    bernoulli = constriction.stream.model.Bernoulli
    return (
        bernoulli(masked, perfect=False),
        bernoulli(kept, perfect=False),
        bernoulli(unknown, perfect=False),
    )


def _order(height: int, width: int) -> Order:
    """The sending order, if the grid is not beyond what the format can say."""
    if height * width > _MAX_PLACES:
        raise DataError(f"a grid of {height}x{width} places is beyond the format's {_MAX_PLACES}")
    return sending_order(height, width)
