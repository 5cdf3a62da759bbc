"""Cars, vans and buses: hulls swept from a side profile, with glass, wheels and lights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from sqlink.data.streets.camera import Camera, Point, cross, dot, turn
from sqlink.data.streets.canvas import CAR, Canvas, Colour
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear, mixed, scaled

Profile = tuple[tuple[float, float, float], ...]
"""Points (share of the length from the tail, height in m, share of the half width), tail to nose.
"""


@dataclass(frozen=True)
class Body:
    """Shape of a vehicle. hull: the outline. roof: indices in `hull` of the tail belt, both ends of
    the roof, and the nose belt.
    """

    length: float
    width: float
    hull: Profile
    belt: tuple[int, int]
    glass: tuple[tuple[float, float], ...]
    """Side windows as (start, end) shares between the two belt points."""
    wheels: tuple[float, float]
    radius: float


HATCH = Body(
    3.9,
    1.68,
    (
        (0.0, 0.26, 0.92),
        (0.0, 0.58, 0.95),
        (0.015, 0.92, 0.94),
        (0.09, 1.36, 0.76),
        (0.2, 1.46, 0.74),
        (0.52, 1.47, 0.74),
        (0.74, 0.98, 0.92),
        (0.96, 0.80, 0.90),
        (1.0, 0.60, 0.88),
        (1.0, 0.24, 0.86),
    ),
    (2, 6),
    ((0.05, 0.24), (0.27, 0.56), (0.59, 0.9)),
    (0.17, 0.81),
    0.29,
)
SALOON = Body(
    4.5,
    1.74,
    (
        (0.0, 0.26, 0.92),
        (0.0, 0.60, 0.95),
        (0.01, 0.94, 0.92),
        (0.15, 0.99, 0.92),
        (0.29, 1.39, 0.75),
        (0.55, 1.42, 0.75),
        (0.73, 0.96, 0.92),
        (0.96, 0.78, 0.90),
        (1.0, 0.60, 0.88),
        (1.0, 0.24, 0.86),
    ),
    (3, 6),
    ((0.12, 0.46), (0.5, 0.88)),
    (0.19, 0.82),
    0.31,
)
VAN = Body(
    4.9,
    1.9,
    (
        (0.0, 0.34, 0.94),
        (0.0, 0.64, 0.97),
        (0.0, 1.05, 0.98),
        (0.015, 1.88, 0.92),
        (0.05, 2.0, 0.88),
        (0.70, 2.0, 0.86),
        (0.84, 1.12, 0.95),
        (0.97, 0.90, 0.92),
        (1.0, 0.62, 0.90),
        (1.0, 0.26, 0.88),
    ),
    (2, 6),
    ((0.78, 0.97),),
    (0.17, 0.82),
    0.33,
)
BUS = Body(
    10.2,
    2.5,
    (
        (0.0, 0.35, 0.97),
        (0.0, 0.9, 1.0),
        (0.0, 1.25, 1.0),
        (0.006, 3.9, 0.98),
        (0.02, 4.2, 0.94),
        (0.985, 4.2, 0.94),
        (0.998, 1.15, 1.0),
        (1.0, 0.9, 1.0),
        (1.0, 0.7, 0.99),
        (1.0, 0.33, 0.97),
    ),
    (2, 6),
    (),
    (0.24, 0.78),
    0.48,
)

PAINTS: tuple[tuple[Colour, float], ...] = (
    ((0.60, 0.62, 0.65), 5),
    ((0.10, 0.11, 0.12), 4),
    ((0.10, 0.17, 0.34), 4),
    ((0.52, 0.07, 0.07), 3),
    ((0.84, 0.85, 0.85), 3),
    ((0.08, 0.26, 0.18), 2),
    ((0.31, 0.33, 0.36), 3),
    ((0.28, 0.42, 0.58), 2),
    ((0.42, 0.30, 0.15), 1),
    ((0.62, 0.55, 0.40), 1),
    ((0.62, 0.50, 0.08), 0.4),
    ((0.12, 0.46, 0.30), 0.7),
)
BUS_PAINTS: tuple[Colour, ...] = ((0.60, 0.06, 0.06), (0.12, 0.36, 0.62), (0.78, 0.80, 0.82))
GLASS: Colour = (0.012, 0.015, 0.017)
RUBBER: Colour = (0.014, 0.014, 0.015)


@dataclass(frozen=True)
class Vehicle:
    """One vehicle. x, z: middle of the footprint, m. heading: radians, 0 drives away from the
    camera.
    """

    body: Body
    paint: Colour
    x: float
    z: float
    heading: float
    braking: bool
    moving: bool


def choose(dice: Dice, x: float, z: float, heading: float, moving: bool) -> Vehicle:
    """Choose a vehicle from the usual mix; large ones only if moving."""
    body = dice.pick((HATCH, SALOON, VAN, BUS), (9, 5, 2, 1.0 if moving and z > 18 else 0))
    if body is BUS:
        paint = dice.pick(BUS_PAINTS)
    elif body is VAN and dice.chance(0.6):
        paint = (0.84, 0.85, 0.85)
    else:
        paint = dice.pick([p for p, _ in PAINTS], [w for _, w in PAINTS])
    return Vehicle(body, linear(paint), x, z, heading, dice.chance(0.35), moving)


def paint(canvas: Canvas, camera: Camera, light: Light, car: Vehicle, lit: float) -> None:
    """Paint the vehicle with its shadow. lit: share of sunlight that reaches it."""
    depth = camera.view((car.x, 0.5, car.z))[2]
    reach = camera.focal * car.body.length / max(depth, 1.0)
    x = camera.spot((car.x, 0.5, car.z))[0]
    if depth < 1.0 or x < -reach or x > canvas.width + reach:
        return
    _Painter(canvas, camera, light, car, lit, depth).all()


class _Painter:
    """Painter of one vehicle: its visible faces, in an order that hides what is behind."""

    def __init__(
        self,
        canvas: Canvas,
        camera: Camera,
        light: Light,
        car: Vehicle,
        lit: float,
        depth: float,
    ) -> None:
        self.canvas, self.camera, self.light = canvas, camera, light
        self.car, self.body, self.lit, self.depth = car, car.body, lit, depth
        self.c, self.s = turn(car.heading)
        self.size = camera.focal / depth * car.body.width
        self.eye: Point = (camera.x, camera.height, 0.0)
        self.boxy = self.body in (VAN, BUS)

    def at(self, along: float, height: float, across: float) -> Point:
        """Return a world point. along: share of the length from the tail; height: metres; across:
        share of the half width, to the right.
        """
        forward = (along - 0.5) * self.body.length
        side = across * self.body.width / 2
        return (
            self.car.x + forward * self.s + side * self.c,
            height,
            self.car.z + forward * self.c - side * self.s,
        )

    def edge(self, i: int, side: float) -> Point:
        """Return the point where station i of the hull meets the flank, slightly inset."""
        along, y, w = self.body.hull[i]
        tuck = 0.006 if self.boxy else 0.022
        if along < 0.12:
            along += tuck
        elif along > 0.9:
            along -= tuck * 1.4
        if y > 1.2:
            y -= 0.05
        return self.at(along, y, side * w)

    def poly(self, points: list[Point], top: Colour, bottom: Colour | None = None) -> None:
        self.canvas.polygon(self.camera.project(points), top, CAR, bottom)

    def veiled(self, colour: Colour) -> Colour:
        return self.light.through(colour, self.depth)

    def shaded(self, albedo: Colour, normal: Point, gloss: float) -> tuple[Colour, Colour]:
        """Return the colours at the top and the foot of a face, which reflects the sky and the
        road.
        """
        base = self.light.shade(albedo, normal, 0.0, self.lit)
        sky = mixed(self.light.horizon, self.light.zenith, 0.3)
        top = mixed(base, sky, gloss * max(0.0, 0.35 + 0.65 * normal[1]))
        low = mixed(scaled(base, 0.55), scaled(self.light.ambient, 0.06), gloss)
        return self.veiled(top), self.veiled(low)

    def facing(self, points: list[Point]) -> Point | None:
        """Return the outward unit normal of a face that the camera sees, or None."""
        a, b, d = points[0], points[1], points[-1]
        normal = cross(
            (b[0] - a[0], b[1] - a[1], b[2] - a[2]), (d[0] - a[0], d[1] - a[1], d[2] - a[2])
        )
        size = math.sqrt(dot(normal, normal))
        if size < 1e-9:
            return None
        normal = (normal[0] / size, normal[1] / size, normal[2] / size)
        eye = self.eye
        if dot(normal, (eye[0] - a[0], eye[1] - a[1], eye[2] - a[2])) <= 0:
            return None
        return normal

    def all(self) -> None:
        self.underneath()
        for side in (-1.0, 1.0):
            self.flank(side)
        self.skin()
        self.tail()
        self.nose()
        if self.size > 40 and self.body is not BUS:
            self.mirrors()

    def underneath(self) -> None:
        """Paint the shadow on the ground, soft at its rim, and the tyres under the floor."""
        ring = [turn(k * 0.3926991) for k in range(16)]
        for grow in (1.20, 1.12, 1.04, 0.96) if self.size > 16 else (1.08,):
            points = []
            for c, s in ring:
                # A rectangle with round corners.
                a = (1 if c > 0 else -1) * min(1.0, abs(c) * 1.35)
                b = (1 if s > 0 else -1) * min(1.0, abs(s) * 1.35)
                along = a * (0.5 * self.body.length + (grow - 1) * 1.6) / self.body.length
                points.append(self.at(0.5 + along, 0.0, b * (1 + (grow - 1) * 2.2)))
            patch = self.canvas.convex(self.camera.project(points))
            if patch is not None:
                self.canvas.darken(patch, 0.34 if self.size > 16 else 0.7)
        dark = self.veiled(scaled(self.light.on((0.0, 0.0, -1.0), 0.2), 0.02))
        for along in self.body.wheels:
            reach = self.body.radius * 0.8 / self.body.length
            for low, high in ((-0.9, -0.62), (0.62, 0.9)):
                for e in (along - reach, along + reach):
                    tall = self.body.radius * 1.2
                    self.poly(
                        [
                            self.at(e, 0, low),
                            self.at(e, tall, low),
                            self.at(e, tall, high),
                            self.at(e, 0, high),
                        ],
                        dark,
                    )

    def flank(self, side: float) -> None:
        """Paint one side: body, side windows, doors, wheels."""
        body, hull = self.body, self.body.hull
        back, front = body.belt
        probe = [
            self.at(0.2, 0.4, side),
            self.at(0.2, 0.9, side),
            self.at(0.8, 0.9, side),
            self.at(0.8, 0.4, side),
        ]
        normal = self.facing(probe if side > 0 else probe[::-1])
        if normal is None:
            return
        top, low = self.shaded(self.car.paint, normal, 0.12)
        self.poly(
            [self.edge(i, side) for i in [*range(back + 1), *range(front, len(hull))]], top, low
        )
        tilted: Point = (normal[0] * 0.93, 0.36, normal[2] * 0.93)
        t_top, t_low = self.shaded(self.car.paint, tilted, 0.14)
        self.poly([self.edge(i, side) for i in range(back, front + 1)], t_top, t_low)
        g_top, g_low = self.shaded(GLASS, tilted, 0.26)
        for start, end in body.glass:
            pairs = [self.side_glass(start + (end - start) * k / 4, side) for k in range(5)]
            self.poly([*(p[1] for p in pairs), *(p[0] for p in reversed(pairs))], g_top, g_low)
        if body is BUS:
            for low_y, high_y in ((1.35, 2.15), (2.85, 3.65)):
                for k in range(7):
                    a, b = 0.03 + 0.94 * k / 7, 0.03 + 0.94 * (k + 0.9) / 7
                    self.poly(
                        [
                            self.at(a, low_y, side),
                            self.at(a, high_y, side),
                            self.at(b, high_y, side),
                            self.at(b, low_y, side),
                        ],
                        g_top,
                        g_low,
                    )
        if self.size > 22 and body is not BUS:
            dark = scaled(low, 0.5)
            for share in (0.32, 0.60):
                self.poly(
                    [
                        self.at(share, 0.30, side * 1.0),
                        self.at(share, 0.90, side),
                        self.at(share + 0.006, 0.90, side),
                        self.at(share + 0.006, 0.30, side),
                    ],
                    dark,
                )
            self.poly(
                [
                    self.at(0.03, 0.22, side),
                    self.at(0.03, 0.32, side),
                    self.at(0.97, 0.32, side * 0.97),
                    self.at(0.97, 0.22, side * 0.97),
                ],
                self.veiled(RUBBER),
            )
        rings = (
            (1.2, RUBBER),
            (1.0, (0.02, 0.02, 0.021)),
            (0.64, (0.24, 0.25, 0.26)),
            (0.5, (0.12, 0.12, 0.13)),
            (0.2, (0.25, 0.25, 0.25)),
        )
        number = 5 if self.size > 40 else 3 if self.size > 12 else 2
        for along in body.wheels:
            for grow, tone in rings[:number]:
                radius = body.radius * grow
                circle = []
                for k in range(16):
                    cc, ss = turn(k * 0.3926991)
                    y = body.radius + radius * ss
                    circle.append(
                        self.at(
                            along + radius * cc / body.length,
                            max(y, body.radius * 0.8) if grow > 1 else y,
                            side * 1.0,
                        )
                    )
                self.poly(circle, self.light.shade(tone, normal, self.depth, self.lit))

    def side_glass(self, share: float, side: float) -> tuple[Point, Point]:
        """Return the lower and upper edge of the side glass at a share of the belt."""
        hull = self.body.hull
        back, front = self.body.belt
        along = hull[back][0] + share * (hull[front][0] - hull[back][0])
        belt_y = hull[back][1] + share * (hull[front][1] - hull[back][1])
        belt_w = hull[back][2] + share * (hull[front][2] - hull[back][2])
        y, w = belt_y, belt_w
        for a, b in pairwise(hull[back : front + 1]):
            if a[0] <= along <= b[0] and b[0] > a[0]:
                t = (along - a[0]) / (b[0] - a[0])
                y, w = a[1] + t * (b[1] - a[1]) - 0.05, a[2] + t * (b[2] - a[2])
                break
        low, high = 0.08, 0.88
        return (
            self.at(along, belt_y + low * (y - belt_y), side * (belt_w + low * (w - belt_w))),
            self.at(along, belt_y + high * (y - belt_y), side * (belt_w + high * (w - belt_w))),
        )

    def skin(self) -> None:
        """Paint tail, rear window, roof, windscreen, bonnet and front: a middle and two rounded
        edges.
        """
        hull = self.body.hull
        back, front = self.body.belt
        for i in range(len(hull) - 1):
            a, b = hull[i], hull[i + 1]
            inner = 0.74
            middle = [
                self.at(a[0], a[1], -a[2] * inner),
                self.at(b[0], b[1], -b[2] * inner),
                self.at(b[0], b[1], b[2] * inner),
                self.at(a[0], a[1], a[2] * inner),
            ]
            left = [self.edge(i, -1), self.edge(i + 1, -1), middle[1], middle[0]]
            right = [middle[3], middle[2], self.edge(i + 1, 1), self.edge(i, 1)]
            bumper = i in (0, len(hull) - 2)
            straight = self.facing(middle)
            whole = [left[0], left[1], right[2], right[3]]
            for face in (left, right, middle) if self.size > 14 else (whole,):
                normal = self.facing(face)
                if normal is None:
                    continue
                paint = self.car.paint
                if bumper:
                    paint = mixed(paint, (0.02, 0.02, 0.02), 0.9 if self.body is VAN else 0.35)
                gloss = 0.30 if normal[1] > 0.85 else 0.05 if bumper else 0.14
                top, low = self.shaded(paint, normal, gloss)
                self.poly(face, top, low)
            if straight is None or not back <= i < front or straight[1] > 0.9:
                continue
            if abs(b[1] - a[1]) < 0.1 or (self.body is VAN and i == back):
                continue
            self.window(a, b, straight, rear=i < front - 1)

    def window(
        self,
        a: tuple[float, float, float],
        b: tuple[float, float, float],
        normal: Point,
        rear: bool,
    ) -> None:
        """Paint the glass in a face between two stations of the hull."""

        def inset(t: float, w: float) -> Point:
            return self.at(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, w)

        g_top, g_low = self.shaded(GLASS, normal, 0.30)
        if self.body is BUS:
            for t0, t1 in ((0.03, 0.36), (0.56, 0.88)):
                self.poly(
                    [inset(t0, -0.9), inset(t1, -0.9), inset(t1, 0.9), inset(t0, 0.9)], g_top, g_low
                )
            return
        u0, u1 = (0.14, 0.84) if rear else (0.10, 0.92)
        w0, w1 = (a[2] + (b[2] - a[2]) * t for t in (u0, u1))
        k = 0.84 if rear else 0.92
        pane = [
            inset(u0, -w0 * k),
            inset(u0 + 0.06, -w0 * k * 1.02),
            inset(u1, -w1 * k),
            inset(u1, w1 * k),
            inset(u0 + 0.06, w0 * k * 1.02),
            inset(u0, w0 * k),
        ]
        self.poly(pane, g_top, g_low)
        if self.size > 46:
            # Seats and heads behind the glass.
            shadow = self.veiled(scaled(GLASS, 0.5))
            for x in (-0.42, 0.42):
                t0, t1 = (u0 + 0.02, u0 + 0.52) if b[1] > a[1] else (u1 - 0.02, u1 - 0.52)
                self.poly(
                    [
                        inset(t0, x - 0.17),
                        inset(t1, x - 0.11),
                        inset(t1, x + 0.11),
                        inset(t0, x + 0.17),
                    ],
                    mixed(shadow, g_low, 0.7),
                )

    def tail(self) -> None:
        """Paint lamps, plate and bumper strip of the rear."""
        normal = self.facing(
            [self.at(0, 0.3, -1), self.at(0, 0.9, -1), self.at(0, 0.9, 1), self.at(0, 0.3, 1)]
        )
        if normal is None:
            return
        body, on = self.body, self.light.on(normal, self.lit)
        bright = 0.45 if self.car.braking and self.car.moving else 0.0
        red = self.veiled(
            (0.12 * on[0] + bright, 0.008 * on[1] + bright * 0.03, 0.007 * on[2] + bright * 0.03)
        )
        tall = {3.9: (0.62, 0.90), 4.5: (0.68, 0.88), 4.9: (0.72, 1.05)}.get(
            body.length, (0.8, 1.1)
        )
        w0, w1 = (0.72, 0.94) if body is not BUS else (0.84, 0.97)
        for side in (-1, 1):
            self.poly(
                [
                    self.at(0.0, tall[0], side * w0),
                    self.at(0.0, tall[1], side * (w0 + 0.06)),
                    self.at(0.012, tall[1], side * w1),
                    self.at(0.012, tall[0], side * w1),
                ],
                red,
                scaled(red, 0.7),
            )
        if self.size > 26:
            self.poly(
                [
                    self.at(-0.002, 0.34, -0.86),
                    self.at(-0.002, 0.44, -0.86),
                    self.at(-0.002, 0.44, 0.86),
                    self.at(-0.002, 0.34, 0.86),
                ],
                self.veiled(self.light.shade((0.025, 0.025, 0.027), normal, 0, self.lit)),
            )
            seam = self.veiled(scaled(self.light.shade(self.car.paint, normal, 0, self.lit), 0.4))
            self.poly(
                [
                    self.at(-0.002, 0.58, -0.7),
                    self.at(-0.002, 0.595, -0.7),
                    self.at(-0.002, 0.595, 0.7),
                    self.at(-0.002, 0.58, 0.7),
                ],
                seam,
            )
        y = 0.60 if body is not BUS else 0.75
        self.plate(-0.004, y, normal, (0.45, 0.35, 0.03))

    def plate(self, along: float, y: float, normal: Point, tone: Colour) -> None:
        """Paint a number plate with its characters."""
        on = self.light.on(normal, self.lit)
        ground = self.veiled((tone[0] * on[0], tone[1] * on[1], tone[2] * on[2]))
        self.poly(
            [
                self.at(along, y, -0.3),
                self.at(along, y + 0.12, -0.3),
                self.at(along, y + 0.12, 0.3),
                self.at(along, y, 0.3),
            ],
            ground,
        )
        if self.size > 60:
            ink = self.veiled((0.02, 0.02, 0.02))
            for k in range(7):
                x = -0.26 + 0.074 * k + (0.02 if k > 3 else 0.0)
                self.poly(
                    [
                        self.at(along - 0.001, y + 0.025, x),
                        self.at(along - 0.001, y + 0.1, x),
                        self.at(along - 0.001, y + 0.1, x + 0.045),
                        self.at(along - 0.001, y + 0.025, x + 0.045),
                    ],
                    ink,
                )

    def nose(self) -> None:
        """Paint headlamps, grille and plate of the front."""
        normal = self.facing(
            [self.at(1, 0.3, 1), self.at(1, 0.9, 1), self.at(1, 0.9, -1), self.at(1, 0.3, -1)]
        )
        if normal is None:
            return
        on = self.light.on(normal, self.lit)
        glow = 1.2 if self.car.moving and self.light.exposure < 0.55 else 0.0
        lamp = self.veiled((0.40 * on[0] + glow, 0.42 * on[1] + glow, 0.43 * on[2] + glow * 0.9))
        for side in (-1, 1):
            self.poly(
                [
                    self.at(1.0, 0.60, side * 0.52),
                    self.at(0.992, 0.73, side * 0.52),
                    self.at(0.965, 0.76, side * 0.88),
                    self.at(0.975, 0.61, side * 0.88),
                ],
                lamp,
                scaled(lamp, 0.55),
            )
        dark = self.veiled(self.light.shade((0.02, 0.02, 0.022), normal, 0, self.lit))
        for y0, y1, w in ((0.58, 0.70, 0.42), (0.28, 0.40, 0.74)):
            self.poly(
                [
                    self.at(1.002, y0, -w),
                    self.at(0.998, y1, -w),
                    self.at(0.998, y1, w),
                    self.at(1.002, y0, w),
                ],
                dark,
            )
        self.plate(1.004, 0.44, normal, (0.52, 0.52, 0.5))

    def mirrors(self) -> None:
        """Paint the wing mirrors."""
        along = 0.69 if self.body is not VAN else 0.80
        y = self.body.hull[self.body.belt[1]][1]
        tone = self.veiled(scaled(self.light.shade(self.car.paint, (0, 0, -1), 0, self.lit), 0.6))
        for side in (-1, 1):
            self.poly(
                [
                    self.at(along, y, side * 0.97),
                    self.at(along, y + 0.13, side * 0.99),
                    self.at(along, y + 0.13, side * 1.14),
                    self.at(along, y + 0.01, side * 1.14),
                ],
                tone,
            )
