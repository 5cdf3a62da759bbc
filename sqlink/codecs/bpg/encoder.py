"""Encoder of genuine BPG files by x265 (PyAV), equivalent to libbpg's `bpgenc -m 8 -q QP -f 420`.

    RGB ─ rgb_to_ycc ─ halve ─ pad to whole blocks ─ x265, one intra picture at a constant QP
        ─ VPS and SPS replaced by BPG's header ─> file

Settings are those of libbpg 0.9.8: preset veryslow, tune ssim (psychovisual tuning costs 4 % of the
rate at equal PSNR). ipratio=1 keeps the intra picture at QP rather than QP - 3. One thread, no
wavefronts: the bytes depend only on the pixels, the QP and the version of x265. QPs between whole
ones are those of `fractional_qp`.
"""

from __future__ import annotations

from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np

from sqlink.codecs.bpg.colour import Plane, halve, halve_columns, rgb_to_ycc
from sqlink.codecs.bpg.container import GREY, YUV420, YUV422, YUV444, BPGFile
from sqlink.codecs.bpg.decoder import load_av
from sqlink.codecs.bpg.hevc import IDR, PPS, SPS, nal_type, nal_units, parse_sps
from sqlink.codecs.fractional_qp import LADDER, MAX_QP, MIN_QP, STATED, x265_quantiser
from sqlink.errors import ConfigError, DataError

PRESET, TUNE = "veryslow", "ssim"
X265_PARAMS = (
    "{quantiser}:ipratio=1.0:keyint=1:min-keyint=1:bframes=0:scenecut=0:rc-lookahead=0:"
    "repeat-headers=1:annexb=1:aud=0:hrd=0:info=0:hash=0:wpp=0:pools=none:frame-threads=1:"
    "slices=1:open-gop=0:ctu={ctu}:min-cu-size={min_cu}:max-tu-size={max_tu}:log-level=none"
)
_PIXEL_FORMATS = {GREY: "gray", YUV420: "yuv420p", YUV422: "yuv422p", YUV444: "yuv444p"}
CHROMA = {"420": YUV420, "422": YUV422, "444": YUV444, "grey": GREY}


def encode_bpg(image: Plane, qp: float, chroma: str = "420") -> bytes:
    """Encode an image uint8 [H, W, 3] to a BPG file.

    qp: 0 (best) to 51, whole or of `fractional_qp.LADDER`. chroma: "420", "422", "444" or "grey"
    (luma alone). Raises ConfigError for another qp or chroma, DataError if the picture is too large
    for x265, MissingExtraError without PyAV.
    """
    if qp not in LADDER:
        raise ConfigError(
            f"BPG's qp must be {MIN_QP} to {MAX_QP}, whole or one of {STATED}, not {qp!r}"
        )
    if chroma not in CHROMA:
        raise ConfigError(f"BPG's chroma must be one of {', '.join(CHROMA)}, not {chroma!r}")
    return encode_planes(planes(image, chroma), image.shape[0], image.shape[1], qp, CHROMA[chroma])


def planes(image: Plane, chroma: str = "420") -> list[Plane]:
    """Convert an image uint8 [H, W, 3] to the planes to code: Y, or Y, Cb and Cr, at their
    sizes.
    """
    luma, cb, cr = rgb_to_ycc(image)
    if chroma == "grey":
        return [luma]
    if chroma == "444":
        return [luma, cb, cr]
    half = halve if chroma == "420" else halve_columns
    return [luma, half(cb), half(cr)]


def encode_planes(
    coded: list[Plane], height: int, width: int, qp: float, pixel_format: int
) -> bytes:
    """Encode `planes` of an image of height x width to a BPG file; see `encode_bpg`.

    pixel_format: the number of the planes' format in the file, one of CHROMA.
    """
    av = load_av()
    # x265 needs a picture of at least one tree block, and tree blocks of 16 or more.
    block = 8 if min(height, width) > 8 else 16
    coded_height, coded_width = -(-height // block) * block, -(-width // block) * block
    ctu = max(size for size in (16, 32, 64) if size <= max(16, min(coded_height, coded_width)))
    av.logging.set_level(av.logging.PANIC)
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height = coded_width, coded_height
    context.pix_fmt = _PIXEL_FORMATS[pixel_format]
    context.time_base = Fraction(1, 25)
    context.thread_count = 1
    quantiser = ":".join(f"{name}={value}" for name, value in x265_quantiser(qp, ctu).items())
    context.options = {
        "preset": PRESET,
        "tune": TUNE,
        "x265-params": X265_PARAMS.format(
            quantiser=quantiser, ctu=ctu, min_cu=block, max_tu=min(ctu, 32)
        ),
    }
    try:
        frame = _frame(av, coded, coded_width, coded_height, context.pix_fmt)
        packets = [*context.encode(frame), *context.encode(None)]
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        raise DataError(f"x265 cannot code a picture of {width}x{height} ({error})") from error
    units = nal_units(b"".join(bytes(packet) for packet in packets))
    kept = [unit for unit in units if nal_type(unit) == PPS or nal_type(unit) < 32]
    if [nal_type(unit) == PPS or nal_type(unit) in IDR for unit in kept] != [True, True]:
        raise RuntimeError("x265 made other NAL units than one PPS and one intra picture")
    (sps,) = (unit for unit in units if nal_type(unit) == SPS)
    tools, stated_width, stated_height = parse_sps(sps)
    file = BPGFile(width, height, pixel_format, tools, b"\0\0\1".join(kept))
    if file.coded_size != (stated_width, stated_height):
        raise RuntimeError("x265 coded another size than BPG derives from the picture's")
    return file.to_bytes()


def _frame(av: ModuleType, coded: list[Plane], width: int, height: int, pix_fmt: str) -> Any:
    """Make a frame of width x height from the planes, with their last row and column repeated."""
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, samples in zip(frame.planes, coded, strict=True):
        rows = plane.height - samples.shape[0]
        columns = plane.width - samples.shape[1]
        padded = np.pad(samples, ((0, rows), (0, columns)), mode="edge")
        buffer = np.zeros((plane.height, plane.line_size), np.uint8)
        buffer[:, : plane.width] = padded
        plane.update(buffer)
    frame.pts = 0
    return frame
