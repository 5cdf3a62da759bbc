"""Houses along the street: façades of brick, stone, render or glass, shops, roofs, chimneys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.camera import Camera, Point
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
    """One building. side: -1 left, 1 right. x0, x1: its street face at z0 and at z1."""

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


def choose(dice: Dice, side: int, x0: float, x1: float, z0: float, z1: float, town: float) -> House:
    """A house between two places. `town`: 0 for a suburb's houses, 1 for shops and offices."""
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
    """End wall, roof, chimneys, then the street face over them.

    shade_of_road: height of the opposite side's shadow on this face, metres, at each metre of z.
    """
    _roof(canvas, camera, light, house)
    _end_wall(canvas, camera, light, house)
    _face(canvas, camera, light, house, shade_of_road)


def _end_wall(canvas: Canvas, camera: Camera, light: Light, house: House) -> None:
    out = house.x0 + house.side * house.depth
    ridge = house.height + (house.depth * 0.36 if house.roof != "flat" else 0.0)
    middle = house.x0 + house.side * house.depth / 2
    corners: list[Point] = [
        (house.x0, 0.0, house.z0),
        (house.x0, house.height, house.z0),
        (middle, ridge, house.z0),
        (out, house.height, house.z0),
        (out, 0.0, house.z0),
    ]
    patch = canvas.convex(camera.project(corners))
    if patch is None:
        return
    s, y, depth = camera.plane(
        (house.x0, 0.0, house.z0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), patch.y, patch.x
    )
    colour = _wall(house, s, y, _step(s)) * np.asarray(light.on((0.0, 0.0, -1.0), 1.0), np.float32)
    low = np.float32(0.62) + np.float32(0.38) * np.clip(y / np.float32(3), 0, 1)
    canvas.paint(patch, light.veil(colour * low[..., None], depth), BUILDING)


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
        size = (half * half + rise * rise) ** 0.5
        up = (up[0] / size, up[1] / size, 0.0)
        s, t, depth = camera.plane((house.x0, h, 0.0), (0.0, 0.0, 1.0), up, patch.y, patch.x)
        course = np.floor(t * np.float32(5))
        tile = sample("grain", s * np.float32(4) + course * np.float32(0.5), course, 1.0)
        stain = sample("fractal", s, t, 20.0)
        bright = np.float32(0.55) + np.float32(0.35) * tile + np.float32(0.6) * stain
        line = (t * np.float32(5) - course) < np.float32(0.18)
        bright = np.where(line & (depth < 30), bright * np.float32(0.7), bright)
        normal = (-up[1] * house.side, abs(up[0]), 0.0)
        on = np.asarray(light.on(normal, 1.0), np.float32)
        colour = bright[..., None] * on * np.asarray(house.roof_tone, np.float32)
        canvas.paint(patch, light.veil(colour, depth), BUILDING)
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
    """An upright block: half width, top, half depth."""
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
    """Metres from a column to the next, at each column [1, C]."""
    row = s[s.shape[0] // 2]
    if len(row) < 2:
        return np.full((1, len(row)), 0.05, np.float32)
    step = np.abs(np.diff(row, append=row[-1:]))
    step[-1] = step[-2]
    return step[None, :]


def _wall(house: House, s: Array, y: Array, step: Array) -> Array:
    """Reflectance of the bare wall [R, C, 3] at s metres along it and y up."""
    salt = np.float32(house.seed % 389)
    stain = sample("fractal", s + salt, y, 22.0)
    bright = np.float32(0.70) + np.float32(0.55) * stain
    near = np.clip(1.25 - step / np.float32(0.09), 0, 1)
    if house.material == "brick":
        course = np.floor(y * np.float32(12))
        along = s * np.float32(4.4) + np.where(course % 2 == 0, np.float32(0.5), np.float32(0))
        brick = np.floor(along)
        tone = sample("grain", brick, course, 1.0) - np.float32(0.5)
        joint = ((y * np.float32(12) - course) < 0.16) | ((along - brick) < 0.07)
        bright = bright * (1 + near * tone * np.float32(0.55))
        bright = np.where(joint, bright + near * np.float32(0.16), bright)
    elif house.material == "stone":
        course = np.floor(y * np.float32(2.6))
        along = s * np.float32(1.5) + course * np.float32(0.37)
        stone = np.floor(along)
        tone = sample("grain", stone, course, 1.0) - np.float32(0.5)
        joint = ((y * np.float32(2.6) - course) < 0.06) | ((along - stone) < 0.04)
        bright = bright * (1 + tone * np.float32(0.28))
        bright = np.where(joint, bright * (1 - near * np.float32(0.35)), bright)
    elif house.material == "concrete":
        panel = (y * np.float32(0.7) - np.floor(y * np.float32(0.7))) < 0.03
        bright = np.where(panel, bright * np.float32(0.7), bright)
    else:
        bright = np.float32(0.86) + np.float32(0.2) * stain
    # Rain leaves walls darker below, and under the eaves.
    foot = np.clip(y / np.float32(1.4), 0, 1) * np.float32(0.25) + np.float32(0.75)
    return (bright * foot)[..., None] * np.asarray(house.wall, np.float32)


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
    size = (dx * dx + dz * dz) ** 0.5
    s, y, depth = camera.plane(
        (house.x0, 0.0, house.z0), (dx / size, 0.0, dz / size), (0.0, 1.0, 0.0), patch.y, patch.x
    )
    step = _step(s)
    near = np.clip(1.3 - step / np.float32(0.25), 0, 1)
    colour = _wall(house, s, y, step)

    normal = (-side * dz / size, 0.0, dx / size * side)
    direct = np.float32(max(0.0, sum(a * b for a, b in zip(normal, light.to_sun, strict=True))))
    lit = np.ones_like(y)
    if shade is not None and direct > 0:
        at = np.clip(s * np.float32(dz / size) + np.float32(house.z0), 0, len(shade) - 1)
        lit = np.clip((y - shade[at.astype(np.int32)]) * np.float32(2.5) + np.float32(0.5), 0, 1)
    # Less sky is seen from low down in a street.
    sky = np.float32(0.42) + np.float32(0.24) * np.clip(y / np.float32(9), 0, 1)

    storey, pitch = np.float32(house.storey), np.float32(house.pitch)
    bays = max(1, int(size / house.pitch))
    along = s * np.float32(bays / size)
    bay = np.floor(along)
    level = np.floor(y / storey)
    fx, fy = along - bay, y / storey - level
    number = hashed(bay + np.float32(house.seed % 1000), level, house.seed)
    first = 1.0 if house.ground == "shop" else 0.0
    half = np.float32(house.window_share / 2)
    low, high = (0.28, 0.80) if house.material != "glass" else (0.12, 0.92)
    top_level = int(h / house.storey)
    upper = (level >= first) & (level < top_level)
    ex, ey = np.abs(fx - np.float32(0.5)), fy
    inside = upper & (ex < half) & (ey > low) & (ey < high)
    if house.ground == "plain":
        inside &= level > 0
    # Windows: frame, bars, glass that mirrors the sky above and rooms below.
    fm = np.float32(0.07 / house.pitch)
    fn = np.float32(0.07 / house.storey)
    pane = inside & (ex < half - fm) & (ey > low + fn) & (ey < high - fn)
    mid = np.float32((low + high) / 2)
    bars = (ex < fm * np.float32(0.4)) | (np.abs(ey - mid) < fn * np.float32(0.5))
    pane &= ~bars | (near < 0.4)
    sill = upper & (ex < half + fm) & (ey > low - 0.035) & (ey <= low)
    lintel = upper & (ex < half + fm) & (ey >= high) & (ey < high + 0.06)
    if house.ground == "plain":
        sill &= level > 0
        lintel &= level > 0
    dressing = np.asarray(linear((0.74, 0.71, 0.64)), np.float32)
    if house.dressed:
        colour[sill | lintel] = dressing
        band = (np.abs(ey - 0.02) < 0.03) & (level > 0)
        colour[band] = dressing * np.float32(0.9)
    else:
        colour[sill] *= np.float32(1.15)
    reveal = inside & (ey > high - 0.05)
    frame = np.asarray(house.frame, np.float32)
    colour[inside] = frame
    colour[reveal] *= np.float32(0.45)
    glow = np.zeros_like(colour)
    if pane.any():
        tone = np.float32(0.012) + np.float32(0.05) * number * number
        curtain = (number > 0.7) & (ey > mid + (number - np.float32(0.85)))
        tone = np.where(curtain, np.float32(0.22), tone)
        colour[pane] = tone[pane][:, None] * np.asarray((1.0, 0.98, 0.94), np.float32)
        mirrored = np.clip(
            (ey - np.float32(low)) * np.float32(0.9) + number - np.float32(0.55), 0, 1
        )
        mirrored = mirrored * np.float32(0.28 if house.material != "glass" else 0.55)
        glow[pane] = mirrored[pane][:, None] * np.asarray(light.horizon, np.float32)
    if house.ground == "shop":
        _shop(house, light, colour, glow, s, y, number)
    elif house.ground == "door":
        door_bay = np.float32(house.seed % bays)
        door = (bay == door_bay) & (ex < 0.5 / house.pitch) & (y < 2.15)
        leaf = (bay == door_bay) & (ex < 0.42 / house.pitch) & (y < 2.05)
        colour[door] = frame
        colour[leaf] = np.asarray(house.shop, np.float32)
        glow[door] = 0
    # Eaves: gutter and the shadow under it; drainpipes between bays.
    cornice = y > np.float32(h - 0.22)
    colour[cornice] = (
        np.asarray(house.frame if house.roof != "flat" else house.wall, np.float32) * 0.8
    )
    under = np.clip((np.float32(h - 0.22) - y) / np.float32(0.5), 0.55, 1)
    under = np.where(cornice, np.float32(1), under)
    pipe = (s < 0.16) & (s > 0.05) & (step < 0.12)
    colour[pipe] = np.asarray((0.02, 0.02, 0.02), np.float32)
    glow[pipe | cornice] = 0
    light_on = (sky * under)[..., None] * np.asarray(light.ambient, np.float32)
    light_on += (direct * lit)[..., None] * np.asarray(light.sun, np.float32)
    shown = colour * light_on + glow
    canvas.paint(patch, light.veil(shown, depth), BUILDING)
    if house.projecting:
        _projecting(canvas, camera, light, house)


def _shop(
    house: House, light: Light, colour: Array, glow: Array, s: Array, y: Array, number: Array
) -> None:
    """Ground floor of a shop: fascia with lettering, glass, pilasters, stall riser."""
    storey = house.storey
    ground = y < storey
    colour[ground] = np.asarray(house.shop, np.float32) * np.float32(0.8)
    glow[ground] = 0
    fascia = ground & (y > storey - 0.75)
    colour[fascia] = np.asarray(house.shop, np.float32)
    letters = np.floor(s * np.float32(3.2))
    ink = hashed(letters, np.zeros_like(letters), house.seed + 5)
    stroke = s * np.float32(3.2) - letters
    word = (ink > 0.28) & (stroke > 0.15) & (stroke < 0.8)
    word &= (y > storey - 0.55) & (y < storey - 0.2) & (s > 0.8)
    pale = sum(house.shop) < 0.9
    colour[fascia & word] = (0.72, 0.70, 0.62) if pale else (0.03, 0.03, 0.05)
    part = s * np.float32(0.42) - np.floor(s * np.float32(0.42))
    glass = (y > 0.55) & (y < storey - 0.85) & (part > 0.06) & (part < 0.94)
    goods = sample("fine", s, y, 9.0) * sample("grain", np.floor(s * 3), np.floor(y * 2.5), 1.0)
    lamp = np.clip(y / np.float32(storey), 0, 1)
    inside = goods[..., None] * np.asarray((0.36, 0.30, 0.24), np.float32)
    colour[glass] = inside[glass]
    hue = hashed(np.floor(s * 2), np.floor(y * 2), house.seed + 9)
    glow[glass] = (np.float32(0.05) * goods * lamp)[glass][:, None] * np.asarray(
        (1.0, 0.9, 0.7), np.float32
    ) + (np.float32(0.05) * hue * lamp)[glass][:, None] * np.asarray(light.horizon, np.float32)


def _projecting(canvas: Canvas, camera: Camera, light: Light, house: House) -> None:
    """A sign hung out over the pavement."""
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
