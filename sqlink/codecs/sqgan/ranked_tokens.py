"""A picture's tokens, ranked by their worth; the transmitter chooses from these.

analysis of the network ─ indices, scores ───────────────────────── map, image
        picture ─ less what the base draws of those that are sent ─ coefficients
                                        └─ step ─ digits, gains ─── 1/8, 1/4, in units of 2x2
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sqlink.bitstream.refinement_table import ZERO, RefinementTable, units_of
from sqlink.bitstream.token_selection import keep, ranks

if TYPE_CHECKING:
    from sqlink.model.refinement import Coefficients
    from sqlink.model.sqgan import Analysis, Finer, Layer

Kept = tuple[int, int]
"""Tokens of map and image that are sent, the most relevant ones."""

_USUAL_BITS = (7.0, 8.7)
"""Bits of a token of the map and of the picture, about, where the search for a budget begins."""
_LEGIBLE = (0.0, 0.5, 1.0)
"""Weights of the kinds of gain (`sqlink.model.refinement.KINDS`) for `legible`; the second is also
weighted by the relevance of the place.
"""


@dataclass(frozen=True)
class RankedTokens:
    """The tokens, or units, of a stream at every place.

    indices: int64 [h, w], or int16 [h, w, S] of units. ranks: int64 [h, w], 0 the most relevant.
    bits: float64 [P + 1], the estimated bits if the first 0..P by rank are sent. zero: those of a
    unit of zeros; None for tokens of the base, which have no zero.
    """

    indices: NDArray[Any]
    ranks: NDArray[np.int64]
    bits: NDArray[np.float64]
    zero: float | None = None

    @classmethod
    def of(
        cls,
        indices: NDArray[Any],
        scores: NDArray[Any],
        bits: NDArray[np.float64],
        zero: float | None = None,
    ) -> RankedTokens:
        """Rank tokens by scores [h, w]. bits: [h, w], estimated for each token."""
        rank = ranks(scores)
        ordered = np.zeros(rank.size + 1)
        ordered[1 + rank.reshape(-1)] = bits.reshape(-1)
        total = np.cumsum(ordered)
        if zero is not None:
            counts = np.arange(1, rank.size)
            total[1:-1] += np.minimum(zero * (rank.size - counts), _mask_bits(counts, rank.size))
        return cls(indices, rank, total, zero)

    def kept(self, count: int) -> NDArray[Any]:
        """Return the indices with all but the `count` most relevant masked; units are set to zero
        instead, which means the same to the receiver, where this takes about as few bits as a mask.
        """
        places = self.ranks.size
        if self.zero is None or not 0 < count < places:
            return keep(self.indices, self.ranks, count)
        if self.zero * (places - count) > _mask_bits(np.array(count), places):
            return keep(self.indices, self.ranks, count)
        there = (self.ranks < count)[..., None]
        return np.where(there, self.indices, self.indices.dtype.type(ZERO))


@dataclass(frozen=True)
class AnalysedPicture:
    """One picture's tokens.

    base: of map and image. colour: see `sqlink.codecs.sqgan.mean_colour`. source: of the
    refinement's coefficients, one picture; None without one.
    relevance: of the classes at each place, [1, k h, k w] for each layer; () without one.
    coefficients: by the base's tokens that are sent, and finer: the refinement's streams, by these
    and the quantiser's step, as far as they were needed. sizes: bytes of the points of the path
    that were tried, for each pair of lower points that end layers and fixed step. searched: the
    packets that were made after a search, by all that determines them.
    """

    base: tuple[RankedTokens, RankedTokens]
    colour: bytes
    source: Finer | None
    relevance: tuple[Tensor, ...]
    coefficients: dict[Kept, Coefficients] = field(default_factory=dict)
    finer: dict[tuple[Kept, int], tuple[RankedTokens, ...]] = field(default_factory=dict)
    sizes: dict[tuple[tuple[int, ...], int | None], dict[int, int]] = field(default_factory=dict)
    searched: dict[tuple[int, tuple[int, ...], int, int | None], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, analysis: Analysis, row: int, colour: bytes, of_classes: Tensor) -> AnalysedPicture:
        """Take one picture of a batch. of_classes: float32 [classes + 1], their relevance."""
        map_, image = (
            RankedTokens.of(
                indices[row].cpu().numpy(),
                scores[row].cpu().numpy(),
                np.full(tuple(scores.shape[1:]), bits),
            )
            for indices, scores, bits in (
                (analysis.map_indices, analysis.map_scores, _USUAL_BITS[0]),
                (analysis.image_indices, analysis.image_scores, _USUAL_BITS[1]),
            )
        )
        finer = analysis.finer
        if finer is None:
            return cls((map_, image), colour, None, ())
        weights = of_classes.to(finer.shares.device).view(1, -1, 1, 1)
        fine = (finer.shares[row : row + 1] * weights).sum(1, keepdim=True).cpu()
        both = F.avg_pool2d(fine, 2).squeeze(1), fine.squeeze(1)
        return cls((map_, image), colour, finer.row(row), both)


def ranked_units(
    layer: Layer, relevance: Tensor, table: RefinementTable, row: int, aim: str
) -> RankedTokens:
    """Return the units of a refinement's layer, ranked by their worth for an aim.

    relevance: float32 [1, h, w], of the classes at each place. row: of the tables.
    """
    units = units_of(layer.digits[0].cpu().numpy() + np.int16(ZERO))
    gains = layer.gains.cpu()
    if aim == "faithful":
        worth = gains[:, 0]
    elif aim == "natural":
        worth = gains[:, 1]
    else:
        worth = _LEGIBLE[1] * relevance * gains[:, 1] + _LEGIBLE[2] * gains[:, 2]
    scores = F.avg_pool2d(worth.unsqueeze(1), 2)[0, 0].numpy()
    nothing = np.full((1, 1, table.digits), ZERO, dtype=np.int16)
    zero = float(table.usual_bits(nothing, row)[0, 0])
    return RankedTokens.of(units, scores, table.usual_bits(units, row), zero)


def _mask_bits(counts: NDArray[np.int64], places: int) -> NDArray[np.float64]:
    """Return the bits, about, that signal which of the places are kept, if so many are: more than
    none and not all.
    """
    share = counts / places
    bits: NDArray[np.float64] = -places * (
        share * np.log2(share) + (1 - share) * np.log2(1 - share)
    )
    return bits
