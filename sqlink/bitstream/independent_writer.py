"""Cut tokens into independent packets, each filled with as many tokens as fit.

    layer's tokens, bits of each ─ running sums ─ guess where the packet is full ─ encode ─ measure

Map and image of a layer share its packets, in proportion to their bits.

`independent` defines what a packet holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sqlink.bitstream.context_model import information, level_of
from sqlink.bitstream.independent import (
    ALL_KEPT,
    CHECK,
    GROUPS,
    KINDS,
    LAYERS,
    MAX_CHUNK,
    Bools,
    Chunk,
    Expected,
    Floats,
    Grid,
    Ints,
    Symbols,
    code,
    more,
)
from sqlink.bitstream.range_coder import Writer, flag_bits
from sqlink.bitstream.refinement_table import (
    ESCAPE,
    ESCAPES,
    SIZES,
    ZERO,
    ExpectedToken,
    Units,
    bits_of,
)

_HELD = 4096
"""Tokens of a layer whose weights are all held at once; for more they are computed per packet."""

_UNSEEN, _LAST = 10, 5.0
"""Bits of a packet, about, that its first tokens take more, as they have no neighbours, and its
end; and bytes that the last packet does without."""

_SLACK = 8
"""Bits by which what is coded may be shorter than its information, at most."""


Plan = list[list["_Segment"]]
"""What is sent, in order, in groups that share packets."""


def planned(
    indices: Sequence[Symbols], layers: Sequence[Ints], grid: Grid, given_map: bool
) -> Plan:
    """Return what to send of a picture, with the costs of every token.

    indices: int64 [h, w] of the base's streams and units int16 [h, w, S] of the refinement's, -1
    where nothing is sent; layers: int64 [h, w], 0..3. given_map: whether all chunks but the map's
    depend on the map, the grid's one.
    """
    segments = [
        segment
        for stream in range(len(indices))
        for segment in _segments(indices[stream], layers[stream], stream, grid, given_map)
    ]
    if not given_map:  # image chunks that depend on the map need all of it
        segments.sort(key=lambda segment: segment.layer)
    return _sharing(segments, given_map)


def write(plan: Plan, packet_bytes: int) -> list[tuple[bytes, Writer]]:
    """Return the packets of a picture, the most relevant first, none longer than packet_bytes.

    A unit that is too long for a packet is not sent.
    """
    found: list[tuple[bytes, Writer]] = []
    writer, empty = Writer(), True
    for own in plan:
        group = [replace(segment) for segment in own]  # the plan stays as it is
        while any(segment.left for segment in group):
            placed = False
            for number, segment in enumerate(group):
                if not segment.left:
                    continue
                limit = _limit(writer, group[number:], packet_bytes)
                fitted = segment.fit(writer, empty, limit)
                if fitted is not None:
                    writer, tokens = fitted
                    segment.first += tokens
                    empty, placed = False, True
            if placed:
                continue
            if empty:
                alone = next(segment for segment in group if segment.left)
                if alone.stream < 2:
                    raise ValueError(f"not one token fits {packet_bytes} bytes")
                alone.first += 1
                continue
            found.append(_ended(writer))
            writer, empty = Writer(), True
    return found if empty else [*found, _ended(writer)]


def expected_bytes(plan: Plan, packet_bytes: int) -> float:
    """Return about how many bytes the packets of `write` take, from the information of the tokens,
    the heads of chunks, and the room that stays free where no token fits any more.
    """
    total = 0.0
    for group in plan:
        bits = sum(segment.bits_left for segment in group)
        free = _UNSEEN + 0.5 * bits / sum(segment.left for segment in group)
        heads = sum(segment.head_bits(0) for segment in group)
        total += bits * packet_bytes / max(8.0, 8 * packet_bytes - heads - free)
    return max(total - _LAST, 0.0)


def _ended(writer: Writer) -> tuple[bytes, Writer]:
    """Return a packet's bytes, after a mark that no chunk follows."""
    more(writer, False)
    return writer.to_bytes(), writer


def _sharing(segments: Sequence[_Segment], given_map: bool) -> list[list[_Segment]]:
    """Group the segments that share packets: map and image of a layer, else each alone.

    A lost packet then costs a few tokens of both instead of most of one of them.
    """
    groups: list[list[_Segment]] = []
    for segment in segments:
        together = not given_map and segment.stream == 1 and groups
        if together and (groups[-1][0].stream, groups[-1][0].layer) == (0, segment.layer):
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


def _limit(writer: Writer, group: Sequence[_Segment], packet_bytes: int) -> int:
    """Return the bytes up to which the first of a group may fill a packet: its share of what all
    still have to send.
    """
    bits = [segment.bits_left for segment in group if segment.left]
    room = packet_bytes - writer.bits / 8
    return packet_bytes if len(bits) == 1 else int(writer.bits / 8 + room * bits[0] / sum(bits))


@dataclass(frozen=True)
class _Costs:
    """The coder's expectations at the G places of a layer, and the bits that coding takes."""

    hidden: NDArray[np.float32]  # [G, H], as if every run were whole
    chances: Floats  # [G], to be kept
    weights: Floats | None  # [K, J] of the indices where kept; None: too many to be held
    tokens: tuple[ExpectedToken, ...]  # of the units where kept; empty: too many to be held
    mask_bits: Floats  # [G], of each place
    index_bits: Floats  # [K], of each token


@dataclass
class _Segment:
    """One layer of a stream, ready to be cut into chunks; `first` is the next token to be sent."""

    stream: int
    layer: int
    given_map: bool
    grid: Grid
    level: int
    kept: Bools  # [G], sending order
    indices: Symbols  # [G], or units [G, S], -1 where masked
    costs: _Costs
    positions: Ints  # [K], where kept
    mask_sums: Floats  # [G + 1], bits of all places before this one
    index_sums: Floats  # [K + 1], bits of all tokens before this one
    first: int = 0

    @property
    def left(self) -> int:
        """Number of tokens that are still to be sent."""
        return self.positions.size - self.first

    @property
    def bits_left(self) -> float:
        """Estimated bits of these tokens."""
        start = int(self.positions[self.first])
        masks = self.mask_sums[-1] - self.mask_sums[start]
        return float(masks + self.index_sums[-1] - self.index_sums[self.first])

    def fit(self, writer: Writer, empty: bool, packet_bytes: int) -> tuple[Writer, int] | None:
        """Encode as many tokens from `first` on as the packet still takes.

        Returns a new writer and the number of tokens, or None where not even one fits.
        """
        first = self.first
        start = int(self.positions[first])
        room = 8.0 * packet_bytes - writer.bits - self.head_bits(start)
        reach = self.mask_sums[self.positions] + self.index_sums[1:]
        limit = room + self.mask_sums[start] + self.index_sums[first]
        if reach[first] > limit + _SLACK:
            return None
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
                if last == bound or reach[last + 1] - reach[last] > left + _SLACK:
                    break
                last += 1
        return best

    def head_bits(self, start: int) -> float:
        """Return the bits of the head of a chunk from place `start` on."""
        size = self.kept.size
        group = GROUPS.index((self.stream, self.given_map))
        kind = KINDS[0, group * LAYERS + self.layer] / KINDS.sum()
        ranges = np.log2(size) + np.log2(min(MAX_CHUNK, size - start)) + np.log2(ALL_KEPT + 1)
        return float(ranges - np.log2(kind) + (np.log2(CHECK) if self.given_map else 0.0))

    def _begins(self, start: int) -> Expected | None:
        """Return the expectations of the first two places of a chunk from `start` on, or of one,
        where it begins within a run whose earlier places are in another packet.
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
        hidden = self.grid.hidden_of_tokens(self.stream, self.given_map, places, left, level)
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
        chunk = Chunk(self.stream, self.layer, self.given_map, start, kept, indices, self.level)
        if self.stream >= 2:
            code(writer, self.grid, chunk, self._of_units(first, start, stop))
            return
        chances, mask_bits = self.costs.chances[start:stop], self.costs.mask_bits[start:stop]
        index_bits = self.costs.index_bits[first : last + 1]
        weights = np.empty((0, 0))
        if self.costs.weights is not None:
            weights = self.costs.weights[first : last + 1]
        elif not self.grid.fixed:
            table = self.grid.tables.of(self.stream)
            weights = table.index_weights_of(self.costs.hidden[start:stop][kept])
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
        """Return the expectations of units start..stop - 1, of which token `first` is first."""
        chances, mask_bits = self.costs.chances[start:stop], self.costs.mask_bits[start:stop]
        tokens = self.costs.tokens
        if not tokens and not self.grid.fixed:
            kept = self.kept[start:stop]
            table, first = self.grid.tables.refining(self.stream), 0
            tokens = table.expected(
                self.costs.hidden[start:stop][kept], self.indices[start:stop][kept].astype(np.int16)
            )
        return Expected(chances, np.empty((0, 0)), mask_bits, np.empty(0), tokens, first)


def _segments(
    grid_indices: Symbols, layers: Ints, stream: int, grid: Grid, given_map: bool
) -> list[_Segment]:
    """Return the layers of one stream that hold tokens."""
    order = grid.order_of(stream)
    given_map = given_map and stream > 0
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
            costs = _costs_of_units(own, kept, stream, grid, given_map, level)
        else:
            own = own[:, 0]
            costs = _costs_of_tokens(own, kept, stream, grid, given_map, level)
        found.append(
            _Segment(
                stream=stream,
                layer=layer,
                given_map=given_map,
                grid=grid,
                level=level,
                kept=kept,
                indices=own,
                costs=costs,
                positions=np.flatnonzero(kept),
                mask_sums=np.concatenate([[0.0], np.cumsum(costs.mask_bits)]),
                index_sums=np.concatenate([[0.0], np.cumsum(costs.index_bits)]),
            )
        )
    return found


def _costs_of_tokens(
    own: Symbols, kept: Bools, stream: int, grid: Grid, given_map: bool, level: int
) -> _Costs:
    """Return the costs of a layer of the base; own: int64 [G]."""
    table, order = grid.tables.of(stream), grid.order_of(stream)
    states = np.concatenate([np.full(2, table.masked + 1), np.where(kept, own, table.masked)])
    left = np.stack([states[1:-1], states[:-2]], axis=1)
    left[order.offsets[:, None] < [1, 2]] = table.masked + 1
    hidden = grid.hidden_of_tokens(stream, given_map, order.places, left, level)
    weights = None
    if grid.fixed:
        index_bits = np.full(int(kept.sum()), np.log2(table.size))
    elif kept.sum() <= _HELD:
        weights = table.index_weights_of(hidden[kept])
        index_bits = information(weights, own[kept])
    else:
        index_bits = table.index_bits(hidden[kept], own[kept])
    chances = table.chance_kept(hidden, level)
    return _Costs(hidden, chances, weights, (), _mask_bits(kept, chances, level), index_bits)


def _costs_of_units(
    own: Units, kept: Bools, stream: int, grid: Grid, given_map: bool, level: int
) -> _Costs:
    """Return the costs of a layer of a refinement; own: int16 [G, S]."""
    table = grid.tables.refining(stream)
    hidden = grid.hidden_of_units(stream, given_map, grid.order_of(stream).places, level)
    tokens: tuple[ExpectedToken, ...] = ()
    if grid.fixed:
        large = np.abs(own[kept].astype(np.int64) - ZERO) >= ESCAPE
        index_bits = table.digits * np.log2(SIZES) + np.log2(ESCAPES) * large.sum(1)
    else:
        if kept.sum() <= _HELD:
            tokens = table.expected(hidden[kept], own[kept])
        index_bits = bits_of(tokens) if tokens else table.unit_bits(hidden[kept], own[kept])
    chances = table.chance_kept(hidden, level)
    return _Costs(hidden, chances, None, tokens, _mask_bits(kept, chances, level), index_bits)


def _mask_bits(kept: Bools, chances: Floats, level: int) -> Floats:
    """Return the bits of each place's mask, [G]; none where every place is kept."""
    return flag_bits(kept, chances) if level != ALL_KEPT else np.zeros(kept.size)
