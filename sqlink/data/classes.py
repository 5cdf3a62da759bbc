"""Class sets: CamVid's 11 classes, Cityscapes' 19, their colours, and "no label".

Sources: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009, class list and
colours as in the SegNet tutorial (Badrinarayanan, Kendall, Cipolla, PAMI 2017); Cordts et al., "The
Cityscapes dataset for semantic urban scene understanding", CVPR 2016, train ids and their colours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from channels.registry import nearest
from sqlink.errors import ConfigError

NO_LABEL = 255
"""Value of pixels without a label, which every metric leaves out."""

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassSet:
    """Classes that maps may hold: the id of a class is its place in `names`.

    palette: an RGB colour for each class, 0 to 255.

    >>> CAMVID.index("car"), len(CITYSCAPES)
    (8, 19)
    """

    name: str
    names: tuple[str, ...]
    palette: tuple[Colour, ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """Return the id of a class. Raises ConfigError for an unknown name."""
        if name not in self.names:
            raise ConfigError(
                f"'{name}' is not a class of {self.name}: {nearest(name, list(self.names))}"
            )
        return self.names.index(name)

    def colours(self) -> NDArray[np.uint8]:
        """Return uint8 [256, 3]: the colour of each id, black above the last class."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table

    def colourise(self, segmentation: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Convert class ids of any shape [...] to colours, uint8 [..., 3]; other values become
        black.

        >>> CAMVID.colourise(np.array([[8, 255]])).tolist()
        [[[64, 0, 128], [0, 0, 0]]]
        """
        known = (segmentation >= 0) & (segmentation < len(self))
        return self.colours()[np.where(known, segmentation, NO_LABEL)]

    def unknown(self, ids: NDArray[np.integer]) -> list[int]:
        """List the values among `ids` that are neither a class nor NO_LABEL, sorted.

        >>> CAMVID.unknown(np.array([[3, 12], [255, 40]]))
        [12, 40]
        """
        values = np.unique(ids)
        return [int(v) for v in values if v != NO_LABEL and not 0 <= v < len(self)]


CAMVID = ClassSet(
    "camvid",
    (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    (
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

CITYSCAPES = ClassSet(
    "cityscapes",
    (
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)

IDD = ClassSet(
    "idd",
    (
        "drivable",
        "non-drivable",
        "living things",
        "vehicles",
        "roadside objects",
        "far objects",
        "sky",
    ),
    (
        (128, 64, 128),
        (244, 35, 232),
        (220, 20, 60),
        (0, 0, 142),
        (190, 153, 153),
        (70, 70, 70),
        (70, 130, 180),
    ),
)
"""The coarse classes of IDD Lite. No model uses them: each stands for several CamVid classes."""

CLASS_SETS = {classes.name: classes for classes in (CAMVID, CITYSCAPES)}
"""Class sets that a model or a folder of maps may use."""

NAMES = CAMVID.names
NUM_CLASSES = len(CAMVID)
PALETTE = CAMVID.palette
"""CamVid's palette: that of the shipped networks, of `streets` and, by default, of folders."""


def class_set(name: str) -> ClassSet:
    """Return a class set by name. Raises ConfigError for an unknown name."""
    if name not in CLASS_SETS:
        raise ConfigError(f"unknown class set '{name}': {nearest(name, list(CLASS_SETS))}")
    return CLASS_SETS[name]


def class_set_of_size(count: int) -> ClassSet:
    """Return the class set with `count` classes, the number that a model's configuration holds.

    Raises ConfigError if there is none.

    >>> class_set_of_size(19).name
    'cityscapes'
    """
    for classes in CLASS_SETS.values():
        if len(classes) == count:
            return classes
    known = ", ".join(f"{c.name} {len(c)}" for c in CLASS_SETS.values())
    raise ConfigError(f"no class set has {count} classes: known: {known}")


def listed(ids: Iterable[int], most: int = 8) -> str:
    """Write ids for an error message: all, or the first `most` and the number of the others.

    >>> listed([3]), listed(range(11))
    ('value 3', 'values 0, 1, 2, 3, 4, 5, 6, 7 and 3 more')
    """
    values = list(ids)
    shown = ", ".join(map(str, values[:most]))
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return f"value{'s' if len(values) > 1 else ''} {shown}{more}"


@runtime_checkable
class WithClasses(Protocol):
    """A data set, codec or model that names the classes of its maps."""

    classes: ClassSet


def classes_of(holder: object) -> ClassSet:
    """Return the classes of the maps of a data set or codec; CamVid's by default.

    >>> classes_of(None).name
    'camvid'
    """
    return holder.classes if isinstance(holder, WithClasses) else CAMVID
