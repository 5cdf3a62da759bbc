"""The pictures that a sweep keeps as received: the first few, in their first realisations.

pictures/NAME.original.png   the original
pictures/NAME.POINT.png      as received at a point; NAME.POINT.rN.png in realisation N >= 1
....map.png                  its labels; the map received, where the codec carries one
....seen.png                 the judge's map of that picture
....tokens.png               the fate of each token, if the codec sends any (`TokenFate`)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from experiments.sweep.grid import Point
from experiments.sweep.schema import Kept
from experiments.sweep.store import PICTURES
from sqlink.data.pictures import save_map, save_picture, write_aside

FOLDER = PICTURES


class Examples:
    """The kept pictures of a sweep: their folder, and which pictures are kept, at `seed`.

    elsewhere: names of files that exist in the folder to which these are copied.
    """

    def __init__(
        self, folder: Path, kept: Kept, seed: int, elsewhere: frozenset[str] = frozenset()
    ) -> None:
        self.folder = folder / FOLDER
        self.elsewhere = elsewhere
        self.kept = kept
        self.seed = seed

    def wants(self, number: int, point: Point, realisation: int) -> bool:
        """Say whether picture `number` of the sweep is kept as received at this point."""
        drawn = point.seed == self.seed and realisation < self.kept.realisations
        return number < self.kept.pictures and drawn

    def lacks(self, number: int, name: str, point: Point, realisation: int) -> bool:
        """Say whether the picture is wanted and missing."""
        if not self.wants(number, point, realisation):
            return False
        path = received_path(self.folder, name, point.hash, realisation)
        return path.name not in self.elsewhere and not path.exists()

    def keep_original(
        self, name: str, image: Tensor, labels: Tensor | None, seen: Tensor | None
    ) -> None:
        """Write the original picture, its labels and the judge's map of it."""
        self._save(original_path(self.folder, name), image, labels, seen)

    def keep(
        self,
        name: str,
        point: Point,
        realisation: int,
        image: Tensor,
        carried: Tensor | None,
        seen: Tensor | None,
        tokens: NDArray[np.uint8] | None,
    ) -> None:
        """Write the picture as received at a point, with its maps and the fate of its tokens.

        carried: the map received; seen: the judge's map; tokens: uint8 [h, w, 3].
        """
        path = received_path(self.folder, name, point.hash, realisation)
        if tokens is not None:
            write_aside(Image.fromarray(tokens), path.with_suffix(".tokens.png"))
        self._save(path, image, carried, seen)

    def _save(self, path: Path, image: Tensor, carried: Tensor | None, seen: Tensor | None) -> None:
        """Save image, float32 [3, H, W], after the maps, int64 [H, W] or None."""
        self.folder.mkdir(exist_ok=True)
        if carried is not None:
            save_map(carried, path.with_suffix(".map.png"))
        if seen is not None:
            save_map(seen, path.with_suffix(".seen.png"))
        save_picture(image, path)


def original_path(folder: Path, name: str) -> Path:
    """Return the path of the original picture; folder: the folder of kept pictures."""
    return folder / f"{name}.original.png"


def received_path(folder: Path, name: str, point_hash: str, realisation: int = 0) -> Path:
    """Return the path of the picture as received at a point."""
    drawn = f".r{realisation}" if realisation else ""
    return folder / f"{name}.{point_hash}{drawn}.png"
