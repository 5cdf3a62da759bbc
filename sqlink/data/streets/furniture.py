"""Street furniture: lamps, traffic lights, signs, bollards, railings, fences, bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sqlink.data.classes import NO_LABEL
from sqlink.data.streets.camera import Camera, Point, dot, turn
from sqlink.data.streets.canvas import FENCE, POLE, SIGN, Canvas, Colour
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.light import Light, linear
from sqlink.data.streets.people import shadow

STEEL: tuple[Colour, ...] = (
    (0.42, 0.43, 0.44),
    (0.22, 0.24, 0.24),
    (0.52, 0.52, 0.50),
    (0.13, 0.16, 0.15),
)


@dataclass(frozen=True)
class Furniture:
    """One piece. kind: `lamp`, `lights`, `sign`, `bollard`, `beacon` or `bin`. side: -1 left, 1
    right.
    """

    kind: str
    x: float
    z: float
    side: int
    height: float
    tone: Colour
    variant: int


def choose(dice: Dice, kind: str, x: float, z: float, side: int) -> Furniture:
    height = {
        "lamp": dice.uniform(5.5, 9),
        "lights": dice.uniform(3.0, 3.7),
        "sign": dice.uniform(2.3, 3.2),
        "bollard": dice.uniform(0.9, 1.1),
        "beacon": 3.0,
        "bin": dice.uniform(0.9, 1.2),
    }[kind]
    return Furniture(kind, x, z, side, height, linear(dice.pick(STEEL)), dice.integer(0, 1 << 20))


class _Drawing:
    """Upright flat shapes at one place, facing the camera."""

    def __init__(self, canvas: Canvas, camera: Camera, light: Light, item: Furniture, lit: float):
        self.canvas, self.camera, self.light, self.item, self.lit = canvas, camera, light, item, lit
        self.view = camera.view((item.x, 0.5, item.z))[2]

    def tone(self, colour: Colour, bright: float = 1.0) -> Colour:
        on = self.light.on((0.0, 0.25, -0.97), self.lit)
        lit = (colour[0] * on[0] * bright, colour[1] * on[1] * bright, colour[2] * on[2] * bright)
        return self.light.through(lit, self.view)

    def post(
        self, low: float, high: float, wide_low: float, wide_high: float, colour: Colour, label: int
    ) -> None:
        """Paint a round post, shaded across; at least as thick as the canvas can show."""
        x, y, scale = self.camera.spot((self.item.x, 0.0, self.item.z))
        if scale == 0:
            return
        least = 0.5 * self.canvas.factor
        a, b = max(wide_low * scale / 2, least * 0.62), max(wide_high * scale / 2, least * 0.62)
        y0, y1 = y - low * scale, y - high * scale
        sun = self.camera.direction(self.light.to_sun)[0] * self.lit

        def strip(left: float, right: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
            return np.array(
                [
                    (x + a * left, y0),
                    (x + b * left, y1),
                    (x + b * right, y1),
                    (x + a * right, y0),
                ]
            )

        self.canvas.polygon(strip(-1, 1), self.tone(colour), label)
        if a > 1.5:
            self.canvas.polygon(strip(0.35, 1), self.tone(colour, 0.75 + 0.5 * sun), label)
            self.canvas.polygon(strip(-1, -0.35), self.tone(colour, 0.75 - 0.5 * sun), label)

    def plate(
        self,
        corners: list[tuple[float, float]],
        colour: Colour,
        label: int,
        bright: float = 1.0,
        glow: bool = False,
    ) -> None:
        """Paint a flat polygon of (metres right, metres up)."""
        x, y, scale = self.camera.spot((self.item.x, 0.0, self.item.z))
        if scale == 0:
            return
        points = np.array([(x + a * scale, y - b * scale) for a, b in corners])
        shown = self.light.through(colour, self.view) if glow else self.tone(colour, bright)
        self.canvas.polygon(points, shown, label)

    def disc(
        self, right: float, up: float, radius: float, colour: Colour, label: int, glow: bool = False
    ) -> None:
        ring = [turn(k * 0.448799) for k in range(14)]
        self.plate(
            [(right + c * radius, up + s * radius) for c, s in ring], colour, label, glow=glow
        )


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x0, y1), (x1, y1), (x1, y0)]


RED: Colour = (0.50, 0.012, 0.012)
BLUE: Colour = (0.012, 0.06, 0.32)
WHITE: Colour = (0.70, 0.70, 0.68)
BLACK: Colour = (0.012, 0.012, 0.013)
YELLOW: Colour = (0.62, 0.42, 0.02)
GREEN: Colour = (0.01, 0.14, 0.07)


def paint(canvas: Canvas, camera: Camera, light: Light, item: Furniture, lit: float) -> None:
    draw = _Drawing(canvas, camera, light, item, lit)
    if draw.view < 1.5:
        return
    h, side = item.height, item.side
    shadow(canvas, camera, item.x, item.z, 0.18, 0.3)
    if item.kind == "lamp":
        draw.post(0, 1.2, 0.20, 0.18, item.tone, POLE)
        draw.post(1.2, h, 0.13, 0.08, item.tone, POLE)
        reach = -side * (1.3 + 0.3 * (item.variant % 3))
        thick = max(0.07, 1.3 / max(camera.spot((item.x, 0, item.z))[2], 1e-6))
        rise = 0.12 * (item.variant % 4)
        draw.plate(
            [(0, h), (0, h - thick), (reach, h - thick + rise), (reach, h + rise)], item.tone, POLE
        )
        if light.lamps[0] > 0:
            draw.disc(reach, h + rise - thick, 0.2, light.lamps, POLE, glow=True)
        draw.plate(
            [
                (reach, h + rise + 0.02),
                (reach * 1.45, h + rise + 0.06),
                (reach * 1.45, h + rise - 0.1),
                (reach, h + rise - 0.16),
            ],
            (0.30, 0.30, 0.29),
            POLE,
        )
    elif item.kind == "lights":
        draw.post(0, h, 0.12, 0.11, (0.03, 0.03, 0.03) if item.variant % 2 else item.tone, POLE)
        low = h - 0.95
        draw.plate(_box(-0.24, low - 0.10, 0.24, h + 0.12), BLACK, SIGN)
        phase = item.variant % 3
        lamps: tuple[Colour, ...] = ((0.9, 0.02, 0.02), (0.85, 0.4, 0.02), (0.02, 0.8, 0.35))
        off: tuple[Colour, ...] = ((0.07, 0.01, 0.01), (0.07, 0.04, 0.01), (0.01, 0.06, 0.035))
        for k in range(3):
            on = k == phase and side * 1 != 0
            draw.disc(0.0, low + 0.78 - 0.32 * k, 0.125, lamps[k] if on else off[k], SIGN, glow=on)
    elif item.kind == "beacon":
        for k in range(6):
            draw.post(h * k / 6, h * (k + 1) / 6, 0.12, 0.12, WHITE if k % 2 else BLACK, POLE)
        draw.disc(0, h + 0.15, 0.17, (0.8, 0.36, 0.02), POLE)
    elif item.kind == "bollard":
        draw.post(0, h, 0.15, 0.13, item.tone, POLE)
        draw.post(h * 0.72, h * 0.84, 0.14, 0.14, WHITE, POLE)
    elif item.kind == "bin":
        x = 0.26
        draw.plate(_box(-x, 0, x, h), (0.022, 0.03, 0.026), NO_LABEL)
        draw.plate(_box(x * 0.3, 0, x, h), (0.022, 0.03, 0.026), NO_LABEL, 1.5)
        draw.plate(_box(-x * 0.7, h * 0.66, x * 0.7, h * 0.8), BLACK, NO_LABEL, 0.5)
    else:
        _sign(draw, item)


def _sign(draw: _Drawing, item: Furniture) -> None:
    h = item.height
    draw.post(0, h, 0.075, 0.075, item.tone, POLE)
    kind = item.variant % 7
    r = 0.32
    if kind == 0:
        draw.disc(0, h - r, r, RED, SIGN)
        draw.disc(0, h - r, r * 0.74, WHITE, SIGN)
        for x in (-0.1, 0.1):
            draw.plate(_box(x - 0.06, h - r - 0.12, x + 0.06, h - r + 0.12), BLACK, SIGN)
    elif kind == 1:
        draw.plate([(-0.36, h - 0.62), (0, h), (0.36, h - 0.62)], RED, SIGN)
        draw.plate([(-0.24, h - 0.55), (0, h - 0.15), (0.24, h - 0.55)], WHITE, SIGN)
        draw.plate(_box(-0.05, h - 0.52, 0.05, h - 0.28), BLACK, SIGN)
    elif kind == 2:
        draw.disc(0, h - r, r, WHITE, SIGN)
        draw.disc(0, h - r, r * 0.93, BLUE, SIGN)
        draw.plate(
            [(-0.05, h - r + 0.2), (0.05, h - r + 0.2), (0.05, h - r - 0.1), (-0.05, h - r - 0.1)],
            WHITE,
            SIGN,
        )
        draw.plate([(-0.14, h - r - 0.05), (0.14, h - r - 0.05), (0, h - r - 0.24)], WHITE, SIGN)
    elif kind == 3:
        draw.plate(_box(-0.34, h - 0.8, 0.34, h), WHITE, SIGN)
        draw.plate(_box(-0.31, h - 0.77, 0.31, h - 0.03), BLUE, SIGN)
        draw.plate(_box(-0.14, h - 0.62, -0.02, h - 0.16), WHITE, SIGN)
        draw.disc(0.02, h - 0.29, 0.14, WHITE, SIGN)
        draw.disc(0.02, h - 0.29, 0.06, BLUE, SIGN)
    elif kind == 4:
        draw.plate(_box(-0.75, h - 0.8, 0.75, h), WHITE, SIGN)
        back = GREEN if item.variant & 8 else WHITE
        ink = WHITE if item.variant & 8 else BLACK
        draw.plate(_box(-0.71, h - 0.76, 0.71, h - 0.04), back, SIGN)
        for row, long in ((0.2, 0.45), (0.4, 0.2), (0.6, 0.38)):
            step = 0.13
            n = int((long + 0.5) / step)
            for k in range(n):
                x = -0.6 + k * step
                draw.plate(_box(x, h - row - 0.05, x + step * 0.62, h - row + 0.06), ink, SIGN)
    elif kind == 5:
        draw.disc(0, h - r, r, RED, SIGN)
        draw.plate(_box(-0.21, h - r - 0.055, 0.21, h - r + 0.055), WHITE, SIGN)
    else:
        draw.plate(_box(-0.22, h - 0.62, 0.22, h), YELLOW if item.variant & 16 else WHITE, SIGN)
        for k in range(4):
            draw.plate(
                _box(-0.16, h - 0.14 - 0.13 * k, 0.1 + 0.02 * k, h - 0.08 - 0.13 * k), BLACK, SIGN
            )


def barrier(
    canvas: Canvas,
    camera: Camera,
    light: Light,
    ends: tuple[tuple[float, float], tuple[float, float]],
    height: float,
    kind: str,
    tone: Colour,
    lit: float,
) -> None:
    """Paint a fence along the ground from one (x, z) to another: `railing` or `boards`.

    Gaps between rails are labelled as fence, as in an annotator's outline.
    """
    (x0, z0), (x1, z1) = ends
    corners: list[Point] = [(x0, 0.0, z0), (x0, height, z0), (x1, height, z1), (x1, 0.0, z1)]
    patch = canvas.convex(camera.project(corners))
    if patch is None:
        return
    size = max(1e-6, math.sqrt((x1 - x0) * (x1 - x0) + (z1 - z0) * (z1 - z0)))
    u, v, depth = camera.plane(
        (x0, 0.0, z0), ((x1 - x0) / size, 0.0, (z1 - z0) / size), (0.0, 1.0, 0.0), patch.y, patch.x
    )
    step = np.abs(np.diff(u[u.shape[0] // 2], append=u[u.shape[0] // 2, -1:]))
    if len(step) > 1:
        step[-1] = step[-2]
    normal = (-1.0 if x0 > camera.x else 1.0, 0.2, -0.3)
    sun = max(0.0, dot(normal, light.to_sun)) * lit
    flat = np.zeros(u.shape, np.uint8)
    if kind == "boards":
        board = np.floor(u * np.float32(7))
        part = u * np.float32(7) - board
        bright = np.float32(0.78) + np.float32(0.3) * ((board * np.float32(0.377)) % 1)
        bright *= np.where((part < 0.12) & (step < 0.1), np.float32(0.45), np.float32(1))
        bright *= np.where(v > np.float32(height - 0.08), np.float32(1.25), np.float32(1))
        canvas.paint(patch, light.seen([tone], flat, bright, 0.75, sun, depth), FENCE)
        return
    pitch = np.float32(0.13)
    bars = u / pitch - np.floor(u / pitch)
    # Bars finer than a sample cover a share of it.
    share = np.float32(0.024) / pitch
    sharp = np.clip(1.6 - step / np.float32(0.03), 0, 1).astype(np.float32)
    cover = sharp * (bars < share * 1.5) + (1 - sharp) * share * np.float32(1.4)
    rail = (v > np.float32(height - 0.07)) | ((v < 0.16) & (v > 0.09))
    cover = np.where(rail, np.float32(1), cover.astype(np.float32))
    colour = light.seen([tone], flat, np.ones_like(u), 0.75, sun, depth)
    canvas.blend(patch, colour, cover)
    np.copyto(canvas.label[patch.rows, patch.cols], np.uint8(FENCE), where=patch.mask)
