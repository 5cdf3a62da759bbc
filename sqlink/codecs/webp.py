"""WebP (RFC 9649, lossy: VP8 intra) by libwebp through Pillow, fitted to the budget.

Method 6, the slowest and best. The quality is that of libwebp, in steps of 1/4, about 2 % of the
bytes each; the first few, just above the lowest rate, differ by up to 25 %, and libwebp has none
between them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.file_codec import FileCodec, decode_with_pillow
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError

_STEPS = 4
"""Settings per unit of quality."""
_METHOD = 6


@register("webp")
class WebP(FileCodec):
    """The codec `webp`.

    packet_bytes: size of the slices of the file, all of which are needed.

    A native `quality` is libwebp's, 0 to 100 in steps of 1/4.
    """

    name = "webp"
    suffix = ".webp"
    settings = 100 * _STEPS + 1
    decoder = "sqlink.codecs.webp:decode_webp"
    typical_bpp = (
        (0, 0.11),
        (4, 0.16),
        (16, 0.21),
        (40, 0.27),
        (100, 0.42),
        (300, 1.1),
        (400, 4.0),
    )

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES) -> None:
        super().__init__(packet_bytes)

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if libwebp refuses the picture."""
        from PIL import Image

        file = io.BytesIO()
        try:
            Image.fromarray(picture).save(
                file, format="WEBP", quality=setting / _STEPS, method=_METHOD, exact=True
            )
        except (OSError, ValueError) as error:
            height, width = picture.shape[:2]
            raise DataError(
                f"libwebp cannot code a picture of {width}x{height} ({error})"
            ) from error
        return file.getvalue()

    def setting(self, quality: float) -> int:
        """Return the setting of a quality. Raises ConfigError unless it is 0 to 100 in steps of
        1/4.
        """
        if not 0 <= quality <= 100 or quality * _STEPS != int(quality * _STEPS):
            raise ConfigError(f"webp quality={quality:g} must be 0 to 100 in steps of 1/{_STEPS}")
        return int(quality * _STEPS)

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        from PIL import features

        return {
            "libwebp": str(features.version("webp")),
            "parameters": f"lossy, method {_METHOD}, quality in steps of 1/{_STEPS}",
        }


def decode_webp(data: bytes) -> Pixels:
    """Decode a file to uint8 [H, W, 3]; runs in the decoders' worker process."""
    return decode_with_pillow(data, "WEBP")
