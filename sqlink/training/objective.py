"""What a rebuilt picture and map are trained towards: losses, and the frozen networks they use.

    rebuilt, original ── windows ── LPIPS's taps, features of `tx` ── weighted terms of the loss

The two discriminators are in `sqlink.training.adversaries`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.data.classes import NO_LABEL
from sqlink.metrics.lpips import FOLDER_VARIABLE, LPIPS, load_lpips
from sqlink.model.discriminator import is_one_of
from sqlink.model.layout import channels_last
from sqlink.training.augmentation import draw_window
from sqlink.training.config import Stage, TrainConfig
from sqlink.training.losses import colour_loss, image_loss, map_loss, spectrum_loss
from sqlink.training.perceptual import SegmenterFeatures, energy_score, features_loss
from sqlink.training.task import Task


@dataclass(frozen=True)
class Views:
    """What frozen networks see in pictures: LPIPS's `taps` and the features of `tx`, or none."""

    taps: list[Tensor]
    tx: tuple[Tensor, ...]

    @property
    def coarse(self) -> list[Tensor]:
        """The views that a discriminator sees: LPIPS's at 1/4 and, twice, 1/16; those of `tx`."""
        return [*self.taps[1:6:2], *self.tx]


Opponent = Callable[[Views, Views], Tensor]
"""Returns a loss of the rebuilt picture's views, given the original's."""


class Objective:
    """The losses of a run. Loads the frozen networks that any of its stages asks for."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        device: torch.device,
        report: Callable[[str], None],
    ) -> None:
        self.task = task
        losses = [stage.losses for stage in config.plan().values()]
        self.perceptual: LPIPS | SegmenterFeatures | None = None
        if any(each.perceptual or each.energy for each in losses):
            self.perceptual = _perceptual_loss(config.lpips_weights, report)
            channels_last(self.perceptual.to(device))
        self.segmenter: Any = None
        if any(each.semantic or each.features or each.projected for each in losses):
            from sqlink.segmentation import load_segmenter

            self.segmenter = load_segmenter("tx", device=str(device))
        self.map_weights, self.image_weights = task.tensors(device)

    @property
    def lpips(self) -> LPIPS | None:
        """LPIPS where the run has its files."""
        return self.perceptual if isinstance(self.perceptual, LPIPS) else None

    def views(self, images: Tensor, taps: bool = True, tx: bool = True) -> Views:
        """Return what the frozen networks see in float32 [N, 3, H, W]; differentiable.

        taps, tx: whether LPIPS and the segmenter are asked.
        """
        return Views(
            self.lpips.taps(images) if taps and self.lpips is not None else [],
            self.segmenter.network.features(images) if tx else (),
        )

    def of_map(self, stage: Stage, logits: Tensor, inputs: Tensor) -> Tensor:
        """Return the weighted loss of a decoded map. logits: [N, C, H, W]; inputs: [N, H, W]."""
        return stage.losses.map * map_loss(logits, inputs, self.map_weights)

    def of_picture(
        self,
        stage: Stage,
        rebuilt: Tensor,
        images: Tensor,
        maps: Tensor,
        generator: torch.Generator,
        opponent: Opponent | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted losses of a rebuilt picture by their names.

        rebuilt, images: float32 [k N, 3, H, W]; maps: int64 [k N, H, W], k the stage's
        realisations. opponent: the discriminator of features, where it takes part.
        """
        weights, times = stage.losses, stage.realisations
        terms = {
            "l1": weights.l1 * image_loss(rebuilt, images, maps, self.image_weights),
            "colour": weights.colour * colour_loss(rebuilt, images),
        }
        clamped = rebuilt + (rebuilt.clamp(0, 1) - rebuilt).detach()
        window = draw_window(stage.crop, generator)
        shown, true = laid_out(clamped[window]), laid_out(images[window])
        projected = opponent is not None
        taps = projected or weights.perceptual > 0 or weights.energy > 0
        tx = projected or weights.features > 0 or weights.semantic > 0
        found = self.views(shown, taps, tx)
        with torch.no_grad():
            wanted = self.views(true, taps, tx)
        labels, exact = maps[window[0], *window[2:]], None
        if weights.blended_weight < 1:
            blended = is_one_of(labels, self.task.blended).float()
            exact = 1 - (1 - weights.blended_weight) * blended
        lpips = self.lpips
        if weights.perceptual and lpips is None and self.perceptual is not None:
            terms["perceptual"] = weights.perceptual * self.perceptual(shown, true, exact, times)
        if weights.perceptual and lpips is not None:
            score = energy_score(lpips, found.taps, wanted.taps, exact, times)
            terms["perceptual"] = weights.perceptual * score
        if weights.energy and lpips is not None:
            score = energy_score(lpips, found.taps, wanted.taps, exact, times, root=True)
            terms["energy"] = weights.energy * score
        if weights.spectrum:
            terms["spectrum"] = weights.spectrum * spectrum_loss(shown, true)
        if weights.features:
            distance = features_loss(found.tx, wanted.tx, weight=exact, realisations=times)
            terms["features"] = weights.features * distance
        if weights.semantic:
            logits = F.interpolate(
                self.segmenter.network.classes(*found.tx),
                labels.shape[1:],
                mode="bilinear",
                align_corners=False,
            )
            terms["semantic"] = weights.semantic * F.cross_entropy(
                logits.float(), labels, ignore_index=NO_LABEL
            )
        if opponent is not None:
            terms["projected"] = weights.projected * opponent(found, wanted)
        return terms


def laid_out(images: Tensor) -> Tensor:
    """Return the pictures with channels last in memory."""
    return images.contiguous(memory_format=torch.channels_last)


def _perceptual_loss(
    lpips_weights: str | None, report: Callable[[str], None]
) -> LPIPS | SegmenterFeatures:
    """Load LPIPS where its files are named, else the features of `tx`."""
    if lpips_weights is not None or os.environ.get(FOLDER_VARIABLE):
        return load_lpips(lpips_weights)
    from sqlink.segmentation.builtin import built_in
    from sqlink.segmentation.pyramid import Pyramid

    report(
        f"no LPIPS files ({FOLDER_VARIABLE} or lpips_weights): the perceptual loss uses "
        "the segmenter `tx`"
    )
    network = built_in("tx").network
    assert isinstance(network, Pyramid)
    return SegmenterFeatures(network)
