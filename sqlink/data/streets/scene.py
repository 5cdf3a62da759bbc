"""A street scene: the place of everything, and the order of painting.

    sky ─> far silhouettes ─> ground ─> houses and gardens, far to near ─> street life, far to near

The seed determines everything before the picture's size is used, so a seed gives the same scene at
any size; a wider picture shows more of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sqlink.data.classes import NO_LABEL
from sqlink.data.streets import facades, furniture, ground, light, people, vegetation, vehicles
from sqlink.data.streets.camera import Camera
from sqlink.data.streets.canvas import BUILDING, TREE, Canvas, Patch
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear
from sqlink.data.streets.noise import tile

Array = NDArray[np.float32]
Paint = Callable[[], None]
Thing = vehicles.Vehicle | people.Person | vegetation.Plant | furniture.Furniture


@dataclass(frozen=True)
class Plot:
    """A stretch of one side of the street. kind: `houses`, `gardens`, `open` or `side`."""

    side: int
    z0: float
    z1: float
    kind: str


def render(
    seed: int, height: int = 360, width: int = 480, country: str = "england"
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render the scene of a seed: picture uint8 [H, W, 3] and class ids uint8 [H, W].

    country: `england`, or `anywhere` for nights, rain, other widths of roads and pavements, other
    heights and lenses of the camera, and traffic on the right in half of the scenes.
    """
    factor = 2 if height * width >= 96 * 128 else 4
    canvas = Canvas(height, width, factor)
    camera = _camera(Dice(seed, "camera"), canvas)
    plots = _plots(Dice(seed, "plots"))
    road = _road(Dice(seed, "road"), plots)
    if country == "england":
        weather, mirrored = light.choose(Dice(seed, "light")), False
    else:
        weather = light.choose_anywhere(Dice(seed, "light"))
        camera, road, mirrored = _elsewhere(Dice(seed, "elsewhere"), camera, road)
    camera = Camera(
        x=-road.half / 2 + Dice(seed, "lane").uniform(-0.5, 0.4),
        height=camera.height,
        focal=camera.focal,
        cx=camera.cx,
        cy=camera.cy,
        yaw=camera.yaw,
    )
    background: list[tuple[float, Paint]] = []
    street: list[tuple[float, Paint]] = []
    roofs = np.zeros((2, ground.LENGTH), np.float32)
    built = _buildings(Dice(seed, "houses"), plots, road, roofs)

    light.paint_sky(canvas, camera, weather)
    _silhouettes(canvas, camera, weather, Dice(seed, "far"))
    ground.paint(canvas, camera, weather, road, roofs)

    lines = [ground.shadow_line(weather, road, roofs, k) for k in (0, 1)]
    for house in built:
        line = lines[0 if house.side < 0 else 1]
        background.append((house.z0, _of(facades.paint, canvas, camera, weather, house, line)))
    _gardens(Dice(seed, "gardens"), canvas, camera, weather, road, plots, background)

    def lit(x: float, z: float) -> float:
        """Return the share of sunlight one metre above the ground."""
        u = np.array([x - road.axis(z)], np.float32)
        one = np.ones(1, np.float32)
        return float(ground.sunlit(weather, road, roofs, u, one, one * np.float32(z))[0])

    paints: dict[type, Callable[..., None]] = {
        vehicles.Vehicle: vehicles.paint,
        people.Person: people.paint,
        vegetation.Plant: vegetation.paint,
        furniture.Furniture: furniture.paint,
    }
    for thing in sorted(_street_life(seed, road, plots), key=lambda one: -one.z):
        shine = lit(thing.x, thing.z)
        act = _of(paints[type(thing)], canvas, camera, weather, thing, shine)
        plot = _off_street(thing, road, plots)
        if plot is None:
            street.append((thing.z, act))
        else:
            background.append((plot.z0 - 0.02, act))
    for _, act in sorted(background, key=lambda item: -item[0]):
        act()
    _guard_rails(Dice(seed, "rails"), canvas, camera, weather, road, plots, lit, street)
    for _, act in sorted(street, key=lambda item: -item[0]):
        act()
    if Dice(seed, "bonnet").chance(0.2):
        _bonnet(canvas, weather)
    picture, classes = light.develop(canvas, weather, Dice(seed, "film"))
    if mirrored:
        picture, classes = (np.ascontiguousarray(one[:, ::-1]) for one in (picture, classes))
    return picture, classes


def _elsewhere(dice: Dice, camera: Camera, road: ground.Road) -> tuple[Camera, ground.Road, bool]:
    """Return the proportions of another country, and whether it drives on the right."""
    camera = replace(
        camera,
        height=dice.uniform(1.1, 2.2),
        focal=camera.focal * dice.uniform(0.65, 1.15),
        cy=camera.cy * dice.uniform(0.85, 1.1),
    )
    road = replace(
        road,
        half=dice.uniform(2.8, 9.0),
        walk=(dice.uniform(1.0, 6.0), dice.uniform(1.0, 6.0)),
        yellow=(False, False),
        asphalt=road.asphalt * dice.uniform(0.8, 2.2),
        worn=dice.uniform(0.0, 1.0),
    )
    return camera, road, dice.chance(0.5)


def _off_street(thing: Thing, road: ground.Road, plots: list[Plot]) -> Plot | None:
    """Return the plot of an object behind the pavement, where houses may hide it."""
    u = thing.x - road.axis(thing.z)
    side = -1 if u < 0 else 1
    if abs(u) < road.half + road.walk[0 if side < 0 else 1]:
        return None
    return next((p for p in plots if p.side == side and p.z0 <= thing.z < p.z1), None)


def _of(paint: Callable[..., None], *arguments: object) -> Paint:
    return lambda: paint(*arguments)


def _camera(dice: Dice, canvas: Canvas) -> Camera:
    """Return a camera whose focal length and horizon scale with the picture's height."""
    h = canvas.height
    return Camera(
        x=0.0,
        height=dice.uniform(1.25, 1.5),
        focal=h * dice.uniform(1.15, 1.45),
        cx=canvas.width / 2,
        cy=h * dice.uniform(0.44, 0.54),
        yaw=dice.uniform(-0.11, 0.11) if dice.chance(0.8) else dice.uniform(-0.3, 0.3),
    )


def _plots(dice: Dice) -> list[Plot]:
    """Cut both sides of the street into plots."""
    town = dice.uniform(0, 1)
    plots = []
    for side in (-1, 1):
        z = -6.0
        last = ""
        while z < ground.LENGTH * 0.6:
            kind = dice.pick(
                ("houses", "gardens", "open", "side"),
                (1.0 + 2.5 * town, 1.9 - 1.2 * town, 0.5, 0.0 if last in ("side", "") else 0.55),
            )
            long = {
                "houses": dice.uniform(18, 60),
                "gardens": dice.uniform(15, 45),
                "open": dice.uniform(12, 40),
                "side": dice.uniform(7, 11),
            }[kind]
            plots.append(Plot(side, z, z + long, kind))
            z += long
            last = kind
    return plots


def _road(dice: Dice, plots: list[Plot]) -> ground.Road:
    verge = np.full((2, ground.LENGTH), ground.PAVED, np.uint8)
    gap = np.zeros((2, ground.LENGTH), bool)
    for plot in plots:
        k = 0 if plot.side < 0 else 1
        span = slice(max(0, int(plot.z0)), max(0, int(plot.z1)))
        if plot.kind == "side":
            gap[k, span] = True
        elif plot.kind == "open":
            verge[k, span] = dice.pick((ground.GRASS, ground.ASPHALT, ground.PAVED), (3, 2, 1))
        elif plot.kind == "gardens":
            verge[k, span] = ground.GRASS
        else:
            verge[k, span] = ground.BUILT
    junction = [p for p in plots if p.kind == "side" and p.z0 > 6]
    box = None
    if junction and dice.chance(0.2):
        box = (junction[0].z0, junction[0].z1)
    centre = dice.pick(("dash", "none", "double", "zigzag"), (6, 2, 0.6, 0.8))
    return ground.Road(
        half=dice.uniform(3.2, 5.4),
        walk=(dice.uniform(1.6, 3.6), dice.uniform(1.6, 3.6)),
        bend=dice.uniform(-0.0022, 0.0022) if dice.chance(0.6) else dice.uniform(-0.006, 0.006),
        verge=verge,
        open=gap,
        centre=centre,
        dash=dice.pick(((2.0, 4.0), (4.0, 2.0), (1.0, 1.0), (3.0, 6.0))),
        yellow=(dice.chance(0.45), dice.chance(0.45)),
        crossing=dice.uniform(7, 30) if dice.chance(0.16) else None,
        box=box,
        hatched=dice.chance(0.1),
        bay=dice.chance(0.15),
        worn=dice.uniform(0.3, 1.0),
        asphalt=dice.uniform(0.075, 0.135),
        warm=dice.uniform(-0.03, 0.05),
        patches=dice.uniform(0.0, 0.3) if dice.chance(0.6) else 0.0,
        grass_strip=(dice.chance(0.12), dice.chance(0.12)),
    )


def _buildings(
    dice: Dice, plots: list[Plot], road: ground.Road, roofs: Array
) -> list[facades.House]:
    """Return the houses along the plots, and fill `roofs` with their heights."""
    built = []
    town = dice.uniform(0, 1)
    for plot in plots:
        if plot.kind in ("side", "open"):
            continue
        z = plot.z0
        k = 0 if plot.side < 0 else 1
        edge = road.half + road.walk[k]
        back = 0.0 if plot.kind == "houses" else dice.uniform(4, 9)
        alike = dice.chance(0.3)
        mood = dice.integer(0, 1 << 30)
        before: facades.House | None = None
        while z < plot.z1 - 3:
            long = dice.uniform(5, 14) if plot.kind == "houses" else dice.uniform(8, 14)
            end = min(z + long, plot.z1)
            if plot.z1 - end < 4:
                end = plot.z1
            jut = back + (dice.uniform(0, 0.9) if dice.chance(0.25) else 0.0)
            x0 = road.axis(z) + plot.side * (edge + jut)
            x1 = road.axis(end) + plot.side * (edge + jut)
            own = Dice(mood, "row") if alike else Dice(dice.integer(0, 1 << 30), "house")
            urban = town if plot.kind == "houses" else town * 0.15
            house = facades.choose(own, plot.side, x0, x1, z, end, urban)
            flush = before is not None and -1 < plot.side * (before.x1 - x0) < 0.01
            if before is not None and flush and before.z1 > z - 0.1:
                house = replace(house, hidden=min(before.height, house.height))
            before = house
            built.append(house)
            if back < 1:
                roofs[k, max(0, int(z)) : max(0, int(end))] = house.height
            z = end + (dice.uniform(2, 5) if plot.kind == "gardens" else 0.0)
    return built


def _gardens(
    dice: Dice,
    canvas: Canvas,
    camera: Camera,
    weather: Light,
    road: ground.Road,
    plots: list[Plot],
    jobs: list[tuple[float, Paint]],
) -> None:
    """Paint hedges, fences, bushes and trees behind the pavement, after the houses behind them."""
    for plot in plots:
        if plot.kind not in ("gardens", "open") or plot.z1 < 3:
            continue
        k = 0 if plot.side < 0 else 1
        edge = road.half + road.walk[k] + 0.1
        z0, z1 = plot.z0, plot.z1
        lit = 0.7
        # Plants are painted after the houses of their plot, which end at its near edge.
        order = plot.z0 - 0.01
        plants: list[vegetation.Plant] = []
        number = int((z1 - z0) / 7 * dice.uniform(0.4, 1.6))
        for _ in range(number):
            z = dice.uniform(z0 + 1, z1)
            deep = dice.uniform(1.5, 4.0) if plot.kind == "gardens" else dice.uniform(2, 22)
            x = road.axis(z) + plot.side * (edge + deep)
            kind = dice.pick(("bare", "leafy", "conifer", "bush"), (4, 2.2, 1.2, 4))
            plants.append(vegetation.choose(dice, x, z, kind))
        if plot.kind == "open":
            for _ in range(int((z1 - z0) / 6)):
                z = dice.uniform(z0, z1)
                x = road.axis(z) + plot.side * (edge + dice.uniform(18, 40))
                plants.append(vegetation.choose(dice, x, z))
        for plant in sorted(plants, key=lambda p: -p.z):
            if plant.z > 4:
                jobs.append((order, _of(vegetation.paint, canvas, camera, weather, plant, lit)))
        kind = dice.pick(("hedge", "railing", "boards", "none"), (3, 2.6, 2.0, 1.0))
        height = dice.uniform(0.9, 1.9)
        tint = linear(dice.pick(vegetation.GREENS))
        tone = linear(dice.pick(((0.12, 0.13, 0.13), (0.44, 0.35, 0.26), (0.7, 0.7, 0.68))))
        parts = max(1, int((z1 - z0) / 12))
        cuts = [z0 + (z1 - z0) * i / parts for i in range(parts + 1)]
        for a, b in reversed(list(pairwise(cuts))):
            gate = 1.2 if dice.chance(0.4) else 0.0
            ends = (
                (road.axis(a) + plot.side * edge, a),
                (road.axis(b) + plot.side * edge, b - gate),
            )
            if kind == "hedge":
                act = _of(vegetation.hedge, canvas, camera, weather, ends, height, tint, lit)
            elif kind in ("railing", "boards"):
                act = _of(furniture.barrier, canvas, camera, weather, ends, height, kind, tone, lit)
            else:
                continue
            jobs.append((order, act))


def _guard_rails(
    dice: Dice,
    canvas: Canvas,
    camera: Camera,
    weather: Light,
    road: ground.Road,
    plots: list[Plot],
    lit: Callable[[float, float], float],
    jobs: list[tuple[float, Paint]],
) -> None:
    """Paint railings at the kerb near junctions and crossings."""
    for k, side in ((0, -1), (1, 1)):
        if not dice.chance(0.22):
            continue
        start = dice.uniform(6, 24)
        tone = linear(dice.pick(((0.45, 0.46, 0.46), (0.14, 0.15, 0.15))))
        for _ in range(dice.integer(2, 6)):
            ends = (
                (road.axis(start) + side * (road.half + 0.4), start),
                (road.axis(start + 2) + side * (road.half + 0.4), start + 1.94),
            )
            if not road.open[k, int(start)]:
                shine = lit(ends[0][0], start)
                act = _of(
                    furniture.barrier, canvas, camera, weather, ends, 1.05, "railing", tone, shine
                )
                jobs.append((start + 1, act))
            start += 2


def _street_life(seed: int, road: ground.Road, plots: list[Plot]) -> list[Thing]:
    """Return the cars, people, street trees and furniture."""
    things: list[Thing] = []
    dice = Dice(seed, "cars")
    parked = [0.0, 0.0]
    for k, side in ((0, -1), (1, 1)):
        if not dice.chance(0.55):
            continue
        parked[k] = dice.uniform(0.3, 0.95)
        z = dice.uniform(5, 16)
        while z < 110:
            if dice.chance(parked[k]) and not road.open[k, min(int(z), ground.LENGTH - 1)]:
                away = 0.0 if side < 0 or dice.chance(0.3) else 3.14159
                x = road.axis(z) + side * (road.half - 0.98 - dice.uniform(0, 0.15))
                things.append(vehicles.choose(dice, x, z, away + dice.uniform(-0.03, 0.03), False))
            z += dice.uniform(5.2, 8.5)
    lane = road.half / 2 if road.half > 4 else road.half * 0.45
    z = dice.uniform(9.5, 50)
    while z < 120:
        x = road.axis(z) - lane + dice.uniform(-0.3, 0.3)
        things.append(vehicles.choose(dice, x, z, dice.uniform(-0.03, 0.03), True))
        z += dice.uniform(9, 60)
    z = dice.uniform(6, 45)
    while z < 130:
        x = road.axis(z) + lane + dice.uniform(-0.3, 0.3) - (0.9 if parked[1] > 0 else 0)
        things.append(vehicles.choose(dice, x, z, 3.14159 + dice.uniform(-0.03, 0.03), True))
        z += dice.uniform(12, 70)
    for plot in plots:
        if plot.kind == "side" and plot.z0 > 8 and dice.chance(0.3):
            x = plot.side * (road.half + dice.uniform(-1, 6))
            things.append(
                vehicles.choose(dice, x, (plot.z0 + plot.z1) / 2, 1.5708 * -plot.side, True)
            )
        if plot.kind == "open" and dice.chance(0.35):
            for _ in range(dice.integer(1, 6)):
                z = dice.uniform(max(plot.z0, 8), max(plot.z1, 9))
                k = 0 if plot.side < 0 else 1
                x = road.axis(z) + plot.side * (road.half + road.walk[k] + dice.uniform(3, 14))
                things.append(vehicles.choose(dice, x, z, dice.pick((1.5708, -1.5708, 0.3)), False))

    dice = Dice(seed, "people")
    for k, side in ((0, -1), (1, 1)):
        for _ in range(dice.integer(0, 8)):
            z = dice.uniform(9, 70) if dice.chance(0.9) else dice.uniform(6, 14)
            off = road.half + dice.uniform(0.4, max(0.6, road.walk[k] - 0.3))
            x = road.axis(z) + side * off
            heading = dice.pick((0.0, 3.14159)) + dice.uniform(-0.4, 0.4)
            one = people.choose(dice, x, z, heading, False)
            things.append(one)
            if dice.chance(0.25):
                things.append(people.choose(dice, x + 0.55, z + 0.15, heading, False))
    if dice.chance(0.15) or road.crossing is not None:
        z = road.crossing + 1.5 if road.crossing is not None else dice.uniform(9, 30)
        for _ in range(dice.integer(1, 3)):
            x = dice.uniform(-road.half, road.half)
            things.append(
                people.choose(dice, road.axis(z) + x, z + dice.uniform(-1, 1), 1.5708, False)
            )
    for _ in range(dice.pick((0, 1, 2, 3), (2.6, 4, 2, 1))):
        z = dice.uniform(7, 42)
        left = dice.chance(0.65)
        gap = 0.7 if parked[0 if left else 1] == 0 else 2.5
        x = (-1 if left else 1) * (road.half - gap - dice.uniform(0, 0.5))
        heading = (0.0 if left else 3.14159) + dice.uniform(-0.2, 0.2)
        if dice.chance(0.1):
            heading += 1.2
        things.append(people.choose(dice, road.axis(z) + x, z, heading, True))

    dice = Dice(seed, "furniture")
    for k, side in ((0, -1), (1, 1)):

        def kerb(z: float, inset: float = 0.45, side: int = side) -> float:
            return road.axis(z) + side * (road.half + inset)

        z = dice.uniform(5, 30)
        while z < 140:
            things.append(furniture.choose(dice, "lamp", kerb(z), z, side))
            z += dice.uniform(22, 34)
        for _ in range(dice.integer(1, 6)):
            z = dice.uniform(6, 60)
            inset = dice.pick((0.4, road.walk[k] - 0.25))
            things.append(furniture.choose(dice, "sign", kerb(z, inset), z, side))
        if dice.chance(0.3):
            z = dice.uniform(6, 20)
            for _ in range(dice.integer(2, 6)):
                things.append(furniture.choose(dice, "bollard", kerb(z), z, side))
                z += 1.6
        if dice.chance(0.5):
            z = dice.uniform(6, 30)
            things.append(furniture.choose(dice, "bin", kerb(z, 0.6), z, side))
        if dice.chance(0.16):
            z = dice.uniform(5, 30)
            spacing = dice.uniform(8, 14)
            while z < 120:
                if not road.open[k, int(z)]:
                    things.append(vegetation.choose(dice, kerb(z, 0.7), z))
                z += spacing
    if dice.chance(0.38):
        z = dice.uniform(9, 40)
        for side in (-1, 1):
            x = road.axis(z) + side * (road.half + 0.5)
            things.append(furniture.choose(dice, "lights", x, z + (6 if side > 0 else 0), side))
    if road.crossing is not None:
        for side in (-1, 1):
            z = road.crossing + 1.5
            x = road.axis(z) + side * (road.half + 0.4)
            things.append(furniture.choose(dice, "beacon", x, z, side))
    return [thing for thing in things if thing.z > 2.5]


def _silhouettes(canvas: Canvas, camera: Camera, weather: Light, dice: Dice) -> None:
    """Paint the end of the street: distant trees and roofs, in haze."""
    cols = (np.arange(canvas.width, dtype=np.float32) + np.float32(0.5) - np.float32(camera.cx)) / (
        np.float32(camera.focal)
    )
    noise = tile("fractal")
    for layer, distance in enumerate((260.0, 170.0)):
        height = dice.uniform(0.02, 0.05)
        row = noise[dice.integer(0, 511)]
        at = cols * np.float32(90 * (layer + 1)) + np.float32(dice.uniform(0, 500))
        shape = row[np.floor(at).astype(np.int32) & 511]
        boxes = row[np.floor(at / 7).astype(np.int32) & 511]
        town = boxes > 0.55
        rise = np.where(town, boxes, shape * np.float32(1.2)) * np.float32(height)
        top = np.float32(camera.cy) - rise * np.float32(camera.focal)
        r0 = max(0, int(top.min()))
        r1 = min(canvas.height, int(camera.cy) + 2)
        if r0 >= r1:
            continue
        y = np.arange(r0, r1, dtype=np.float32)[:, None] + np.float32(0.5)
        mask = y > top
        leaf = noise[
            np.arange(r0, r1)[:, None] * 3 & 511, np.arange(canvas.width)[None, :] * 3 & 511
        ]
        wood = weather.shade(linear((0.30, 0.28, 0.22)), (0.0, 0.4, -0.9), distance)
        wall = weather.shade(linear((0.52, 0.46, 0.38)), (0.0, 0.3, -0.9), distance)
        colour = np.stack([np.where(town, a, b) for a, b in zip(wall, wood, strict=True)])
        colour = colour.astype(np.float32)[:, None] * (np.float32(0.75) + np.float32(0.5) * leaf)
        rows = slice(r0, r1)
        canvas.paint(Patch(rows, slice(0, canvas.width), mask), colour, None)
        label = canvas.label[rows]
        label[mask & town] = BUILDING
        label[mask & ~town] = TREE


def _bonnet(canvas: Canvas, weather: Light) -> None:
    """Paint the edge of the camera's own car at the foot of the picture, without a class."""
    w, h = canvas.width, canvas.height
    ring = []
    for k in range(9):
        a = k / 4 - 1.1
        ring.append((w * k / 8, h * (0.985 - 0.05 * (1 - a * a))))
    points = np.array([*ring, (float(w), float(h)), (0.0, float(h))])
    base = weather.on((0.0, 1.0, 0.0))
    top = (0.02 + 0.15 * base[0], 0.02 + 0.15 * base[1], 0.025 + 0.16 * base[2])
    canvas.polygon(points, top, NO_LABEL, (0.02, 0.02, 0.02))
