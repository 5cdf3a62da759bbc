"""VVC (H.266) intra pictures by VVenC, fitted to the budget.

    RGB ─ BT.601, full range, 4:2:0 as BPG's ─ 10 bits ─ ffmpeg -c:v libvvenc ─> VPS? SPS PPS slice
    stream ─ libavcodec's VVC decoder (PyAV) ─ 8 bits ─ chroma doubled as BPG's ─> RGB

There is no Python package for VVenC, but the program ffmpeg in imageio-ffmpeg's wheel includes it:
each encoding is one run of that program, with a time limit and without a shell. The stream is the
bare elementary stream (Annex B): both ends know its colours and siting. VVenC codes in 10 bits.
4:2:0 needs even sides, and VVenC sides of at least 64, its tree block: if a side is odd or smaller,
the picture's size precedes the stream.

Whole QPs differ by 14 % of the bytes; between them, VVenC's Lagrange multiplier for intra pictures
adds two steps.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from channels.config.checks import choice
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.bpg.colour import double, halve, rgb_to_ycc, ycc_to_rgb
from sqlink.codecs.bpg.decoder import load_av
from sqlink.codecs.file_codec import FileCodec, expected
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError, MissingExtraError, one_line

MIN_QP, MAX_QP = 10, 63
"""Range of QPs; below 10, ffmpeg's buffer for VVenC is too small for the stream of a noisy picture.
"""
_LAMBDAS = (1.3, 1.15, 1.0)
LADDER = (
    (MAX_QP, 1.0),
    *((qp, factor) for qp in range(MAX_QP - 1, MIN_QP - 1, -1) for factor in _LAMBDAS),
)
"""QP and factor of the Lagrange multiplier, coarse to fine."""
PRESETS = ("faster", "fast", "medium", "slow", "slower")
_TIME_LIMIT_S = 120.0
_PIXELS_PER_S = 5000
_DROPPED = (20, 23, 24)
"""NAL units without influence on the picture: access unit delimiter, prefix and suffix SEI."""
_START = b"\0\0\1"
_SMALLEST = 64
_SIZE = struct.Struct(">BHH")
_SIZED = 1
"""The first byte where the picture's height and width come before the stream."""


@cache
def ffmpeg() -> str:
    """Find a program ffmpeg that includes VVenC. Raises MissingExtraError if there is none."""
    try:
        import imageio_ffmpeg

        program: str = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise MissingExtraError(
            "VVC needs imageio-ffmpeg and PyAV: pip install sqlink[vvc]"
        ) from error
    if b" libvvenc " not in _run([program, "-hide_banner", "-encoders"], b"", _TIME_LIMIT_S):
        raise MissingExtraError(
            f"{program} has no VVenC: unset IMAGEIO_FFMPEG_EXE, pip install 'imageio-ffmpeg>=0.8'"
        )
    return program


def _run(command: list[str], data: bytes, limit_s: float) -> bytes:
    """Run a command with `data` on standard input; return its standard output. Raises DataError."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=limit_s)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"ffmpeg took more than {limit_s:g} s for one picture") from error
    except OSError as error:
        raise MissingExtraError(f"{command[0]} does not start: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"ffmpeg failed: {said[-1] if said else f'exit {done.returncode}'}")
    return done.stdout


@register("vvc")
class VVC(FileCodec):
    """The codec `vvc`; cite its results as "VVenC via ffmpeg".

    packet_bytes: size of the slices of the stream, all of which are needed. preset: VVenC's, from
    `faster` to `slower`. Raises MissingExtraError without imageio-ffmpeg and PyAV.

    A native `quality` is the QP, 10 (best) to 63.
    """

    name = "vvc"
    suffix = ".266"
    settings = len(LADDER)
    decoder = "sqlink.codecs.vvc:decode_vvc"
    typical_bpp = tuple(
        (3.0 * (MAX_QP - qp), bpp)
        for qp, bpp in ((63, 0.008), (58, 0.02), (52, 0.055), (46, 0.13), (41, 0.25), (36, 0.42),
                        (30, 0.8), (20, 2.0), (10, 4.5))
    )  # fmt: skip

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES, preset: str = "medium") -> None:
        super().__init__(packet_bytes)
        self.preset = choice(self.name, "preset", preset, PRESETS)
        load_av("VVC", "vvc")
        ffmpeg()

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a stream. Raises DataError if VVenC refuses the picture."""
        qp, factor = LADDER[setting]
        height, width = picture.shape[:2]
        luma, cb, cr = rgb_to_ycc(picture)
        coded = [max(side + side % 2, _SMALLEST) for side in (height, width)]
        planes = [
            _padded(luma, *coded),
            *(_padded(halve(plane), coded[0] // 2, coded[1] // 2) for plane in (cb, cr)),
        ]
        raw = b"".join((plane.astype("<u2") << 2).tobytes() for plane in planes)
        parameters = "verbosity=0" + ("" if factor == 1 else f":LambdaModifierI={factor:g}")
        command = [
            ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin",
            "-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{coded[1]}x{coded[0]}",
            "-i", "pipe:0", "-frames:v", "1", "-c:v", "libvvenc", "-preset", self.preset,
            "-qp", str(qp), "-qpa", "0", "-threads", "1", "-vvenc-params", parameters,
            "-f", "vvc", "pipe:1",
        ]  # fmt: skip
        try:
            stream = _run(command, raw, _TIME_LIMIT_S + height * width / _PIXELS_PER_S)
        except DataError as error:
            raise DataError(f"VVenC cannot code a picture of {width}x{height} ({error})") from error
        size = b"" if coded == [height, width] else _SIZE.pack(_SIZED, height, width)
        return size + without_extras(stream)

    def setting(self, quality: float) -> int:
        """Return the setting of a QP. Raises ConfigError unless it is a whole number from
        10 to 63.
        """
        if not MIN_QP <= quality <= MAX_QP or quality != int(quality):
            raise ConfigError(
                f"vvc quality={quality:g} is a QP: a whole number from {MIN_QP} (best) to {MAX_QP}"
            )
        return LADDER.index((int(quality), 1.0))

    def quality(self, setting: int) -> float:
        """Return the QP of a setting, whatever its Lagrange multiplier."""
        return float(LADDER[setting][0])

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        said = _run([ffmpeg(), "-version"], b"", _TIME_LIMIT_S).decode(errors="replace")
        found = re.search(r"ffmpeg version (\S+)", said)
        return {
            "encoder": f"VVenC via ffmpeg {found[1] if found else 'of unknown version'}",
            "decoder": f"libavcodec of PyAV {load_av('VVC', 'vvc').__version__}",
            "parameters": f"preset {self.preset}, 4:2:0, 10 bits, BT.601 full range, qpa 0, one "
            f"thread, LambdaModifierI {_LAMBDAS}",
        }


def _padded(plane: Pixels, height: int, width: int) -> Pixels:
    """Enlarge a plane, its last row and column repeated."""
    missing = ((0, height - plane.shape[0]), (0, width - plane.shape[1]))
    return np.pad(plane, missing, mode="edge")


def without_extras(stream: bytes) -> bytes:
    """Remove delimiters and SEI from a stream."""
    units = [unit.rstrip(b"\0") for unit in stream.split(_START)[1:]]
    return b"".join(_START + u for u in units if len(u) > 1 and u[1] >> 3 not in _DROPPED)


def decode_vvc(data: bytes) -> Pixels:
    """Decode a stream to uint8 [H, W, 3]; runs in the decoders' worker process."""
    av = load_av("VVC", "vvc")
    file, check = expected(data)
    size, stream = None, file
    if file[:1] == bytes((_SIZED,)) and len(file) > _SIZE.size:
        _, *size = _SIZE.unpack(file[: _SIZE.size])
        check(*size)
        stream = file[_SIZE.size :]
    if stream[:3] != _START:
        raise DataError("this is not a VVC stream, or it is cut short")
    av.logging.set_level(av.logging.PANIC)
    context = av.CodecContext.create("vvc", "r")
    context.thread_count = 1
    try:
        frames = [*context.decode(av.Packet(stream)), *context.decode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"the VVC stream is damaged ({one_line(error)})") from error
    if len(frames) != 1 or frames[0].is_corrupt or frames[0].format.name != "yuv420p10le":
        raise DataError("the VVC stream is damaged: it gives no picture of 4:2:0 and 10 bits")
    frame = frames[0]
    height, width = size or (frame.height, frame.width)
    check(height, width)
    if min(height, width) < 1 or height > frame.height or width > frame.width:
        raise DataError("the VVC stream is damaged: its picture is smaller than it says")
    luma, cb, cr = (_eight_bits(frame.planes[n]) for n in range(3))
    half = (slice((height + 1) // 2), slice((width + 1) // 2))
    return ycc_to_rgb(
        luma[:height, :width], *(double(plane[half], height, width) for plane in (cb, cr))
    )


def _eight_bits(plane: Any) -> Pixels:
    rows = np.frombuffer(plane, "<u2").reshape(-1, plane.line_size // 2)
    samples = rows[: plane.height, : plane.width]
    eight: Pixels = ((samples.astype(np.int32) + 2) >> 2).clip(0, 255).astype(np.uint8)
    return eight
