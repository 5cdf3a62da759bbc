"""A bank of pictures for the refinement to learn from, with the base decoder's features.

    picture ─ base codec ─ tokens ─ kept and lost at random ─ base decoder ─ features, in float16

The base stays as it is, so it decodes each picture once and redraws it now and then with other
tokens missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sqlink.data.base import open_dataset
from sqlink.model.samm import keep_most_relevant
from sqlink.model.sqgan import SQGAN
from sqlink.training.config import Source
from sqlink.training.refinement_weights import FEW_OF_MAP, without_refinement

REALISMS = (0.0, 1.0)
"""What the base decoder draws each picture at; at the second once for each realisation."""


@dataclass
class Entry:
    """A picture of the bank, padded to whole tokens.

    image: uint8 [3, H, W]; sent: uint8 [H, W], the map that `tx` makes; labels: uint8 [H, W].
    tokens: int64 [2, h, w] of picture and map; scores: [2, h, w]. base: the base decoder's features
    at 1/8 and 1/4 and its picture, float16, at realism 0, then each realisation at 1. known: the
    features at 1/8 and the picture, at realism 0 of all tokens that were sent: what the transmitter
    knows of the receiver.
    """

    image: Tensor
    sent: Tensor
    labels: Tensor
    tokens: Tensor
    scores: Tensor
    base: list[tuple[Tensor, Tensor, Tensor]]
    known: tuple[Tensor, Tensor] | None = None


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
            [],
        )

    @torch.no_grad()
    def draw(
        self, entry: Entry, sent: Tensor, came: Tensor | None = None, seeds: Sequence[int] = (0,)
    ) -> None:
        """Decode the base from the tokens that came, bool [2, h, w] of picture and map: all that
        were sent if None.

        seeds: of the noise of each realisation.
        """
        came = sent if came is None else came
        entry.base = self._decoded(entry, came, seeds)
        as_sent = entry.base[0]
        if not torch.equal(sent, came):
            as_sent = self._decoded(entry, sent, ())[0]
        entry.known = as_sent[0], as_sent[2]

    def _decoded(
        self, entry: Entry, came: Tensor, seeds: Sequence[int]
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        model = self.model
        tokens = torch.where(came, entry.tokens, -1)
        codes = model.map_quantizer.lookup(tokens[1:2])
        steering = model.map_decoder.likeliest(model.map_demasker(codes, came[1:2]))
        grid = model.image_demasker(model.image_quantizer.lookup(tokens[0:1]), came[0:1])
        found = []
        draws = [(REALISMS[0], 0), *((REALISMS[1], seed) for seed in seeds)]
        for realism, seed in draws:
            coarse, fine, out = model.image_decoder.with_features(grid, steering, seed, realism)
            picture = ((out + 1) / 2).clamp(0, 1)
            found.append((coarse[0].half(), fine[0].half(), picture[0].half()))
        return found


class Bank:
    """A set of entries that grows to `size` pictures, sampled by the sources' shares.

    crop: side of a training crop, pixels; smaller pictures are passed over. realisations: how often
    a picture is drawn at realism 1; if more than once, from random noises.
    """

    def __init__(
        self,
        base: Base,
        sources: Sequence[Source],
        crop: int,
        size: int,
        realisations: int = 1,
    ) -> None:
        self.base, self.crop, self.size, self.realisations = base, crop, size, realisations
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
        """Draw the base with other tokens missing: none four times of ten, twice nearly all of the
        map, which a transmitter that wants fidelity leaves out, else a random share of both.
        """

        def uniform() -> float:
            return float(torch.rand(1, generator=generator))

        way, reached = uniform(), uniform()
        fractions = torch.ones(2)
        if way < 0.4:
            reached = 0.1 + 0.9 * reached
            fractions = torch.tensor([reached, reached**0.7]).clamp(max=1)
        elif way < 0.6:
            fractions = torch.tensor([min(1.0, 0.1 + 1.5 * reached), FEW_OF_MAP])
        sent = keep_most_relevant(entry.scores, fractions)
        came = sent.clone()
        if uniform() < 0.3:
            came &= torch.rand(sent.shape, generator=generator) >= 0.5 * uniform()
        if not came[0].any():
            sent[0, 0, 0] = came[0, 0, 0] = True
        seeds = [0]
        if self.realisations > 1:
            seeds = torch.randint(2**31, (self.realisations,), generator=generator).tolist()
        self.base.draw(entry, sent, came, seeds)

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


def known_to_sender(entry: Entry) -> tuple[Tensor, Tensor]:
    """Return what the transmitter draws of the base's tokens that it sends, at realism 0: features
    at 1/8, and the picture.
    """
    assert entry.known is not None
    return entry.known
