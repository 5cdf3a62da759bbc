"""Pictures that training draws from, and the batches of a step.

data sets ── resident uint8 tensors ── crops by the sources' shares, components pasted in
                                    └─ tokens that each crop keeps, and those that are lost
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sqlink.data import open_dataset
from sqlink.data.base import Sample, require_classes
from sqlink.data.classes import ClassSet
from sqlink.errors import DataError
from sqlink.model.config import ModelConfig
from sqlink.training.augmentation import (
    CropSettings,
    ResidentPictures,
    draw_crops,
    draw_fractions,
)
from sqlink.training.config import Source, Stage, TrainConfig
from sqlink.training.packet_loss import PacketLoss, draw_packet_losses
from sqlink.training.pasting import ComponentBank, component_bank
from sqlink.training.reconstruction import Transmission
from sqlink.training.task import Task


def read_labelled(samples: Iterable[Sample], title: str) -> tuple[Tensor, Tensor]:
    """Read every sample: uint8 [N, 3, H, W] and uint8 [N, H, W].

    title: the data set's, in errors. Raises DataError if there is no sample, one has no map, or
    their sizes differ.
    """
    images: list[Tensor] = []
    maps: list[Tensor] = []
    for sample in samples:
        if sample.segmentation is None:
            raise DataError(f"data set '{title}': {sample.name} has no map to train on")
        if images and sample.image.shape[1:] != images[0].shape[1:]:
            raise DataError(
                f"data set '{title}': {sample.name} is {tuple(sample.image.shape[1:])}, the "
                f"others {tuple(images[0].shape[1:])}; training wants one size a source"
            )
        images.append((sample.image * 255).round().to(torch.uint8))
        maps.append(sample.segmentation.to(torch.uint8))
    if not images:
        raise DataError(f"data set '{title}' is empty: check its split and root")
    return torch.stack(images), torch.stack(maps)


def load_pictures(
    source: Source, classes: ClassSet, segmenter: str | None, device: torch.device
) -> ResidentPictures:
    """Load a whole data set onto the device.

    segmenter: makes the maps that are sent; None: the labels are. Raises DataError if a picture has
    no map or another size, or if the maps hold other classes.
    """
    data = open_dataset(source.name, **source.options)
    require_classes(source.name, data, classes)
    images, labels = read_labelled(data, source.name)
    sent = labels
    if segmenter is not None:
        from sqlink.segmentation import load_segmenter

        network = load_segmenter(segmenter, device=str(device))
        parts = [network.segment(part.float() / 255) for part in images.split(8)]
        sent = torch.cat(parts).to(torch.uint8)
    return ResidentPictures(images, labels, sent).to(device)


class TrainingData:
    """The sources of a run, and its held-out pictures (None if there are none)."""

    def __init__(
        self, config: TrainConfig, classes: ClassSet, task: Task, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.sources = [
            load_pictures(source, classes, config.segmenter, device) for source in config.sources
        ]
        self.shares = torch.tensor([source.share for source in config.sources], device=device)
        self.banks: list[ComponentBank | None] = [None for _ in self.sources]
        if any(stage.paste for stage in config.plan().values()):
            self.banks = [component_bank(s.images, s.maps, task.pasted) for s in self.sources]
        self.held_out: ResidentPictures | None = None
        if config.validation is not None:
            self.held_out = load_pictures(config.validation, classes, config.segmenter, device)

    def examples(self, count: int) -> Tensor:
        """Return up to `count` pictures spread over the largest share's source, float32 in [0, 1].

        [n, 3, H, W].
        """
        source = self.sources[int(self.shares.argmax())]
        chosen = torch.linspace(0, len(source) - 1, min(count, len(source))).long()
        return source.images[chosen.to(self.device)].float() / 255

    def batch(self, stage: Stage, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw crops from the sources by their shares; see `draw_crops`."""
        count = stage.batch_size
        owner = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        settings = CropSettings(
            stage.crop,
            sent_share=0.5 if self.config.segmenter else 0.0,
            paste_share=stage.paste,
        )
        parts = []
        for number, pictures in enumerate(self.sources):
            chosen = torch.randint(
                len(pictures), (count,), generator=generator, device=self.device
            )[owner == number]
            if len(chosen):
                bank = self.banks[number] if stage.paste else None
                parts.append(draw_crops(pictures, chosen, settings, generator, bank))
        images, maps, inputs = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return images.contiguous(memory_format=torch.channels_last), maps, inputs


def draw_transmission(
    stage: Stage, model: ModelConfig, lossless: bool, generator: torch.Generator
) -> Transmission:
    """Draw what each crop of a batch keeps, and what the channel takes from it.

    lossless: whether the channel takes nothing.
    """
    count = stage.batch_size
    grid = (count, *model.grid(*stage.crop))
    fractions = (
        draw_fractions(count, stage.image_fraction, generator),
        draw_fractions(count, stage.map_fraction, generator),
    )
    losing = stage.losing
    settings = PacketLoss(clean=1 - losing.pictures, rate=losing.rate, stream=losing.stream)
    if lossless:
        settings = PacketLoss(clean=1.0, stream=0.0)
    arrived = draw_packet_losses(grid, fractions, settings, generator)
    ranking = None
    device = generator.device
    if "relevance" in model.without:
        image, of_map = torch.rand(2, *grid, generator=generator, device=device).unbind()
        ranking = (image, of_map)
    seeds = (count * stage.realisations,)
    noise = torch.randint(2**31, seeds, generator=generator, device=device)
    return Transmission(fractions, arrived, ranking, noise)
