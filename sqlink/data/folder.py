"""Any folder of pictures, optionally with maps from another folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sqlink.data.base import Sample, as_path, register, visible_files
from sqlink.data.classes import CAMVID, class_set
from sqlink.data.pictures import load_map, load_picture, suffixes
from sqlink.errors import DataError

_LOG = logging.getLogger(__name__)
_MAP = ".map"
"""Optional suffix of a map's name, after the name of its picture."""


@register("folder")
class Folder:
    """Pictures of `root` in the order of their names, each its own block.

    Pictures are the files with the suffix of a readable format, in upper or lower case. `left_out`
    names the other files except hidden ones and maps, and a warning lists them. maps: a folder with
    a map `NAME.png` or `NAME.map.png` for every picture `NAME.*`, or None. classes: the class set
    of those maps, `camvid` or `cityscapes` (train ids). Raises ConfigError for an unknown class
    set, DataError for a missing folder, a folder without pictures, two pictures of the same name,
    or a picture without its map. Reading a sample raises DataError if the map has another size.
    """

    def __init__(
        self, root: str | Path, maps: str | Path | None = None, classes: str = CAMVID.name
    ) -> None:
        self.classes = class_set(classes)
        self.root = as_path("folder", "root", root)
        folder = None if maps is None else as_path("folder", "maps", maps)
        if not self.root.is_dir():
            raise DataError(f"{self.root} is not a folder: set root to a folder of pictures")
        files = [path for path in visible_files(self.root) if not path.stem.endswith(_MAP)]
        known = suffixes()
        paths = [path for path in files if path.suffix.lower() in known]
        if not paths:
            raise DataError(
                f"{self.root} holds no picture: the names of pictures end in {' '.join(known)}"
            )
        self.left_out: Sequence[str] = [path.name for path in files if path not in set(paths)]
        if self.left_out:
            shown = ", ".join(self.left_out[:5]) + (", ..." if len(self.left_out) > 5 else "")
            _LOG.warning(
                "note: %s: %d of %d files are left out, as their names do not end as a picture's: "
                "%s",
                self.root,
                len(self.left_out),
                len(files),
                shown,
            )
        seen: dict[str, Path] = {}
        for path in paths:
            if path.stem in seen:
                raise DataError(
                    f"{path} and {seen[path.stem].name} have one name: rename or remove one of them"
                )
            seen[path.stem] = path
        self._paths = paths
        self._maps: list[Path] | None = None
        if folder is not None:
            if not folder.is_dir():
                raise DataError(
                    f"{folder} is not a folder: set maps to a folder of maps, or leave it out"
                )
            found = {
                path.stem: path for path in visible_files(folder) if path.suffix.lower() == ".png"
            }
            self._maps = [_map_of(path, folder, found) for path in paths]

    @property
    def names(self) -> Sequence[str]:
        return [path.stem for path in self._paths]

    @property
    def blocks(self) -> Sequence[str]:
        return self.names

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.root} has samples 0 to {len(self) - 1}, not {index}")
        path = self._paths[index]
        image = load_picture(path)
        segmentation = None
        if self._maps is not None:
            segmentation = load_map(self._maps[index], classes=self.classes)
            if segmentation.shape != image.shape[1:]:
                high, wide = segmentation.shape
                raise DataError(
                    f"{self._maps[index]} is {wide}x{high} but {path} is "
                    f"{image.shape[2]}x{image.shape[1]}: scale one of them, maps by "
                    "nearest neighbour"
                )
        return Sample(path.stem, image, segmentation, path.stem)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def _map_of(picture: Path, folder: Path, found: Mapping[str, Path]) -> Path:
    """Return the map of a picture among the maps found in a folder."""
    for name in (f"{picture.stem}{_MAP}", picture.stem):
        path = found.get(name)
        if path is not None and path != picture:
            return path
    raise DataError(
        f"{picture} has no map: {folder / (picture.stem + '.png')} is missing; add it or leave "
        "maps out"
    )
