"""Cars, vans and buses: hulls swept from a side profile, with glass, wheels and lights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sqlink.data.streets.camera import Camera, Point, cross, dot, turn
from sqlink.data.streets.canvas import CAR, Canvas, Colour
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear, mixed, scaled

Profile = tuple[tuple[float, float, float], ...]
"""(share of the length from the tail, height in m, share of the half width), tail to nose."""


@dataclass(frozen=True)
class Body:
    """hull: the outline. roof: indices in `hull` of tail belt, roof's two ends, nose belt."""

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
    """x, z: middle of the footprint. heading: radians, 0 drives away from the camera."""

    body: Body
    paint: Colour
    x: float
    z: float
    heading: float
    braking: bool
    moving: bool

    @property
    def depth(self) -> float:
        return self.z


def choose(dice: Dice, x: float, z: float, heading: float, moving: bool) -> Vehicle:
    """A vehicle of the usual mix; large ones only where they are moving."""
    body = dice.pick((HATCH, SALOON, VAN, BUS), (9, 5, 2, 1.0 if moving and z > 18 else 0))
    if body is BUS:
        paint = dice.pick(BUS_PAINTS)
    elif body is VAN and dice.chance(0.6):
        paint = (0.84, 0.85, 0.85)
    else:
        paint = dice.pick([p for p, _ in PAINTS], [w for _, w in PAINTS])
    return Vehicle(body, linear(paint), x, z, heading, dice.chance(0.35), moving)


def paint(canvas: Canvas, camera: Camera, light: Light, car: Vehicle, lit: float) -> None:
    """The vehicle with its shadow. `lit`: the share of the sun that reaches it."""
    c, s = turn(car.heading)
    body = car.body
    half = body.width / 2

    def at(along: float, height: float, across: float) -> Point:
        """Share of the length from the tail, metres up, share of the half width to the right."""
        forward = (along - 0.5) * body.length
        side = across * half
        return (car.x + forward * s + side * c, height, car.z + forward * c - side * s)

    def poly(points: list[Point], top: Colour, bottom: Colour | None = None) -> None:
        canvas.polygon(camera.project(points), top, CAR, bottom)

    depth = max(1.0, camera.view((car.x, 0.5, car.z))[2])
    scale = camera.focal / depth
    fine = scale * body.width > 22
    eye = (camera.x, camera.height, 0.0)
    veil = light.through

    # Contact shadow, then the sun's.
    for grow, weight in ((1.16, 0.45), (1.0, 0.62)):
        patch = canvas.convex(
            camera.project(
                [
                    at(0.5 + a * 0.5 * grow, 0.0, b * grow)
                    for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
                ]
            )
        )
        if patch is not None:
            canvas.darken(patch, weight)
    for along in body.wheels:
        for side in (-1, 1):
            low, high = (0.55, 0.98) if side > 0 else (-0.98, -0.55)
            reach = body.radius / body.length
            for edge in (along - reach * 0.8, along + reach * 0.8):
                poly(
                    [
                        at(edge, 0, low),
                        at(edge, body.radius, low),
                        at(edge, body.radius, high),
                        at(edge, 0, high),
                    ],
                    veil(RUBBER, depth),
                )

    def shaded(albedo: Colour, normal: Point, gloss: float) -> tuple[Colour, Colour]:
        """Colours at the top and the foot of a face: it mirrors more sky above, road below."""
        base = light.shade(albedo, normal, 0.0, lit)
        sky = mixed(light.horizon, light.zenith, 0.3)
        up = max(0.0, 0.35 + 0.65 * normal[1])
        top = mixed(base, sky, gloss * up)
        low = mixed(scaled(base, 0.62), scaled(light.ambient, 0.06), gloss)
        return veil(top, depth), veil(low, depth)

    def facing(points: list[Point]) -> Point | None:
        """Outward unit normal of a face that the camera sees, or None."""
        a, b, d = points[0], points[1], points[-1]
        normal = cross(
            (b[0] - a[0], b[1] - a[1], b[2] - a[2]), (d[0] - a[0], d[1] - a[1], d[2] - a[2])
        )
        size = dot(normal, normal) ** 0.5
        if size < 1e-9:
            return None
        normal = (normal[0] / size, normal[1] / size, normal[2] / size)
        if dot(normal, (eye[0] - a[0], eye[1] - a[1], eye[2] - a[2])) <= 0:
            return None
        return normal

    hull = body.hull
    back, front = body.belt
    glass_gloss = 0.22 if body is not BUS else 0.12
    for side in (-1.0, 1.0):
        outline = [at(hull[0][0], hull[0][1], side * hull[0][2])]
        probe = [at(0.2, 0.4, side), at(0.2, 0.9, side), at(0.8, 0.9, side), at(0.8, 0.4, side)]
        normal = facing(probe if side < 0 else probe[::-1])
        if normal is None:
            continue
        top, low = shaded(car.paint, normal, 0.10)
        lower = [*range(back + 1), *range(front, len(hull))]
        outline = [at(hull[i][0], hull[i][1], side * hull[i][2]) for i in lower]
        poly(outline, top, low)
        upper = [at(hull[i][0], hull[i][1], side * hull[i][2]) for i in range(back, front + 1)]
        poly(upper, top, veil(scaled(light.shade(car.paint, normal, 0.0, lit), 0.9), depth))
        g_top, g_low = shaded(GLASS, normal, glass_gloss)

        def rim(share: float, side: float = side) -> tuple[Point, Point]:
            """Lower and upper edge of the side glass at a share of the belt."""
            l0, l1 = hull[back][0], hull[front][0]
            along = l0 + share * (l1 - l0)
            belt_y = hull[back][1] + share * (hull[front][1] - hull[back][1])
            belt_w = hull[back][2] + share * (hull[front][2] - hull[back][2])
            for i in range(back, front):
                a, b = hull[i], hull[i + 1]
                if a[0] <= along <= b[0] and b[0] > a[0]:
                    t = (along - a[0]) / (b[0] - a[0])
                    y, w = a[1] + t * (b[1] - a[1]), a[2] + t * (b[2] - a[2])
                    break
            else:
                y, w = belt_y, belt_w
            low_t, high_t = 0.07, 0.86
            return (
                at(
                    along,
                    belt_y + low_t * (y - belt_y),
                    side * (belt_w + low_t * (w - belt_w)) * 1.005,
                ),
                at(
                    along,
                    belt_y + high_t * (y - belt_y),
                    side * (belt_w + high_t * (w - belt_w)) * 1.005,
                ),
            )

        for start, end in body.glass:
            cuts = [start + (end - start) * k / 4 for k in range(5)]
            pairs = [rim(k) for k in cuts]
            poly([*(p[1] for p in pairs), *(p[0] for p in reversed(pairs))], g_top, g_low)
        if body is BUS:
            for low_y, high_y in ((1.35, 2.15), (2.85, 3.65)):
                panes = 7
                for k in range(panes):
                    a, b = 0.03 + 0.94 * k / panes, 0.03 + 0.94 * (k + 0.9) / panes
                    poly(
                        [
                            at(a, low_y, side),
                            at(a, high_y, side),
                            at(b, high_y, side),
                            at(b, low_y, side),
                        ],
                        g_top,
                        g_low,
                    )
        if fine:
            dark = veil(scaled(top, 0.35), depth)
            for share in (0.30, 0.58) if body is not BUS else ():
                poly(
                    [
                        at(share, 0.30, side * 1.0),
                        at(share, 0.92, side * 0.985),
                        at(share + 0.005, 0.92, side * 0.985),
                        at(share + 0.005, 0.30, side),
                    ],
                    dark,
                )
            sill = [
                at(0.0, 0.24, side),
                at(0.0, 0.34, side),
                at(1.0, 0.34, side * 0.97),
                at(1.0, 0.24, side * 0.97),
            ]
            poly(sill, veil(RUBBER, depth))
        for along in body.wheels:
            rings = (
                (1.22, RUBBER),
                (1.0, (0.02, 0.02, 0.021)),
                (0.62, (0.22, 0.23, 0.24)),
                (0.2, (0.06, 0.06, 0.06)),
            )
            for size, tone in rings[: 4 if fine else 3]:
                radius = body.radius * size
                centre = body.radius
                circle = []
                for k in range(14):
                    cc, ss = turn(k * 0.448799)
                    y = centre + radius * ss
                    if size > 1:
                        y = max(y, body.radius * 0.8)
                    circle.append(at(along + radius * cc / body.length, y, side * 1.01))
                tinted = light.shade(tone, normal, depth, lit)
                poly(circle, tinted)

    for i in range(len(hull) - 1):
        a, b = hull[i], hull[i + 1]
        face = [
            at(a[0], a[1], -a[2]),
            at(b[0], b[1], -b[2]),
            at(b[0], b[1], b[2]),
            at(a[0], a[1], a[2]),
        ]
        normal = facing(face)
        if normal is None:
            continue
        steep = normal[1] < 0.85
        top, low = shaded(car.paint, normal, 0.12 if steep else 0.30)
        if i in (0, len(hull) - 2):
            tone = mixed(car.paint, (0.02, 0.02, 0.02), 0.25 if body is not VAN else 0.9)
            top, low = shaded(tone, normal, 0.05)
        poly(face, top, low)
        window = (back <= i < front) and 0.1 < abs(b[1] - a[1]) and normal[1] < 0.9
        if window and not (body is SALOON and i == back - 1):
            if body is VAN and i == back and car.paint[0] > 0.6:
                continue
            g_top, g_low = shaded(GLASS, normal, 0.30)
            u0, u1 = 0.12, 0.9
            w0, w1 = (a[2] + (b[2] - a[2]) * t for t in (u0, u1))

            def inset(
                t: float,
                w: float,
                a: tuple[float, float, float] = a,
                b: tuple[float, float, float] = b,
            ) -> Point:
                return at(a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, w)

            if body is BUS:
                for t0, t1 in ((0.03, 0.36), (0.56, 0.88)):
                    poly(
                        [inset(t0, -0.9), inset(t1, -0.9), inset(t1, 0.9), inset(t0, 0.9)],
                        g_top,
                        g_low,
                    )
            else:
                poly(
                    [
                        inset(u0, -w0 * 0.93),
                        inset(u1, -w1 * 0.9),
                        inset(u1, w1 * 0.9),
                        inset(u0, w0 * 0.93),
                    ],
                    g_top,
                    g_low,
                )

    rear = facing([at(0, 0.3, -1), at(0, 0.9, -1), at(0, 0.9, 1), at(0, 0.3, 1)])
    nose = facing([at(1, 0.3, 1), at(1, 0.9, 1), at(1, 0.9, -1), at(1, 0.3, -1)])
    shine = 2.2 if car.braking and car.moving else 0.5
    if rear is not None:
        on = light.on(rear, lit)
        red = veil(
            (0.10 * on[0] + 0.30 * (shine > 1), 0.006 * on[1] + 0.012, 0.006 * on[2] + 0.01), depth
        )
        lamp = (0.60, 0.86) if body is HATCH else (0.64, 0.86) if body is SALOON else (0.7, 1.0)
        for side in (-1, 1):
            w0, w1 = (0.70, 0.93) if body is not BUS else (0.82, 0.97)
            poly(
                [
                    at(-0.002, lamp[0], side * w0),
                    at(0.0, lamp[1], side * w0),
                    at(0.0, lamp[1], side * w1),
                    at(-0.002, lamp[0], side * w1),
                ],
                red,
            )
        plate = veil((0.42 * on[0], 0.33 * on[1], 0.03 * on[2]), depth)
        y = 0.50 if body is not BUS else 0.7
        poly(
            [
                at(-0.004, y, -0.3),
                at(-0.004, y + 0.13, -0.3),
                at(-0.004, y + 0.13, 0.3),
                at(-0.004, y, 0.3),
            ],
            plate,
        )
        if fine:
            poly(
                [
                    at(-0.003, 0.30, -0.92),
                    at(-0.003, 0.46, -0.92),
                    at(-0.003, 0.46, 0.92),
                    at(-0.003, 0.30, 0.92),
                ],
                veil(light.shade((0.03, 0.03, 0.032), rear, 0, lit), depth),
            )
    if nose is not None:
        on = light.on(nose, lit)
        for side in (-1, 1):
            lamp_light = 0.9 if car.moving and light.exposure * light.ambient[0] < 0.25 else 0.0
            bright = (
                0.35 * on[0] + lamp_light,
                0.37 * on[1] + lamp_light,
                0.38 * on[2] + lamp_light,
            )
            poly(
                [
                    at(1.0, 0.60, side * 0.55),
                    at(0.985, 0.74, side * 0.55),
                    at(0.985, 0.74, side * 0.88),
                    at(1.0, 0.60, side * 0.88),
                ],
                veil(bright, depth),
            )
        grille = veil(light.shade((0.02, 0.02, 0.022), nose, 0, lit), depth)
        poly(
            [
                at(1.002, 0.56, -0.42),
                at(0.995, 0.70, -0.42),
                at(0.995, 0.70, 0.42),
                at(1.002, 0.56, 0.42),
            ],
            grille,
        )
        poly(
            [
                at(1.003, 0.28, -0.8),
                at(1.003, 0.40, -0.8),
                at(1.003, 0.40, 0.8),
                at(1.003, 0.28, 0.8),
            ],
            grille,
        )
        poly(
            [
                at(1.004, 0.42, -0.3),
                at(1.004, 0.54, -0.3),
                at(1.004, 0.54, 0.3),
                at(1.004, 0.42, 0.3),
            ],
            veil((0.5 * on[0], 0.5 * on[1], 0.48 * on[2]), depth),
        )
