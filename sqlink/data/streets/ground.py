"""The ground: carriageway with its markings, kerbs, pavements, verges and the shadows on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.camera import Camera
from sqlink.data.streets.canvas import PAVEMENT, ROAD, TREE, Canvas, Patch
from sqlink.data.streets.light import Light, linear
from sqlink.data.streets.noise import sample, smooth

Array = NDArray[np.float32]
LENGTH = 400
"""Metres of street that are described; beyond them is haze."""
KERB = 0.16


@dataclass(frozen=True)
class Road:
    """The street's section and what is painted on it.

    half: half the carriageway, m. walk: width of the pavements (left, right), m. bend: the road's
    axis is at x = bend z^2 / 2. verge: what is behind the pavement at each metre, [2, LENGTH]: 0
    paving, 1 grass, 2 asphalt. open: where a side street comes in, [2, LENGTH].
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
        """x of the road's middle at z."""
        z = min(z, 160.0)
        return self.bend * z * z / 2


def paint(canvas: Canvas, camera: Camera, light: Light, road: Road, roofs: Array) -> None:
    """roofs: height of what casts a shadow along each side, [2, LENGTH] metres."""
    r0 = max(0, int(np.ceil(camera.cy + 0.5)))
    if r0 >= canvas.height:
        return
    rows, cols = slice(r0, canvas.height), slice(0, canvas.width)
    shape = (canvas.height - r0, canvas.width)
    patch = Patch(rows, cols, np.ones(shape, bool))
    x, z, depth = camera.plane((0, 0, 0), (1, 0, 0), (0, 0, 1), patch.y, patch.x)
    zc = np.clip(z, 0, 160)
    u = x - np.float32(road.bend / 2) * zc * zc
    iz = np.clip(z, 0, LENGTH - 1).astype(np.int32)
    step = depth * (1 / np.float32(camera.focal))
    near = np.clip(1.4 - step * np.float32(12), 0, 1)
    side = (u > 0).astype(np.int32)
    away = np.abs(u)

    half = np.float32(road.half)
    walk = np.where(side == 1, np.float32(road.walk[1]), np.float32(road.walk[0]))
    flat = road.open.ravel().take(side * LENGTH + iz)
    verge = road.verge.ravel().take(side * LENGTH + iz)
    on_road = (away < half) | flat | ((verge == 2) & (away > half + walk))
    kerb = ~on_road & (away < half + np.float32(KERB))
    grass = ~on_road & (away > half + walk) & (verge == 1)
    strip = np.where(side == 1, road.grass_strip[1], road.grass_strip[0])
    grass |= (
        strip
        & ~on_road
        & (away > half + walk * np.float32(0.12))
        & (away < half + walk * np.float32(0.5))
    )

    coarse = sample("fractal", u, z, 10.0)
    blotch = smooth("soft", u * np.float32(2.2), z, 6.0)
    fine = sample("fine", u, z, 60.0) - np.float32(0.5)
    tone = np.float32(road.asphalt) * (
        np.float32(0.72) + np.float32(0.34) * blotch + np.float32(0.22) * coarse
    )
    tone *= 1 + near * fine * np.float32(0.75)
    # Tyres polish two tracks in each lane.
    lane = np.abs(away - half * np.float32(0.5))
    tone *= 1 - np.float32(0.10) * np.clip(1 - np.abs(lane - np.float32(0.75)) * 3, 0, 1)
    tone *= 1 - np.float32(0.22) * np.clip(1 - (half - away) * np.float32(2.5), 0, 1)
    if road.patches > 0:
        block = sample("grain", np.floor(u * np.float32(0.45)), np.floor(z * np.float32(0.13)), 1.0)
        tone = np.where(block < road.patches, tone * np.float32(0.74), tone)
    seam = (np.abs(u - half * np.float32(0.07)) < 0.03) & (depth < 40)
    tone = np.where(seam, tone * np.float32(0.7), tone)
    warm = np.asarray((1 + road.warm, 1.0, 1 - road.warm), np.float32)
    colour = tone[..., None] * warm

    wear = np.clip(np.float32(1.15) - road.worn * (coarse + fine * near), 0.1, 1)
    white, yellow = _markings(road, u, z, away, side, flat)
    paint_white = np.asarray(linear((0.78, 0.78, 0.76)), np.float32)
    paint_yellow = np.asarray(linear((0.72, 0.58, 0.22)), np.float32)
    for mask, ink in ((white, paint_white), (yellow, paint_yellow)):
        share = (mask & on_road) * wear
        colour += (ink - colour) * share[..., None]

    slab_u, slab_z = u * np.float32(1.55), z * np.float32(1.1)
    joint = ((slab_u - np.floor(slab_u)) < 0.06) | ((slab_z - np.floor(slab_z)) < 0.05)
    slab = sample("grain", np.floor(slab_u), np.floor(slab_z), 1.0) - np.float32(0.5)
    paving = np.float32(road.asphalt * 1.5 + 0.05) * (
        np.float32(0.75) + np.float32(0.35) * coarse + near * slab * np.float32(0.28)
    )
    paving = np.where(joint, paving * (1 - near * np.float32(0.38)), paving)
    paving *= 1 + near * fine * np.float32(0.35)
    stone = paving[..., None] * np.asarray((1.04, 1.0, 0.94), np.float32)
    np.copyto(colour, stone, where=~on_road[..., None])
    edge = away - half
    kerb_tone = np.where(edge < 0.05, np.float32(0.16), np.float32(0.36))
    stones = (z * np.float32(1.1) - np.floor(z * np.float32(1.1))) < 0.04
    kerb_tone = np.where(stones & (depth < 25), kerb_tone * np.float32(0.7), kerb_tone)
    kerb_tone = kerb_tone * (np.float32(0.75) + np.float32(0.4) * coarse)
    np.copyto(colour, kerb_tone[..., None], where=kerb[..., None])
    blades = np.float32(0.6) + np.float32(0.9) * sample("fine", u, z, 28.0) * coarse * 2
    lawn = blades[..., None] * np.asarray(linear((0.28, 0.34, 0.16)), np.float32)
    np.copyto(colour, lawn, where=grass[..., None])

    lit = sunlit(light, road, roofs, u, np.zeros_like(u), z)
    wall = half + walk
    canyon = np.float32(0.78) - np.float32(0.22) * np.clip(away / wall, 0, 1)
    amount = np.float32(max(0.0, light.to_sun[1])) * lit
    on = canyon[..., None] * np.asarray(light.ambient, np.float32)
    on += amount[..., None] * np.asarray(light.sun, np.float32)
    colour *= on
    # At a grazing look asphalt turns into a dull mirror; rain makes it a better one.
    graze = step * np.float32(camera.focal) / (depth + np.float32(camera.height * 6))
    mirror = graze * graze * np.float32(0.10 + 0.45 * light.wet) * (np.float32(0.5) + blotch)
    if light.wet > 0:
        pools = np.clip(
            smooth("soft", u + 7, z * np.float32(0.5), 16.0) * 3 - np.float32(1.3), 0.1, 1
        )
        mirror += pools * graze * np.float32(0.35 * light.wet)
        colour *= np.float32(1 - 0.35 * light.wet)
    mirror = np.where(grass, np.float32(0), np.clip(mirror, 0, 0.8))
    colour += (np.asarray(light.horizon, np.float32) - colour) * mirror[..., None]
    canvas.rgb[rows] = light.veil(colour, depth)
    label = np.where(on_road, np.uint8(ROAD), np.uint8(PAVEMENT))
    label[grass] = TREE
    canvas.label[rows] = label


def sunlit(light: Light, road: Road, roofs: Array, u: Array, y: Array, z: Array) -> Array:
    """Share of the sun at points of the street, behind the roofs between them and it."""
    sx, sy, sz = light.to_sun
    if abs(sx) < 0.05 or sy <= 0:
        return np.ones_like(u)
    side = 1 if sx > 0 else 0
    wall = np.float32(road.half + road.walk[side] + 0.3)
    run = (wall - u * np.float32(1 if side else -1)) / np.float32(abs(sx))
    run = np.maximum(run, 0)
    tall = y + run * np.float32(sy)
    at = np.clip(z + run * np.float32(sz), 0, LENGTH - 1).astype(np.int32)
    return np.clip((tall - roofs[side].take(at)) * np.float32(1.8) + np.float32(0.5), 0, 1)


def shadow_line(light: Light, road: Road, roofs: Array, side: int) -> Array | None:
    """Height of the shadow on the faces of one side at each metre, or None where none falls."""
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
    """White and yellow paint."""
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
        z0, z1 = road.box
        zone = (z > z0) & (z < z1) & (away < half)
        white &= ~zone
        a, b = (u + z) * np.float32(0.42), (u - z) * np.float32(0.42)
        grid = ((a - np.floor(a)) < 0.055) | ((b - np.floor(b)) < 0.055)
        rim = (z < z0 + 0.18) | (z > z1 - 0.18) | (away > half - np.float32(0.15))
        yellow = np.where(zone, grid | rim, yellow)
    return white & (z < 160), yellow & (z < 120)
