"""CamVid in the layout of the SegNet tutorial: root/{train,val,test} and root/{...}annot.

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in videos: a high-definition ground
truth database", PRL 2009; published with the SegNet tutorial for personal and research use.

Pictures are PNG or JPEG; maps are PNG of class ids 0 to 10, with 11 for void, read as 255. Splits
`fit` and `dev` are lists, root/fit.txt and root/dev.txt, of frame names out of train: the official
validation clip lies one second from training frames, so a score on it is none on unseen scenes.

Neighbouring frames of a drive show the same street. A run of frames at the drive's usual spacing is
cut into blocks of 4 or 5 frames (3 where a run does not divide), which is what a bootstrap draws:
the 47 frames of `dev` make 12 blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sqlink.data.base import Sample, as_path, register
from sqlink.data.blocks import blocks_of
from sqlink.data.classes import CAMVID, NO_LABEL, listed
from sqlink.data.pictures import load_picture
from sqlink.errors import DataError

FOLDERS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg", ".jpeg")
VOID = 11


@register("camvid")
class CamVid:
    """Frames of one split, in the order of their names.

    root: the folder that holds train, val, test. split: `train`, `val`, `test`, `fit`, `dev`, or a
    text file that names frames, one a line, in whichever of the three folders. Raises DataError for
    a missing root, an empty split, a frame that is not there, or one without its map; whether sizes
    agree shows when a sample is read.
    """

    classes = CAMVID

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = as_path("camvid", "root", root)
        if not self.root.is_dir():
            raise DataError(
                f"{self.root} is no folder: set root to the one that holds CamVid's train and "
                "trainannot"
            )
        as_path("camvid", "split", split)
        self.split = split
        if split in FOLDERS:
            folder = self.root / split
            if not folder.is_dir():
                raise DataError(
                    f"{folder} does not exist: CamVid's split '{split}' is looked for there"
                )
            frames = _pictures(folder)
            if not frames:
                raise DataError(f"{folder} holds no PNG or JPEG: put the frames of '{split}' there")
            chosen = {stem: (path, split) for stem, path in frames.items()}
        else:
            chosen = self._listed(split)
        self._frames: list[tuple[Path, Path]] = []
        self.names: Sequence[str] = sorted(chosen)
        for stem in self.names:
            picture, place = chosen[stem]
            labels = self.root / f"{place}annot" / f"{stem}.png"
            if not labels.is_file():
                raise DataError(
                    f"{picture} has no map: {labels} is missing; add it or leave the frame out"
                )
            self._frames.append((picture, labels))
        self.blocks: Sequence[str] = blocks_of(self.names)

    def _listed(self, split: str) -> dict[str, tuple[Path, str]]:
        """The frames that a list names, each with the folder it is in."""
        listing = self.root / f"{split}.txt" if split in ("fit", "dev") else Path(split)
        if not listing.is_file():
            raise DataError(
                f"no list {listing}: a split is train, val, test, fit or dev (with fit.txt or "
                "dev.txt in root), or the path of a list of frame names"
            )
        try:
            stems = listing.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{listing} cannot be read as a list of frame names: {error}"
            ) from error
        if not stems:
            raise DataError(f"{listing} names no frame: write one frame name a line")
        known: dict[str, tuple[Path, str]] = {}
        for place in ("train",) if split in ("fit", "dev") else FOLDERS:
            folder = self.root / place
            if folder.is_dir():
                for stem, path in _pictures(folder).items():
                    known.setdefault(stem, (path, place))
        missing = [stem for stem in stems if stem not in known]
        if missing:
            raise DataError(
                f"{listing} names '{missing[0]}', which is not under {self.root} ({len(missing)} "
                "such in all): add the frames or take them from the list"
            )
        return {stem: known[stem] for stem in stems}

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"camvid {self.split} has samples 0 to {len(self) - 1}, not {index}")
        picture, labels = self._frames[index]
        image = load_picture(picture)
        segmentation = _labels(labels)
        if segmentation.shape != image.shape[1:]:
            raise DataError(
                f"{labels} is {_size(segmentation)} but {picture} is {_size(image[0])}: scale one "
                "of them, maps by nearest neighbour"
            )
        return Sample(self.names[index], image, segmentation, self.blocks[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _pictures(folder: Path) -> dict[str, Path]:
    """Pictures of a folder by name; a PNG goes before a JPEG of the same name."""
    found: dict[str, Path] = {}
    for suffix in reversed(SUFFIXES):
        found |= {p.stem: p for p in folder.iterdir() if p.suffix.lower() == suffix}
    return found


def _labels(path: Path) -> Tensor:
    """A map as int64 [H, W], void as 255."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode not in ("L", "P"):
                raise DataError(
                    f"{path} is no map: its mode is {picture.mode}, but class ids need "
                    "grey or a palette"
                )
            ids = np.array(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a PNG: fetch it again ({error})") from error
    ids[ids == VOID] = NO_LABEL
    if wrong := CAMVID.unknown(ids):
        raise DataError(
            f"{path} holds the {listed(wrong)}: CamVid's maps hold class ids 0 to 10, and 11 for "
            "void"
        )
    return torch.from_numpy(ids.astype(np.int64))


def _size(plane: Tensor) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"
