"""From a picture's tokens to packets within a budget of bytes, along a path of rates.

tokens, ranked ─ kept counts at a point of the path ─ expected bytes ─ packetise ─ bytes
                      ├─────────── next guess <───────────┘                    │
                      └─────────── next guess <────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sqlink.bitstream.packets import Packing, Tokens, expected_bytes, packetise
from sqlink.bitstream.quantisation import quantised_by_bits
from sqlink.bitstream.refinement_table import MASKED, ZERO, units_of
from sqlink.bitstream.tables import Tables
from sqlink.bitstream.token_selection import keep, layers
from sqlink.codecs.base import Packet
from sqlink.codecs.sqgan.ranked_tokens import AnalysedPicture, Kept, RankedTokens, ranked_units
from sqlink.codecs.sqgan.rate_path import POINTS, RatePath
from sqlink.codecs.sqgan.session import SESSION_BYTES
from sqlink.model.refinement import table_row

if TYPE_CHECKING:
    from sqlink.model.refinement import Coefficients, Quantiser
    from sqlink.model.sqgan import Finer, Layer, Searched
    from sqlink.model.token_search import TokenSearch

_FILLED = 0.982
"""Share of a budget that is enough."""
_SHIFT = POINTS // 512
"""Points by which a guess is moved on after two misses on the same side; twice as far each time."""
_LOOKS = 4
"""Most guesses before packets are made."""
_NEAR = 0.007
"""Packets are made of a guess that is expected this near to what guesses aim at, of the budget."""
_AIM = 0.5
"""Guesses aim at the budget minus this part of the share that may stay free."""
_FINER_TAKES = 1.3
"""Exponent by which bytes fall with the quantiser's step, where a step was not tried yet."""
_SINGLE_TAKES = 0.7
"""Share of a unit's usual bits, about, that it takes in a `single` stream, by its contexts."""
_ROUGH_BITS = (24.0, 6.0)
"""Bits of a unit at 1/8 and at 1/4 at a step of 1, about, before any step was tried."""
_UNDRAWN: Kept = (-1, -1)
"""Stands for the base's tokens where its drawing is not known yet, which takes longest."""
_UNDRAWN_LOOKS = 2
"""Guesses before the base is drawn."""
_REFITS = 8
"""Most times that packets are made of tokens after a search, to fill the budget again."""
_HARDER, _EASIEST = 0.3, -0.17
"""How much harder it is made to be rounded up, as a share of what is too much, doubled with each
try; and the least, with which all is rounded to the nearest."""


class Analyser(Protocol):
    """The network that finds a refinement's coefficients; see `sqlink.model.sqgan.SQGAN`."""

    def coefficients(
        self, finer: Finer, image_indices: torch.Tensor, map_indices: torch.Tensor
    ) -> Coefficients:
        """Return the refinement's coefficients, given the base's tokens that are sent."""
        ...

    def undrawn(self, finer: Finer) -> Coefficients:
        """Return about what `coefficients` does, without drawing the base."""
        ...

    def layers(
        self, coefficients: Coefficients, step: int, quantiser: Quantiser | None = None
    ) -> tuple[Layer, Layer]:
        """Return the refinement's layers at one of the quantiser's steps."""
        ...

    def searched(
        self,
        finer: Finer,
        image_indices: torch.Tensor,
        map_indices: torch.Tensor,
        coefficients: Coefficients,
        step: int,
        came: tuple[torch.Tensor, torch.Tensor],
        search: TokenSearch,
    ) -> Searched:
        """Search for tokens that look better at the receiver."""
        ...


@dataclass(frozen=True)
class SentPackets:
    """Packets, and the index of the quantiser's step that their digits were made with."""

    packets: tuple[Packet, ...]
    step: int

    @property
    def size(self) -> int:
        """Return the bytes of the packets and the session."""
        return SESSION_BYTES + sum(len(packet.data) for packet in self.packets)


@dataclass(frozen=True)
class _Found:
    """What a search found.

    rounded: makes the picture with its tokens; the argument is that of `Searched.rounded`.
    has_units: whether units of the refinement are among these.
    """

    rounded: Callable[[float], AnalysedPicture]
    has_units: bool


@dataclass(frozen=True)
class Sender:
    """The transmitter after the network.

    steps: the quantiser's, none without refinements, steps_per_row of which share a row of the
    tables. aim: of AIMS. image_layers, layer_bytes: see
    `sqlink.codecs.sqgan.codec.SQGANCodec`. search: for tokens that look better; None: the nearest
    codes and digits are sent.
    """

    path: RatePath
    tables: Tables
    model: Analyser
    device: torch.device
    steps: tuple[float, ...]
    steps_per_row: int
    aim: str
    packing: Packing
    packet_bytes: int
    image_layers: int
    layer_bytes: tuple[int, ...]
    search: TokenSearch | None = None

    def fit(self, analysed: AnalysedPicture, budget: int) -> SentPackets | int:
        """Return the packets of the farthest point of the path within a budget in bytes, or of one
        that fills 98 % of it; the bytes of the path's first point where even these are more.

        The answer does not depend on the rates that were asked for before.
        """
        point, sent = self._farthest(analysed, budget, (), None)
        if point is None:
            return analysed.sizes[(), None][0]
        below: tuple[int, ...] = ()
        step = sent.step if self.layer_bytes else None
        for size in self.layer_bytes:
            if size + SESSION_BYTES < budget:
                end, _ = self._farthest(analysed, size + SESSION_BYTES, below, step)
                if end is not None and max((-1, *below)) < end < POINTS:
                    below = (*below, end)
        if below:
            end, layered = self._farthest(analysed, budget, below, step)
            if end is not None:
                point, sent = end, layered
        return self._improved(analysed, point, below, sent, budget)

    def packets_at(
        self,
        analysed: AnalysedPicture,
        point: int,
        below: tuple[int, ...] = (),
        step: int | None = None,
    ) -> SentPackets:
        """Return the packets of a point of the path, with layers that end at those below it."""
        return self._packets(*self._tokens(analysed, point, below, step))

    def _packets(self, tokens: Tokens, step: int) -> SentPackets:
        made = packetise(tokens, self.tables, self.packet_bytes, self.packing)
        return SentPackets(tuple(made), step)

    def whole(self, analysed: AnalysedPicture, point: int) -> SentPackets:
        """Return the packets of a point of the path, whatever they take, after the search."""
        return self._improved(analysed, point, (), self.packets_at(analysed, point), None)

    def _improved(
        self,
        analysed: AnalysedPicture,
        point: int,
        below: tuple[int, ...],
        sent: SentPackets,
        budget: int | None,
    ) -> SentPackets:
        """Return the packets of a point of the path after the search, within a budget if there is
        one.

        sent: without a search; the answer if none is asked for, or nothing fits.
        """
        if self.search is None or self.aim == "faithful" or analysed.source is None:
            return sent
        asked = point, below, sent.step, budget
        if asked not in analysed.searched:
            found = self._searched(analysed, point, sent.step)
            if budget is not None:
                fill = self._refilled if found.has_units else self._shortened
                sent = fill(found, point, below, sent, budget)
            else:
                sent = self.packets_at(found.rounded(0.0), point, below, sent.step)
            analysed.searched[asked] = sent
        answer: SentPackets = analysed.searched[asked]
        return answer

    def _searched(self, analysed: AnalysedPicture, point: int, step: int) -> _Found:
        """Search for the tokens that a point of the path sends, at a step of the quantiser."""
        assert self.search is not None
        assert analysed.source is not None
        at = self.path.at(np.array([point]), analysed.base[0].ranks.size)
        counts = [int(own[0]) for own in at.counts]
        kept = counts[0], counts[1]
        streams = self.streams(analysed, step, kept)[2:]
        map_, image = self._base_indices(analysed, kept)
        first, second = (
            torch.from_numpy(stream.ranks < count)[None]
            .repeat_interleave(2, 1)
            .repeat_interleave(2, 2)
            .to(self.device)
            for stream, count in zip(streams, counts[2:], strict=True)
        )
        found = self.model.searched(
            analysed.source.to(self.device),
            image,
            map_,
            self._coefficients(analysed, kept).to(self.device),
            step,
            (first, second),
            self.search,
        )
        own = analysed.base[1]
        codes = found.image_indices[0].cpu().numpy()
        moved = replace(own, indices=np.where(codes < 0, own.indices, codes))
        searched = replace(analysed, base=(analysed.base[0], moved), sizes={}, searched={})

        def rounded(harder: float) -> AnalysedPicture:
            better = tuple(
                replace(stream, indices=units_of(digits[0].cpu().numpy() + np.int16(ZERO)))
                for stream, digits in zip(streams, found.rounded(harder), strict=True)
            )
            return replace(searched, finer={(kept, step): better})

        return _Found(rounded, any(counts[2:]))

    def _refilled(
        self,
        found: _Found,
        point: int,
        below: tuple[int, ...],
        sent: SentPackets,
        budget: int,
    ) -> SentPackets:
        """Return the packets of a point of the path with digits that are rounded up as often as
        the budget allows; those without a search if nothing fits.
        """
        best, filled = sent, 0
        goal = (1 - _AIM * (1 - _FILLED)) * budget
        seen: dict[float, int] = {}
        harder = 0.0
        for _ in range(_REFITS):
            made = self.packets_at(found.rounded(harder), point, below, sent.step)
            seen[harder] = size = made.size
            if filled < size <= budget:
                best, filled = made, size
            if filled >= _FILLED * budget - 1:
                break
            fits = min((one for one, bytes_ in seen.items() if bytes_ <= budget), default=None)
            not_ = max((one for one, bytes_ in seen.items() if bytes_ > budget), default=None)
            if fits is None or not_ is None:
                over = (size - goal) / budget
                harder = max(harder + 2 ** len(seen) * _HARDER * over, _EASIEST)
                if harder in seen:
                    break
            else:
                share = (seen[not_] - goal) / max(1, seen[not_] - seen[fits])
                harder = not_ + (fits - not_) * min(max(share, 0.1), 0.9)
        # Codes that were found may cost more than the few units beside them can save.
        return best if filled else self._shortened(found, point, below, sent, budget)

    def _shortened(
        self,
        found: _Found,
        point: int,
        below: tuple[int, ...],
        sent: SentPackets,
        budget: int,
    ) -> SentPackets:
        """Return the packets of a point of the path, or of one a little before, with the codes that
        were found; those without a search if nothing fits.
        """
        analysed = found.rounded(0.0)
        best, filled = sent, 0
        fits, not_, at = -1, point + 1, point
        for _ in range(_REFITS):
            made = self.packets_at(analysed, at, below, sent.step)
            if made.size <= budget:
                fits = at
                if filled < made.size:
                    best, filled = made, made.size
            else:
                not_ = at
            if filled >= _FILLED * budget - 1 or not_ - fits <= 1:
                break
            guess = int(at * budget / made.size)
            at = guess if fits < guess < not_ else (fits + not_) // 2
        return best

    def _tokens(
        self, analysed: AnalysedPicture, point: int, below: tuple[int, ...], step: int | None
    ) -> tuple[Tokens, int]:
        """Return the tokens of a point of the path, and the index of the quantiser's step; see
        `packets_at`.
        """
        which = np.array([*(one for one in below if one < point), point])
        found = self.path.at(which, analysed.base[0].ranks.size)
        if step is None:
            step = int(found.steps[-1])
        counts = [np.minimum(own, own[-1]) for own in found.counts]
        if any(own[-1] for own in counts[2:]):
            streams = self.streams(analysed, step, (int(counts[0][-1]), int(counts[1][-1])))
        else:
            streams = (*analysed.base, *self._nothing(analysed))
        kept: list[NDArray[Any]] = []
        layer: list[NDArray[np.int64]] = []
        for order, (stream, ends) in enumerate(zip(streams, counts, strict=True)):
            kept.append(stream.kept(int(ends[-1])))
            if order > 0 and self.image_layers > 1:
                layer.append(layers(stream.ranks, int(ends[-1]), self.image_layers))
            else:
                layer.append(np.searchsorted(ends[:-1], stream.ranks, side="right"))
        finer = tuple(zip(kept[2:], layer[2:], strict=True))
        return Tokens(kept[0], kept[1], layer[0], layer[1], finer, self.row(step)), step

    def row(self, step: int) -> int:
        """Return the row of the tables for a step of the quantiser."""
        return table_row(step, self.steps_per_row)

    def streams(self, analysed: AnalysedPicture, step: int, kept: Kept) -> tuple[RankedTokens, ...]:
        """Return all streams of a picture, at a step of the quantiser, if `kept` tokens of the
        base's are sent.
        """
        if analysed.source is None:
            return analysed.base
        if (kept, step) not in analysed.finer:
            # By bits they are further from the original, which LPIPS minds more than squared error.
            drawn = kept != _UNDRAWN
            by_bits = drawn and self.aim == "faithful" and not self.packing.fixed
            found = self.model.layers(
                self._coefficients(analysed, kept).to(self.device),
                step,
                partial(self._quantised, self.row(step)) if by_bits else None,
            )
            aim = self.aim if drawn else "faithful"  # of the undrawn no other gains are known
            analysed.finer[kept, step] = tuple(
                ranked_units(layer, relevance, table, self.row(step), aim)
                for layer, relevance, table in zip(
                    found, analysed.relevance, self.tables.refinements, strict=True
                )
            )
        return (*analysed.base, *analysed.finer[kept, step])

    def _quantised(self, row: int, layer: int, coefficients: torch.Tensor) -> torch.Tensor:
        """Quantise one picture's coefficients of a layer, in steps: [1, D, h, w]."""
        digits = quantised_by_bits(
            coefficients[0].permute(1, 2, 0).cpu().numpy(),
            self.tables.refinements[layer],
            row,
            alone=self.packing.mode != "single",
        )
        return torch.from_numpy(digits).to(coefficients).permute(2, 0, 1)[None]

    def _base_indices(
        self, analysed: AnalysedPicture, kept: Kept
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the base's tokens of map and image, int64 [1, h, w], -1 where not sent."""
        map_, image = (
            torch.from_numpy(keep(stream.indices, stream.ranks, count))[None].to(self.device)
            for stream, count in zip(analysed.base, kept, strict=True)
        )
        return map_, image

    def _coefficients(self, analysed: AnalysedPicture, kept: Kept) -> Coefficients:
        """Return the refinement's coefficients where `kept` tokens of the base's are sent."""
        if kept not in analysed.coefficients:
            assert analysed.source is not None
            source = analysed.source.to(self.device)
            if kept == _UNDRAWN:
                found = self.model.undrawn(source)
            else:
                map_, image = self._base_indices(analysed, kept)
                found = self.model.coefficients(source, image, map_)
            analysed.coefficients[kept] = found.to(torch.device("cpu"))
        return analysed.coefficients[kept]

    def _nothing(self, analysed: AnalysedPicture) -> tuple[RankedTokens, ...]:
        """Return the refinement's streams of a picture that has none of their units sent."""
        rows, columns = analysed.base[0].ranks.shape
        return tuple(
            RankedTokens.of(
                np.full((times * rows, times * columns, table.digits), MASKED, dtype=np.int16),
                np.zeros((times * rows, times * columns)),
                np.zeros((times * rows, times * columns)),
            )
            for times, table in zip((1, 2), self.tables.refinements, strict=False)
        )

    def _farthest(
        self, analysed: AnalysedPicture, budget: int, below: tuple[int, ...], step: int | None
    ) -> tuple[int | None, SentPackets]:
        """Return the farthest point of the path, and its packets, that fits the budget, or one that
        fills 98 % of it; None where none does.

        below: points that are layers of their own. step: index of the quantiser's step at all
        points; None: that of each point. Bytes are nearly in proportion to what tokens usually
        take, so a few guesses are enough.
        """
        sizes = analysed.sizes.setdefault((below, step), {})
        made: dict[int, SentPackets] = {}
        looked_at: dict[int, tuple[Tokens, int]] = {}

        def size(point: int) -> int:
            if point not in sizes:
                tokens = looked_at.get(point) or self._tokens(analysed, point, below, step)
                made[point] = self._packets(*tokens)
                sizes[point] = made[point].size
            return sizes[point]

        low, high = -1, POINTS + 1  # fits; does not
        goal = budget - _AIM * (1 - _FILLED) * budget
        # What this search has seen, and no other: the answer must not depend on rates of before.
        tried: dict[int, int] = {}
        said: dict[int, float] = {}
        known: dict[int, Kept] = {}
        scale, same_side = 1.0, 0
        rough = self._undrawn(analysed, goal, step)
        while high - low > 1 and (low < 0 or sizes[low] < _FILLED * budget - 1):
            # Tokens are looked at before packets are made of them, which takes longer.
            for _ in range(_LOOKS):
                seen = {one: scale * bytes_ for one, bytes_ in said.items()} | tried
                point = self._guess(
                    analysed, goal, seen, step, known or rough, (low, high), same_side
                )
                kept, own_step = self._kept_at(analysed, point, step)
                looked = own_step in known or kept is None
                if kept is not None:
                    known[own_step] = kept
                if point not in said and self.packing.mode != "single":
                    looked_at = {point: self._tokens(analysed, point, below, step)}
                    expected = self._expected(looked_at[point][0])
                    said[point] = SESSION_BYTES + expected
                    looked = abs(scale * said[point] - goal) < _NEAR * budget
                if looked:
                    break
            tried[point] = size(point)
            scale = tried[point] / said.get(point, tried[point])
            if tried[point] <= budget:
                low, same_side = point, min(same_side, 0) - 1
                continue
            high, same_side = point, max(same_side, 0) + 1
            if self._at_end(analysed, point, step) and size(POINTS) <= budget:
                low = POINTS
                break
        if low < 0 or (low < POINTS // 64 and size(0) > budget):
            return None, SentPackets((), 0)
        return low, made[low] if low in made else self.packets_at(analysed, low, below, step)

    def _undrawn(self, analysed: AnalysedPicture, goal: float, step: int | None) -> dict[int, Kept]:
        """Return what `known` of `_usual_sizes` is before the base was drawn: steps of the
        quantiser that take about `goal` bytes.
        """
        known: dict[int, Kept] = {}
        for _ in range(_UNDRAWN_LOOKS):
            point = self._guess(analysed, goal, {}, step, known, (-1, POINTS + 1), 0)
            kept, own_step = self._kept_at(analysed, point, step)
            if kept is not None:
                known[own_step] = _UNDRAWN
        return known

    def _guess(
        self,
        analysed: AnalysedPicture,
        goal: float,
        seen: Mapping[int, float],
        step: int | None,
        known: Mapping[int, Kept],
        ends: tuple[int, int],
        same_side: int,
    ) -> int:
        """Return a point between two others, `ends`, that takes about `goal` bytes.

        seen: bytes of points. known: see `_usual_sizes`. same_side: number of misses after one
        another, below 0 of those that took too few bytes.
        """
        low, high = ends
        usual = self._usual_sizes(analysed, step, known)
        expected = self._corrected(analysed, usual, seen, step)
        over = np.flatnonzero(expected[low + 1 : high] > goal)
        point = low + int(over[0]) if over.size else high - 1
        point = min(max(low + 1, point), high - 1)
        if abs(same_side) > 1:  # what tokens usually take misleads: go on beyond it
            shift = (_SHIFT << abs(same_side) - 2) * (1 if same_side < 0 else -1)
            point = min(max(point + shift, low + 1), high - 1)
        # All may take fewer bytes than nearly all, which needs a mask.
        at_end = self._at_end(analysed, point, step)
        return POINTS if at_end and high > POINTS and point > 0.9 * POINTS else point

    def _at_end(self, analysed: AnalysedPicture, point: int, step: int | None) -> bool:
        """Return whether a point is among the last, of the finest step."""
        finest = self._step_at(analysed, POINTS, step)
        return point > 0.8 * POINTS and self._step_at(analysed, point, step) == finest

    def _kept_at(
        self, analysed: AnalysedPicture, point: int, step: int | None
    ) -> tuple[Kept | None, int]:
        """Return what a point keeps of the base, None if it keeps nothing of the refinement; and
        its step of the quantiser.
        """
        at = self.path.at(np.array([point]), analysed.base[0].ranks.size)
        kept = int(at.counts[0][0]), int(at.counts[1][0])
        refined = any(own[0] for own in at.counts[2:])
        return kept if refined else None, int(at.steps[0]) if step is None else step

    def _expected(self, tokens: Tokens) -> float:
        """Return about how many bytes the packets take, which are not of a `single` stream."""
        found = expected_bytes(tokens, self.tables, self.packet_bytes, self.packing)
        assert found is not None
        return found

    def _step_at(self, analysed: AnalysedPicture, point: int, step: int | None) -> int:
        """Return the quantiser's step of a point, or the one that is set."""
        if step is not None:
            return step
        return int(self.path.whole(analysed.base[0].ranks.size).steps[point])

    def _corrected(
        self,
        analysed: AnalysedPicture,
        usual: NDArray[np.float64],
        seen: Mapping[int, float],
        step: int | None,
    ) -> NDArray[np.float64]:
        """Return `usual` after the bytes of points that were seen: float64 [POINTS + 1].

        Points of the same step of the quantiser say more than nearer ones of another.
        """
        if not seen:
            return usual
        at = np.array(sorted(seen))
        ratios = np.array([seen[int(point)] for point in at]) / usual[at]
        every = np.arange(POINTS + 1)
        factor = np.interp(every, at, ratios)
        if step is None:
            steps = self.path.whole(analysed.base[0].ranks.size).steps
            for own in np.unique(steps[at]):
                here, of = steps == own, steps[at] == own
                factor[here] = np.interp(every[here], at[of], ratios[of])
        expected: NDArray[np.float64] = usual * factor
        return expected

    def _usual_sizes(
        self, analysed: AnalysedPicture, step: int | None, known: Mapping[int, Kept]
    ) -> NDArray[np.float64]:
        """Return about how many bytes each point of the path takes: float64 [POINTS + 1].

        known: the quantiser's steps whose tokens may be looked at, with what is kept of the base;
        others take more or fewer bytes than the nearest of these.
        """
        points = self.path.whole(analysed.base[0].ranks.size)
        total = np.full(POINTS + 1, SESSION_BYTES + 8.0)
        for stream, kept in zip(analysed.base, points.counts, strict=False):
            total += stream.bits[kept] / 8
        if analysed.source is None:
            return total
        steps = points.steps if step is None else np.full(POINTS + 1, step)
        share = _SINGLE_TAKES if self.packing.mode == "single" else 1.0
        for own in np.unique(steps).tolist():
            here = steps == own
            if not known:
                factor = share * self.steps[own] ** -_FINER_TAKES
                for bits, kept in zip(_ROUGH_BITS, points.counts[2:], strict=True):
                    total[here] += factor * bits * kept[here] / 8
                continue
            nearest = min(known, key=lambda one: (abs(one - own), one))
            factor = share * (self.steps[nearest] / self.steps[own]) ** _FINER_TAKES
            finer = self.streams(analysed, nearest, known[nearest])[2:]
            drawn = known[nearest] != _UNDRAWN
            takes = (1.0, 1.0) if drawn else _undrawn_takes(self.steps[nearest])
            for stream, kept, more in zip(finer, points.counts[2:], takes, strict=True):
                total[here] += more * factor * stream.bits[kept[here]] / 8
        return total


def _undrawn_takes(step: float) -> tuple[float, float]:
    """Return the bits of the units of both layers, about, in those of the undrawn, which miss what
    the base draws wrong.
    """
    return 1.1 + 0.24 * step, 0.7
