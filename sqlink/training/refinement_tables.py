"""Fit the coder's tables of the refinement to digits of training pictures.

    units, ranks of every place ─ mask, hide neighbours as each packing does ─ float network
        ── bits of masks, classes and digits, by gradient ──> rounded ──> RefinementTable

As for the base's tables: the network is the table with real numbers, and in the last third of the
steps its weights are rounded as they will be stored; see `sqlink.bitstream.refinement_table`. What
depends on a token's class alone begins at the frequencies of the training pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sqlink.bitstream.context_model import HIDDEN_LIMIT, LEVELS, STEPS
from sqlink.bitstream.refinement_table import (
    CLASSES,
    ESCAPE,
    ESCAPES,
    MASKED,
    NEIGHBOURS,
    SHARES,
    SIZES,
    TOKENS,
    UNKNOWN,
    ZERO,
    RefinementTable,
    Units,
    classes_of,
    geometry,
    most_of,
    states_of,
    token_features,
    tokens_of,
)
from sqlink.bitstream.token_selection import ranks

HIDDEN = 48
STEPS_OF_FIT = 600
_CLIP = 4.0
_FASTER = 10.0
"""Factor of the learning rate of parameters that are added to scores directly."""
_SINGLE, _ALONE, _ON_MAP = range(3)
_SHARES = torch.tensor([0.4, 0.4, 0.2])
_PRIOR = 4.0
"""Prior count of digits in every class."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PictureTokens:
    """A training picture at one step of the quantiser; step: row of the tables, 0..15.

    map_indices, image_indices: int64 [h, w] of the base. units: int16 [h, w, S] at 1/8 and [2 h,
    2 w, S'] at 1/4. gains: float32 [h, w] and [2 h, 2 w], of each unit.
    """

    step: int
    map_indices: Ints
    image_indices: Ints
    units: tuple[Units, Units]
    gains: tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class UnitsOfPictures:
    """Tokens of N pictures of one size.

    size: rows and columns of units. steps: int64 [N]. units: int16 [N, P, S]. ranks: int64 [N, P].
    map_, base: int64 [N, P], indices of the base's tokens under each unit. coarser: int16 [N, P,
    D'], the token at 1/8 under a unit at 1/4, None for the layer at 1/8, and coarser_ranks, int64
    [N, P], of its unit. codes: entries of the codebooks of map and base.
    """

    size: tuple[int, int]
    steps: Ints
    units: Units
    ranks: Ints
    map_: Ints
    base: Ints
    coarser: Units | None
    coarser_ranks: Ints
    codes: tuple[int, int]


def fit_refinement_tables(
    pictures: Sequence[PictureTokens],
    values: tuple[int, int],
    codes: tuple[int, int],
    steps: int | None = None,
    report: Callable[[str], None] | None = None,
) -> tuple[RefinementTable, RefinementTable]:
    """Fit the tables of both layers to training pictures, each of them at several steps.

    values: digits of a token at 1/8 and at 1/4. codes: entries of the codebooks of map and picture.
    """
    steps = STEPS_OF_FIT if steps is None else steps
    coarse, fine = _data(pictures, codes)
    return (
        fit_refinement_table(coarse, values[0], 0, steps, report),
        fit_refinement_table(fine, values[1], values[0], steps, report),
    )


def _data(
    pictures: Sequence[PictureTokens], codes: tuple[int, int]
) -> tuple[list[UnitsOfPictures], list[UnitsOfPictures]]:
    """Collect units of pictures of one grid, of both layers, ranked by their gains."""
    found: tuple[list[UnitsOfPictures], list[UnitsOfPictures]] = [], []
    for height, width in sorted({picture.map_indices.shape for picture in pictures}):
        parts = [p for p in pictures if p.map_indices.shape == (height, width)]
        count = len(parts)
        steps = np.array([p.step for p in parts])
        map_ = np.stack([p.map_indices for p in parts]).reshape(count, -1)
        base = np.stack([p.image_indices for p in parts]).reshape(count, -1)
        units8, units4 = (
            np.concatenate([p.units[n].reshape(1, -1, p.units[n].shape[2]) for p in parts])
            for n in range(2)
        )
        ranks8, ranks4 = (
            ranks(np.stack([p.gains[n] for p in parts])).reshape(count, -1) for n in range(2)
        )
        found[0].append(
            UnitsOfPictures(
                (height, width),
                steps,
                units8,
                ranks8,
                map_,
                base,
                None,
                ranks8,
                codes,
            )
        )
        row, column = np.divmod(np.arange(4 * height * width), 2 * width)
        parent = row // 2 * width + column // 2
        tokens8 = np.stack([tokens_of(p.units[0]) for p in parts])
        found[1].append(
            UnitsOfPictures(
                (2 * height, 2 * width),
                steps,
                units4,
                ranks4,
                map_[:, parent],
                base[:, parent],
                tokens8.reshape(count, 4 * height * width, -1),
                ranks8[:, parent],
                codes,
            )
        )
    return found


def fit_refinement_table(
    data: Sequence[UnitsOfPictures],
    values: int,
    coarser_values: int = 0,
    steps: int = STEPS_OF_FIT,
    report: Callable[[str], None] | None = None,
) -> RefinementTable:
    """Fit the table of a layer; the same every time, as no random number is of global state."""
    with torch.inference_mode(False), torch.enable_grad():
        network = _Network(values, coarser_values, data[0].codes)
        network.count(unit for part in data for unit in part.units)
        _descend(network, data, steps, report)
        return network.stored()


class _Network(nn.Module):
    """A table in real numbers: log probabilities in nats."""

    before: Tensor
    classes_before: Tensor

    def __init__(self, values: int, coarser_values: int, codes: tuple[int, int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(values)
        self.values, self.digits = values, TOKENS * values
        self.rounding = False
        seen = 2 * self.digits + 2
        below = 2 * coarser_values + 2 if coarser_values else 0
        wide, classes = self.digits * SIZES, TOKENS * CLASSES

        def drawn(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * scale)

        self.around = drawn(len(NEIGHBOURS) * seen, HIDDEN, scale=0.02)
        self.map_embedding = drawn(codes[0] + 2, HIDDEN, scale=0.1)
        self.base_embedding = drawn(codes[1] + 2, HIDDEN, scale=0.1)
        self.coarser = drawn(below, HIDDEN, scale=0.1)
        self.place = nn.Parameter(torch.zeros(4, LEVELS, HIDDEN))
        with torch.no_grad():
            self.place[2] += 1.0
        self.class_weights = drawn(HIDDEN, classes, scale=0.02)
        self.class_bias = nn.Parameter(torch.zeros(classes))
        self.class_earlier = nn.Parameter(torch.zeros(classes, classes))
        self.digit_weights = drawn(HIDDEN, wide, scale=0.02)
        self.digit_bias = nn.Parameter(torch.zeros(wide))
        self.earlier = nn.Parameter(torch.zeros(2 * self.digits, wide))
        self.by_class = nn.Parameter(torch.zeros(CLASSES * SHARES, values, SIZES))
        self.mask_weights = drawn(HIDDEN, scale=0.02)
        middles = ((torch.arange(LEVELS) + 0.5) / LEVELS).square()
        self.mask_bias = nn.Parameter(torch.logit(middles))
        digit, token = torch.arange(wide) // SIZES, torch.arange(classes) // CLASSES
        before = torch.arange(self.digits)[:, None] < digit
        self.register_buffer("before", before.repeat(2, 1).float())
        self.register_buffer("classes_before", (token[:, None] < token[None, :]).float())

    @torch.no_grad()
    def count(self, pictures: Iterator[Units]) -> None:
        """Start from the frequencies of classes and digits in pictures, int16 [P, S] each."""
        classes = np.zeros((TOKENS, CLASSES))
        levels = np.zeros((CLASSES * SHARES, self.values, SIZES))
        # Before any is seen: as sizes of a class are if they fall off geometrically.
        size = 2.0 ** (np.arange(CLASSES) - 0.5) / self.values
        fall = np.log1p(1 / size)[:, None] * np.abs(np.arange(SIZES) - ESCAPE)
        likely = np.exp(-fall) / np.exp(-fall).sum(1, keepdims=True)
        levels += _PRIOR * likely.repeat(SHARES, axis=0)[:, None]
        places = np.arange(self.values)
        for units in pictures:
            own, symbols, states, live = _symbols(units, self.values)
            np.add.at(classes, (np.arange(TOKENS), own), 1)
            where = np.broadcast_to(places, live.shape)[live]
            np.add.at(levels, (states[live], where, symbols[live]), 1)
        logs = np.log(levels / levels.sum(2, keepdims=True))
        self.by_class.copy_(torch.from_numpy(logs - logs.max(2, keepdims=True)))
        self.class_bias.copy_(
            torch.from_numpy(np.log((classes + 1) / classes.sum() * TOKENS)).flatten()
        )

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

    def _times(self, hidden: Tensor, weights: Tensor) -> Tensor:
        """Return hidden @ weights, the weights as they will be stored."""
        scale = _OUTPUT * 2.0 ** _shift(weights, _OUTPUT)
        return hidden @ self._rounded(weights, scale)

    def hidden(
        self,
        around: Tensor,
        map_: Tensor,
        base: Tensor,
        coarser: Tensor,
        places: Tensor,
    ) -> Tensor:
        """Return hidden values [n, H] of n units, 0.._CLIP; places: int64 [n, 4], bands of row and
        column, level, step.
        """
        shift = self._hidden_shift
        scale = HIDDEN_LIMIT / _CLIP * 2.0**shift
        coarse = scale / 2.0 ** self._embedding_shift(shift)
        sums = around @ self._rounded(self.around, scale)
        sums = sums + F.embedding(map_, self._rounded(self.map_embedding, coarse))
        sums = sums + F.embedding(base, self._rounded(self.base_embedding, coarse))
        sums = sums + coarser @ self._rounded(self.coarser, coarse)
        for axis, own in enumerate(places.unbind(1)):
            sums = sums + F.embedding(own, self.place[axis])
        hidden = sums.clamp(0, _CLIP)
        if self.rounding:
            steps = HIDDEN_LIMIT / _CLIP
            hidden = hidden + ((hidden * steps).floor() / steps - hidden).detach()
        return hidden

    def bits(
        self, hidden: Tensor, level: Tensor, kept: Tensor, units: Units
    ) -> tuple[Tensor, Tensor]:
        """Return information of n masks, and of the units kept; units: int16 [k, S], of these."""
        odds = self._times(hidden, self.mask_weights)
        odds = odds + F.embedding(level, self.mask_bias[:, None])[:, 0]
        mask = F.binary_cross_entropy_with_logits(odds, kept.float(), reduction="none")
        own = hidden[kept]
        classes, symbols, states, live = map(torch.from_numpy, _symbols(units, self.values))
        count = len(classes)

        scores = self._times(own, self.class_weights) + self.class_bias
        known = F.one_hot(classes, CLASSES).flatten(1).float()
        scores = (scores + known @ (self.class_earlier * self.classes_before)).unflatten(
            1, (TOKENS, CLASSES)
        )
        spent = F.cross_entropy(scores.flatten(0, 1), classes.flatten(), reduction="none")
        index = spent.view(count, TOKENS).sum(1)

        signed = (symbols - ESCAPE).flatten(1).float()
        known = torch.cat((signed, signed.abs()), 1)
        scores = self._times(own, self.digit_weights) + self.digit_bias
        scores = scores + known @ (self._rounded(self.earlier, _UNIT) * self.before)
        scores = scores.view(count, TOKENS, self.values, SIZES)
        unit, _, place = which = live.nonzero(as_tuple=True)
        flat = states[which] * self.values + place
        by_class = F.embedding(flat, self.by_class.flatten(0, 1))
        spent = F.cross_entropy(scores[which] + by_class, symbols[which], reduction="none")
        index = index.index_add(0, unit, spent)
        large = (signed.abs() == ESCAPE).sum(1)
        return mask / math.log(2), index / math.log(2) + math.log2(ESCAPES) * large

    @torch.no_grad()
    def stored(self) -> RefinementTable:
        """Return the table, in integers."""
        hidden_shift = self._hidden_shift
        embedding_shift = self._embedding_shift(hidden_shift)
        scale = HIDDEN_LIMIT / _CLIP * 2.0**hidden_shift
        coarse = scale / 2.0**embedding_shift
        outputs = (self.digit_weights, self.mask_weights, self.class_weights)
        digit, mask, class_ = (_shift(weights, _OUTPUT) for weights in outputs)
        digit_bias = self.digit_bias.view(-1, SIZES)
        class_bias = self.class_bias.view(-1, CLASSES)
        return RefinementTable(
            around=_int8(self.around * scale).reshape(len(NEIGHBOURS), -1, HIDDEN),
            map_embedding=_int8(self.map_embedding * coarse),
            base_embedding=_int8(self.base_embedding * coarse),
            coarser=_int8(self.coarser * coarse),
            place=_int16(self.place * scale),
            class_weights=_int8(self.class_weights * _OUTPUT * 2.0**class_),
            class_bias=_int16((class_bias - class_bias.mean(1, keepdim=True)).flatten() * _UNIT),
            class_earlier=_int16(self.class_earlier * self.classes_before * _UNIT),
            digit_weights=_int8(self.digit_weights * _OUTPUT * 2.0**digit),
            digit_bias=_int16((digit_bias - digit_bias.mean(1, keepdim=True)).flatten() * _UNIT),
            earlier=_int8(self.earlier * self.before * _UNIT),
            by_class=_int16(self.by_class.flatten(1) * _UNIT),
            mask_weights=_int8(self.mask_weights * _OUTPUT * 2.0**mask),
            mask_bias=_int16(self.mask_bias * _UNIT),
            shifts=np.array([hidden_shift, digit, mask, embedding_shift, class_], dtype=np.int8),
        )


def _symbols(units: Units, values: int) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
    """Return the symbols of n units int16 [n, S], none masked: classes int64 [n, 4]; and, [n, 4,
    D], levels 0..14 and rows of `by_class`, int64, and which digits are coded, bool.
    """
    digits = units.astype(np.int64).reshape(len(units), TOKENS, values) - ZERO
    classes = classes_of(digits)
    first = np.clip(digits, -ESCAPE, ESCAPE)
    before = np.cumsum(np.abs(first), axis=2) - np.abs(first)
    kind = classes[..., None]
    return classes, first + ESCAPE, states_of(kind, before), before < most_of(kind)


def _descend(
    network: _Network,
    data: Sequence[UnitsOfPictures],
    steps: int,
    report: Callable[[str], None] | None,
    batch: int = 16,
    places: int = 160,
    rate: float = 4e-3,
) -> None:
    generator = torch.Generator().manual_seed(11 + network.values)
    alone = [network.class_bias, network.class_earlier, network.digit_bias, network.by_class]
    others = [p for p in network.parameters() if all(p is not own for own in alone)]
    optimizer = torch.optim.AdamW(
        [{"params": others, "rate": rate}, {"params": alone, "rate": _FASTER * rate}],
        betas=(0.9, 0.98),
    )
    pictures = torch.tensor([float(len(part.units)) for part in data])
    spent = [0.0, 0.0, 0.0, 0.0]
    for step in range(steps):
        network.rounding = 3 * step >= 2 * steps
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 20)
            group["lr"] = group["rate"] * warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        part = data[int(torch.multinomial(pictures, 1, generator=generator))]
        inputs, kept, units = _draw(part, batch, places, generator)
        hidden = network.hidden(*inputs)
        mask, index = network.bits(hidden, inputs[-1][:, 2], kept, units)
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
    part: UnitsOfPictures, batch: int, places: int, generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor, Units]:
    """Draw (around, map, base, coarser, places) of random units, which are kept, and these."""
    height, width = part.size
    total = height * width
    around = geometry(height, width)

    def uniform(*shape: int) -> NDArray[np.float64]:
        return torch.rand(shape, generator=generator, dtype=torch.float64).numpy()

    which = torch.randint(len(part.units), (batch,), generator=generator).numpy()
    way = torch.multinomial(_SHARES, batch, replacement=True, generator=generator).numpy()
    fraction = np.where(uniform(batch) < 0.2, 1.0, 0.02 + 0.98 * uniform(batch))
    count = np.clip(np.rint(fraction * total), 1, total).astype(np.int64)
    chosen = np.argsort(uniform(batch, total), axis=1)[:, :places]
    rows = np.arange(batch)[:, None]
    known = np.where((part.ranks[which] < count[:, None])[..., None], part.units[which], MASKED)
    states = np.concatenate([known, np.full_like(known[:, :1], UNKNOWN)], axis=1)
    near = around.around[chosen]  # [B, n, 8]
    passes = np.append(around.passes, 99)
    visible = (passes[near] < around.passes[chosen][..., None]) & (way == _SINGLE)[:, None, None]
    seen = states[rows[..., None], np.where(visible, near, total)]
    features = token_features(seen.reshape(-1, seen.shape[-1])).reshape(
        rows.size * chosen.shape[1], -1
    )

    def under(indices: Ints, codes: int, visible: NDArray[np.bool_]) -> Tensor:
        own = indices[which[:, None], chosen]
        masked = uniform(batch, chosen.shape[1]) < 0.6 * uniform(batch, 1)
        own = np.where(masked, codes, own)
        return torch.from_numpy(np.where(visible[:, None], own, codes + 1).reshape(-1))

    map_ = under(part.map_, part.codes[0], way != _ALONE)
    base = under(part.base, part.codes[1], way == _SINGLE)
    coarser = torch.zeros(chosen.size, 0)
    if part.coarser is not None:
        share = np.maximum(fraction, uniform(batch))[:, None]
        sent = part.coarser_ranks[which[:, None], chosen] < share * total / TOKENS
        tokens = np.where(sent[..., None], part.coarser[which[:, None], chosen], MASKED)
        tokens[way != _SINGLE] = UNKNOWN
        coarser = torch.from_numpy(token_features(tokens.reshape(chosen.size, -1)))
    own = known[rows, chosen].reshape(chosen.size, -1)
    kept = own[:, 0] >= 0
    level = np.minimum(LEVELS - 1, np.floor(LEVELS * np.sqrt(count / total))).astype(np.int64)
    of_pictures = np.stack([level, part.steps[which]], axis=1).repeat(chosen.shape[1], axis=0)
    bands = np.concatenate([around.bands[chosen].reshape(-1, 2), of_pictures], axis=1)
    inputs = (torch.from_numpy(features), map_, base, coarser, torch.from_numpy(bands))
    return inputs, torch.from_numpy(kept), own[kept]


_UNIT = STEPS / math.log(2)
"""Stored steps of a score in a nat."""
_OUTPUT = _UNIT * _CLIP / HIDDEN_LIMIT
"""Scale of stored weights from hidden values to scores, without their shift."""


def _shift(values: Tensor, unit: float) -> int:
    """Return the largest shift, 0..20, under which values * unit * 2^shift fit 8 bits."""
    largest = float(values.detach().abs().max()) * unit
    return min(20, max(0, math.floor(math.log2(127.49 / max(largest, 1e-9)))))


def _int8(values: Tensor) -> NDArray[np.int8]:
    found: NDArray[np.int8] = values.round().clamp(-127, 127).to(torch.int8).numpy()
    return found


def _int16(values: Tensor) -> NDArray[np.int16]:
    found: NDArray[np.int16] = values.round().clamp(-32767, 32767).to(torch.int16).numpy()
    return found
