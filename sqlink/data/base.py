"""The protocol of data sets: pictures in a fixed order, each with the map of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from channels.registry import Registry
from sqlink.data import BUILT_IN
from sqlink.data import open_dataset as open_dataset
from sqlink.data.classes import ClassSet, classes_of
from sqlink.errors import ConfigError, DataError


@dataclass(frozen=True)
class Sample:
    """One picture.

    name: unique in its data set, fit for a file name. image: float32 [3, H, W] in [0, 1].
    segmentation: int64 [H, W] of class ids with 255 for "no label", or None if there is none.
    block: the run of neighbouring frames that the picture belongs to. Intervals count a block as
    one sample, because neighbouring frames of a drive are not independent.
    """

    name: str
    image: Tensor
    segmentation: Tensor | None
    block: str


@runtime_checkable
class DataSet(Protocol):
    """Samples by number; the order is the same on every machine and in every run.

    A data set whose maps hold other classes than CamVid's has an attribute `classes`, a ClassSet.
    """

    @property
    def names(self) -> Sequence[str]:
        """Names of the samples, in order."""
        ...

    @property
    def blocks(self) -> Sequence[str]:
        """Block of each sample, in order; available without reading a picture."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return the sample at `index`, 0 <= index < len. Raises IndexError, or DataError."""
        ...

    def __iter__(self) -> Iterator[Sample]: ...


class Thinned:
    """Every n-th sample of a data set, beginning with the first.

    >>> data = Thinned(open_dataset("streets", count=5), 2)
    >>> len(data), list(data.names) == list(open_dataset("streets", count=5).names)[::2]
    (3, True)
    """

    def __init__(self, data: DataSet, every: int) -> None:
        self._data = data
        self._numbers = range(0, len(data), every)
        self.names: Sequence[str] = [data.names[n] for n in self._numbers]
        self.blocks: Sequence[str] = [data.blocks[n] for n in self._numbers]
        self.classes = classes_of(data)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._data[self._numbers[index]]

    def __iter__(self) -> Iterator[Sample]:
        return (self._data[number] for number in self._numbers)


DATASETS: Registry[DataSet] = Registry("data set", "sqlink.datasets", BUILT_IN)
register = DATASETS.register


def require_classes(name: str, data: DataSet, wanted: ClassSet) -> None:
    """Raise DataError if the data set called `name` has other classes than `wanted`."""
    found = classes_of(data)
    if found.names != wanted.names:
        raise DataError(
            f"data set '{name}' has the {len(found)} classes of {found.name}, but what is trained "
            f"has the {len(wanted)} of {wanted.name}: choose a data set, or a model, to match"
        )


def as_path(owner: str, name: str, value: object) -> Path:
    """Return `value` as a path. Raises ConfigError if it is neither a text nor a path."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ConfigError(f"{owner}: {name}={value!r} is not a path: write it as a text")
    return Path(value)


def visible_files(folder: Path) -> list[Path]:
    """List the files of a folder by name, without hidden files such as macOS's `._NAME`.

    Raises DataError if the folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if path.is_file()]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    return sorted((p for p in found if not p.name.startswith(".")), key=lambda p: p.name)


def files_by_name(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Find the files of a folder that end in one of `suffixes`, upper or lower case, by their stem.

    If several files share a stem, the one whose suffix comes first in `suffixes` is taken. Raises
    DataError if the folder cannot be read.
    """
    found: dict[str, Path] = {}
    files = visible_files(folder)
    for suffix in reversed(suffixes):
        found |= {path.stem: path for path in files if path.suffix.lower() == suffix}
    return found


def picture_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 [H, W, 3] to float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().to(torch.float32) / 255


def map_tensor(classes: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 [H, W] of class ids to int64 [H, W]."""
    return torch.from_numpy(classes.astype(np.int64))
