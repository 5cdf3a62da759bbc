"""Segmenters of other origin: conversion of their classes to ours and of their sizes to the
picture's.

    picture [3, H, W] ─ mean, deviation ─ network ─> logits [K, h, w] ─ bilinear to [K, H, W]
    ─ outputs without a class of ours left out ─ argmax ─ table ─> ids 0..10 [H, W]

A network is run one picture at a time, so that no map depends on other pictures. Outputs are mapped
to our classes by name: by CamVid's names, Cityscapes' names, or what the user says. An output
without a class is refused, because labels of other classes would give a network a score that says
nothing about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from channels.registry import nearest
from sqlink.data.classes import CAMVID, CITYSCAPES, CLASS_SETS
from sqlink.errors import ConfigError, DataError, WeightsError

NONE = "none"
"""Value in `classes` for an output that stands for none of our classes."""

SAME = {
    "sidewalk": "pavement",
    "wall": "fence",
    "traffic light": "sign",
    "traffic sign": "sign",
    "vegetation": "tree",
    "terrain": "tree",
    "person": "pedestrian",
    "rider": "bicyclist",
    "bicycle": "bicyclist",
    "motorcycle": "bicyclist",
    "truck": "car",
    "bus": "car",
    "train": "car",
}
"""Map from Cityscapes' names that differ from CamVid's to our names."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Logits = Callable[[Tensor], Tensor]
"""Function from normalised pictures, float32 [1, 3, H, W], to logits [1, K, h, w]."""


class ForeignSegmenter:
    """A foreign network that follows the `Segmenter` protocol.

    run: function from a normalised picture to logits. table: class id of each output, see
    `class_table`. mean, std: of RGB in [0, 1]. weights_sha256: hash of its file.

    Raises ConfigError for a wrong mean or std.
    """

    def __init__(
        self,
        name: str,
        run: Logits,
        table: Tensor,
        weights_sha256: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ConfigError(
                f"segmenter {name}: mean and std are three numbers each, std above 0; got "
                f"{list(mean)} and {list(std)}"
            )
        self.name = name
        self.weights_sha256 = weights_sha256
        self.device = torch.device(device)
        self._run = run
        self._table = table
        self._mean = torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1)

    @torch.inference_mode()
    def segment(self, images: Tensor) -> Tensor:
        """Segment images: float32 [N, 3, H, W] in [0, 1]. Returns int64 [N, H, W] class ids.

        Raises DataError if the network refuses the size, or returns another shape.
        """
        left_out = self._table < 0
        maps = []
        for image in images.unsqueeze(1):
            logits = self._run((image.cpu().float() - self._mean) / self._std)
            if logits.ndim != 4 or logits.shape[:2] != (1, len(self._table)):
                raise DataError(
                    f"segmenter {self.name}: the network answers {list(logits.shape)}, not "
                    f"[1, {len(self._table)}, h, w]: name as many classes as it has outputs"
                )
            full = F.interpolate(
                logits.cpu().float(), image.shape[2:], mode="bilinear", align_corners=False
            )
            full[:, left_out] = -torch.inf
            maps.append(self._table[full.argmax(dim=1)])
        shape = (0, *images.shape[2:])
        found = torch.cat(maps) if maps else torch.zeros(shape, dtype=torch.int64)
        return found.to(images.device)


def class_table(
    name: str, outputs: Sequence[str], classes: Mapping[str, str] | None = None
) -> Tensor:
    """Return our class id of each output, int64 [K]; -1 for an output without a class.

    outputs: their names. classes: our class for each output whose name is neither CamVid's nor
    Cityscapes', or which means another class; `none` for no class. Raises ConfigError for an output
    of unknown class, a class that is not ours, or if no output has a class.

    >>> class_table("x", ["road", "person", "wall", "boat"], {"boat": "none"}).tolist()
    [3, 9, 7, -1]
    """
    said = dict(classes or {})
    for output in said:
        if output not in outputs:
            raise ConfigError(
                f"segmenter {name}: no output '{output}': {nearest(output, list(outputs))}"
            )
    ids = []
    for number, output in enumerate(outputs):
        target = said.get(output, SAME.get(output, output))
        if target == NONE:
            ids.append(-1)
        elif target in CAMVID.names:
            ids.append(CAMVID.index(target))
        else:
            raise ConfigError(
                f"segmenter {name}: output {number}, '{output}', is not a class of ours: say what "
                f"it stands for, classes: {{'{output}': {CAMVID.names[1]}}}, or none; ours: "
                f"{', '.join(CAMVID.names)}"
            )
    if not any(i >= 0 for i in ids):
        raise ConfigError(f"segmenter {name}: no output stands for a class of ours: see `classes`")
    return torch.tensor(ids, dtype=torch.int64)


def output_names(name: str, outputs: str | Sequence[str]) -> list[str]:
    """Return the names of a network's outputs: those of a class set, or a list of names.

    Raises ConfigError for anything else.
    """
    if isinstance(outputs, str):
        if outputs not in CLASS_SETS:
            raise ConfigError(
                f"segmenter {name}: outputs: no class set '{outputs}': "
                f"{nearest(outputs, list(CLASS_SETS))}; or list the outputs' names in order"
            )
        return list(CLASS_SETS[outputs].names)
    if not outputs or not all(isinstance(one, str) for one in outputs):
        raise ConfigError(
            f"segmenter {name}: outputs must be {CITYSCAPES.name}, {CAMVID.name} or a list of names"
        )
    return list(outputs)


def file_digest(name: str, paths: Iterable[Path]) -> str:
    """Hash the contents of files with SHA-256. Raises WeightsError if one cannot be read."""
    total = hashlib.sha256()
    for path in paths:
        try:
            total.update(path.read_bytes())
        except OSError as error:
            raise WeightsError(
                f"segmenter {name}: {path} cannot be read: {error.strerror or error}"
            ) from error
    return total.hexdigest()
