"""A bank of pictures for the refinement to learn from, with the base decoder's features.

    picture ─ base codec ─ tokens ─ kept and lost at random ─ base decoder ─ features, in float16

The base stays as it is, so it decodes each picture once and redraws it now and then with other
tokens missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sqlink.data.base import open_dataset
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN
from sqlink.training.config import Source
from sqlink.training.refinement_weights import FEW_OF_MAP, without_refinement

Features = tuple[Tensor, Tensor, Tensor]
"""The base decoder's features at 1/8 and 1/4 and its picture, float16 [C, h, w]."""


@dataclass(frozen=True)
class Drawn:
    """What the base decoder draws of the tokens that came, once for each realisation.

    known: at realism 0, of all tokens that were sent: what the transmitter knows of the receiver.
    loss: share of the tokens that was lost, if all pictures have losses.
    """

    base: tuple[Features, ...]
    known: Features
    loss: float = 0.0


@dataclass
class Entry:
    """A picture of the bank, padded to whole tokens.

    image: uint8 [3, H, W]; sent: uint8 [H, W], the map that `tx` makes; labels: uint8 [H, W].
    tokens: int64 [2, h, w] of picture and map; scores: [2, h, w]. drawn: at realism 0 and 1, of
    other tokens each.
    """

    image: Tensor
    sent: Tensor
    labels: Tensor
    tokens: Tensor
    scores: Tensor
    drawn: dict[int, Drawn] = field(default_factory=dict)


class Base:
    """The frozen base codec: it finds the tokens of a picture and draws what its decoder makes of
    some of them.
    """

    def __init__(self, weights: str) -> None:
        from sqlink.model.sqgan import load_model
        from sqlink.segmentation import load_segmenter
        from sqlink.weights.manifest import load

        loaded = without_refinement(load(weights, "sqgan"))
        self.model: SQGAN = load_model(loaded, weights)
        self.sha256 = loaded.sha256
        self.tx: Any = load_segmenter("tx")
        self.labels = self.model.config.num_classes + 1
        self.widths = self.model.config.channels[1], self.model.config.channels[0]

    @torch.no_grad()
    def analysed(self, image: Tensor, labels: Tensor | None) -> Entry:
        """Analyse image: float32 [3, H, W] in [0, 1]; labels: int64 [H, W] or None for `tx`'s."""
        sent = self.tx.segment(image[None])
        image_, sent_ = self.model.pad(image[None], sent)
        found = self.model.analyse(image_, sent_)
        shown = sent_ if labels is None else self.model.pad(image[None], labels[None])[1]
        return Entry(
            (image_[0] * 255).round().to(torch.uint8),
            sent_[0].to(torch.uint8),
            shown[0].to(torch.uint8),
            torch.stack((found.image_indices[0], found.map_indices[0])),
            torch.stack((found.image_scores[0], found.map_scores[0])),
        )

    @torch.no_grad()
    def draw(
        self,
        entry: Entry,
        realism: int,
        sent: Tensor,
        came: Tensor | None = None,
        seeds: Sequence[int] = (0,),
        loss: float = 0.0,
    ) -> None:
        """Decode the base at realism 0 or 1 from the tokens that came, bool [2, h, w] of picture
        and map: all that were sent if None.

        seeds: of the noise of each realisation. loss: see `Drawn`.
        """
        came = sent if came is None else came
        base = tuple(self._decoded(entry, came, realism, seed) for seed in seeds)
        as_drawn = realism == 0 and torch.equal(sent, came)
        entry.drawn[realism] = Drawn(
            base, base[0] if as_drawn else self._decoded(entry, sent, 0, 0), loss
        )

    def _decoded(self, entry: Entry, came: Tensor, realism: int, seed: int) -> Features:
        model = self.model
        tokens = torch.where(came, entry.tokens, -1)
        codes = model.map_quantizer.lookup(tokens[1:2])
        steering = model.map_decoder.likeliest(model.map_demasker(codes, came[1:2]))
        grid = model.image_demasker(model.image_quantizer.lookup(tokens[0:1]), came[0:1])
        coarse, fine, out = model.image_decoder.with_features(grid, steering, seed, realism)
        picture = ((out + 1) / 2).clamp(0, 1)
        return coarse[0].half(), fine[0].half(), picture[0].half()


class Bank:
    """A set of entries that grows to `size` pictures, sampled by the sources' shares.

    crop: side of a training crop, pixels; smaller pictures are passed over. realisms: 0, 1 or both,
    at which pictures are drawn. realisations: how often at realism 1; if more than once, from
    random noises. lossy: whether all pictures have losses.
    """

    def __init__(
        self,
        base: Base,
        sources: Sequence[Source],
        crop: int,
        size: int,
        realisms: Sequence[int] = (0, 1),
        realisations: int = 1,
        lossy: bool = False,
    ) -> None:
        self.base, self.crop, self.size, self.realisations = base, crop, size, realisations
        self.lossy = lossy
        self.realisms = tuple(sorted(set(realisms)))
        self.sets = [open_dataset(s.name, **s.options) for s in sources]
        self.shares = torch.tensor([s.share for s in sources])
        self.entries: list[Entry] = []

    def read(self, generator: torch.Generator) -> Entry:
        """Read a picture of the sources, with its tokens."""
        which = int(torch.multinomial(self.shares, 1, generator=generator))
        data = self.sets[which]
        sample = data[int(torch.randint(len(data), (1,), generator=generator))]
        return self.base.analysed(sample.image, sample.segmentation)

    def redraw(self, entry: Entry, generator: torch.Generator) -> None:
        """Draw the base with other tokens missing.

        At realism 0 hardly any of the map is sent seven times of ten, as by a transmitter that
        wants fidelity; at realism 1 everything is, five times of ten, and all of the map alone,
        three times. Else a random share of both is sent. Once in eight times a part of it is lost,
        or always if pictures have losses: up to a half, small shares more often.
        """

        def uniform() -> float:
            return float(torch.rand(1, generator=generator))

        for realism in self.realisms:
            way, reached = uniform(), uniform()
            fractions = torch.ones(2)
            if realism == 0 and way < 0.7:
                of_image = 1.0 if uniform() < 0.5 else 0.03 + 0.4 * reached
                fractions = torch.tensor([of_image, FEW_OF_MAP])
            elif realism == 1 and way < 0.3:
                fractions = torch.tensor([0.05 + 0.75 * reached, 1.0])
            elif way < (0.85, 0.5)[realism]:
                reached = 0.1 + 0.9 * reached
                fractions = torch.tensor([reached, reached**0.7]).clamp(max=1)
            sent = keep_most_relevant(entry.scores, fractions)
            came = sent.clone()
            loss = 0.0
            if self.lossy:
                loss = 0.03 + 0.47 * uniform() ** 1.5
                came &= torch.rand(sent.shape, generator=generator) >= loss
            elif uniform() < 0.12:
                came &= torch.rand(sent.shape, generator=generator) >= 0.5 * uniform()
            if not came[0].any():
                sent[0, 0, 0] = came[0, 0, 0] = True
            seeds = [0]
            if realism == 1 and self.realisations > 1:
                seeds = torch.randint(2**31, (self.realisations,), generator=generator).tolist()
            self.base.draw(entry, realism, sent, came, seeds, loss)

    def grow(self, generator: torch.Generator) -> None:
        """Add a picture until the bank is full, then redraw a random one or replace it."""
        if len(self.entries) < self.size:
            entry = self.read(generator)
            if min(entry.image.shape[1:]) >= self.crop:
                self.redraw(entry, generator)
                self.entries.append(entry)
            return
        number = int(torch.randint(len(self.entries), (1,), generator=generator))
        if torch.rand(1, generator=generator) < 0.3:  # another picture
            entry = self.read(generator)
            if min(entry.image.shape[1:]) >= self.crop:
                self.entries[number] = entry
        self.redraw(self.entries[number], generator)
