"""JPEG XL (ISO/IEC 18181) by libjxl through imagecodecs, fitted to the budget.

Of the packages with libjxl, imagecodecs is released monthly under a BSD licence, lets the encoder
use its colour space XYB (pylibjxl does not, which takes five times the bytes), and writes a bare
codestream. The ladder is libjxl's distance, from 25, its coarsest, to 0.05 in steps of 2 %.

libjxl can decode a file that is cut short, but no package offers this: a loss is an outage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from channels.config.checks import integer
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.file_codec import FileCodec, expected
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError, MissingExtraError, one_line

_COARSEST, _FINEST = 25.0, 0.05
_STEP = 1.02


def load_imagecodecs() -> ModuleType:
    """Import imagecodecs. Raises MissingExtraError if it is not installed."""
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("JPEG XL needs imagecodecs: pip install sqlink[jpegxl]") from error
    module: ModuleType = imagecodecs
    return module


@register("jpegxl")
class JPEGXL(FileCodec):
    """The codec `jpegxl`.

    packet_bytes: size of the slices of the file, all of which are needed. effort: libjxl's, 1 to 9.
    Raises MissingExtraError without imagecodecs.

    A native `quality` is the distance, 25 (coarsest) to 0.05, rounded to the nearest step of 2 %.
    """

    name = "jpegxl"
    suffix = ".jxl"
    settings = int(math.log(_COARSEST / _FINEST) / math.log(_STEP)) + 1
    decoder = "sqlink.codecs.jpegxl:decode_jpegxl"
    typical_bpp = ((0, 0.13), (26, 0.19), (81, 0.53), (162, 1.87), (270, 5.5), (313, 8.0))

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES, effort: int = 7) -> None:
        super().__init__(packet_bytes)
        self.effort = integer(self.name, "effort", effort, 1, 9)
        load_imagecodecs()

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if libjxl refuses the picture."""
        imagecodecs = load_imagecodecs()
        try:
            coded = imagecodecs.jpegxl_encode(
                picture,
                distance=_COARSEST / _STEP**setting,
                effort=self.effort,
                usecontainer=False,
                numthreads=1,
            )
        except (imagecodecs.JpegxlError, ValueError) as error:
            height, width = picture.shape[:2]
            raise DataError(
                f"libjxl cannot code a picture of {width}x{height} ({error})"
            ) from error
        return bytes(coded)

    def setting(self, quality: float) -> int:
        """Return the setting nearest to a distance. Raises ConfigError unless it is 0.05 to 25."""
        if not _FINEST <= quality <= _COARSEST:
            raise ConfigError(
                f"jpegxl quality={quality:g} is a distance: {_FINEST:g} to {_COARSEST:g} (coarsest)"
            )
        nearest = round(math.log(_COARSEST / quality) / math.log(_STEP))
        return min(nearest, self.settings - 1)

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        imagecodecs = load_imagecodecs()
        return {
            "imagecodecs": str(imagecodecs.__version__),
            "libjxl": str(imagecodecs.jpegxl_version()).removeprefix("libjxl "),
            "parameters": f"XYB, effort {self.effort}, bare codestream, one thread, distance in "
            f"steps of {_STEP - 1:.0%}",
        }


def codestream_size(file: bytes) -> tuple[int, int]:
    """Read height and width of a bare codestream (18181-1, SizeHeader). Raises DataError.

    >>> codestream_size(bytes.fromhex("ff0a43") + bytes(9))
    (16, 16)
    """
    if file[:2] != b"\xff\x0a" or len(file) < 12:
        raise DataError("this is not a JPEG XL codestream, or it is cut short")
    bits = int.from_bytes(file[2:12], "little")

    def read(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def side(small: bool) -> int:
        return 8 * (1 + read(5)) if small else 1 + read((9, 13, 18, 30)[read(2)])

    small = bool(read(1))
    height = side(small)
    ratio = read(3)
    if not ratio:
        return height, side(small)
    numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height, height * numerator // denominator


def decode_jpegxl(data: bytes) -> Pixels:
    """Decode a file to uint8 [H, W, 3]; runs in the decoders' worker process."""
    imagecodecs = load_imagecodecs()
    file, check = expected(data)
    check(*codestream_size(file))
    try:
        picture = np.asarray(imagecodecs.jpegxl_decode(file, numthreads=1))
    except (imagecodecs.JpegxlError, ValueError) as error:
        raise DataError(f"the JPEG XL file is damaged: {one_line(error)}") from error
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError("the JPEG XL file holds no picture of three colours with 8 bits")
    return picture
