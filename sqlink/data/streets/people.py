"""Pedestrians and bicyclists: limbs as tapered strokes, lit from one side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sqlink.data.streets.camera import Camera, Point, turn
from sqlink.data.streets.canvas import BICYCLIST, PEDESTRIAN, Canvas, Colour
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear, scaled

CLOTHES: tuple[Colour, ...] = (
    (0.10, 0.10, 0.12),
    (0.14, 0.16, 0.24),
    (0.30, 0.29, 0.28),
    (0.42, 0.12, 0.12),
    (0.20, 0.26, 0.20),
    (0.55, 0.48, 0.38),
    (0.62, 0.62, 0.64),
    (0.16, 0.30, 0.44),
    (0.34, 0.24, 0.18),
    (0.80, 0.78, 0.74),
    (0.70, 0.74, 0.10),
)
TROUSERS: tuple[Colour, ...] = (
    (0.10, 0.10, 0.11),
    (0.14, 0.17, 0.26),
    (0.20, 0.25, 0.36),
    (0.26, 0.24, 0.22),
    (0.40, 0.36, 0.30),
)
SKIN: tuple[Colour, ...] = ((0.80, 0.62, 0.54), (0.74, 0.55, 0.46), (0.48, 0.34, 0.26))
HAIR: tuple[Colour, ...] = (
    (0.12, 0.09, 0.07),
    (0.26, 0.18, 0.12),
    (0.50, 0.40, 0.26),
    (0.5, 0.5, 0.5),
)


@dataclass(frozen=True)
class Person:
    """One person. x, z: position of the feet. heading: radians, 0 walks away from the camera.
    stride: phase of the step, -1 to 1.
    """

    x: float
    z: float
    heading: float
    height: float
    stride: float
    coat: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    long_coat: bool
    bag: bool
    cycling: bool


def choose(dice: Dice, x: float, z: float, heading: float, cycling: bool) -> Person:
    """Choose a person in winter clothes."""
    return Person(
        x=x,
        z=z,
        heading=heading,
        height=dice.uniform(1.55, 1.88) * (0.7 if dice.chance(0.06) and not cycling else 1.0),
        stride=dice.uniform(-1, 1),
        coat=linear(dice.pick(CLOTHES)),
        trousers=linear(dice.pick(TROUSERS)),
        skin=linear(dice.pick(SKIN)),
        hair=linear(dice.pick(HAIR)),
        long_coat=dice.chance(0.25),
        bag=dice.chance(0.35),
        cycling=cycling,
    )


class _Figure:
    """Painter of strokes between points of a body, from back to front."""

    def __init__(
        self, canvas: Canvas, camera: Camera, light: Light, person: Person, lit: float, label: int
    ) -> None:
        self.canvas, self.camera, self.label = canvas, camera, label
        self.light, self.person, self.lit = light, person, lit
        self.c, self.s = turn(person.heading)
        self.depth = max(1.0, camera.view((person.x, 1.0, person.z))[2])
        self.near = camera.focal / self.depth > 36
        side = camera.direction(light.to_sun)[0]
        self.from_right = side

    def at(self, forward: float, height: float, right: float) -> Point:
        """Return the world point at these metres ahead, up, and to the right of the person."""
        return (
            self.person.x + forward * self.s + right * self.c,
            height,
            self.person.z + forward * self.c - right * self.s,
        )

    def tone(self, albedo: Colour, bright: float) -> Colour:
        on = self.light.on((0.0, 0.3, -0.95), self.lit * 0.6)
        return self.light.through(
            (albedo[0] * on[0] * bright, albedo[1] * on[1] * bright, albedo[2] * on[2] * bright),
            self.depth,
        )

    def stroke(
        self,
        a: Point,
        b: Point,
        thick_a: float,
        thick_b: float,
        albedo: Colour,
        bright: float = 1.0,
    ) -> None:
        """Paint a limb from a to b with thicknesses in metres, its lit half brighter."""
        xa, ya, sa = self.camera.spot(a)
        xb, yb, sb = self.camera.spot(b)
        if sa == 0 or sb == 0:
            return
        dx, dy = xb - xa, yb - ya
        size = math.sqrt(dx * dx + dy * dy)
        if size < 1e-6:
            dx, dy, size = 0.0, 1.0, 1.0
        nx, ny = -dy / size, dx / size
        if nx < 0:
            nx, ny = -nx, -ny
        wa, wb = thick_a * sa / 2, thick_b * sb / 2
        ux, uy = dx / size, dy / size

        def strip(low: float, high: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
            cap_a, cap_b = wa * 0.45, wb * 0.45
            mid = (low + high) / 2
            return np.array(
                [
                    (xa + nx * wa * low, ya + ny * wa * low),
                    (xa + nx * wa * mid - ux * cap_a, ya + ny * wa * mid - uy * cap_a),
                    (xa + nx * wa * high, ya + ny * wa * high),
                    (xb + nx * wb * high, yb + ny * wb * high),
                    (xb + nx * wb * mid + ux * cap_b, yb + ny * wb * mid + uy * cap_b),
                    (xb + nx * wb * low, yb + ny * wb * low),
                ]
            )

        bump = 0.35 * self.from_right * self.lit
        self.canvas.polygon(strip(-1, 1), self.tone(albedo, bright), self.label)
        if max(wa, wb) > 3.0:
            self.canvas.polygon(strip(0.3, 1), self.tone(albedo, bright * (0.8 + bump)), self.label)
            self.canvas.polygon(
                strip(-1, -0.4), self.tone(albedo, bright * (0.8 - bump)), self.label
            )

    def head(self, at: Point, radius: float) -> None:
        x, y, scale = self.camera.spot(at)
        if scale == 0:
            return
        front = self.c < 0.2
        angle = [turn(k * 0.5236) for k in range(12)]
        r = radius * scale
        face = np.array([(x + c * r * 0.78, y + s * r) for c, s in angle])
        self.canvas.polygon(face, self.tone(self.person.hair, 1.0), self.label)
        if front and r > 1.2:
            low = np.array([(x + c * r * 0.64, y + r * 0.22 + s * r * 0.76) for c, s in angle])
            self.canvas.polygon(low, self.tone(self.person.skin, 1.0), self.label)


def shadow(canvas: Canvas, camera: Camera, x: float, z: float, across: float, along: float) -> None:
    """Paint the shadow under a person's feet."""
    ring = [turn(k * 0.7854) for k in range(8)]
    for grow, weight in ((1.0, 0.3), (0.6, 0.4)):
        points = [(x + c * across * grow, 0.0, z + s * along * grow) for c, s in ring]
        patch = canvas.convex(camera.project(points))
        if patch is not None:
            canvas.darken(patch, weight)


def paint(canvas: Canvas, camera: Camera, light: Light, person: Person, lit: float) -> None:
    if person.cycling:
        _bicyclist(canvas, camera, light, person, lit)
    else:
        _pedestrian(canvas, camera, light, person, lit)


def _pedestrian(canvas: Canvas, camera: Camera, light: Light, person: Person, lit: float) -> None:
    shadow(canvas, camera, person.x, person.z, 0.32, 0.4)
    body = _Figure(canvas, camera, light, person, lit, PEDESTRIAN)
    h, step = person.height, person.stride
    hip, neck = 0.49 * h, 0.83 * h
    for side in (-1, 1):
        swing = 0.30 * step * side
        knee = body.at(swing * 0.5 + 0.03, 0.26 * h, side * 0.085)
        foot = body.at(swing, 0.05 + 0.05 * max(0.0, -step * side), side * 0.09)
        dim = 0.85 if side * step > 0 else 1.0
        body.stroke(body.at(0, hip, side * 0.08), knee, 0.19, 0.14, person.trousers, dim)
        body.stroke(knee, foot, 0.14, 0.10, person.trousers, dim)
        if body.near:
            toe = body.at(swing + 0.12, 0.03, side * 0.1)
            body.stroke(foot, toe, 0.09, 0.07, (0.01, 0.01, 0.01))
    coat = person.coat
    foot_of_coat = 0.34 * h if person.long_coat else 0.47 * h
    for side in (-1, 1):
        swing = -0.2 * step * side
        elbow = body.at(swing * 0.5 - 0.03, 0.63 * h, side * 0.25)
        hand = body.at(swing + 0.05, 0.47 * h, side * 0.25)
        body.stroke(body.at(0, 0.79 * h, side * 0.19), elbow, 0.13, 0.11, coat, 0.78)
        body.stroke(elbow, hand, 0.11, 0.08, coat, 0.78)
        if body.near:
            body.stroke(hand, body.at(swing + 0.06, 0.44 * h, side * 0.25), 0.08, 0.06, person.skin)
    body.stroke(body.at(0, 0.66 * h, 0), body.at(0, foot_of_coat, 0), 0.38, 0.36, coat)
    body.stroke(body.at(0, neck - 0.03, 0), body.at(0, 0.62 * h, 0), 0.36, 0.38, coat)
    if person.bag:
        hand_side = 0.26 if step > 0 else -0.26
        body.stroke(
            body.at(0, 0.48 * h, hand_side),
            body.at(0, 0.32 * h, hand_side),
            0.2,
            0.24,
            scaled(person.hair, 1.4),
        )
    body.stroke(body.at(0, 0.88 * h, 0), body.at(0, neck - 0.02, 0), 0.11, 0.13, person.skin, 0.8)
    body.head(body.at(0.01, 0.925 * h, 0), 0.135)


def _bicyclist(canvas: Canvas, camera: Camera, light: Light, person: Person, lit: float) -> None:
    shadow(canvas, camera, person.x, person.z, 0.35, 0.8)
    body = _Figure(canvas, camera, light, person, lit, BICYCLIST)
    black: Colour = (0.012, 0.012, 0.013)
    frame = scaled(person.hair, 1.5)
    h = person.height
    steps = 16 if body.near else 8
    ring = [turn(k * 6.283184 / steps) for k in range(steps + 1)]

    def wheel(along: float) -> None:
        """Paint a wheel: the street is visible between its spokes, but has the wheel's class."""
        points = [body.at(along + c * 0.33, 0.34 + s * 0.33, 0) for c, s in ring[:-1]]
        patch = canvas.convex(camera.project(points))
        if patch is not None:
            canvas.blend(patch, black, 0.35)
            canvas.label[patch.rows, patch.cols][patch.mask] = BICYCLIST
        for (c0, s0), (c1, s1) in pairwise(ring):
            body.stroke(
                body.at(along + c0 * 0.33, 0.34 + s0 * 0.33, 0),
                body.at(along + c1 * 0.33, 0.34 + s1 * 0.33, 0),
                0.045,
                0.045,
                black,
            )

    wheel(0.53)
    wheel(-0.50)
    saddle, crank, bar = body.at(-0.2, 0.92, 0), body.at(0.0, 0.30, 0), body.at(0.42, 1.0, 0)
    for a, b in (
        (body.at(-0.5, 0.34, 0), crank),
        (crank, saddle),
        (crank, bar),
        (saddle, bar),
        (bar, body.at(0.53, 0.34, 0)),
        (body.at(-0.5, 0.34, 0), saddle),
    ):
        body.stroke(a, b, 0.045, 0.045, frame)
    body.stroke(body.at(0.42, 1.04, -0.27), body.at(0.42, 1.04, 0.27), 0.04, 0.04, black)
    shoulder = (0.10, 0.92 + 0.30 * h)
    for side in (-1, 1):
        lift = 0.17 * person.stride * side
        foot = body.at(0.05 - 0.5 * abs(lift), 0.30 + lift, side * 0.11)
        knee = body.at(0.22 + 0.1 * lift, 0.66 + lift * 0.8, side * 0.12)
        body.stroke(body.at(-0.18, 0.97, side * 0.10), knee, 0.19, 0.14, person.trousers)
        body.stroke(knee, foot, 0.14, 0.09, person.trousers, 0.9)
        body.stroke(foot, body.at(0.14, 0.26 + lift, side * 0.11), 0.09, 0.07, black)
        elbow = body.at(0.26, 1.12, side * 0.26)
        body.stroke(
            body.at(shoulder[0], shoulder[1], side * 0.18), elbow, 0.12, 0.1, person.coat, 0.8
        )
        body.stroke(elbow, body.at(0.42, 1.05, side * 0.25), 0.1, 0.07, person.coat, 0.8)
    body.stroke(
        body.at(shoulder[0], shoulder[1], 0), body.at(-0.18, 0.95, 0), 0.38, 0.34, person.coat
    )
    body.stroke(
        body.at(0.16, shoulder[1] + 0.16, 0),
        body.at(0.12, shoulder[1] - 0.02, 0),
        0.11,
        0.14,
        person.skin,
        0.8,
    )
    body.head(body.at(0.2, shoulder[1] + 0.2, 0), 0.135)
