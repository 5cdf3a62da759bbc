"""Fit the coder's tables to a model's tokens of training pictures; see `context_model`.

    indices, ranks of every place ─ mask, hide neighbours as each packing does ─ float network
        ── bits of masks and indices, by gradient ──> rounded to integers ──> Tables

The network that is fitted is the table with real numbers in place of integers; in the last third of
the steps its weights are rounded as they will be stored, so that rounding costs nothing. Fitted on
training pictures only.

    python -m sqlink.training.context_tables --weights FILE --camvid DIR -o FILE

writes the weights again with tables fitted on CamVid `fit` and rendered streets. It is for weights
whose tables are missing, of another format, or of a training run that was stopped.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.bitstream.context_model import (
    AROUND,
    EMBEDDING_LIMIT,
    HIDDEN_LIMIT,
    LEVELS,
    STEPS,
    UNDER,
    StreamTable,
)
from sqlink.bitstream.neighbourhood import window
from sqlink.bitstream.sending_order import sending_order
from sqlink.bitstream.tables import Tables
from sqlink.bitstream.token_selection import ranks
from sqlink.errors import ConfigError, SQLinkError

if TYPE_CHECKING:
    from sqlink.model.sqgan import Analysis

HIDDEN = 56
EMBEDDED = 24
STEPS_OF_FIT = 1000
_CLIP = 4.0
"""Where the ramp ends; stored as HIDDEN_LIMIT."""
_LEFT = (AROUND.index((0, -1)), AROUND.index((0, -2)))
# How a training picture's neighbours are hidden, and how often: as in one stream; as in a run of an
# independent packet (the image's not knowing the map, or knowing it).
_SINGLE, _RUN, _RUN_ON_MAP = range(3)
_SHARES = torch.tensor([0.6, 0.2, 0.2])
_LARGEST = {torch.int8: 127, torch.int16: 32767}


@dataclass(frozen=True)
class Training:
    """Tokens of N pictures of one size: indices and ranks of every place, int64 [N, P] each, of map
    and image. codes: sizes of the two codebooks."""

    size: tuple[int, int]
    codes: tuple[int, int]
    indices: tuple[Tensor, Tensor]
    ranks: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, analyses: Sequence[Analysis], codes: tuple[int, int]) -> list[Training]:
        """Collect a model's analyses of pictures, those of one grid together."""
        grids = sorted({tuple(a.map_indices.shape[1:]) for a in analyses})
        found = []
        for height, width in grids:
            parts = [a for a in analyses if tuple(a.map_indices.shape[1:]) == (height, width)]
            found.append(
                cls(
                    (height, width),
                    codes,
                    (
                        torch.cat([a.map_indices for a in parts]).flatten(1).cpu(),
                        torch.cat([a.image_indices for a in parts]).flatten(1).cpu(),
                    ),
                    (
                        _ranked([a.map_scores for a in parts]),
                        _ranked([a.image_scores for a in parts]),
                    ),
                )
            )
        return found


def fit_tables(
    analyses: Sequence[Analysis],
    codebooks: tuple[Tensor, Tensor],
    steps: int = STEPS_OF_FIT,
    report: Callable[[str], None] | None = None,
) -> Tables:
    """Fit tables to a model's tokens of training pictures.

    codebooks: float [J, d] of map and image, from whose geometry the fit starts. Draws the same
    random numbers every time, none of them from global state, whatever mode of gradients it is
    called in. 1000 steps of 302 + 240 pictures take four minutes a stream on one core; 50 give
    tables that take a sixth more bits.
    """
    with torch.inference_mode(False), torch.enable_grad():
        return _fitted(analyses, codebooks, steps, report)


def _fitted(
    analyses: Sequence[Analysis],
    codebooks: tuple[Tensor, Tensor],
    steps: int,
    report: Callable[[str], None] | None,
) -> Tables:
    data = Training.of(analyses, (len(codebooks[0]), len(codebooks[1])))
    tables = []
    for stream in range(2):
        network = _Network(stream, codebooks)
        _descend(network, data, stream, steps, report)
        tables.append(network.stored())
    return Tables(tables[0], tables[1])


class _Network(nn.Module):
    """A table with real numbers; see `context_model`."""

    def __init__(self, stream: int, codebooks: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(stream)
        book = codebooks[stream]
        self.knows_map = stream == 1
        self.rounding = False
        inputs = (len(AROUND) + self.knows_map * len(UNDER)) * EMBEDDED

        def drawn(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * scale)

        self.embedding = nn.Parameter(_embedded(book))
        self.map_embedding = nn.Parameter(_embedded(codebooks[0])) if self.knows_map else None
        self.weights = drawn(inputs, HIDDEN, scale=inputs**-0.5)
        self.place = nn.Parameter(torch.zeros(3, LEVELS, HIDDEN))
        self.index_weights = drawn(HIDDEN, len(book), scale=0.3 * HIDDEN**-0.5)
        self.index_bias = nn.Parameter(torch.zeros(len(book)))
        self.mask_weights = drawn(HIDDEN, scale=0.3 * HIDDEN**-0.5)
        middles = ((torch.arange(LEVELS) + 0.5) / LEVELS).square()
        self.mask_bias = nn.Parameter(torch.logit(middles))

    def forward(self, around: Tensor, under: Tensor | None, bands: Tensor, level: Tensor) -> Tensor:
        """Return hidden values [n, H] of n places, 0.._CLIP; states and bands as in
        `StreamTable.hidden_values`.
        """
        inputs = F.embedding(around, self._book(self.embedding)).flatten(1)
        if under is not None and self.map_embedding is not None:
            below = F.embedding(under, self._book(self.map_embedding)).flatten(1)
            inputs = torch.cat([inputs, below], dim=1)
        sums = inputs @ self._rounded(self.weights, self._hidden_scale)
        for axis, band in enumerate((bands[:, 0], bands[:, 1], level)):
            sums = sums + F.embedding(band, self.place[axis])
        hidden = sums.clamp(0, _CLIP)
        if self.rounding:
            steps = HIDDEN_LIMIT / _CLIP
            hidden = hidden + ((hidden * steps).floor() / steps - hidden).detach()
        return hidden

    def bits(
        self, hidden: Tensor, level: Tensor, kept: Tensor, indices: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return information of n masks, and of the indices of those kept."""
        bias = F.embedding(level, self.mask_bias[:, None])[:, 0]
        odds = hidden @ self._rounded(self.mask_weights, self._mask_scale) + bias
        mask = F.binary_cross_entropy_with_logits(odds, kept.float(), reduction="none")
        chances = hidden[kept] @ self._rounded(self.index_weights, self._index_scale)
        index = F.cross_entropy(chances + self.index_bias, indices[kept], reduction="none")
        return mask / math.log(2), index / math.log(2)

    # Stored = real * scale * 2^shift, with the largest shift that keeps it within 8 bits.

    def _book(self, book: Tensor) -> Tensor:
        return self._rounded(book.clamp(-1, 1), 0 * book.detach().abs().max() + EMBEDDING_LIMIT)

    def _rounded(self, values: Tensor, scale: Tensor) -> Tensor:
        if not self.rounding:
            return values
        return values + ((values * scale).round() / scale - values).detach()

    @property
    def _hidden_scale(self) -> Tensor:
        return _scale(self.weights, HIDDEN_LIMIT / _CLIP / EMBEDDING_LIMIT)[0]

    @property
    def _index_scale(self) -> Tensor:
        return _scale(self.index_weights, STEPS / math.log(2) * _CLIP / HIDDEN_LIMIT)[0]

    @property
    def _mask_scale(self) -> Tensor:
        return _scale(self.mask_weights, STEPS / math.log(2) * _CLIP / HIDDEN_LIMIT)[0]

    @torch.no_grad()
    def stored(self) -> StreamTable:
        """Return the table, in integers."""
        to_steps = STEPS / math.log(2)
        hidden_scale, hidden_shift = _scale(self.weights, HIDDEN_LIMIT / _CLIP / EMBEDDING_LIMIT)
        outputs = to_steps * _CLIP / HIDDEN_LIMIT
        index_scale, index_shift = _scale(self.index_weights, outputs)
        mask_scale, mask_shift = _scale(self.mask_weights, outputs)
        weights = _integers(self.weights * hidden_scale, torch.int8)
        weights = weights.reshape(-1, EMBEDDED, HIDDEN)
        bias = self.index_bias - self.index_bias.mean()
        return StreamTable(
            embedding=_integers(self.embedding.clamp(-1, 1) * EMBEDDING_LIMIT, torch.int8),
            around=weights[: len(AROUND)].copy(),
            place=_integers(self.place * (HIDDEN_LIMIT / _CLIP * 2.0**hidden_shift), torch.int16),
            index_weights=_integers(self.index_weights * index_scale, torch.int8),
            index_bias=_integers(bias * to_steps, torch.int16),
            mask_weights=_integers(self.mask_weights * mask_scale, torch.int8),
            mask_bias=_integers(self.mask_bias * to_steps, torch.int16),
            shifts=np.array([hidden_shift, index_shift, mask_shift], dtype=np.int8),
            map_embedding=None
            if self.map_embedding is None
            else _integers(self.map_embedding.clamp(-1, 1) * EMBEDDING_LIMIT, torch.int8),
            under=weights[len(AROUND) :].copy() if self.knows_map else None,
        )


def _descend(
    network: _Network,
    data: Sequence[Training],
    stream: int,
    steps: int,
    report: Callable[[str], None] | None,
    batch: int = 24,
    share: float = 0.25,
    rate: float = 4e-3,
) -> None:
    """Run gradient descent on random pictures, fractions and packings, a share of the
    places each.
    """
    generator = torch.Generator().manual_seed(7 + stream)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=1e-3
    )
    pictures = torch.tensor([float(len(part.indices[0])) for part in data])
    spent, seen = [0.0, 0.0], [0, 0]
    for step in range(steps):
        network.rounding = 3 * step >= 2 * steps
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 20)
            group["lr"] = rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        part = data[int(torch.multinomial(pictures, 1, generator=generator))]
        inputs, level, kept, indices = _draw(part, stream, batch, share, generator)
        hidden = network(*inputs, level)
        mask, index = network.bits(hidden, level, kept, indices)
        optimizer.zero_grad()
        ((mask.sum() + index.sum()) / mask.numel()).backward()
        optimizer.step()
        spent = [spent[0] + float(mask.detach().sum()), spent[1] + float(index.detach().sum())]
        seen = [seen[0] + mask.numel(), seen[1] + index.numel()]
        if report is not None and (step + 1) % 100 == 0:
            report(
                f"{('map', 'image')[stream]}: step {step + 1}, {spent[0] / seen[0]:.3f} bits a "
                f"place for the mask, {spent[1] / max(seen[1], 1):.3f} an index"
            )
            spent, seen = [0.0, 0.0], [0, 0]


def _draw(
    part: Training, stream: int, batch: int, share: float, generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor | None, Tensor], Tensor, Tensor, Tensor]:
    """Draw (around, under, bands), level, kept and indices of random places of random pictures."""
    height, width = part.size
    places = height * width
    geometry = window(height, width)
    around, under, bands, passes = (
        torch.from_numpy(np.array(a))
        for a in (geometry.around, geometry.under, geometry.bands, geometry.passes)
    )
    order = sending_order(height, width)
    offsets = torch.empty(places, dtype=torch.int64)
    offsets[torch.from_numpy(np.array(order.places))] = torch.from_numpy(np.array(order.offsets))

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    which = torch.randint(len(part.indices[0]), (batch,), generator=generator)
    fraction = 0.02 + 0.98 * uniform(batch) ** 1.5
    other = (fraction * (0.5 + 1.5 * uniform(batch))).clamp(0.02, 1)
    kind = torch.multinomial(_SHARES, batch, replacement=True, generator=generator)
    count = max(1, round(share * places))
    drawn = uniform(batch, places).argsort(1)[:, :count]  # [B, n]

    def states(number: int, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Return states [B, P + 1] of a stream, the last unknown, and counts kept [B]."""
        kept = (shares * places).round().clamp(1, places).long()
        indices = part.indices[number][which]
        masked = part.codes[number]
        known = torch.where(part.ranks[number][which] < kept[:, None], indices, masked)
        return F.pad(known, (0, 1), value=masked + 1), kept

    own, kept_count = states(stream, fraction)
    unknown = part.codes[stream] + 1
    near = around[drawn]  # [B, n, 24]
    earlier = F.pad(passes, (0, 1), value=99)[near] < passes[drawn][..., None]
    run = torch.zeros_like(earlier)
    for reach, column in enumerate(_LEFT, start=1):
        run[..., column] = offsets[drawn] >= reach
    visible = torch.where((kind == _SINGLE)[:, None, None], earlier, run)
    rows = torch.arange(batch)[:, None, None]
    seen = torch.where(visible, own[rows, near], unknown)
    below = None
    if stream == 1:
        below = states(0, other)[0][rows, under[drawn]]
        below = torch.where((kind == _RUN)[:, None, None], part.codes[0] + 1, below).flatten(0, 1)
    level = (LEVELS * (kept_count / places).sqrt()).long().clamp(max=LEVELS - 1)
    level = level[:, None].expand_as(drawn).flatten()
    flat = own[rows[..., 0], drawn].flatten()
    kept = flat < unknown - 1
    return (seen.flatten(0, 1), below, bands[drawn].flatten(0, 1)), level, kept, flat


def _embedded(book: Tensor) -> Tensor:
    """Return where the embedding starts, [J + 2, e]: the codebook's principal axes; the two rest at
    0.
    """
    centred = book.detach().cpu().float() - book.detach().cpu().float().mean(0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    axes = (left * sizes)[:, :EMBEDDED]
    axes = axes / axes.std().clamp(min=1e-6) / 2
    return F.pad(axes, (0, EMBEDDED - axes.shape[1], 0, 2)).clamp(-1, 1)


def _scale(values: Tensor, unit: float) -> tuple[Tensor, int]:
    """Return unit * 2^shift, with the largest shift (0..20) under which values fit 8 bits; and the
    shift.
    """
    largest = float(values.detach().abs().max()) * unit
    shift = min(20, max(0, math.floor(math.log2(127.49 / max(largest, 1e-9)))))
    return torch.tensor(unit * 2.0**shift), shift


def _integers(values: Tensor, dtype: torch.dtype) -> Any:
    limit = _LARGEST[dtype]
    return values.detach().round().clamp(-limit, limit).to(dtype).cpu().numpy()


def _ranked(scores: Sequence[Tensor]) -> Tensor:
    return torch.from_numpy(ranks(torch.cat(list(scores)).float().cpu().numpy())).flatten(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command: fit tables anew and write the weights with them."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.training.context_tables")
    parser.add_argument("--weights", default="streets", help="a shipped name or a file")
    parser.add_argument("--camvid", type=Path, required=True, help="folder of CamVid")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the weights to write")
    parser.add_argument("--segmenter", default="tx", help="what makes the maps")
    parser.add_argument("--streets", type=int, default=240, help="rendered streets beside CamVid")
    parser.add_argument("--steps", type=int, default=STEPS_OF_FIT)
    options = parser.parse_args(arguments)
    try:
        size = refit(
            options.weights,
            options.camvid,
            options.output,
            options.segmenter,
            options.streets,
            options.steps,
        )
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.output}: tables of {size} bytes")
    return 0


def refit(
    weights: str, camvid: Path, output: Path, segmenter: str, streets: int, steps: int
) -> int:
    """Fit tables on CamVid `fit` and rendered streets, and write the weights with them.

    Returns the tables' bytes. Raises WeightsError or DataError if weights or pictures are amiss.
    """
    from sqlink.data import open_dataset
    from sqlink.model.sqgan import load_model
    from sqlink.segmentation import load_segmenter
    from sqlink.weights.manifest import load, save

    if steps < 1 or streets < 0:
        raise ConfigError(f"steps={steps} must be at least 1, streets={streets} at least 0")
    loaded = load(weights, "sqgan")
    model, sees = load_model(loaded, weights), load_segmenter(segmenter)
    sources = [open_dataset("camvid", root=str(camvid), split="fit")]
    if streets:
        sources.append(open_dataset("streets", seed=100000, count=streets, height=360, width=480))
    found = []
    for source in sources:
        for index in range(len(source)):
            picture = source[index].image[None]
            found.append(model.analyse(picture, sees.segment(picture)))
        print(f"{len(found)} pictures analysed")
    codebooks = (model.map_quantizer.codebook, model.image_quantizer.codebook)
    tables = fit_tables(found, codebooks, steps, print).to_tensors()
    kept = {name: t for name, t in loaded.tensors.items() if not name.startswith("tables.")}
    save(output, kept | tables, loaded.metadata)
    return sum(t.numel() * t.element_size() for t in tables.values())


if __name__ == "__main__":
    sys.exit(main())
