"""BPG files to pixels, by libavcodec's HEVC decoder (PyAV).

Native code reads the bytes, so decode files of unknown origin through
`sqlink.codecs.worker.decode_in_worker("sqlink.codecs.bpg.decoder:decode_bpg", data)`.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from sqlink.codecs.bpg.colour import Plane, double, double_columns, ycc_to_rgb
from sqlink.codecs.bpg.container import DEFAULT_MAX_PIXELS, GREY, YUV420, YUV422, BPGFile
from sqlink.codecs.bpg.hevc import START_CODE, parameter_sets
from sqlink.codecs.file_codec import expected
from sqlink.errors import DataError, MissingExtraError

_CHROMA = {
    "gray": 0, "yuv420p": 1, "yuvj420p": 1, "yuv422p": 2, "yuvj422p": 2,
    "yuv444p": 3, "yuvj444p": 3, "gbrp": 3,
}  # fmt: skip


def load_av(what: str = "BPG", extra: str = "bpg") -> ModuleType:
    """Import PyAV. Raises MissingExtraError if it is not installed."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise MissingExtraError(f"{what} needs PyAV: pip install sqlink[{extra}]") from error
    module: ModuleType = av
    return module


def decode_bpg(data: bytes, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> Plane:
    """Decode a BPG file to uint8 [H, W, 3], equal to the reference decoder's picture to the pixel.

    Raises DataError if the file is visibly damaged (most flipped bits are not detected), has more
    than `max_pixels` pixels (None: no limit) or is not supported by `container`; MissingExtraError
    without PyAV.
    """
    av = load_av()
    file = BPGFile.from_bytes(data, max_pixels)
    coded_width, coded_height = file.coded_size
    stream = parameter_sets(file.tools, coded_width, coded_height, file.pixel_format, depth=8)
    av.logging.set_level(av.logging.PANIC)
    context = av.CodecContext.create("hevc", "r")
    context.thread_count = 1
    try:
        packet = av.Packet(stream + START_CODE + file.units)
        frames = [*context.decode(packet), *context.decode(None)]
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(f"the BPG file's picture data are damaged ({error})") from error
    if not frames:
        raise DataError("the BPG file's picture data are damaged: no picture comes out of them")
    frame = frames[0]
    if (
        frame.is_corrupt
        or (frame.width, frame.height) != (coded_width, coded_height)
        or _CHROMA.get(frame.format.name) != file.pixel_format
    ):
        raise DataError("the BPG file's picture data are damaged: they do not fit its header")
    planes = [_plane(frame, n) for n in range(1 if file.pixel_format == GREY else 3)]
    height, width = file.height, file.width
    luma = planes[0][:height, :width]
    if file.pixel_format == GREY:
        return np.repeat(luma[..., None], 3, axis=2)
    if file.pixel_format == YUV420:
        half = (slice((height + 1) // 2), slice((width + 1) // 2))
        cb, cr = (double(plane[half], height, width) for plane in planes[1:])
    elif file.pixel_format == YUV422:
        cb, cr = (double_columns(p[:height, : (width + 1) // 2], width) for p in planes[1:])
    else:
        cb, cr = (plane[:height, :width] for plane in planes[1:])
    return ycc_to_rgb(luma, cb, cr)


def decode_expected(data: bytes) -> Plane:
    """Decode the file in a request of `file_codec`; the size is checked before decoding."""
    file, check = expected(data)
    header = BPGFile.from_bytes(file, None)
    check(header.height, header.width)
    return decode_bpg(file, max_pixels=None)


def _plane(frame: Any, number: int) -> Plane:
    plane = frame.planes[number]
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]
