"""Bare and leafy trees, bushes and hedges.

A bare tree is built level by level, all branches of a level at once. Its crown is labelled as an
annotator would outline it, with small gaps between twigs included; the picture shows the twigs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.camera import Camera, dot
from sqlink.data.streets.canvas import TREE, Canvas, Colour, Patch
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear
from sqlink.data.streets.noise import sample

Array = NDArray[np.float32]
Lines = NDArray[np.float64]


@dataclass(frozen=True)
class Plant:
    """One plant. kind: `bare`, `leafy`, `conifer` or `bush`. x, z: position, m. spread: crown
    width, m.
    """

    kind: str
    x: float
    z: float
    height: float
    spread: float
    seed: int
    tint: Colour


GREENS: tuple[Colour, ...] = (
    (0.34, 0.38, 0.20),
    (0.28, 0.34, 0.19),
    (0.38, 0.39, 0.22),
    (0.25, 0.31, 0.20),
    (0.42, 0.38, 0.22),
)
BARK: tuple[Colour, ...] = ((0.29, 0.24, 0.19), (0.22, 0.19, 0.16), (0.33, 0.29, 0.24))


def choose(dice: Dice, x: float, z: float, kind: str | None = None) -> Plant:
    """Choose a plant of a kind, or of the mix of a street in winter."""
    kind = kind or dice.pick(("bare", "leafy", "conifer"), (0.55, 0.3, 0.15))
    if kind == "bush":
        height = dice.uniform(0.8, 2.4)
        spread = height * dice.uniform(1.0, 2.2)
    elif kind == "conifer":
        height = dice.uniform(6, 13)
        spread = height * dice.uniform(0.3, 0.5)
    else:
        height = dice.uniform(5.5, 12)
        spread = height * dice.uniform(0.55, 0.85)
    tint = dice.pick(BARK) if kind == "bare" else dice.pick(GREENS)
    return Plant(kind, x, z, height, spread, dice.integer(0, 1 << 30), linear(tint))


def paint(canvas: Canvas, camera: Camera, light: Light, plant: Plant, lit: float) -> None:
    if plant.kind == "bare":
        _bare(canvas, camera, light, plant, lit)
    else:
        _leafy(canvas, camera, light, plant, lit)


def _branches(plant: Plant, thinnest: float) -> tuple[Lines, Lines, Lines]:
    """Return the segments of a bare tree in units of its height: starts [K, 2], ends [K, 2], widths
    [K].

    Levels whose branches are thinner than `thinnest` are left out.
    """
    dice = Dice(plant.seed, "branches")
    lean = dice.uniform(-0.05, 0.05)
    wide = plant.spread / plant.height
    start = np.array([[0.0, 0.0]])
    way = np.array([[lean, 1.0]])
    length = np.array([dice.uniform(0.24, 0.36)])
    width = np.array([0.030])
    starts, ends, widths = [], [], []
    for level in range(7):
        end = start + way * length[:, None]
        bend = (dice.many(len(start), 2) - 0.5) * length[:, None] * 0.16
        middle = (start + end) / 2 + bend
        starts += [start, middle]
        ends += [middle, end]
        widths += [width, width * 0.85]
        if level == 6 or float(width.max()) * 0.6 < thinnest:
            break
        count = 4 if level in (0, 2, 4) else 3
        place = 1 - dice.many(len(start), count) * (0.42 if level else 0.35)
        place[:, 0] = 1.0
        origin = np.where(
            place[..., None] > 0.5,
            middle[:, None] + (end - middle)[:, None] * (2 * place[..., None] - 1),
            start[:, None] + (middle - start)[:, None] * 2 * place[..., None],
        )
        spread = (dice.many(len(start), count) - 0.5) * 2.0 * (0.75 + 0.5 * wide)
        spread += np.linspace(-0.55, 0.55, count) * (1.0 + wide)
        turned = np.stack(
            [
                way[:, None, 0] + spread * way[:, None, 1],
                way[:, None, 1] - spread * way[:, None, 0] + 0.3,
            ],
            axis=-1,
        )
        size = np.sqrt((turned * turned).sum(axis=-1, keepdims=True))
        way = (turned / np.maximum(size, 1e-6)).reshape(-1, 2)
        start = origin.reshape(-1, 2)
        shrink = 0.58 + 0.24 * dice.many(len(start))
        length = np.repeat(length, count) * shrink
        width = np.repeat(width, count) * 0.60
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(widths)


def _bare(canvas: Canvas, camera: Camera, light: Light, plant: Plant, lit: float) -> None:
    x, y, scale = camera.spot((plant.x, 0.0, plant.z))
    if scale == 0:
        return
    room = plant.spread * 1.1 * scale
    if x + room < 0 or x - room > canvas.width:
        return
    starts, ends, widths = _branches(plant, 0.2 / (plant.height * scale))
    top = max(float(ends[:, 1].max()), 1e-6)
    size = plant.height * scale / top
    reach = float(np.abs(ends[:, 0]).max()) * size + 4
    box = canvas.box(x - reach, y - plant.height * scale - 4, x + reach, y + 2)
    if box is None:
        return
    rows, cols = box
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    thick = widths * size
    # Low branches over a street are cut.
    seen = (thick > 0.2) & ((ends[:, 1] > 0.27 * top) | (widths > 0.024))
    starts, ends, thick = starts[seen] * size, ends[seen] * size, np.maximum(thick[seen], 1.0)
    dx, dy = ends[:, 0] - starts[:, 0], ends[:, 1] - starts[:, 1]
    span = np.sqrt(dx * dx + dy * dy)
    across = np.ceil(thick * 1.2).astype(np.int64)
    along = np.ceil(span * 1.2).astype(np.int64) + 1
    number = across * along
    step = np.arange(int(number.sum())) - np.repeat(np.cumsum(number) - number, number)
    wide = np.repeat(across, number)
    t = (step // wide) / np.repeat(along, number)
    w = ((step % wide) + 0.5) / wide - 0.5
    thick_at = np.repeat(thick, number)
    off = w * thick_at
    inverse = 1 / np.maximum(span, 1e-6)
    px = np.repeat(starts[:, 0], number) + np.repeat(dx, number) * t
    px -= np.repeat(dy * inverse, number) * off
    py = np.repeat(starts[:, 1], number) + np.repeat(dy, number) * t
    py += np.repeat(dx * inverse, number) * off
    ix = np.floor(x + px - cols.start).astype(np.int64)
    iy = np.floor(y - py - rows.start).astype(np.int64)
    inside = (ix >= 0) & (ix < shape[1]) & (iy >= 0) & (iy < shape[0])
    ix, iy, w, thick_at = ix[inside], iy[inside], w[inside], thick_at[inside]
    depth = camera.view((plant.x, 1.0, plant.z))[2]
    on = light.on((0.0, 0.4, -0.9), lit)
    side = camera.direction(light.to_sun)[0] * lit
    bright = (1.0 + 0.9 * side * w * 2).astype(np.float32)
    fine = np.minimum(thick_at / 3.0, 1.0).astype(np.float32)
    albedo = np.asarray(plant.tint, np.float32) * np.asarray(on, np.float32)
    bright *= np.float32(0.75) + np.float32(0.25) * fine
    share = np.float32(light.haze_share(depth))
    # Twigs thinner than a sample cover a share of it.
    solid = np.where(thick_at <= 1.0, np.float32(0.8), np.float32(1))
    for c in range(3):
        colour = albedo[c] * bright
        colour += (np.float32(light.horizon[c]) - colour) * share
        region = canvas.rgb[c, rows, cols]
        region[iy, ix] = region[iy, ix] * (1 - solid) + colour * solid
    hit = np.zeros(shape, np.float32)
    hit[iy, ix] = 1
    stem = np.zeros(shape, bool)
    stem[iy[thick_at > 2], ix[thick_at > 2]] = True
    radius = max(1, int(canvas.height * 0.0075 + plant.height * scale * 0.008))
    crown = _boxed(hit, radius) > np.float32(0.17)
    upper = (np.arange(rows.start, rows.stop) < y - 0.16 * plant.height * scale)[:, None]
    label = canvas.label[rows, cols]
    label[(crown & upper) | stem] = TREE


def _boxed(field: Array, radius: int) -> Array:
    """Average a field over (2 radius + 1) squares."""
    size = 2 * radius + 1
    padded = np.pad(field, ((radius + 1, radius), (radius + 1, radius)))
    total = padded.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    boxed = (
        total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    )
    mean: Array = (boxed / (size * size)).astype(np.float32)
    return mean


def _leafy(canvas: Canvas, camera: Camera, light: Light, plant: Plant, lit: float) -> None:
    x, y, scale = camera.spot((plant.x, 0.0, plant.z))
    if scale == 0:
        return
    dice = Dice(plant.seed, "crown")
    half, tall = plant.spread / 2, plant.height
    box = canvas.box(x - half * 1.25 * scale, y - tall * 1.1 * scale, x + half * 1.25 * scale, y)
    if box is None:
        return
    rows, cols = box
    depth = camera.view((plant.x, 1.0, plant.z))[2]
    patch = Patch(rows, cols, np.zeros((0, 0), bool))
    # Metres to the right of the stem and above the ground.
    a = ((patch.x - np.float32(x)) / np.float32(scale))[None, :] + np.zeros(
        (rows.stop - rows.start, 1), np.float32
    )
    b = ((np.float32(y) - patch.y) / np.float32(scale))[:, None] + np.zeros_like(a)
    salt = np.float32(plant.seed % 997)
    wobble = sample("fractal", a + salt, b, 60.0) - np.float32(0.5)
    leaf = sample("fine", a + salt, b, 34.0)
    grow = np.float32(0.55 if plant.kind != "bush" else 0.35)
    wa, wb = a + wobble * grow, b + sample("fractal", b, a + salt, 60.0) * grow - grow / 2
    floor = 0.0 if plant.kind == "bush" else tall * dice.uniform(0.14, 0.28)
    if plant.kind == "conifer":
        floor = tall * 0.06
    crown = tall - floor
    lumps: list[tuple[float, float, float]] = []
    for k in range({"bush": 9, "conifer": 34}.get(plant.kind, 26)):
        if plant.kind == "conifer":
            level = k / 34
            room = half * (1.04 - level)
            radius = 0.55 * room + 0.10 * half
            centre = dice.uniform(-1, 1) * max(0.0, room - radius * 0.5)
        elif plant.kind == "bush":
            level, room = dice.uniform(0.12, 0.85), half
            radius = min(0.42 * room + 0.1 * half, tall * 0.5) * dice.uniform(0.7, 1.1)
            centre = dice.uniform(-1, 1) * max(0.0, room - radius * 0.6)
        else:
            level = dice.uniform(0.1, 0.95)
            room = half * 2 * math.sqrt(level * (1 - level))
            radius = half * dice.uniform(0.24, 0.46)
            centre = dice.uniform(-1, 1) * max(0.1 * half, room - radius * 0.4)
        up = floor + level * crown
        lumps.append((centre, min(up, tall - radius * 0.8), radius))
    relief = np.full(a.shape, -1, np.float32)
    nx, ny = np.zeros_like(a), np.zeros_like(a)
    for centre, up, radius in lumps:
        reach = radius * 1.1 + float(grow) * 0.5
        near = canvas.box(
            x + (centre - reach) * scale,
            y - (up + reach) * scale,
            x + (centre + reach) * scale,
            y - (up - reach) * scale,
        )
        if near is None:
            continue
        here = (
            slice(max(0, near[0].start - rows.start), max(0, near[0].stop - rows.start)),
            slice(max(0, near[1].start - cols.start), max(0, near[1].stop - cols.start)),
        )
        da = (wa[here] - np.float32(centre)) / np.float32(radius)
        db = (wb[here] - np.float32(up)) / np.float32(radius)
        rise = 1 - da * da - db * db
        better = rise > relief[here]
        np.copyto(relief[here], rise, where=better)
        np.copyto(nx[here], da, where=better)
        np.copyto(ny[here], db, where=better)
    mask = relief > (leaf - np.float32(0.42)) * np.float32(0.9)
    mask &= b > 0
    sun = camera.direction(light.to_sun)
    nz = np.sqrt(np.maximum(relief, 0))
    facing = np.maximum(
        nx * np.float32(sun[0]) + ny * np.float32(sun[1]) - nz * np.float32(sun[2]), 0
    )
    sky = np.float32(0.60) + np.float32(0.36) * ny + np.float32(0.2) * nz
    sky = np.maximum(sky, 0.12) * (np.float32(0.2) + leaf * np.float32(1.9))
    direct = facing * np.clip(leaf * 3 - np.float32(0.7), 0, 1.8) * np.float32(lit)
    warm = np.float32(0.8) + np.float32(0.4) * sample("fine", a, b + salt, 21.0)
    colour = light.seen(
        [plant.tint],
        np.zeros(a.shape, np.uint8),
        warm,
        sky,
        direct,
        np.full(a.shape, depth, np.float32),
    )
    stem = 0.018 * tall * scale
    if plant.kind == "leafy" and stem > 0.6:
        canvas.polygon(
            np.array(
                [
                    (x - stem, y),
                    (x - stem * 0.7, y - (floor + 0.3 * crown) * scale),
                    (x + stem * 0.7, y - (floor + 0.3 * crown) * scale),
                    (x + stem, y),
                ]
            ),
            light.shade(linear((0.27, 0.23, 0.19)), (0.0, 0.3, -0.9), depth, lit),
            TREE,
        )
    canvas.paint(Patch(rows, cols, mask), colour, TREE)


def hedge(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    ends: tuple[tuple[float, float], tuple[float, float]],
    height: float,
    tint: Colour,
    lit: float,
) -> None:
    """Paint a clipped hedge along the ground from one (x, z) to another."""
    (x0, z0), (x1, z1) = ends
    corners = [(x0, 0.0, z0), (x0, height * 1.06, z0), (x1, height * 1.06, z1), (x1, 0.0, z1)]
    patch = canvas.convex(camera.project(corners))
    if patch is None:
        return
    size = max(1e-6, math.sqrt((x1 - x0) * (x1 - x0) + (z1 - z0) * (z1 - z0)))
    u, v, depth = camera.plane(
        (x0, 0.0, z0), ((x1 - x0) / size, 0.0, (z1 - z0) / size), (0.0, 1.0, 0.0), patch.y, patch.x
    )
    leaf = sample("fine", u + np.float32(z0), v, 40.0)
    clump = sample("fractal", u + np.float32(z0), v, 46.0)
    mask = patch.mask & (v < np.float32(height) * (np.float32(0.94) + clump * np.float32(0.12)))
    normal = (-1.0 if x0 > camera.x else 1.0, 0.35, -0.3)
    sun = max(0.0, dot(normal, light.to_sun)) * lit
    rise = np.float32(0.35) + np.float32(0.65) * np.clip(v / np.float32(height), 0, 1)
    bright = rise * (np.float32(0.3) + np.float32(1.1) * leaf + np.float32(0.45) * clump)
    colour = light.seen([tint], np.zeros(u.shape, np.uint8), bright, 0.75, sun, depth)
    canvas.paint(Patch(patch.rows, patch.cols, mask), colour, TREE)
