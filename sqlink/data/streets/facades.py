"""Houses along the street: façades of brick, stone, render or glass, shops, roofs, chimneys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.camera import Camera, Point, dot
from sqlink.data.streets.canvas import BUILDING, SIGN, Canvas, Colour
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear
from sqlink.data.streets.noise import hashed, sample

Array = NDArray[np.float32]

WALLS: tuple[tuple[str, Colour, float], ...] = (
    ("brick", (0.60, 0.50, 0.36), 5),
    ("brick", (0.52, 0.35, 0.27), 4),
    ("brick", (0.47, 0.40, 0.31), 3),
    ("render", (0.85, 0.83, 0.77), 4),
    ("render", (0.78, 0.72, 0.58), 2),
    ("render", (0.62, 0.66, 0.68), 1),
    ("stone", (0.60, 0.56, 0.47), 3),
    ("concrete", (0.58, 0.57, 0.54), 1.5),
    ("glass", (0.36, 0.40, 0.43), 0.8),
)
SHOPS: tuple[Colour, ...] = (
    (0.10, 0.16, 0.38),
    (0.45, 0.08, 0.08),
    (0.08, 0.26, 0.18),
    (0.12, 0.12, 0.13),
    (0.75, 0.73, 0.66),
    (0.62, 0.46, 0.10),
    (0.22, 0.10, 0.22),
    (0.72, 0.30, 0.08),
)
ROOFS: tuple[Colour, ...] = (
    (0.30, 0.29, 0.30),
    (0.42, 0.29, 0.23),
    (0.36, 0.32, 0.27),
    (0.24, 0.25, 0.27),
)


@dataclass(frozen=True)
class House:
    """One building. side: -1 left, 1 right. x0, x1: its street face at z0 and at z1.

    hidden: metres of its near end wall that the next house covers.
    """

    side: int
    x0: float
    x1: float
    z0: float
    z1: float
    height: float
    storey: float
    pitch: float
    material: str
    wall: Colour
    roof: str
    roof_tone: Colour
    depth: float
    ground: str
    shop: Colour
    window_share: float
    frame: Colour
    dressed: bool
    seed: int
    projecting: bool
    hidden: float = 0.0


def choose(dice: Dice, side: int, x0: float, x1: float, z0: float, z1: float, town: float) -> House:
    """Choose a house between z0 and z1. town: 0 for a suburb's houses, 1 for shops and offices."""
    material, wall, _ = dice.pick(WALLS, [w for _, _, w in WALLS])
    storey = dice.uniform(2.7, 3.6)
    storeys = dice.pick((2, 3, 4), (4 - 3 * town, 2 + 2 * town, 0.3 + 1.6 * town))
    if material == "glass":
        storeys += 1
    ground = dice.pick(("shop", "door", "plain"), (0.1 + 1.4 * town, 1.0 - 0.6 * town, 0.25))
    flat = material in ("glass", "concrete") or dice.chance(0.15 + 0.2 * town)
    vary = dice.uniform(0.8, 1.12)
    return House(
        side=side,
        x0=x0,
        x1=x1,
        z0=z0,
        z1=z1,
        height=storey * storeys + dice.uniform(0.2, 0.9),
        storey=storey,
        pitch=dice.uniform(1.7, 3.3) if material != "glass" else dice.uniform(1.3, 1.8),
        material=material,
        wall=linear((wall[0] * vary, wall[1] * vary, wall[2] * vary)),
        roof="flat" if flat else dice.pick(("eaves", "gable"), (4, 1)),
        roof_tone=linear(dice.pick(ROOFS)),
        depth=dice.uniform(6, 11),
        ground=ground,
        shop=linear(dice.pick(SHOPS)),
        window_share=dice.uniform(0.36, 0.52) if material != "glass" else 0.88,
        frame=linear((0.82, 0.82, 0.80)) if dice.chance(0.75) else linear((0.16, 0.15, 0.14)),
        dressed=dice.chance(0.55),
        seed=dice.integer(0, 1 << 20),
        projecting=dice.chance(0.12 + 0.35 * town),
    )


def paint(
    canvas: Canvas, camera: Camera, light: Light, house: House, shade_of_road: Array | None
) -> None:
    """Paint the end wall, the roof and the chimneys, then the street face over them.

    shade_of_road: height of the opposite side's shadow on this face, metres, at each metre of z.
    """
    _roof(canvas, camera, light, house)
    _end_wall(canvas, camera, light, house)
    _face(canvas, camera, light, house, shade_of_road)


def _end_wall(canvas: Canvas, camera: Camera, light: Light, house: House) -> None:
    out = house.x0 + house.side * house.depth
    low, top = house.hidden, house.height
    ridge = top + (house.depth * 0.36 if house.roof != "flat" else 0.0)
    middle = house.x0 + house.side * house.depth / 2
    corners: list[Point] = [
        (house.x0, low, house.z0),
        (house.x0, top, house.z0),
        (middle, ridge, house.z0),
        (out, top, house.z0),
        (out, low, house.z0),
    ]
    patch = canvas.convex(camera.project(corners))
    if patch is None:
        return
    s, y, depth = camera.plane(
        (house.x0, 0.0, house.z0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), patch.y, patch.x
    )
    bright = _wall(house, s, y, _step(s))
    bright *= np.float32(0.62) + np.float32(0.38) * np.clip(y / np.float32(3), 0, 1)
    sun = max(0.0, -light.to_sun[2])
    flat = np.zeros(s.shape, np.uint8)
    canvas.paint(patch, light.seen([house.wall], flat, bright, 0.6, sun, depth), BUILDING)


def _roof(canvas: Canvas, camera: Camera, light: Light, house: House) -> None:
    if house.roof == "flat":
        return
    half = house.side * house.depth / 2
    rise = house.depth * 0.36
    h = house.height
    corners: list[Point] = [
        (house.x0 - house.side * 0.3, h - 0.12, house.z0),
        (house.x0 + half, h + rise, house.z0),
        (house.x1 + half, h + rise, house.z1),
        (house.x1 - house.side * 0.3, h - 0.12, house.z1),
    ]
    patch = canvas.convex(camera.project(corners))
    if patch is not None:
        up: Point = (half, rise, 0.0)
        size = math.sqrt(half * half + rise * rise)
        up = (up[0] / size, up[1] / size, 0.0)
        s, t, depth = camera.plane((house.x0, h, 0.0), (0.0, 0.0, 1.0), up, patch.y, patch.x)
        course = np.floor(t * np.float32(5))
        tile = sample("grain", s * np.float32(4) + course * np.float32(0.5), course, 1.0)
        stain = sample("fractal", s, t, 20.0)
        bright = np.float32(0.55) + np.float32(0.35) * tile + np.float32(0.6) * stain
        line = (t * np.float32(5) - course) < np.float32(0.18)
        bright = np.where(line & (depth < 30), bright * np.float32(0.7), bright)
        sun = max(0.0, -up[1] * house.side * light.to_sun[0] + abs(up[0]) * light.to_sun[1])
        flat = np.zeros(s.shape, np.uint8)
        canvas.paint(patch, light.seen([house.roof_tone], flat, bright, 0.9, sun, depth), BUILDING)
    if house.seed % 3:
        where = 0.15 if house.seed % 2 else 0.8
        z = house.z0 + (house.z1 - house.z0) * where
        x = house.x0 + half * 0.92
        top = h + rise + 1.1
        _block(canvas, camera, light, house, (x, h + rise * 0.7, z), (0.45, top, 0.8))
        for k in range(3):
            _block(
                canvas,
                camera,
                light,
                house,
                (x, top - 0.05, z + 0.2 + 0.4 * k - 0.4),
                (0.11, top + 0.42, 0.11),
                True,
            )


def _block(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    house: House,
    at: Point,
    size: tuple[float, float, float],
    pot: bool = False,
) -> None:
    """Paint an upright block: half width, top, half depth."""
    x, y, z = at
    w, top, d = size
    tone = (0.22, 0.10, 0.05) if pot else house.wall
    face = x - house.side * w
    depth = max(1.0, camera.view(at)[2])
    street = light.shade(tone, (-float(house.side), 0.0, 0.0), depth)
    canvas.polygon(
        camera.project(
            [(face, y, z - d), (face, top, z - d), (face, top, z + d), (face, y, z + d)]
        ),
        street,
        BUILDING,
    )
    canvas.polygon(
        camera.project(
            [(x - w, y, z - d), (x - w, top, z - d), (x + w, top, z - d), (x + w, y, z - d)]
        ),
        light.shade(tone, (0.0, 0.0, -1.0), depth),
        BUILDING,
    )


def _step(s: Array) -> Array:
    """Return the distance from each column to the next, in metres [C]."""
    row = s[s.shape[0] // 2]
    if len(row) < 2:
        return np.full(len(row), 0.05, np.float32)
    step: Array = np.abs(np.diff(row, append=row[-1:]))
    step[-1] = step[-2]
    return step


def _wall(house: House, s: Array, y: Array, step: Array) -> Array:
    """Return the brightness of the bare wall [R, C] at s metres along it and y metres up."""
    salt = np.float32(house.seed % 389)
    stain = sample("fractal", s + salt, y, 22.0)
    near = np.clip(1.25 - step / np.float32(0.09), 0, 1)
    close = bool(near.any())
    if house.material == "brick":
        bright = np.float32(0.70) + np.float32(0.55) * stain
        if close:
            course = np.floor(y * np.float32(12))
            along = s * np.float32(4.4) + (course % 2) * np.float32(0.5)
            brick = np.floor(along)
            tone = sample("grain", brick, course, 1.0) - np.float32(0.5)
            joint = ((y * np.float32(12) - course) < 0.16) | ((along - brick) < 0.07)
            bright *= 1 + near * tone * np.float32(0.55)
            bright += joint * (near * np.float32(0.16))
    elif house.material == "stone":
        course = np.floor(y * np.float32(2.6))
        along = s * np.float32(1.5) + course * np.float32(0.37)
        stone = np.floor(along)
        tone = sample("grain", stone, course, 1.0) - np.float32(0.5)
        bright = (np.float32(0.70) + np.float32(0.55) * stain) * (1 + tone * np.float32(0.28))
        if close:
            joint = ((y * np.float32(2.6) - course) < 0.06) | ((along - stone) < 0.04)
            bright *= 1 - joint * (near * np.float32(0.35))
    elif house.material == "concrete":
        panel = (y * np.float32(0.7) - np.floor(y * np.float32(0.7))) < 0.03
        bright = (np.float32(0.72) + np.float32(0.5) * stain) * (1 - panel * np.float32(0.3))
    else:
        bright = np.float32(0.86) + np.float32(0.2) * stain
    # Rain leaves walls darker below.
    bright *= np.clip(y / np.float32(1.4), 0, 1) * np.float32(0.25) + np.float32(0.75)
    return bright


WALL, DRESSING, FRAME, PANE, SHOP, LETTERS, GOODS, IRON = range(8)
"""Materials of a street face."""


def _face(canvas: Canvas, camera: Camera, light: Light, house: House, shade: Array | None) -> None:
    h, side = house.height, house.side
    corners: list[Point] = [
        (house.x0, 0.0, house.z0),
        (house.x0, h, house.z0),
        (house.x1, h, house.z1),
        (house.x1, 0.0, house.z1),
    ]
    patch = canvas.convex(camera.project(corners))
    if patch is None:
        return
    dx, dz = house.x1 - house.x0, house.z1 - house.z0
    size = math.sqrt(dx * dx + dz * dz)
    s, y, depth = camera.plane(
        (house.x0, 0.0, house.z0), (dx / size, 0.0, dz / size), (0.0, 1.0, 0.0), patch.y, patch.x
    )
    step = _step(s)
    near = step < 0.2
    bright = _wall(house, s, y, step)
    which = np.zeros(s.shape, np.uint8)
    glow = np.zeros(s.shape, np.float32)

    normal: Point = (-side * dz / size, 0.0, dx / size * side)
    direct = np.float32(max(0.0, dot(normal, light.to_sun)))
    sun: Array | float = 0.0
    if direct > 0:
        sun = np.full(s.shape, direct, np.float32)
        if shade is not None:
            at = np.clip(s * np.float32(dz / size) + np.float32(house.z0), 0, len(shade) - 1)
            sun *= np.clip((y - shade.take(at.astype(np.int32))) * np.float32(2.5) + 0.5, 0, 1)
    # Less sky is visible low down in a street, and none under the eaves.
    sky = np.float32(0.46) + np.float32(0.24) * np.clip(y / np.float32(9), 0, 1)
    cornice = y > np.float32(h - 0.22)
    sky *= np.where(cornice, np.float32(1), np.clip((np.float32(h - 0.2) - y) * 2, 0.6, 1))

    storey = np.float32(house.storey)
    bays = max(1, int(size / house.pitch))
    along = s * np.float32(bays / size)
    bay, level = np.floor(along), np.floor(y / storey)
    ex, ey = np.abs(along - bay - np.float32(0.5)), y / storey - level
    number = hashed(bay + np.float32(house.seed % 1000), level, house.seed)
    half = np.float32(house.window_share / 2)
    low, high = (0.28, 0.80) if house.material != "glass" else (0.12, 0.92)
    first = 0.0 if house.ground == "door" else 1.0
    upper = (level >= first) & (level < int(h / house.storey))
    # Frames, bars and glass; sills and lintels about them.
    fm, fn = np.float32(0.075 * bays / size), np.float32(0.075 / house.storey)
    tall = (ey > low) & (ey < high)
    inside = upper & (ex < half) & tall
    pane = inside & (ex < half - fm) & (ey > low + fn) & (ey < high - fn)
    mid = np.float32((low + high) / 2)
    bars = (ex < fm * np.float32(0.45)) | (np.abs(ey - mid) < fn * np.float32(0.5))
    pane &= ~bars | ~near
    around = upper & (ex < half + fm) & ~tall
    sill = around & (ey > low - 0.035) & (ey < mid)
    lintel = around & (ey < high + 0.06) & (ey > mid)
    if house.dressed:
        band = (np.abs(ey - np.float32(0.02)) < 0.03) & (level > 0)
        which[sill | lintel | band] = DRESSING
    else:
        bright *= 1 + sill * np.float32(0.25) + lintel * np.float32(0.12)
    which[inside] = FRAME
    bright[inside] = 1
    if near.any():
        bright *= 1 - (inside & (ey > high - 0.06)) * np.float32(0.55)
        sky *= 1 - (around & (ey > low - 0.09) & (ey <= low - 0.035)) * np.float32(0.3)
    which[pane] = PANE
    # Glass: a dark room or a curtain, and the reflected sky above the roofs opposite.
    curtain = (number > 0.62) & (ey > mid + (number - np.float32(0.9)))
    room = np.float32(0.3) + number * np.float32(0.9) + curtain * np.float32(7)
    np.copyto(bright, room, where=pane)
    tilt = (ey - np.float32(low)) * np.float32(1.1) + (number * np.float32(1.7)) % 1
    glass = np.clip(tilt - np.float32(0.45), 0, 1) * np.float32(
        0.34 if house.material != "glass" else 0.6
    )
    np.copyto(glow, glass + np.float32(0.035), where=pane)
    if house.ground == "shop":
        _shop(house, which, bright, glow, s, y)
    elif house.ground == "door":
        mine = bay == np.float32(house.seed % bays)
        metres = ex * np.float32(size / bays)
        door = mine & (metres < 0.5) & (y < 2.5)
        which[door], bright[door], glow[door] = FRAME, 1, 0
        leaf = mine & (metres < 0.41) & (y < 2.02)
        which[leaf] = SHOP
        panel = leaf & (np.abs(metres - np.float32(0.2)) < 0.1) & ((y % 1) > 0.3)
        bright[panel] = 0.75
        fan = mine & (metres < 0.41) & (y > 2.1) & (y < 2.42)
        which[fan], bright[fan] = PANE, 1
    pipe = (s < 0.16) & (s > 0.05) & (step < 0.12)
    which[pipe], bright[pipe] = IRON, 1
    which[cornice] = DRESSING if house.roof == "flat" else FRAME
    bright[cornice] = 0.75
    glow[pipe | cornice] = 0
    tones = [
        house.wall,
        linear((0.74, 0.71, 0.64)),
        house.frame,
        (0.03, 0.03, 0.03),
        house.shop,
        (0.60, 0.58, 0.50) if sum(house.shop) < 0.9 else (0.03, 0.03, 0.05),
        (0.30, 0.25, 0.20),
        (0.02, 0.02, 0.02),
    ]
    shown = light.seen(tones, which, bright, sky, sun, depth, glow=glow)
    canvas.paint(patch, shown, BUILDING)
    if house.projecting:
        _projecting(canvas, camera, light, house)


def _shop(
    house: House, which: NDArray[np.uint8], bright: Array, glow: Array, s: Array, y: Array
) -> None:
    """Paint the ground floor of a shop: fascia with lettering, glass, pilasters, stall riser."""
    storey = np.float32(house.storey)
    ground = y < storey
    which[ground], bright[ground], glow[ground] = SHOP, 0.85, 0
    letter = np.floor(s * np.float32(3.2))
    stroke = s * np.float32(3.2) - letter
    ink = hashed(letter, np.zeros_like(letter), house.seed + 5)
    word = ground & (y > storey - 0.56) & (y < storey - 0.22) & (s > 0.8)
    word &= (ink > 0.25) & (stroke > 0.12) & (stroke < 0.86)
    # Leaving out a stroke or two makes each block a letter.
    part = (y - storey + np.float32(0.56)) * np.float32(2.9)
    word &= ~((np.abs(stroke - np.float32(0.5)) < 0.16) & (np.abs(part - ink) < 0.3))
    which[word], bright[word] = LETTERS, 1
    along = s * np.float32(0.42)
    along = along - np.floor(along)
    glass = (y > 0.55) & (y < storey - 0.85) & (along > 0.05) & (along < 0.95)
    bar = (np.abs(along - np.float32(0.5)) < 0.012) | (np.abs(y - storey + np.float32(1.25)) < 0.03)
    glass &= ~bar
    goods = sample("soft", s, y, 26.0) * sample("fractal", s + 3, y, 50.0) * 2
    lamp = np.clip(y / storey, 0, 1)
    np.copyto(which, np.uint8(GOODS), where=glass)
    np.copyto(bright, goods * np.float32(1.4), where=glass)
    np.copyto(glow, goods * lamp * np.float32(0.10) + np.float32(0.03), where=glass)


def _projecting(canvas: Canvas, camera: Camera, light: Light, house: House) -> None:
    """Paint a sign that projects over the pavement."""
    z = house.z0 + (house.z1 - house.z0) * (0.2 + 0.6 * (house.seed % 97) / 97)
    share = (z - house.z0) / (house.z1 - house.z0)
    x = house.x0 + (house.x1 - house.x0) * share
    low = house.storey + 0.1
    high = low + 0.7 + 0.3 * (house.seed % 3)
    inner, outer = x - house.side * 0.15, x - house.side * (0.75 + 0.2 * (house.seed % 2))
    depth = max(1.0, camera.view((x, low, z))[2])
    for grow, tone in (
        (0.0, house.shop),
        (0.09, (0.62, 0.60, 0.55) if house.seed % 2 else house.shop),
    ):
        a, b = inner - house.side * grow, outer + house.side * grow
        canvas.polygon(
            camera.project(
                [(a, low + grow, z), (a, high - grow, z), (b, high - grow, z), (b, low + grow, z)]
            ),
            light.shade(tone, (0.0, 0.0, -1.0), depth),
            SIGN,
        )
