"""IDD Lite: Indian roads in 7 coarse classes, root/{train,dev} and root/{train,dev}annot.

Source: Varma et al., "IDD: a dataset for exploring problems of autonomous navigation in
unconstrained environments", WACV 2019; for research only. Pictures are JPEG (or PNG), mostly of
320x227, maps are PNG with ids 0 to 6, and 255 for "no label".

A coarse class stands for a set of CamVid's classes. `CAMVID_SETS` lists these sets; they were found
by comparing pictures with their maps (kerbs, shop fronts and walls are `roadside objects`,
motorcycles without their riders `vehicles`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from channels.registry import nearest
from sqlink.data.base import Sample, as_path, files_by_name, register
from sqlink.data.classes import CAMVID, IDD, listed
from sqlink.data.pictures import load_ids, load_picture
from sqlink.errors import ConfigError, DataError

SPLITS = ("train", "dev")
SUFFIXES = (".jpg", ".jpeg", ".png")

CAMVID_SETS: dict[str, tuple[str, ...]] = {
    "drivable": ("road",),
    "non-drivable": ("pavement", "tree"),
    "living things": ("pedestrian", "bicyclist"),
    "vehicles": ("car", "bicyclist"),
    "roadside objects": ("pole", "sign", "fence", "building", "pavement"),
    "far objects": ("building", "tree"),
    "sky": ("sky",),
}
"""Map from a coarse class to the CamVid classes that its pixels may have."""


def camvid_sets() -> Tensor:
    """Return float32 [7, 11]: 1 where a pixel of the coarse class may have the CamVid class."""
    table = torch.zeros(len(IDD), len(CAMVID))
    for name, members in CAMVID_SETS.items():
        for member in members:
            table[IDD.index(name), CAMVID.index(member)] = 1
    return table


@register("idd")
class IddLite:
    """Pictures of `train` or `dev`, in the order of their names, each its own block.

    root: the folder that holds train, trainannot, dev and devannot. Raises ConfigError for an
    unknown split, DataError for a missing root, a split without pictures, or a picture without its
    map. Reading a sample raises DataError for a map of another size or with other ids.
    """

    classes = IDD

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.root = as_path("idd", "root", root)
        if split not in SPLITS:
            raise ConfigError(f"idd: split={split!r}: {nearest(str(split), list(SPLITS))}")
        self.split = split
        folder = self.root / split
        if not folder.is_dir():
            raise DataError(
                f"{folder} is not a folder: set root to the one that holds IDD's {split}"
            )
        pictures = files_by_name(folder, SUFFIXES)
        if not pictures:
            raise DataError(f"{folder} holds no JPEG or PNG: put the pictures of '{split}' there")
        self.names: Sequence[str] = sorted(pictures)
        annotations = self.root / f"{split}annot"
        maps = files_by_name(annotations, (".png",)) if annotations.is_dir() else {}
        self._frames: list[tuple[Path, Path]] = []
        for name in self.names:
            labels = maps.get(name)
            if labels is None:
                missing = annotations / f"{name}.png"
                raise DataError(
                    f"{pictures[name]} has no map: {missing} is missing; add it or leave it out"
                )
            self._frames.append((pictures[name], labels))

    @property
    def blocks(self) -> Sequence[str]:
        return self.names

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"idd {self.split} has samples 0 to {len(self) - 1}, not {index}")
        picture, labels = self._frames[index]
        image, segmentation = load_picture(picture), _labels(labels)
        if segmentation.shape != image.shape[1:]:
            raise DataError(
                f"{labels} is {segmentation.shape[1]}x{segmentation.shape[0]} but {picture} is "
                f"{image.shape[2]}x{image.shape[1]}: fetch both again"
            )
        return Sample(self.names[index], image, segmentation, self.names[index])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _labels(path: Path) -> Tensor:
    """Read a map as int64 [H, W]."""
    ids, _ = load_ids(path)
    if wrong := IDD.unknown(ids):
        raise DataError(f"{path} holds the {listed(wrong)}: IDD Lite's maps hold 0 to 6, and 255")
    return torch.from_numpy(ids)
