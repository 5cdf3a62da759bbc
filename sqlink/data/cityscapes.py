"""Cityscapes in its official layout, with its 19 train ids, at full size or scaled down.

    root/leftImg8bit/{train,val}/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png
    root/gtFine/{train,val}/CITY/CITY_SEQUENCE_FRAME_gtFine_labelIds.png

Source: Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016;
the table of label ids and train ids is that of the authors' scripts. The licence is for research:
register at cityscapes-dataset.com. The official `test` split has no public labels and is not read.

Frames of a city follow one another along a drive. They are cut into blocks of 4 or 5, and intervals
count each block as one sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from channels.registry import nearest
from sqlink.data.base import Sample, as_path, register
from sqlink.data.blocks import cut_into_blocks
from sqlink.data.classes import CITYSCAPES, NO_LABEL, listed
from sqlink.data.pictures import MIN_SIDE, load_picture
from sqlink.errors import ConfigError, DataError

SPLITS = ("train", "val")
PICTURE = "_leftImg8bit.png"
LABELS = "_gtFine_labelIds.png"

TRAIN_IDS = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
"""Class of each label id that is used; all other label ids count as "no label"."""

LAST_LABEL_ID = 33
_LICENCE_PLATE = 255  # label id -1 in 8 bits

_UNKNOWN = 254
_TABLE = np.full(256, _UNKNOWN, np.uint8)
_TABLE[: LAST_LABEL_ID + 1] = NO_LABEL
_TABLE[_LICENCE_PLATE] = NO_LABEL
for _label, _name in TRAIN_IDS.items():
    _TABLE[_label] = CITYSCAPES.index(_name)


@register("cityscapes")
class Cityscapes:
    """Frames of `train` (2975) or `val` (500), city by city, in the order of their names.

    root: the folder that holds leftImg8bit and gtFine. size: (height, width) to scale to, such as
    the paper's (256, 512), or None for the full 1024x2048. Pictures are scaled by area averages if
    the factor is whole, else bicubically with antialiasing; maps by nearest neighbour. Raises
    ConfigError for an unknown split or size, DataError for a missing root, a split without
    pictures, or a picture without its map. Reading a sample raises DataError if picture and map
    differ in size, or for label ids that Cityscapes does not have.
    """

    classes = CITYSCAPES

    def __init__(
        self, root: str | Path, split: str = "train", size: Sequence[int] | None = None
    ) -> None:
        self.root = as_path("cityscapes", "root", root)
        if split not in SPLITS:
            raise ConfigError(f"cityscapes: split={split!r}: {nearest(str(split), list(SPLITS))}")
        self.split = split
        self.size = None if size is None else _checked_size(size)
        pictures, labels = (self.root / part / split for part in ("leftImg8bit", "gtFine"))
        for folder in (self.root, pictures, labels):
            if not folder.is_dir():
                raise DataError(
                    f"{folder} is not a folder: set root to the one that holds Cityscapes' "
                    "leftImg8bit and gtFine, unpacked"
                )
        found = sorted(p for p in pictures.glob(f"*/*{PICTURE}") if not p.name.startswith("."))
        if not found:
            raise DataError(f"{pictures} holds no CITY/*{PICTURE}: unpack leftImg8bit_trainvaltest")
        self._frames: list[tuple[Path, Path]] = []
        for path in found:
            stem = path.name.removesuffix(PICTURE)
            annotation = labels / path.parent.name / f"{stem}{LABELS}"
            if not annotation.is_file():
                raise DataError(
                    f"{path} has no map: {annotation} is missing; unpack gtFine_trainvaltest"
                )
            self._frames.append((path, annotation))
        self.names: Sequence[str] = [path.name.removesuffix(PICTURE) for path in found]
        cities = itertools.groupby(self._frames, key=lambda frame: frame[0].parent.name)
        runs = ([p.name.removesuffix(PICTURE) for p, _ in frames] for _, frames in cities)
        self.blocks: Sequence[str] = [block for run in runs for block in cut_into_blocks(run)]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"cityscapes {self.split} has 0 to {len(self) - 1}, not {index}")
        picture, annotation = self._frames[index]
        image = load_picture(picture)
        segmentation = _labels(annotation)
        if segmentation.shape != image.shape[1:]:
            raise DataError(
                f"{annotation} is {segmentation.shape[1]}x{segmentation.shape[0]} but {picture} is "
                f"{image.shape[2]}x{image.shape[1]}: unpack both anew"
            )
        if self.size is not None:
            image, segmentation = scaled(image, segmentation, self.size)
        return Sample(self.names[index], image, segmentation, self.blocks[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def scaled(image: Tensor, segmentation: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scale a picture and its map to `size` (height, width): float32 [3, H, W] and int64 [H, W].

    >>> image, labels = scaled(torch.ones(3, 64, 96), torch.ones(64, 96).long(), (16, 24))
    >>> image.shape, labels.unique().tolist()
    (torch.Size([3, 16, 24]), [1])
    """
    if tuple(image.shape[1:]) == size:
        return image, segmentation
    if image.shape[1] % size[0] == 0 and image.shape[2] % size[1] == 0:
        small = F.interpolate(image[None], size, mode="area")
    else:
        small = F.interpolate(
            image[None], size, mode="bicubic", antialias=True, align_corners=False
        )
    ids = F.interpolate(segmentation[None, None].float(), size, mode="nearest-exact")
    return small[0].clamp(0, 1), ids[0, 0].long()


def _checked_size(size: object) -> tuple[int, int]:
    sides = list(size) if isinstance(size, (list, tuple)) else []
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool)]
    if len(sides) != 2 or len(whole) != 2 or min(whole) < MIN_SIDE:
        raise ConfigError(
            f"cityscapes: size={size!r} must be [height, width], each at least {MIN_SIDE}, such as "
            "[256, 512]"
        )
    return whole[0], whole[1]


def _labels(path: Path) -> Tensor:
    """Read the label ids of a file as train ids, int64 [H, W], 255 for no label."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode not in ("L", "P"):
                raise DataError(
                    f"{path} is not a map: its mode is {picture.mode}, but label ids are grey"
                )
            ids = np.array(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a PNG: fetch it again ({error})") from error
    classes = _TABLE[ids]
    wrong = np.unique(ids[classes == _UNKNOWN])
    if wrong.size:
        raise DataError(
            f"{path} holds the {listed(wrong.tolist())}: Cityscapes' label ids are 0 to "
            f"{LAST_LABEL_ID}; take the *{LABELS} of gtFine as they are"
        )
    return torch.from_numpy(classes.astype(np.int64))
