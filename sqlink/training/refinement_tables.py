"""Fit the coder's tables of the refinement to tokens of training pictures.

    units, ranks of every place ─ mask, hide neighbours as each packing does ─ float network
        ── bits of masks and digits, by gradient ──> rounded to integers ──> RefinementTable

As for the base's tables: the network is the table with real numbers, and in the last third of the
steps its weights are rounded as they will be stored; see `sqlink.bitstream.refinement_table`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlink.bitstream.context_model import HIDDEN_LIMIT, LEVELS, STEPS
from sqlink.bitstream.refinement_table import (
    NEIGHBOURS,
    TOKENS,
    RefinementTable,
    geometry,
    token_features,
    units_of,
)
from sqlink.bitstream.token_selection import ranks
from sqlink.model.refinement import RefinementConfig

if TYPE_CHECKING:
    from sqlink.model.sqgan import Analysis

HIDDEN = 48
STEPS_OF_FIT = 600
_CLIP = 4.0
_SINGLE, _ALONE, _ON_MAP = range(3)
_SHARES = torch.tensor([0.4, 0.4, 0.2])

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class UnitsOfPictures:
    """Of N pictures of one size.

    size: rows and columns of units. units, ranks: int64 [N, P]. map_, base: int64 [N, P], indices
    of the base's tokens under each unit. coarser: int64 [N, P], the token at 1/8 under a unit at
    1/4, and coarser_ranks of its unit; [N, 0] for the layer at 1/8. codes: entries of the
    codebooks of map and base.
    """

    size: tuple[int, int]
    units: Ints
    ranks: Ints
    map_: Ints
    base: Ints
    coarser: Ints
    coarser_ranks: Ints
    codes: tuple[int, int]


def fit_refinement_tables(
    analyses: Sequence[Analysis],
    config: RefinementConfig,
    codes: tuple[int, int],
    steps: int | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[RefinementTable, RefinementTable]:
    """The tables of both layers, from what a model says of training pictures.

    codes: entries of the codebooks of map and picture.
    """
    steps = STEPS_OF_FIT if steps is None else steps
    coarse, fine = _data(analyses, config, codes)
    return (
        fit_refinement_table(coarse, config.levels8, (), steps, report),
        fit_refinement_table(fine, config.levels4, config.levels8, steps, report),
    )


def _data(
    analyses: Sequence[Analysis], config: RefinementConfig, codes: tuple[int, int]
) -> tuple[list[UnitsOfPictures], list[UnitsOfPictures]]:
    """Units of pictures of one grid together, of both layers, ranked by their gain in LPIPS."""
    codes8, codes4 = math.prod(config.levels8), math.prod(config.levels4)
    grids = sorted({tuple(a.map_indices.shape[1:]) for a in analyses})
    found: tuple[list[UnitsOfPictures], list[UnitsOfPictures]] = [], []
    for height, width in grids:
        parts = [a for a in analyses if tuple(a.map_indices.shape[1:]) == (height, width)]
        map_, base = (
            torch.cat([getattr(a, name) for a in parts]).flatten(1).cpu().numpy()
            for name in ("map_indices", "image_indices")
        )
        tokens8, tokens4 = (
            torch.cat([a.refinements[n].tokens for a in parts]).cpu().numpy() for n in range(2)
        )
        ranks8, ranks4 = (
            ranks(
                F.avg_pool2d(torch.cat([a.refinements[n].gains[:, 1:2] for a in parts]), 2)
                .squeeze(1)
                .cpu()
                .numpy()
            )
            for n in range(2)
        )
        units8, units4 = (
            np.stack([units_of(one, codes) for one in tokens]).reshape(len(tokens), -1)
            for tokens, codes in ((tokens8, codes8), (tokens4, codes4))
        )
        flat8, flat4 = (r.reshape(len(r), -1) for r in (ranks8, ranks4))
        nothing = np.zeros((len(units8), 0), dtype=np.int64)
        found[0].append(
            UnitsOfPictures((height, width), units8, flat8, map_, base, nothing, nothing, codes)
        )
        row, column = np.divmod(np.arange(4 * height * width), 2 * width)
        parent = row // 2 * width + column // 2
        found[1].append(
            UnitsOfPictures(
                (2 * height, 2 * width),
                units4,
                flat4,
                map_[:, parent],
                base[:, parent],
                tokens8.reshape(len(tokens8), -1),
                flat8[:, parent],
                codes,
            )
        )
    return found


def fit_refinement_table(
    data: Sequence[UnitsOfPictures],
    levels: tuple[int, ...],
    coarser_levels: tuple[int, ...] = (),
    steps: int = STEPS_OF_FIT,
    report: Callable[[str], None] | None = None,
) -> RefinementTable:
    """The table of a layer. The same every time: no random number is from global state."""
    with torch.inference_mode(False), torch.enable_grad():
        network = _Network(levels, coarser_levels, data[0].codes)
        _descend(network, data, steps, report)
        return network.stored()


class _Network(nn.Module):
    """A table with real numbers."""

    keep: Tensor
    there: Tensor

    def __init__(
        self, levels: tuple[int, ...], coarser_levels: tuple[int, ...], codes: tuple[int, int]
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(len(levels))
        self.levels, self.coarser_levels = levels, coarser_levels
        self.rounding = False
        self.digits, self.most = TOKENS * len(levels), max(levels)
        seen = 2 * self.digits + 2
        below = 2 * len(coarser_levels) + 2 if coarser_levels else 0
        wide = self.digits * self.most

        def drawn(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * scale)

        self.around = drawn(len(NEIGHBOURS) * seen, HIDDEN, scale=0.02)
        self.map_embedding = drawn(codes[0] + 2, HIDDEN, scale=0.1)
        self.base_embedding = drawn(codes[1] + 2, HIDDEN, scale=0.1)
        self.coarser = drawn(below, HIDDEN, scale=0.1)
        self.place = nn.Parameter(torch.zeros(3, LEVELS, HIDDEN))
        with torch.no_grad():
            self.place[2] += 1.0
        self.digit_weights = drawn(HIDDEN, wide, scale=0.02)
        self.digit_bias = nn.Parameter(torch.zeros(wide))
        self.earlier = nn.Parameter(torch.zeros(wide, wide))
        self.mask_weights = drawn(HIDDEN, scale=0.02)
        middles = ((torch.arange(LEVELS) + 0.5) / LEVELS).square()
        self.mask_bias = nn.Parameter(torch.logit(middles))
        token = torch.arange(wide) // (len(levels) * self.most)
        self.register_buffer("keep", (token[:, None] < token[None, :]).float())
        counts = torch.tensor(levels * TOKENS)
        self.register_buffer("there", torch.arange(self.most)[None, :] < counts[:, None])

    # Stored = real * scale, with the largest power of two in it that keeps it within 8 bits.

    @property
    def _hidden_shift(self) -> int:
        return _shift(self.around, HIDDEN_LIMIT / _CLIP)

    def _embedding_shift(self, hidden_shift: int) -> int:
        parts = [self.map_embedding, self.base_embedding, self.coarser]
        largest = max(float(p.detach().abs().max()) for p in parts if p.numel())
        stored = largest * HIDDEN_LIMIT / _CLIP * 2.0**hidden_shift
        return min(7, max(0, math.ceil(math.log2(max(stored, 1e-9) / 127.49))))

    def _rounded(self, values: Tensor, scale: float) -> Tensor:
        if not self.rounding:
            return values
        whole = (values * scale).round().clamp(-127, 127) / scale
        return values + (whole - values).detach()

    def hidden(
        self,
        around: Tensor,
        map_: Tensor,
        base: Tensor,
        coarser: Tensor,
        bands: Tensor,
        level: Tensor,
    ) -> Tensor:
        """Hidden values [n, H] of n units, 0.._CLIP."""
        shift = self._hidden_shift
        scale = HIDDEN_LIMIT / _CLIP * 2.0**shift
        coarse = scale / 2.0 ** self._embedding_shift(shift)
        sums = around @ self._rounded(self.around, scale)
        sums = sums + F.embedding(map_, self._rounded(self.map_embedding, coarse))
        sums = sums + F.embedding(base, self._rounded(self.base_embedding, coarse))
        sums = sums + coarser @ self._rounded(self.coarser, coarse)
        for axis, band in enumerate((bands[:, 0], bands[:, 1], level)):
            sums = sums + F.embedding(band, self.place[axis])
        hidden = sums.clamp(0, _CLIP)
        if self.rounding:
            steps = HIDDEN_LIMIT / _CLIP
            hidden = hidden + ((hidden * steps).floor() / steps - hidden).detach()
        return hidden

    def bits(
        self, hidden: Tensor, level: Tensor, kept: Tensor, digits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Information of n masks, and of the units kept; digits: int64 [n, S]."""
        unit = STEPS / math.log(2)
        mask_scale = unit * _CLIP / HIDDEN_LIMIT
        mask_scale *= 2.0 ** _shift(self.mask_weights, mask_scale)
        odds = hidden @ self._rounded(self.mask_weights, mask_scale)
        odds = odds + F.embedding(level, self.mask_bias[:, None])[:, 0]
        mask = F.binary_cross_entropy_with_logits(odds, kept.float(), reduction="none")
        own = digits[kept]
        scale = unit * _CLIP / HIDDEN_LIMIT
        scale *= 2.0 ** _shift(self.digit_weights, scale)
        sums = hidden[kept] @ self._rounded(self.digit_weights, scale) + self.digit_bias
        known = F.one_hot(own, self.most).flatten(1).float()
        sums = sums + known @ (self._rounded(self.earlier, unit) * self.keep)
        sums = sums.unflatten(1, (self.digits, self.most))
        sums = sums.masked_fill(~self.there, -1e4)
        index = F.cross_entropy(sums.flatten(0, 1), own.flatten(), reduction="none")
        return mask / math.log(2), index.view(-1, self.digits).sum(1) / math.log(2)

    @torch.no_grad()
    def stored(self) -> RefinementTable:
        """The table, in integers."""
        unit = STEPS / math.log(2)
        hidden_shift = self._hidden_shift
        embedding_shift = self._embedding_shift(hidden_shift)
        scale = HIDDEN_LIMIT / _CLIP * 2.0**hidden_shift
        coarse = scale / 2.0**embedding_shift
        output = unit * _CLIP / HIDDEN_LIMIT
        digit_shift = _shift(self.digit_weights, output)
        mask_shift = _shift(self.mask_weights, output)
        bias = self.digit_bias.view(self.digits, self.most)
        bias = torch.where(self.there, bias - bias[self.there].mean(), 0)
        return RefinementTable(
            levels=np.array(self.levels, dtype=np.uint8),
            around=_int8(self.around * scale).reshape(len(NEIGHBOURS), -1, HIDDEN),
            map_embedding=_int8(self.map_embedding * coarse),
            base_embedding=_int8(self.base_embedding * coarse),
            coarser=_int8(self.coarser * coarse),
            place=_int16(self.place * scale),
            digit_weights=_int8(self.digit_weights * output * 2.0**digit_shift),
            digit_bias=_int16(bias.flatten() * unit),
            earlier=_int8(self.earlier * self.keep * unit),
            mask_weights=_int8(self.mask_weights * output * 2.0**mask_shift),
            mask_bias=_int16(self.mask_bias * unit),
            shifts=np.array(
                [hidden_shift, digit_shift, mask_shift, embedding_shift], dtype=np.int8
            ),
        )


def _descend(
    network: _Network,
    data: Sequence[UnitsOfPictures],
    steps: int,
    report: Callable[[str], None] | None,
    batch: int = 16,
    places: int = 160,
    rate: float = 4e-3,
) -> None:
    generator = torch.Generator().manual_seed(11 + len(network.levels))
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98))
    pictures = torch.tensor([float(len(part.units)) for part in data])
    spent = [0.0, 0.0, 0.0, 0.0]
    for step in range(steps):
        network.rounding = 3 * step >= 2 * steps
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 20)
            group["lr"] = rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        part = data[int(torch.multinomial(pictures, 1, generator=generator))]
        inputs, level, kept, digits = _draw(network, part, batch, places, generator)
        hidden = network.hidden(*inputs, level)
        mask, index = network.bits(hidden, level, kept, digits)
        optimizer.zero_grad()
        ((mask.sum() + index.sum()) / mask.numel()).backward()
        optimizer.step()
        sums = torch.stack((mask.detach().sum(), index.detach().sum())).tolist()
        for k, value in enumerate((sums[0], mask.numel(), sums[1], index.numel())):
            spent[k] += value
        if report is not None and (step + 1) % 100 == 0:
            report(
                f"{network.digits} digits: step {step + 1}, {spent[0] / spent[1]:.3f} bits a place "
                f"for the mask, {spent[2] / max(spent[3], 1):.3f} a unit"
            )
            spent = [0.0, 0.0, 0.0, 0.0]


def _draw(
    network: _Network,
    part: UnitsOfPictures,
    batch: int,
    places: int,
    generator: torch.Generator,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor, Tensor, Tensor]:
    """(around, map, base, coarser, bands), level, kept and digits of random units."""
    height, width = part.size
    total = height * width
    around = geometry(height, width)

    def uniform(*shape: int) -> NDArray[np.float64]:
        return torch.rand(shape, generator=generator, dtype=torch.float64).numpy()

    levels = np.array(network.levels * TOKENS, dtype=np.uint8)
    which = torch.randint(len(part.units), (batch,), generator=generator).numpy()
    way = torch.multinomial(_SHARES, batch, replacement=True, generator=generator).numpy()
    fraction = np.where(uniform(batch) < 0.2, 1.0, 0.02 + 0.98 * uniform(batch))
    count = np.clip(np.rint(fraction * total), 1, total).astype(np.int64)
    chosen = np.argsort(uniform(batch, total), axis=1)[:, :places]
    rows = np.arange(batch)[:, None]
    known = np.where(part.ranks[which] < count[:, None], part.units[which], -1)
    states = np.concatenate([known, np.full((batch, 1), -2)], axis=1)
    near = around.around[chosen]  # [B, n, 8]
    passes = np.append(around.passes, 99)
    visible = (passes[near] < around.passes[chosen][..., None]) & (way == _SINGLE)[:, None, None]
    seen = np.where(visible, states[rows[..., None], near], -2)
    features = token_features(seen.reshape(-1), levels).reshape(batch * chosen.shape[1], -1)

    def under(indices: Ints, codes: int, visible: NDArray[np.bool_]) -> Tensor:
        own = indices[which[:, None], chosen]
        masked = uniform(batch, chosen.shape[1]) < 0.6 * uniform(batch, 1)
        own = np.where(masked, codes, own)
        return torch.from_numpy(np.where(visible[:, None], own, codes + 1).reshape(-1))

    map_ = under(part.map_, part.codes[0], way != _ALONE)
    base = under(part.base, part.codes[1], way == _SINGLE)
    coarser = torch.zeros(batch * chosen.shape[1], 0)
    if part.coarser.size:
        share = np.maximum(fraction, uniform(batch))[:, None]
        ranks = part.coarser_ranks[which[:, None], chosen]
        tokens = np.where(ranks < share * total / TOKENS, part.coarser[which[:, None], chosen], -1)
        tokens = np.where((way == _SINGLE)[:, None], tokens, -2).reshape(-1)
        levels8 = np.array(network.coarser_levels, dtype=np.uint8)
        coarser = torch.from_numpy(token_features(tokens, levels8))
    own = known[rows, chosen].reshape(-1)
    kept = torch.from_numpy(own >= 0)
    counts = levels.astype(np.int64)
    radix = np.append(np.cumprod(counts[::-1])[::-1][1:], 1)
    digits = torch.from_numpy(np.maximum(own, 0)[:, None] // radix % counts)
    level = np.minimum(LEVELS - 1, np.floor(LEVELS * np.sqrt(count / total))).astype(np.int64)
    level_ = torch.from_numpy(np.repeat(level, chosen.shape[1]))
    bands = torch.from_numpy(around.bands[chosen].reshape(-1, 2))
    return (torch.from_numpy(features), map_, base, coarser, bands), level_, kept, digits


def _shift(values: Tensor, unit: float) -> int:
    """The largest shift, 0..20, under which values * unit * 2^shift fit 8 bits."""
    largest = float(values.detach().abs().max()) * unit
    return min(20, max(0, math.floor(math.log2(127.49 / max(largest, 1e-9)))))


def _int8(values: Tensor) -> NDArray[np.int8]:
    found: NDArray[np.int8] = values.round().clamp(-127, 127).to(torch.int8).numpy()
    return found


def _int16(values: Tensor) -> NDArray[np.int16]:
    found: NDArray[np.int16] = values.round().clamp(-32767, 32767).to(torch.int16).numpy()
    return found
