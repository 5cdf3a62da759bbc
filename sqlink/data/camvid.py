"""CamVid in its usual layouts: root/{train,val,test} with maps in {...}annot or {...}_labels.

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in videos: a high-definition ground
truth database", PRL 2009; published with the SegNet tutorial for personal and research use.

Pictures are PNG or JPEG. Maps are PNG, FRAME.png or FRAME_L.png. They hold either class ids 0 to
10, with 11 for void (read as 255), as in the SegNet tutorial, or the colours of the 32 original
classes, which are merged into the 11 as in that tutorial. The splits `fit` and `dev` are lists of
frames from train, root/fit.txt and root/dev.txt: the official validation clip lies one second from
training frames, so a score on it does not measure unseen scenes.

Neighbouring frames of a drive show the same street. A run of frames at the drive's usual spacing is
cut into blocks of 4 or 5 frames (3 if the run cannot be divided so). Intervals count each block as
one sample: the 47 frames of `dev` make 12 blocks.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from sqlink.data.base import Sample, as_path, files_by_name, register
from sqlink.data.blocks import blocks_of
from sqlink.data.classes import CAMVID, NO_LABEL, Colour, listed
from sqlink.data.pictures import check_size, load_ids, load_picture
from sqlink.errors import DataError

FOLDERS = ("train", "val", "test")
SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes of pictures; a PNG is preferred to a JPEG of the same name."""

VOID = 11
MAP_FOLDERS = ("annot", "_labels")
"""Suffixes of the folder of maps, after the name of the split."""

MAP_MARK = "_L"
"""Optional suffix of a map's name, after the name of its frame."""

BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16"}
BYTE_ORDER_MARKS |= {codecs.BOM_UTF16_BE: "utf-16"}

ORIGINAL_COLOURS: dict[Colour, str | None] = {
    (64, 128, 64): "pedestrian",  # animal
    (192, 0, 128): "building",  # archway
    (0, 128, 192): "bicyclist",
    (0, 128, 64): "building",  # bridge
    (128, 0, 0): "building",
    (64, 0, 128): "car",
    (64, 0, 192): "pedestrian",  # cart, luggage, pram
    (192, 128, 64): "pedestrian",  # child
    (192, 192, 128): "pole",  # column, pole
    (64, 64, 128): "fence",
    (128, 0, 192): "road",  # driven lane markings
    (192, 0, 64): "road",  # other lane markings
    (128, 128, 64): "sign",  # other text
    (192, 0, 192): "bicyclist",  # motorcycle, scooter
    (128, 64, 64): "car",  # other moving
    (64, 192, 128): "pavement",  # parking block
    (64, 64, 0): "pedestrian",
    (128, 64, 128): "road",
    (128, 128, 192): "pavement",  # road shoulder
    (0, 0, 192): "pavement",  # sidewalk
    (192, 128, 128): "sign",
    (128, 128, 128): "sky",
    (64, 128, 192): "car",  # sports utility vehicle, pick-up
    (0, 0, 64): "pole",  # traffic cone
    (0, 64, 64): "sign",  # traffic light
    (192, 64, 128): "car",  # train
    (128, 128, 0): "tree",
    (192, 128, 192): "car",  # truck, bus
    (64, 0, 64): "building",  # tunnel
    (192, 192, 0): "tree",  # other vegetation
    (0, 0, 0): None,  # void
    (64, 192, 0): "building",  # wall
}
"""Colour of each of the 32 classes, and the class of the 11 that it is merged into."""


@register("camvid")
class CamVid:
    """Frames of one split, in the order of their names.

    root: the folder that holds train, val, test. split: `train`, `val`, `test`, `fit`, `dev`, or a
    text file that names frames of any of the three folders, one per line. A line may give the path
    and suffix of the frame, and then its map. Raises DataError for a missing root, an empty split,
    a missing frame or a missing map. Sizes are compared when a sample is read.
    """

    classes = CAMVID

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = as_path("camvid", "root", root)
        if not self.root.is_dir():
            raise DataError(
                f"{self.root} is not a folder: set root to the one that holds CamVid's train and "
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
            frames = files_by_name(folder, SUFFIXES)
            if not frames:
                raise DataError(f"{folder} holds no PNG or JPEG: put the frames of '{split}' there")
            chosen = {stem: (path, split) for stem, path in frames.items()}
        else:
            chosen = self._listed(split)
        self._frames: list[tuple[Path, Path]] = []
        self.names: Sequence[str] = sorted(chosen)
        maps = {place: _maps(self.root, place) for place in {p for _, p in chosen.values()}}
        for stem in self.names:
            picture, place = chosen[stem]
            labels = maps[place].get(stem) or maps[place].get(stem + MAP_MARK)
            if labels is None:
                missing = self.root / f"{place}{MAP_FOLDERS[0]}" / f"{stem}.png"
                raise DataError(
                    f"{picture} has no map: {missing} is missing; add it or leave the frame out"
                )
            self._frames.append((picture, labels))
        self.blocks: Sequence[str] = blocks_of(self.names)

    def _listed(self, split: str) -> dict[str, tuple[Path, str]]:
        """Return the folder and the name of each frame in a list."""
        listing = self.root / f"{split}.txt" if split in ("fit", "dev") else Path(split)
        if not listing.is_file():
            raise DataError(
                f"no list {listing}: a split is train, val, test, fit or dev (with fit.txt or "
                "dev.txt in root), or the path of a list of frame names"
            )
        stems = _frames(listing)
        if not stems:
            raise DataError(f"{listing} names no frame: write one frame name a line")
        known: dict[str, tuple[Path, str]] = {}
        for place in ("train",) if split in ("fit", "dev") else FOLDERS:
            folder = self.root / place
            if folder.is_dir():
                for stem, path in files_by_name(folder, SUFFIXES).items():
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


def _maps(root: Path, place: str) -> dict[str, Path]:
    """Find the maps of a split by name, in the map folders that exist."""
    found: dict[str, Path] = {}
    for folder in (root / f"{place}{end}" for end in reversed(MAP_FOLDERS)):
        if folder.is_dir():
            found |= files_by_name(folder, (".png",))
    return found


def _frames(listing: Path) -> list[str]:
    """Read the names of frames from a list: one per line, a name or a path, optionally with its
    map.
    """
    try:
        held = listing.read_bytes()
        marks = [name for mark, name in BYTE_ORDER_MARKS.items() if held.startswith(mark)]
        text = held.decode((marks or ["utf-8"])[0])
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{listing} cannot be read as a list of frame names: {error}") from error
    stems = []
    for number, line in enumerate(text.splitlines(), 1):
        names = [_stem(word) for word in line.split()]
        if len(names) > 2 or (len(names) == 2 and names[1].removesuffix(MAP_MARK) != names[0]):
            raise DataError(
                f"{listing}, line {number}: {line.strip()!r} is not a frame, or a frame and its "
                "map: write one frame a line"
            )
        stems += names[:1]
    return stems


def _stem(word: str) -> str:
    """Return the frame name in a path with either slash, with or without a known suffix.

    >>> _stem("/SegNet/CamVid/train/0001TP_006690.PNG"), _stem("0001TP_006690")
    ('0001TP_006690', '0001TP_006690')
    """
    name = word.replace("\\", "/").rsplit("/", 1)[-1]
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def _labels(path: Path) -> Tensor:
    """Read a map as int64 [H, W], void as 255.

    Raises DataError if the map holds neither class ids nor CamVid's colours.
    """
    colours = _original_colours(path)
    if colours is not None:
        return _by_colour(path, colours)
    ids, _ = load_ids(path)
    ids[ids == VOID] = NO_LABEL
    if wrong := CAMVID.unknown(ids):
        raise DataError(
            f"{path} holds the {listed(wrong)}: CamVid's maps hold class ids 0 to 10, and 11 for "
            "void"
        )
    return torch.from_numpy(ids)


def _original_colours(path: Path) -> NDArray[np.uint8] | None:
    """Return the pixels [H, W, 3] of a map in colours; None for a map of class ids.

    A palette of CamVid's own colours, or of greys in ascending order, means class ids.
    """
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode == "P":
                held = picture.getpalette("RGB") or []
                table = np.array(held, np.uint8).reshape(-1, 3)[: len(CAMVID)]
                own = CAMVID.colours()[: len(table)]
                greys = np.arange(len(table))[:, None]
                if (table == own).all() or (table == greys).all():
                    return None
            elif picture.mode not in ("RGB", "RGBA"):
                return None
            check_size(picture.height, picture.width, str(path))
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as a PNG: fetch it again ({error})") from error


def _by_colour(path: Path, pixels: NDArray[np.uint8]) -> Tensor:
    """Convert a map in the colours of the 32 classes, or of the 11, to class ids int64 [H, W]."""
    keys = pixels.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    held, places = np.unique(keys, return_inverse=True)
    known: dict[Colour, str | None] = dict(zip(CAMVID.palette, CAMVID.names, strict=True))
    known |= ORIGINAL_COLOURS
    classes = []
    for key in held.tolist():
        colour = (key >> 16, key >> 8 & 255, key & 255)
        if colour not in known:
            raise DataError(
                f"{path} shows the colour {colour}, which none of CamVid's classes has: a map is "
                "of class ids in grey, or in the colours of CamVid's 32 classes, lossless"
            )
        name = known[colour]
        classes.append(NO_LABEL if name is None else CAMVID.index(name))
    return torch.tensor(classes)[torch.from_numpy(places.reshape(keys.shape))]


def _size(plane: Tensor) -> str:
    return f"{plane.shape[1]}x{plane.shape[0]}"
