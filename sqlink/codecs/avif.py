"""AVIF (AV1 intra pictures) by libavif and libaom through Pillow, fitted to the budget.

`tune=psnr`, one thread: the bytes depend only on the picture, the setting and the versions. AV1's
quantiser has 64 steps here, which differ by 7 to 16 % of the bytes at low rates. The coarsest
differ by up to 30 %; between them, libaom's `sharpness` adds three steps. At finer steps it would
fill the budget without improving quality (-0.1 dB at 5 % more bytes), and is not used.

About 290 bytes of each file are its container.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

from channels.config.checks import choice, integer
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.file_codec import FileCodec, decode_with_pillow
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError, MissingExtraError

_QUANTISERS = 64
_SHARPNESS = (0, 2, 4, 6)
_FINE = 2
"""Number of coarsest quantisers between which `sharpness` adds steps."""
CHROMA = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4"}


def quality_of(quantiser: int) -> int:
    """Return libavif's highest quality, 0 to 100, that gives a quantiser, 0 (best) to 63.

    >>> quality_of(63), quality_of(62), quality_of(0)
    (0, 2, 100)
    """
    return max(q for q in range(101) if ((100 - q) * 63 + 50) // 100 == quantiser)


_LADDER = tuple(
    (quality_of(_QUANTISERS - 1 - step), sharpness)
    for step in range(_QUANTISERS)
    for sharpness in (_SHARPNESS if step < _FINE else (0,))
)
"""libavif's quality and libaom's sharpness at each setting."""


@register("avif")
class AVIF(FileCodec):
    """The codec `avif`.

    packet_bytes: size of the slices of the file, all of which are needed. chroma: "420", "422" or
    "444". speed: libavif's, 0 (slowest, best) to 10; 4 is within 0.1 dB of 2 in half its time.
    Raises MissingExtraError if Pillow was built without libavif.

    A native `quality` is libavif's, 0 to 100.
    """

    name = "avif"
    suffix = ".avif"
    settings = len(_LADDER)
    decoder = "sqlink.codecs.avif:decode_avif"
    typical_bpp = (
        (0, 0.045), (4, 0.058), (8, 0.074), (13, 0.128), (18, 0.2), (30, 0.45), (69, 6.0)
    )  # fmt: skip

    def __init__(
        self,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        chroma: str | int = "420",
        speed: int = 4,
    ) -> None:
        from PIL import features

        super().__init__(packet_bytes)
        # Without quotes, YAML reads 420 as a number.
        self.chroma = choice(
            self.name, "chroma", str(chroma) if isinstance(chroma, int) else chroma, CHROMA
        )
        self.speed = integer(self.name, "speed", speed, 0, 10)
        if not features.check("avif"):
            raise MissingExtraError("AVIF needs a Pillow with libavif: pip install 'pillow>=12'")

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if libavif refuses the picture."""
        return self._code(picture, *_LADDER[setting])

    def _code(self, picture: Pixels, quality: int, sharpness: int) -> bytes:
        from PIL import Image

        file = io.BytesIO()
        advanced = {"tune": "psnr", **({"sharpness": str(sharpness)} if sharpness else {})}
        try:
            Image.fromarray(picture).save(
                file,
                format="AVIF",
                quality=quality,
                speed=self.speed,
                subsampling=CHROMA[self.chroma],
                max_threads=1,
                codec="aom",
                advanced=advanced,
            )
        except (OSError, ValueError) as error:
            height, width = picture.shape[:2]
            raise DataError(
                f"libavif cannot code a picture of {width}x{height} ({error})"
            ) from error
        return file.getvalue()

    def setting(self, quality: float) -> int:
        """Return the setting of a quality. Raises ConfigError unless it is a whole number, 0 to
        100.
        """
        if not 0 <= quality <= 100 or quality != int(quality):
            raise ConfigError(f"avif quality={quality:g} must be a whole number from 0 to 100")
        quantiser = ((100 - int(quality)) * 63 + 50) // 100
        return _LADDER.index((quality_of(quantiser), 0))

    def quality(self, setting: int) -> float:
        """Return libavif's quality at a setting, 0 to 100, whatever the sharpness."""
        return float(_LADDER[setting][0])

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        from PIL import features

        return {
            "libavif": str(features.version("avif")),
            "parameters": f"libaom, tune=psnr, speed {self.speed}, {CHROMA[self.chroma]}, one "
            f"thread, 64 quantisers, sharpness {_SHARPNESS} at the {_FINE} coarsest",
        }


def decode_avif(data: bytes) -> Pixels:
    """Decode a file to uint8 [H, W, 3]; runs in the decoders' worker process."""
    return decode_with_pillow(data, "AVIF")
