"""Any folder of pictures, with the maps of another folder where there are some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlink.data.base import Sample, as_path, register
from sqlink.data.classes import CAMVID, class_set
from sqlink.data.pictures import load_map, load_picture
from sqlink.errors import DataError

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".avif",
    ".jp2",
    ".tif",
    ".tiff",
    ".bmp",
    ".ppm",
    ".tga",
)


@register("folder")
class Folder:
    """Pictures of `root` in the order of their names, each its own block.

    maps: a folder with a map `NAME.png` or `NAME.map.png` for every picture `NAME.*`, or None.
    classes: the class set of those maps, `camvid` or `cityscapes` (train ids). Raises ConfigError
    for another class set, DataError for a missing folder, one without pictures, two pictures of one
    name, a picture without its map, and, when a sample is read, a map of another size.
    """

    def __init__(
        self, root: str | Path, maps: str | Path | None = None, classes: str = CAMVID.name
    ) -> None:
        self.classes = class_set(classes)
        self.root = as_path("folder", "root", root)
        folder = None if maps is None else as_path("folder", "maps", maps)
        if not self.root.is_dir():
            raise DataError(f"{self.root} is no folder: set root to a folder of pictures")
        paths = sorted(
            (p for p in self.root.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()),
            key=lambda p: p.name,
        )
        paths = [p for p in paths if not p.name.startswith(".") and not p.stem.endswith(".map")]
        if not paths:
            raise DataError(
                f"{self.root} holds no picture: the names of pictures end in {' '.join(SUFFIXES)}"
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
                    f"{folder} is no folder: set maps to a folder of maps, or leave it out"
                )
            self._maps = [_map_of(path, folder) for path in paths]

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


def _map_of(picture: Path, folder: Path) -> Path:
    """The map of a picture, in a folder of maps."""
    for name in (f"{picture.stem}.map.png", f"{picture.stem}.png"):
        path = folder / name
        if path.is_file() and path != picture:
            return path
    raise DataError(
        f"{picture} has no map: {folder / (picture.stem + '.png')} is missing; add it or leave "
        "maps out"
    )
