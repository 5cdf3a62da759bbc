"""The canvas: linear light and class ids at a multiple of the picture's size, painted together.

One mask paints both, so picture and map always agree. The picture is the mean of each pixel's
samples; the map is their majority, and a tie goes to the rarer class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqlink.data.classes import NAMES, NO_LABEL

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(
    len(NAMES)
)

_RANK = np.zeros(256, np.uint8)
for _place, _label in enumerate(
    (SKY, ROAD, BUILDING, PAVEMENT, TREE, NO_LABEL, CAR, FENCE, PEDESTRIAN, BICYCLIST, SIGN, POLE)
):
    _RANK[_label] = _place


@dataclass(frozen=True)
class Patch:
    """A region to paint: a box of the canvas and a mask in it."""

    rows: slice
    cols: slice
    mask: Mask

    @property
    def y(self) -> Array:
        """Pixel centres of the rows."""
        return np.arange(self.rows.start, self.rows.stop, dtype=np.float32) + np.float32(0.5)

    @property
    def x(self) -> Array:
        """Pixel centres of the columns."""
        return np.arange(self.cols.start, self.cols.stop, dtype=np.float32) + np.float32(0.5)


class Canvas:
    """The surface to paint on, `factor` times the picture's height and width.

    rgb: float32 [3, H, W], linear. label: uint8 [H, W].
    """

    def __init__(self, height: int, width: int, factor: int) -> None:
        self.factor = factor
        self.height, self.width = height * factor, width * factor
        self.rgb = np.zeros((3, self.height, self.width), np.float32)
        self.label = np.full((self.height, self.width), NO_LABEL, np.uint8)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice] | None:
        """Return the rows and columns of the pixels that may lie in a rectangle; None outside the
        canvas.
        """
        r0, r1 = max(0, int(np.floor(y0))), min(self.height, int(np.ceil(y1)) + 1)
        c0, c1 = max(0, int(np.floor(x0))), min(self.width, int(np.ceil(x1)) + 1)
        if r0 >= r1 or c0 >= c1:
            return None
        return slice(r0, r1), slice(c0, c1)

    def convex(self, points: Points | None) -> Patch | None:
        """Return the patch of the pixels whose centres are inside a convex polygon [N, 2] of (x,
        y).
        """
        if points is None:
            return None
        corners = points.tolist()
        ys = [p[1] for p in corners]
        r0 = max(0, math.ceil(max(-1.0, min(ys)) - 0.5))
        r1 = min(self.height, math.ceil(min(self.height + 1.0, max(ys)) - 0.5))
        if r0 >= r1 or corners[0][0] != corners[0][0]:
            return None
        if max(p[0] for p in corners) < 0 or min(p[0] for p in corners) > self.width:
            return None
        x, y = points[:, 0], points[:, 1]
        rows = np.arange(r0, r1) + 0.5
        after = points[[*range(1, len(corners)), 0]]
        xb, yb = after[:, 0], after[:, 1]
        rise = yb - y
        rise[rise == 0] = 1.0
        above = y[:, None] <= rows
        active = above != (yb[:, None] <= rows)
        at = x[:, None] + (rows - y[:, None]) * ((xb - x) / rise)[:, None]
        left = np.minimum.reduce(np.where(active, at, np.inf))
        right = np.maximum.reduce(np.where(active, at, -np.inf))
        c0 = max(0, math.ceil(max(-1.0, float(left.min())) - 0.5))
        c1 = min(self.width, math.ceil(min(self.width + 1.0, float(right.max())) - 0.5))
        if c0 >= c1:
            return None
        cols = np.arange(c0, c1) + 0.5
        mask = (cols >= left[:, None]) & (cols < right[:, None])
        return Patch(slice(r0, r1), slice(c0, c1), mask)

    def paint(self, patch: Patch, colour: Array | Colour, label: int | None) -> None:
        """Paint a colour [3] or [3, R, C], and a class id if given, over the patch's mask."""
        region = self.rgb[:, patch.rows, patch.cols]
        values = np.asarray(colour, np.float32)
        if values.ndim == 1:
            values = values[:, None, None]
        np.copyto(region, values, where=patch.mask)
        if label is not None:
            np.copyto(self.label[patch.rows, patch.cols], np.uint8(label), where=patch.mask)

    def blend(self, patch: Patch, colour: Array | Colour, weight: Array | float) -> None:
        """Blend in a colour [3] or [3, R, C] by a weight, a number or [R, C]; class ids do not
        change.
        """
        region = self.rgb[:, patch.rows, patch.cols]
        values = np.asarray(colour, np.float32)
        if values.ndim == 1:
            values = values[:, None, None]
        region += (values - region) * (patch.mask * np.asarray(weight, np.float32))

    def darken(self, patch: Patch, weight: float) -> None:
        """Darken the patch: weight 1 gives black, 0 changes nothing."""
        region = self.rgb[:, patch.rows, patch.cols]
        region *= 1 - patch.mask * np.float32(weight)

    def polygon(
        self, points: Points | None, top: Colour, label: int | None, bottom: Colour | None = None
    ) -> None:
        """Paint a convex polygon in one colour, or from `top` to `bottom` down the picture."""
        patch = self.convex(points)
        if patch is None or points is None:
            return
        if bottom is None:
            self.paint(patch, top, label)
            return
        y0, y1 = points[:, 1].min(), points[:, 1].max()
        t = (patch.y - np.float32(y0)) / np.float32(max(y1 - y0, 1e-6))
        upper, lower = np.asarray(top, np.float32), np.asarray(bottom, np.float32)
        self.paint(patch, (upper[:, None] * (1 - t) + lower[:, None] * t)[..., None], label)

    def resolved(self) -> tuple[Array, NDArray[np.uint8]]:
        """Return light [3, H, W] and class ids [H, W] at the picture's size."""
        rgb, label, factor = self.rgb, self.label, self.factor
        while factor > 1:
            rgb = rgb[:, 0::2] + rgb[:, 1::2]
            rgb = (rgb[:, :, 0::2] + rgb[:, :, 1::2]) * np.float32(0.25)
            label = _halved(label)
            factor //= 2
        return rgb, label


def _halved(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the majority of each 2 x 2 block."""
    four = (label[0::2, 0::2], label[0::2, 1::2], label[1::2, 0::2], label[1::2, 1::2])
    best = four[0].copy()
    score = np.zeros(best.shape, np.uint8)
    for one in four:
        votes = np.zeros(best.shape, np.uint8)
        for other in four:
            votes += one == other
        votes = votes * np.uint8(16) + _RANK[one]
        better = votes > score
        best[better] = one[better]
        score[better] = votes[better]
    return best
