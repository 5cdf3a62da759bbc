"""Data sets: pictures in a fixed order, most of them with maps of classes.

The module of a data set is imported when the data set is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlink.data.base import DataSet

BUILT_IN = {
    "camvid": "sqlink.data.camvid",
    "cityscapes": "sqlink.data.cityscapes",
    "folder": "sqlink.data.folder",
    "idd": "sqlink.data.idd",
    "streets": "sqlink.data.streets",
}
"""Map from a name to the module that registers the data set."""


def open_dataset(name: str, **options: object) -> DataSet:
    """Open the data set called `name` with the options of its kind.

    `camvid`: root, split. `cityscapes`: root, split, size. `folder`: root, maps, classes.
    `idd`: root, split. `streets`: seed, count, height, width, country. Raises ConfigError for an
    unknown name or option, DataError if the data cannot be used.

    >>> [sample.name for sample in open_dataset("streets", seed=7, count=2, height=16, width=16)]
    ['street-7', 'street-8']
    """
    from sqlink.data.base import DATASETS

    return DATASETS.make(name, options)
