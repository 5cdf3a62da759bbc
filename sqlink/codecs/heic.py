"""HEIC (HEVC intra pictures in ISO/IEC 23008-12's container) by libheif and x265, fitted to a
budget.

The package is pillow-heif, which follows Pillow's releases and includes libheif, x265 and libde265.
x265 has the settings of `bpg`, including fractional QPs. The differences are the container, 379
bytes of each file, and libheif's colours and chroma filters.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from channels.config.checks import choice
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.file_codec import FileCodec, expected
from sqlink.codecs.fractional_qp import LADDER, MAX_QP, MIN_QP, STATED, STEPS, x265_quantiser
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError, DataError, MissingExtraError, one_line

_PRESET, _TUNE = "veryslow", "ssim"
_X265 = {"ipratio": "1.0", "wpp": "0", "pools": "none", "frame-threads": "1"}
_GROUP = 64
_SMALLEST = 64
"""Side in pixels below which smaller tree blocks are needed."""
CHROMA = ("420", "422", "444")


def load_pillow_heif() -> ModuleType:
    """Import pillow_heif. Raises MissingExtraError if it, or its x265, is not installed."""
    try:
        import pillow_heif
    except ImportError as error:
        raise MissingExtraError("HEIC needs pillow-heif: pip install sqlink[heic]") from error
    if not pillow_heif.libheif_info()["HEIF"]:
        raise MissingExtraError(
            "this pillow-heif has no HEVC encoder: pip install --force-reinstall pillow-heif"
        )
    module: ModuleType = pillow_heif
    return module


@register("heic")
class HEIC(FileCodec):
    """The codec `heic`.

    packet_bytes: size of the slices of the file, all of which are needed. chroma: "420", "422" or
    "444". Raises MissingExtraError without pillow-heif.

    A native `quality` is the QP, 0 (best) to 51.
    """

    name = "heic"
    suffix = ".heic"
    settings = len(LADDER)
    decoder = "sqlink.codecs.heic:decode_heic"
    typical_bpp = tuple(
        (float(STEPS * (MAX_QP - qp)), bpp)
        for qp, bpp in ((51, 0.043), (45, 0.097), (40, 0.215), (35, 0.43), (30, 0.74), (20, 1.7),
                        (10, 3.7), (0, 6.3))
    )  # fmt: skip

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES, chroma: str | int = "420") -> None:
        super().__init__(packet_bytes)
        # Without quotes, YAML reads 420 as a number.
        self.chroma = choice(
            self.name, "chroma", str(chroma) if isinstance(chroma, int) else chroma, CHROMA
        )
        load_pillow_heif()

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if libheif refuses the picture."""
        from PIL import Image

        heif = load_pillow_heif()
        height, width = picture.shape[:2]
        block = max(size for size in (16, 32, _GROUP) if size <= max(16, min(height, width)))
        x265 = {**_X265, **x265_quantiser(LADDER[setting], block), "ctu": str(block)}
        if block < _SMALLEST:
            x265["max-tu-size"] = str(min(block, 32))
        file = io.BytesIO()
        try:
            heif.from_pillow(Image.fromarray(picture)).save(
                file,
                quality=50,  # overridden by the quantiser below
                chroma=int(self.chroma),
                enc_params={
                    "preset": _PRESET,
                    "tune": _TUNE,
                    **{f"x265:{name}": value for name, value in x265.items()},
                },
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"libheif cannot code a picture of {width}x{height} ({error})"
            ) from error
        return file.getvalue()

    def setting(self, quality: float) -> int:
        """Return the setting of a QP. Raises ConfigError unless it is a whole number from 0
        to 51.
        """
        if not MIN_QP <= quality <= MAX_QP or quality != int(quality):
            raise ConfigError(
                f"heic quality={quality:g} is a QP: a whole number from {MIN_QP} (best) to {MAX_QP}"
            )
        return LADDER.index(quality)

    def quality(self, setting: int) -> float:
        """Return the QP of a setting, which may be fractional."""
        return LADDER[setting]

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        heif = load_pillow_heif()
        info = heif.libheif_info()
        return {
            "pillow-heif": str(heif.__version__),
            "libheif": str(info["libheif"]),
            "encoder": str(info["HEIF"]),
            "parameters": f"preset {_PRESET}, tune {_TUNE}, {self.chroma}, {STATED}, "
            + ":".join(f"{name}={value}" for name, value in _X265.items()),
        }


def decode_heic(data: bytes) -> Pixels:
    """Decode a file to uint8 [H, W, 3]; runs in the decoders' worker process."""
    heif = load_pillow_heif()
    file, check = expected(data)
    try:
        opened = heif.open_heif(io.BytesIO(file), convert_hdr_to_8bit=True)
        check(opened.size[1], opened.size[0])
        if len(opened) != 1 or opened.mode != "RGB":
            raise DataError(f"the HEIC file holds {len(opened)} pictures, the first {opened.mode}")
        return np.asarray(opened.to_pillow())
    except (OSError, ValueError, RuntimeError, EOFError, SyntaxError) as error:
        raise DataError(f"the HEIC file is damaged: {one_line(error)}") from error
