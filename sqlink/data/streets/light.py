"""Light: sun, sky, haze, and the camera's development.

Colours are given as display values (0..1) and squared to linear light; the square root is taken at
the end. This gamma of 2 is close to that of sRGB and exact on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sqlink.data.streets.camera import Camera, Point, dot, turn
from sqlink.data.streets.canvas import SKY, Canvas, Colour
from sqlink.data.streets.dice import Dice
from sqlink.data.streets.noise import smooth

Array = NDArray[np.float32]


def linear(colour: Colour) -> Colour:
    """Convert display values to linear light."""
    return (colour[0] * colour[0], colour[1] * colour[1], colour[2] * colour[2])


def scaled(colour: Colour, factor: float) -> Colour:
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Mix two colours: a where share is 0, b where it is 1."""
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


@dataclass(frozen=True)
class Light:
    """The light of one scene.

    to_sun: unit vector. sun, ambient: linear colours of the light on a white surface facing it.
    zenith, horizon, cloud: linear colours of the sky. cover: share of the sky in cloud. haze:
    distance in metres at which half of a colour is that of the haze. wet: 0 dry to 1 streaming.
    lamps: linear colour of lit street lamps, black while they are off.
    """

    to_sun: Point
    sun: Colour
    ambient: Colour
    zenith: Colour
    horizon: Colour
    cloud: Colour
    cover: float
    haze: float
    wet: float
    exposure: float
    noise: float
    offset: tuple[float, float]
    lamps: Colour = (0.0, 0.0, 0.0)

    def on(self, normal: Point, lit: float = 1.0) -> Colour:
        """Return the light on a surface with that normal; lit: share of sunlight there."""
        sky = 0.62 + 0.38 * normal[1]
        sun = max(0.0, dot(normal, self.to_sun)) * lit
        return (
            self.ambient[0] * sky + self.sun[0] * sun,
            self.ambient[1] * sky + self.sun[1] * sun,
            self.ambient[2] * sky + self.sun[2] * sun,
        )

    def shade(self, albedo: Colour, normal: Point, depth: float, lit: float = 1.0) -> Colour:
        """Return the linear colour of a surface seen from `depth` metres away."""
        on = self.on(normal, lit)
        return self.through((albedo[0] * on[0], albedo[1] * on[1], albedo[2] * on[2]), depth)

    def through(self, colour: Colour, depth: float) -> Colour:
        """Return a colour seen through `depth` metres of haze."""
        return mixed(colour, self.horizon, self.haze_share(depth))

    def haze_share(self, depth: float) -> float:
        d = max(0.0, depth)
        return 0.9 * d * d / (d * d + self.haze * self.haze)

    def seen(
        self,
        tones: Sequence[Colour],
        which: NDArray[np.uint8],
        bright: Array,
        sky: Array | float,
        sun: Array | float,
        depth: Array,
        mirror: Array | None = None,
        glow: Array | None = None,
    ) -> Array:
        """Return the linear colour [3, ...] of surfaces [...] as the camera sees them.

        tones: reflectances; which: index into them for each pixel; bright: a factor on them. sky,
        sun: shares of ambient light and of sunlight that arrive. mirror: share of the horizon's
        light that replaces the surface's own; glow: share that is added. depth: metres of haze.
        """
        table = np.asarray(tones, np.float32)
        squared = np.minimum(depth * depth, np.float32(4e6))
        share = np.float32(0.9) * squared / (squared + np.float32(self.haze * self.haze))
        out = np.empty((3, *depth.shape), np.float32)
        for c in range(3):
            colour = table[:, c].take(which)
            colour *= bright
            colour *= sky * np.float32(self.ambient[c]) + sun * np.float32(self.sun[c])
            far = np.float32(self.horizon[c])
            if mirror is not None:
                colour += (far - colour) * mirror
            if glow is not None:
                colour += glow * far
            colour += (far - colour) * share
            out[c] = colour
        return out


def choose(dice: Dice) -> Light:
    """Choose a time of day and a weather, mostly those of a pale English winter."""
    weather = dice.pick(("sun", "milky", "overcast", "dusk"), (0.42, 0.26, 0.22, 0.10))
    azimuth = dice.uniform(-3.14159, 3.14159)
    height = dice.uniform(0.28, 0.75) if weather != "dusk" else dice.uniform(0.1, 0.2)
    c, s = turn(azimuth)
    rise, flat = turn(height)[1], turn(height)[0]
    to_sun = (s * flat, rise, c * flat)
    wet = dice.uniform(0.3, 1.0) if dice.chance(0.5 if weather == "overcast" else 0.06) else 0.0
    haze = dice.uniform(180, 700)
    offset = (dice.uniform(0, 400), dice.uniform(0, 400))
    noise = dice.uniform(0.006, 0.014)
    warm = dice.uniform(0.86, 1.0)
    if weather == "sun":
        sun = scaled((1.0, 0.93 * warm, 0.80 * warm), dice.uniform(1.6, 2.8))
        ambient = scaled((0.42, 0.47, 0.56), dice.uniform(0.5, 0.8))
        zenith, horizon = linear((0.48, 0.68, 0.93)), linear((0.90, 0.95, 1.0))
        cloud, cover = linear((1.02, 1.02, 1.02)), dice.uniform(0.0, 0.55)
    elif weather == "milky":
        sun = scaled((1.0, 0.96, 0.88), dice.uniform(0.5, 1.3))
        ambient = scaled((0.62, 0.65, 0.70), dice.uniform(0.6, 0.9))
        zenith, horizon = linear((0.76, 0.86, 0.97)), linear((0.98, 0.99, 1.0))
        cloud, cover = linear((1.05, 1.05, 1.05)), dice.uniform(0.5, 0.9)
    elif weather == "overcast":
        sun = scaled((1.0, 1.0, 1.0), dice.uniform(0.0, 0.08))
        ambient = scaled((0.80, 0.84, 0.90), dice.uniform(0.6, 1.0))
        zenith, horizon = linear((0.70, 0.75, 0.80)), linear((0.93, 0.95, 0.97))
        cloud, cover = linear((0.84, 0.87, 0.91)), dice.uniform(0.7, 1.0)
        haze *= 0.6
    else:
        sun = scaled((1.0, 0.72, 0.48), dice.uniform(0.1, 0.35))
        ambient = scaled((0.42, 0.46, 0.56), dice.uniform(0.30, 0.5))
        zenith, horizon = linear((0.42, 0.50, 0.60)), linear((0.72, 0.74, 0.74))
        cloud, cover = linear((0.40, 0.43, 0.49)), dice.uniform(0.4, 0.9)
    return Light(
        to_sun=to_sun,
        sun=sun,
        ambient=ambient,
        zenith=zenith,
        horizon=horizon,
        cloud=cloud,
        cover=cover,
        haze=haze,
        wet=wet,
        exposure=dice.uniform(0.75, 1.25) * (0.4 if weather == "dusk" else 1.0),
        noise=noise,
        offset=offset,
    )


def choose_anywhere(dice: Dice) -> Light:
    """Choose as `choose` does, but night or rain in two of five scenes.

    At night street lamps replace the sun: warm, weak light from above.
    """
    day = choose(dice)
    kind = dice.pick(("day", "night", "rain"), (0.6, 0.25, 0.15))
    if kind == "night":
        warm = dice.uniform(0.3, 1.0)
        lamp = mixed((1.0, 0.93, 0.84), (1.0, 0.62, 0.28), warm)
        return replace(
            day,
            to_sun=(0.0, 1.0, 0.0),
            sun=scaled(lamp, dice.uniform(0.02, 0.12)),
            ambient=scaled(mixed((0.5, 0.5, 0.6), lamp, 0.6), dice.uniform(0.03, 0.09)),
            zenith=linear((0.05, 0.06, 0.10)),
            horizon=scaled(lamp, dice.uniform(0.008, 0.03)),
            cloud=scaled(lamp, dice.uniform(0.008, 0.02)),
            haze=dice.uniform(200, 700),
            wet=dice.uniform(0.3, 1.0) if dice.chance(0.35) else 0.0,
            exposure=dice.uniform(0.3, 0.5),
            noise=day.noise * dice.uniform(2.0, 4.0),
            lamps=scaled(lamp, dice.uniform(1.5, 3.0)),
        )
    if kind == "rain":
        return replace(
            day,
            sun=(0.0, 0.0, 0.0),
            ambient=scaled((0.80, 0.84, 0.90), dice.uniform(0.4, 0.8)),
            zenith=linear((0.60, 0.64, 0.68)),
            horizon=linear((0.78, 0.80, 0.82)),
            cloud=linear((0.66, 0.69, 0.72)),
            cover=dice.uniform(0.9, 1.0),
            haze=dice.uniform(70, 200),
            wet=dice.uniform(0.7, 1.0),
            exposure=dice.uniform(0.6, 0.9),
            noise=day.noise * 1.8,
        )
    return day


def paint_sky(canvas: Canvas, camera: Camera, light: Light) -> None:
    """Paint the sky down to the horizon: a gradient, clouds on a plane far up, and the sun's glow.

    The sky is painted at half the canvas's resolution, as it has no fine detail.
    """
    last = min(canvas.height, max(2, int(camera.cy) + 4)) // 2
    rows = np.arange(last, dtype=np.float32) * 2 + 1
    cols = np.arange(canvas.width // 2, dtype=np.float32) * 2 + 1
    up = np.maximum((np.float32(camera.cy) - rows) / np.float32(camera.focal), np.float32(0.004))
    side = (cols - np.float32(camera.cx)) / np.float32(camera.focal)
    rise = np.minimum(up * np.float32(1.6), np.float32(1))
    rise = rise * (2 - rise)
    horizon = np.asarray(light.horizon, np.float32)[:, None, None]
    zenith = np.asarray(light.zenith, np.float32)[:, None, None]
    ramp = horizon + (zenith - horizon) * rise[:, None]
    colour = ramp + np.zeros((1, 1, len(cols)), np.float32)
    if light.cover > 0.02:
        far = (1 / (up + np.float32(0.12)))[:, None]
        u = side * far * 3 + np.float32(light.offset[0])
        v = far * 4 + np.float32(light.offset[1]) + np.zeros_like(u)
        thick = smooth("fractal", u, v, 9.0)
        edge = np.float32(0.78 - 0.56 * light.cover)
        share = np.clip((thick - edge) * np.float32(3.2), 0, 1)
        share = share * share * (3 - 2 * share) * np.float32(0.9)
        relief = smooth("fractal", u + np.float32(0.9), v + np.float32(0.5), 9.0) - thick
        relief = 1 + np.clip(relief * np.float32(1.6), -0.28, 0.22)
        haze = (1 / (1 + up * 9))[:, None]
        for c in range(3):
            white = np.float32(light.cloud[c]) * relief
            white += (np.float32(light.horizon[c]) - white) * haze
            colour[c] += (white - colour[c]) * share
    sun = camera.direction(light.to_sun)
    if sun[2] > 0.05:
        dx = side - np.float32(sun[0] / sun[2])
        dy = up - np.float32(sun[1] / sun[2])
        apart = (dx * dx)[None, :] + (dy * dy)[:, None]
        glow = np.float32(0.02 * 0.5 * (1 - light.cover * 0.7)) / (apart + np.float32(0.02))
        colour += glow * np.asarray(light.sun, np.float32)[:, None, None]
    for a in (0, 1):
        for b in (0, 1):
            canvas.rgb[:, a : 2 * last : 2, b::2] = colour
    canvas.rgb[:, 2 * last :] = horizon
    canvas.label[:] = SKY


def develop(
    canvas: Canvas, light: Light, dice: Dice
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Develop the canvas as a camera does: metering, lens fall-off, tone curve, noise, 8 bits.

    The meter uses the lower two thirds, so that a bright sky is overexposed as in a dash camera.
    """
    rgb, label = canvas.resolved()
    height, width = label.shape
    green = np.minimum(rgb[1, height // 3 :: 2, ::2], np.float32(1.0))
    mean = int((green * 65536).astype(np.int64).sum()) / (65536 * green.size)
    gain = light.exposure * 0.17 / max(0.02, mean)
    rgb *= np.float32(min(max(gain, 0.5), 3.0))
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / width * 2 - 1
    rgb *= 1 - np.float32(0.08) * ((y * y)[:, None] + (x * x)[None, :])
    np.clip(rgb, 0, 4, out=rgb)
    rgb *= (1 + rgb * np.float32(0.22)) / (1 + rgb * np.float32(0.30))
    shown = np.sqrt(rgb)
    shown *= np.float32(0.80) + np.float32(0.20) * np.minimum(shown, 1)
    soft = shown * np.float32(0.76)
    soft[:, :, 1:-1] += (shown[:, :, :-2] + shown[:, :, 2:]) * np.float32(0.12)
    soft[:, :, 0] += shown[:, :, 1] * np.float32(0.24)
    soft[:, :, -1] += shown[:, :, -2] * np.float32(0.24)
    grain = (dice.many(2, height, width).astype(np.float32) - np.float32(0.5)) * np.float32(
        light.noise * 2.4
    )
    hue = grain[1] * np.float32(0.5)
    soft += grain[0]
    soft[0] += hue
    soft[2] -= hue
    pixels = (np.clip(soft, 0, 1) * 255 + np.float32(0.5)).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0)), label
