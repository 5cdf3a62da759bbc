"""JPEG (ITU-T T.81) by libjpeg-turbo through Pillow, fitted to the budget.

Progressive, with optimised Huffman tables. The quantiser tables are those of annex K, scaled as
libjpeg does, by a quality in steps of 1/8: whole qualities give the same files as libjpeg, and the
steps between them are fine enough to fill a budget.

A progressive file that is cut short still gives a picture: its scans go from coarse to fine, and
the receiver decodes the part before the first loss.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from channels.config.checks import choice
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.file_codec import FileCodec, decode_with_pillow
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError

_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
_STEPS = 8
"""Settings per unit of quality."""
CHROMA = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4"}
_EOI = b"\xff\xd9"


@register("jpeg")
class JPEG(FileCodec):
    """The codec `jpeg`.

    packet_bytes: size of the slices of the file, which is decoded up to the first loss. chroma:
    "420", "422" or "444".

    A native `quality` is libjpeg's, 1 to 100 in steps of 1/8.
    """

    name = "jpeg"
    suffix = ".jpg"
    settings = 99 * _STEPS + 1
    decoder = "sqlink.codecs.jpeg:decode_jpeg"
    cut_decodes = True
    typical_bpp = ((0, 0.15), (32, 0.22), (72, 0.38), (232, 0.85), (392, 1.2), (792, 8.0))

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES, chroma: str | int = "420") -> None:
        super().__init__(packet_bytes)
        # Without quotes, YAML reads 420 as a number.
        self.chroma = choice(
            self.name, "chroma", str(chroma) if isinstance(chroma, int) else chroma, CHROMA
        )

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if libjpeg refuses the picture."""
        from PIL import Image

        file = io.BytesIO()
        try:
            Image.fromarray(picture).save(
                file,
                format="JPEG",
                qtables=quantiser_tables(1 + setting / _STEPS),
                subsampling=CHROMA[self.chroma],
                optimize=True,
                progressive=True,
            )
        except (OSError, ValueError) as error:
            height, width = picture.shape[:2]
            raise DataError(
                f"libjpeg cannot code a picture of {width}x{height} ({error})"
            ) from error
        return file.getvalue()

    def setting(self, quality: float) -> int:
        """Return the setting of a quality. Raises ConfigError unless it is 1 to 100 in steps of
        1/8.
        """
        if not 1 <= quality <= 100 or quality * _STEPS != int(quality * _STEPS):
            raise ConfigError(f"jpeg quality={quality:g} must be 1 to 100 in steps of 1/{_STEPS}")
        return int((quality - 1) * _STEPS)

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        from PIL import features

        return {
            "libjpeg-turbo": str(features.version("libjpeg_turbo")),
            "parameters": f"progressive, optimized, {CHROMA[self.chroma]}, tables of annex K "
            f"scaled by quality in steps of 1/{_STEPS}",
        }

    def check_whole(self, data: bytes) -> None:
        """Raise DataError if a file does not end as a JPEG file does."""
        if data[:2] != b"\xff\xd8" or data[-2:] != _EOI:
            raise DataError("this is not a JPEG file, or it is cut short")


def quantiser_tables(quality: float) -> list[list[int]]:
    """Return the luma and chroma tables of 64 values, row by row: annex K, scaled as by libjpeg.

    >>> quantiser_tables(50)[0][:3], quantiser_tables(25)[0][:3]
    ([16, 11, 10], [32, 22, 20])
    """
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    if quality == int(quality):
        scale = int(scale)  # as libjpeg rounds it
    tables = np.floor((np.array((_LUMA, _CHROMA)) * scale + 50) / 100).clip(1, 255)
    return [[int(step) for step in table] for table in tables]


def decode_jpeg(data: bytes) -> Pixels:
    """Decode a file or its beginning to uint8 [H, W, 3]; runs in the decoders' worker process."""
    return decode_with_pillow(data, "JPEG", truncated=True)
