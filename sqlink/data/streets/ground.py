"""The ground: carriageway with its markings, kerbs, pavements, verges and the shadows on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.camera import Camera
from sqlink.data.streets.canvas import PAVEMENT, ROAD, TREE, Canvas, Colour
from sqlink.data.streets.light import Light, linear
from sqlink.data.streets.noise import sample, smooth

Array = NDArray[np.float32]
LENGTH = 400
"""Length of the street in metres; beyond it is haze."""
KERB = 0.16
PAVED, GRASS, ASPHALT, BUILT = range(4)
"""Surfaces behind the pavement."""


@dataclass(frozen=True)
class Road:
    """The cross-section of the street and its markings.

    half: half the carriageway's width, m. walk: width of the pavements (left, right), m. bend: the
    road's axis is at x = bend z^2 / 2. verge: surface behind the pavement at each metre, [2,
    LENGTH]. open: where a side street joins, [2, LENGTH].
    """

    half: float
    walk: tuple[float, float]
    bend: float
    verge: NDArray[np.uint8]
    open: NDArray[np.bool_]
    centre: str
    dash: tuple[float, float]
    yellow: tuple[bool, bool]
    crossing: float | None
    box: tuple[float, float] | None
    hatched: bool
    bay: bool
    worn: float
    asphalt: float
    warm: float
    patches: float
    grass_strip: tuple[bool, bool]

    def axis(self, z: float) -> float:
        """Return x of the road's middle at z."""
        z = min(z, 160.0)
        return self.bend * z * z / 2


def paint(canvas: Canvas, camera: Camera, light: Light, road: Road, roofs: Array) -> None:
    """Paint the ground. roofs: heights that cast shadows on each side, metres, [2, LENGTH]."""
    r0 = max(0, int(np.ceil(camera.cy + 0.5)))
    if r0 >= canvas.height:
        return
    rows = np.arange(r0, canvas.height, dtype=np.float32) + np.float32(0.5)
    cols = np.arange(canvas.width, dtype=np.float32) + np.float32(0.5)
    x, z, depth = camera.plane((0, 0, 0), (1, 0, 0), (0, 0, 1), rows, cols)
    zc = np.clip(z, 0, 160)
    u = x - np.float32(road.bend / 2) * zc * zc
    side = u > 0
    away = np.abs(u)
    at = np.clip(z, 0, LENGTH - 1).astype(np.int32) + side * np.int32(LENGTH)
    walk = np.asarray(road.walk, np.float32).take(side)
    flat = road.open.ravel().take(at)
    verge = road.verge.ravel().take(at)
    beyond = away > np.float32(road.half) + walk
    on_road = (away < np.float32(road.half)) | flat | ((verge == ASPHALT) & beyond)
    hidden = beyond & (verge == BUILT) & ~flat
    label = np.where(on_road, np.uint8(ROAD), np.uint8(PAVEMENT))
    canvas.rgb[:, r0:] = np.asarray(light.through((0.05, 0.05, 0.05), 60), np.float32)[
        :, None, None
    ]

    def part(chosen: NDArray[np.bool_], carriageway: bool) -> None:
        index = np.flatnonzero(chosen)
        if not len(index):
            return
        spot = _Ground(
            u.take(index), z.take(index), depth.take(index), walk.take(index), flat.take(index)
        )
        if carriageway:
            tones, which, bright, blotch = _carriageway(road, camera, spot)
            kind = None
        else:
            tones, which, bright, blotch = _pavement(road, camera, spot, verge.take(index))
            kind = which == GRASS_TONE
            label.ravel()[index[kind]] = TREE
        distance = np.abs(spot.u)
        sun = sunlit(light, road, roofs, spot.u, np.zeros_like(spot.u), spot.z)
        sun *= np.float32(max(0.0, light.to_sun[1]))
        wall = np.float32(road.half) + spot.walk
        sky = np.float32(0.78) - np.float32(0.22) * np.clip(distance / wall, 0, 1)
        # At a grazing angle asphalt reflects like a dull mirror, more so in rain.
        graze = spot.depth / (spot.depth + np.float32(camera.height * 6))
        mirror = graze * graze * np.float32(0.07 + 0.40 * light.wet) * (np.float32(0.4) + blotch)
        if light.wet > 0:
            pools = smooth("soft", spot.u + 7, spot.z * np.float32(0.5), 16.0) * 3
            pools = np.clip(pools - np.float32(1.3), 0.1, 1)
            mirror += pools * graze * np.float32(0.35 * light.wet)
            bright *= np.float32(1 - 0.35 * light.wet)
        mirror = np.clip(mirror, 0, 0.8)
        if kind is not None:
            mirror[kind] = 0
        seen = light.seen(tones, which, bright, sky, sun, spot.depth, mirror)
        for c in range(3):
            canvas.rgb[c, r0:].reshape(-1)[index] = seen[c]

    part(on_road, True)
    part(~on_road & ~hidden, False)
    canvas.label[r0:] = label


@dataclass(frozen=True)
class _Ground:
    """Points of the ground [n]: position across and along the street, distance, pavement width."""

    u: Array
    z: Array
    depth: Array
    walk: Array
    flat: NDArray[np.bool_]


GRASS_TONE = 2


def _carriageway(
    road: Road, camera: Camera, at: _Ground
) -> tuple[list[Colour], NDArray[np.uint8], Array, Array]:
    """Return the carriageway's reflectances, their index per pixel, brightness, and blotches of
    dust.
    """
    u, z = at.u, at.z
    half, away = np.float32(road.half), np.abs(at.u)
    near = np.clip(1.4 - at.depth * np.float32(12 / camera.focal), 0, 1)
    coarse = sample("fractal", u, z, 10.0)
    blotch = smooth("soft", u * np.float32(2.2), z, 6.0)
    fine = (sample("fine", u, z, 60.0) - np.float32(0.5)) * near
    bright = np.float32(0.72) + np.float32(0.34) * blotch + np.float32(0.22) * coarse
    bright *= 1 + fine * np.float32(0.8)
    # Tyres polish two tracks in each lane; dirt gathers along the kerb.
    track = np.abs(np.abs(away - half * np.float32(0.5)) - np.float32(0.75))
    bright *= 1 - np.float32(0.12) * np.clip(1 - track * 3, 0, 1)
    bright *= 1 - np.float32(0.22) * np.clip(1 - (half - away) * np.float32(2.5), 0, 1)
    if road.patches > 0:
        block = sample("grain", np.floor(u * np.float32(0.45)), np.floor(z * np.float32(0.13)), 1.0)
        bright *= np.where(block < road.patches, np.float32(0.76), np.float32(1))
    wander = smooth("soft", z * np.float32(0.8), np.full_like(z, 3.0), 6.0)
    seam = (np.abs(u - half * np.float32(0.07) - wander + np.float32(0.5)) < 0.025) & (
        at.depth < 45
    )
    bright *= np.where(seam, np.float32(0.66), np.float32(1))
    which = np.zeros(len(u), np.uint8)
    white, yellow = _markings(road, u, z, away, (u > 0).astype(np.int32), at.flat)
    bright_paint = np.clip(np.float32(1.1) - road.worn * (coarse * np.float32(0.9) + fine), 0.25, 1)
    which[white], which[yellow] = 1, 2
    bright = np.where(which > 0, bright_paint, bright)
    tar = (road.asphalt * (1 + road.warm), road.asphalt, road.asphalt * (1 - road.warm))
    tones = [tar, linear((0.78, 0.78, 0.76)), linear((0.72, 0.58, 0.22))]
    return tones, which, bright, blotch


def _pavement(
    road: Road, camera: Camera, at: _Ground, verge: NDArray[np.uint8]
) -> tuple[list[Colour], NDArray[np.uint8], Array, Array]:
    """Return the same for kerbs, slabs and grass."""
    u, z = at.u, at.z
    edge = np.abs(u) - np.float32(road.half)
    near = np.clip(1.4 - at.depth * np.float32(12 / camera.focal), 0, 1)
    coarse = sample("fractal", u, z, 10.0)
    fine = sample("fine", u, z, 28.0)
    slab_u, slab_z = u * np.float32(1.55), z * np.float32(1.1)
    row, column = np.floor(slab_u), np.floor(slab_z)
    joint = ((slab_u - row) < 0.06) | ((slab_z - column) < 0.05)
    slab = sample("grain", row, column, 1.0) - np.float32(0.5)
    bright = np.float32(0.72) + np.float32(0.42) * coarse + near * slab * np.float32(0.3)
    bright *= 1 - joint * near * np.float32(0.38)
    bright *= 1 + near * (fine - np.float32(0.5)) * np.float32(0.3)
    which = np.zeros(len(u), np.uint8)
    kerb = edge < np.float32(KERB)
    face = np.where(edge < 0.05, np.float32(0.5), np.float32(1.05))
    face *= 1 - np.float32(0.3) * (((slab_z - column) < 0.04) & (at.depth < 25))
    bright = np.where(kerb, face * (np.float32(0.75) + np.float32(0.4) * coarse), bright)
    which[kerb] = 1
    strip = np.asarray(road.grass_strip).take((u > 0).astype(np.int32))
    strip &= (edge > at.walk * np.float32(0.12)) & (edge < at.walk * np.float32(0.5))
    grass = strip | ((edge > at.walk) & (verge == GRASS))
    bright = np.where(grass, np.float32(0.6) + np.float32(1.8) * fine * coarse, bright)
    which[grass] = GRASS_TONE
    grey = road.asphalt * 1.5 + 0.05
    tones = [(grey * 1.04, grey, grey * 0.94), (0.33, 0.33, 0.31), linear((0.30, 0.36, 0.18))]
    return tones, which, bright, coarse


def sunlit(light: Light, road: Road, roofs: Array, u: Array, y: Array, z: Array) -> Array:
    """Return the share of sunlight at points of the street, given the roofs that cast shadows."""
    sx, sy, sz = light.to_sun
    if abs(sx) < 0.05 or sy <= 0:
        return np.ones_like(u)
    side = 1 if sx > 0 else 0
    wall = np.float32(road.half + road.walk[side] + 0.3)
    run = (wall - u * np.float32(1 if side else -1)) / np.float32(abs(sx))
    run = np.maximum(run, 0)
    tall = y + run * np.float32(sy)
    at = np.clip(z + run * np.float32(sz), 0, LENGTH - 1).astype(np.int32)
    above = (tall - roofs[side].take(at)) * np.float32(1.8) + np.float32(0.5)
    share: Array = np.clip(above, 0, 1)
    return share


def shadow_line(light: Light, road: Road, roofs: Array, side: int) -> Array | None:
    """Return the height of the shadow on the faces of one side at each metre; None without one."""
    sx, sy, sz = light.to_sun
    other = 1 - side
    if (sx > 0) != (other == 1) or abs(sx) < 0.05:
        return None
    across = 2 * road.half + sum(road.walk) + 0.3
    run = across / abs(sx)
    z = np.arange(LENGTH, dtype=np.float32)
    at = np.clip(z + np.float32(run * sz), 0, LENGTH - 1).astype(np.int32)
    return np.asarray(roofs[other].take(at) - np.float32(run * sy), np.float32)


def _markings(
    road: Road, u: Array, z: Array, away: Array, side: NDArray[np.int32], flat: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the white and yellow paint."""
    half = np.float32(road.half)
    mark, gap = road.dash
    period = np.float32(mark + gap)
    phase = z / period - np.floor(z / period)
    dashed = phase < np.float32(mark / (mark + gap))
    if road.centre == "dash":
        white = (away < 0.06) & dashed
    elif road.centre == "double":
        white = np.abs(away - np.float32(0.12)) < 0.05
    elif road.centre == "zigzag":
        saw = np.abs(z / 4 - np.floor(z / 4) - np.float32(0.5)) * np.float32(1.2)
        white = np.abs(away - np.float32(0.25) - saw) < 0.07
    else:
        white = np.zeros(u.shape, bool)
    if road.hatched:
        zone = away < 0.85
        slant = (z + u * 1) * np.float32(0.5)
        white |= zone & ((slant - np.floor(slant)) < 0.16)
        white |= (np.abs(away - np.float32(0.9)) < 0.06) & dashed
    if road.bay:
        line = np.abs(u + half - np.float32(2.1)) < 0.05
        ticks = (u < -half + np.float32(2.1)) & ((z / 6 - np.floor(z / 6)) < 0.014)
        white |= (line & ((z * np.float32(0.8) - np.floor(z * np.float32(0.8))) < 0.6)) | ticks
    yellow = np.zeros(u.shape, bool)
    inner = half - away
    lines = (np.abs(inner - np.float32(0.25)) < 0.045) | (np.abs(inner - np.float32(0.45)) < 0.045)
    for k in (0, 1):
        if road.yellow[k]:
            yellow |= lines & (side == k) & ~flat
    if road.crossing is not None:
        z0 = np.float32(road.crossing)
        zone = (z > z0 - 2) & (z < z0 + 5)
        white &= ~zone
        yellow &= ~zone
        bars = u * np.float32(0.8) - np.floor(u * np.float32(0.8))
        white |= (z > z0) & (z < z0 + np.float32(3.0)) & (bars < 0.5) & (away < half)
        white |= (np.abs(z - z0 + np.float32(1.2)) < 0.12) & (u < 0) & (away < half)
    if road.box is not None:
        b0, b1 = road.box
        zone = (z > b0) & (z < b1) & (away < half)
        white &= ~zone
        a, b = (u + z) * np.float32(0.42), (u - z) * np.float32(0.42)
        grid = ((a - np.floor(a)) < 0.055) | ((b - np.floor(b)) < 0.055)
        rim = (z < b0 + 0.18) | (z > b1 - 0.18) | (away > half - np.float32(0.15))
        yellow = np.where(zone, grid | rim, yellow)
    return white & (z < 160), yellow & (z < 120)
