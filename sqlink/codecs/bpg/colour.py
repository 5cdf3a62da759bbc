"""BPG's colours and resampling in the integer arithmetic of the reference software.

    RGB ── rgb_to_ycc ──> Y, Cb, Cr at full size ── halve ──> 4:2:0
    4:2:0 ── double ──> Cb, Cr at full size ── ycc_to_rgb ──> RGB

Chroma samples of 4:2:0 lie in the middle of four pixels, those of 4:2:2 (`halve_columns`,
`double_columns`) in the middle of two (JPEG siting). The reference filters are
those of libbpg 0.9.8: 10 taps down (7 bits), 7 taps up (6 bits), edges replicated.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.uint8]
Wide = npt.NDArray[np.int32]

_DOWN = (2, -4, -8, 17, 57, 57, 17, -8, -4, 2)
_UP = (-1, 4, -10, 57, 18, -6, 2)
_REACH_DOWN, _REACH_UP = 5, 3
_KR, _KB = 0.299, 0.114
_SHIFT = 22
_HALF = 1 << _SHIFT - 1


def _fixed(value: float) -> int:
    return round(value * (1 << _SHIFT))


def halve(plane: Plane) -> Plane:
    """Halve a chroma plane [H, W] to [ceil(H/2), ceil(W/2)], samples between the pixels."""
    rows = (_decimate(plane.astype(np.int32)) + 1) >> 1
    both = _decimate(np.ascontiguousarray(rows.T))
    return _clip((both.T + (1 << 12)) >> 13)


def halve_columns(plane: Plane) -> Plane:
    """Halve the width of a chroma plane [H, W] to [H, ceil(W/2)], samples between the pixels."""
    return _clip((_decimate(plane.astype(np.int32)) + (1 << 6)) >> 7)


def _decimate(plane: Wide) -> Wide:
    """Keep every second sample of each row, filtered: [H, W] -> [H, ceil(W/2)]."""
    half = (plane.shape[1] + 1) // 2
    padded = np.pad(plane, ((0, 0), (_REACH_DOWN - 1, _REACH_DOWN + 1)), mode="edge")
    out = np.zeros((plane.shape[0], half), np.int32)
    for tap, weight in enumerate(_DOWN):
        out += weight * padded[:, tap : tap + 2 * half : 2][:, :half]
    return out


def double(plane: Plane, height: int, width: int) -> Plane:
    """Double a chroma plane [ceil(H/2), ceil(W/2)] to [height, width]."""
    columns = _interpolate(np.ascontiguousarray(plane.T).astype(np.int32), height)  # [W/2, H]
    both = _interpolate(np.ascontiguousarray(columns.T), width)
    return _clip((both + (1 << 11)) >> 12)


def double_columns(plane: Plane, width: int) -> Plane:
    """Double the width of a chroma plane [H, ceil(W/2)] to [H, width]."""
    return _clip((_interpolate(plane.astype(np.int32), width) + (1 << 5)) >> 6)


def _interpolate(plane: Wide, width: int) -> Wide:
    """Double the samples of each row, 64 times as large: [H, ceil(W/2)] -> [H, width]."""
    half = plane.shape[1]
    padded = np.pad(plane, ((0, 0), (_REACH_UP, _REACH_UP)), mode="edge")
    out = np.zeros((plane.shape[0], 2 * half), np.int32)
    for tap, weight in enumerate(_UP):
        out[:, 1::2] += weight * padded[:, tap : tap + half]
        out[:, 0::2] += weight * padded[:, len(_UP) - 1 - tap :][:, :half]
    return out[:, :width]


def rgb_to_ycc(image: Plane) -> tuple[Plane, Plane, Plane]:
    """Convert an image uint8 [H, W, 3] to Y, Cb, Cr [H, W]: BT.601, full range."""
    red, green, blue = (image[..., n].astype(np.int32) for n in range(3))
    luma = _fixed(_KR) * red + _fixed(1 - _KR - _KB) * green + _fixed(_KB) * blue
    cb = _weighted(red, green, blue, (-_KR / (2 - 2 * _KB), -(1 - _KR - _KB) / (2 - 2 * _KB), 0.5))
    cr = _weighted(red, green, blue, (0.5, -(1 - _KR - _KB) / (2 - 2 * _KR), -_KB / (2 - 2 * _KR)))
    return _clip((luma + _HALF) >> _SHIFT), _clip(cb + 128), _clip(cr + 128)


def _weighted(red: Wide, green: Wide, blue: Wide, weights: tuple[float, float, float]) -> Wide:
    r, g, b = (_fixed(weight) for weight in weights)
    return (r * red + g * green + b * blue + _HALF) >> _SHIFT


def ycc_to_rgb(luma: Plane, cb: Plane, cr: Plane) -> Plane:
    """Convert Y, Cb, Cr [H, W] to an image uint8 [H, W, 3]: BT.601, full range."""
    height, width = luma.shape
    image = np.empty((height, width, 3), np.uint8)
    step = max(
        1, (1 << 20) // width
    )  # rows at a time: 32-bit planes of a large picture need much memory
    for top in range(0, height, step):
        rows = slice(top, top + step)
        y = (luma[rows].astype(np.int32) << _SHIFT) + _HALF
        b = cb[rows].astype(np.int32) - 128
        r = cr[rows].astype(np.int32) - 128
        green = y - _fixed(2 * _KB * (1 - _KB) / (1 - _KB - _KR)) * b
        green -= _fixed(2 * _KR * (1 - _KR) / (1 - _KB - _KR)) * r
        image[rows, :, 0] = _clip((y + _fixed(2 - 2 * _KR) * r) >> _SHIFT)
        image[rows, :, 1] = _clip(green >> _SHIFT)
        image[rows, :, 2] = _clip((y + _fixed(2 - 2 * _KB) * b) >> _SHIFT)
    return image


def _clip(plane: Wide) -> Plane:
    return plane.clip(0, 255).astype(np.uint8)
