"""The pictures that a sweep keeps as received, for figures: the first few, one realisation each.

pictures/NAME.original.png   as it was before anything was sent
pictures/NAME.POINT.png      as received at a point
....map.png                  its labels; the map received, where the codec carries one
....seen.png                 what the judge sees in that picture
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from experiments.sweep.grid import Point
from sqlink.data.pictures import save_map, save_picture

FOLDER = "pictures"


class Examples:
    """Where kept pictures lie, and which are kept: the first `count`, at `seed`, realisation 0."""

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self.folder = folder / FOLDER
        self.count = count
        self.seed = seed

    def wants(self, number: int, point: Point, realisation: int) -> bool:
        """Whether picture `number` of the sweep is kept as received there."""
        return number < self.count and point.seed == self.seed and realisation == 0

    def lacks(self, number: int, name: str, point: Point, realisation: int) -> bool:
        """Whether it is wanted and not there."""
        wanted = self.wants(number, point, realisation)
        return wanted and not received_path(self.folder, name, point.hash).exists()

    def keep_original(
        self, name: str, image: Tensor, labels: Tensor | None, seen: Tensor | None
    ) -> None:
        """Write the picture as it was, its labels and what the judge sees in it."""
        self._save(original_path(self.folder, name), image, labels, seen)

    def keep(
        self, name: str, point: Point, image: Tensor, carried: Tensor | None, seen: Tensor | None
    ) -> None:
        """Write the picture as received at a point, its map and what the judge sees in it."""
        self._save(received_path(self.folder, name, point.hash), image, carried, seen)

    def _save(self, path: Path, image: Tensor, carried: Tensor | None, seen: Tensor | None) -> None:
        """image: float32 [3, H, W]; the maps int64 [H, W] or None. The picture is written last."""
        self.folder.mkdir(exist_ok=True)
        if carried is not None:
            save_map(carried, path.with_suffix(".map.png"))
        if seen is not None:
            save_map(seen, path.with_suffix(".seen.png"))
        save_picture(image, path)


def original_path(folder: Path, name: str) -> Path:
    """Of the picture before anything was sent; `folder` is that of the pictures."""
    return folder / f"{name}.original.png"


def received_path(folder: Path, name: str, point_hash: str) -> Path:
    """Of the picture as received at a point."""
    return folder / f"{name}.{point_hash}.png"
