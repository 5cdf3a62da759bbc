"""The dash camera: a pinhole above a street, and planes seen through it.

World: metres, x right across the street, y up, z forward along it, the ground at y = 0. The camera
stands at (x, height, 0) and looks along z, turned by `yaw`. Its pitch is given by the row of the
horizon, as with a shifted sensor, so that vertical edges stay vertical.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Point = tuple[float, float, float]
NEAR = 0.5
"""Distance of the near plane from the camera, in metres."""


def cross(a: Point, b: Point) -> Point:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def dot(a: Point, b: Point) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@lru_cache(maxsize=4096)
def turn(angle: float) -> tuple[float, float]:
    """Return cosine and sine, rounded so that they are the same on every machine."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. x, height: metres. focal: pixels. (cx, cy): the point on the horizon
    straight ahead, pixels.
    """

    x: float
    height: float
    focal: float
    cx: float
    cy: float
    yaw: float

    def view(self, p: Point) -> Point:
        """Convert a world point to camera axes: right, up, forward, from the camera."""
        c, s = turn(self.yaw)
        x, z = p[0] - self.x, p[2]
        return (x * c - z * s, p[1] - self.height, x * s + z * c)

    def direction(self, v: Point) -> Point:
        """Convert a world direction to camera axes."""
        c, s = turn(self.yaw)
        return (v[0] * c - v[2] * s, v[1], v[0] * s + v[2] * c)

    def project(self, points: Sequence[Point]) -> NDArray[np.float64] | None:
        """Project a world polygon to pixels [N, 2], clipped at the near plane; None if all of it is
        behind.
        """
        seen = [self.view(p) for p in points]
        if any(p[2] < NEAR for p in seen):
            kept: list[Point] = []
            for a, b in zip(seen, [*seen[1:], seen[0]], strict=True):
                if a[2] >= NEAR:
                    kept.append(a)
                if (a[2] >= NEAR) != (b[2] >= NEAR):
                    t = (NEAR - a[2]) / (b[2] - a[2])
                    kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), NEAR))
            seen = kept
        if len(seen) < 3:
            return None
        return np.array(
            [(self.cx + self.focal * x / z, self.cy - self.focal * y / z) for x, y, z in seen]
        )

    def spot(self, p: Point) -> tuple[float, float, float]:
        """Return pixel x, y of a point, and pixels per metre there (0 behind the camera)."""
        x, y, z = self.view(p)
        if z < NEAR:
            return 0.0, 0.0, 0.0
        scale = self.focal / z
        return self.cx + scale * x, self.cy - scale * y, scale

    def plane(
        self, origin: Point, u: Point, v: Point, rows: Array, cols: Array
    ) -> tuple[Array, Array, Array]:
        """Return the coordinates (a, b) of the point origin + a u + b v seen at each pixel, and its
        depth.

        rows [R], cols [C]: pixel centres. Returns three [R, C] arrays. With d the ray through a
        pixel, O the origin seen from the camera and n = u x v: a = -d.(O x v) / d.n, b = d.(O x u)
        / d.n, depth = O.n / d.n.
        """
        o, uu, vv = self.view(origin), self.direction(u), self.direction(v)
        normal = cross(uu, vv)
        dx = (cols - np.float32(self.cx)) / np.float32(self.focal)
        dy = (np.float32(self.cy) - rows) / np.float32(self.focal)

        def along(n: Point) -> Array:
            return (np.float32(n[0]) * dx)[None, :] + (np.float32(n[1]) * dy + np.float32(n[2]))[
                :, None
            ]

        below = along(normal)
        below = np.where(np.abs(below) < 1e-9, np.float32(1e-9), below)
        inverse = np.float32(1) / below
        return (
            -along(cross(o, vv)) * inverse,
            along(cross(o, uu)) * inverse,
            np.float32(dot(o, normal)) * inverse,
        )
