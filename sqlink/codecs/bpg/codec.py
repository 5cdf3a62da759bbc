"""The codec `bpg`: genuine BPG files, fitted to the budget; a link delivers them completely or not
at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from channels.config.checks import choice
from sqlink.codecs.base import DEFAULT_PACKET_BYTES, register
from sqlink.codecs.bpg.container import BPGFile
from sqlink.codecs.bpg.decoder import load_av
from sqlink.codecs.bpg.encoder import CHROMA, PRESET, TUNE, X265_PARAMS, encode_bpg
from sqlink.codecs.file_codec import FileCodec
from sqlink.codecs.fractional_qp import LADDER, MAX_QP, MIN_QP, STATED, STEPS
from sqlink.codecs.slices import Pixels
from sqlink.errors import ConfigError


@register("bpg")
class BPG(FileCodec):
    """The codec `bpg`: x265 in BPG's container, as libbpg's `bpgenc -m 8` makes it.

    packet_bytes: size of the slices of the file, all of which are needed. chroma: "420", as the
    reference encoder's default, "422", "444" or "grey".

    A native `quality` is the QP, 0 (best) to 51. QPs between whole ones (`fractional_qp`) help to
    fill a budget. Raises MissingExtraError without PyAV.
    """

    name = "bpg"
    suffix = ".bpg"
    settings = len(LADDER)
    decoder = "sqlink.codecs.bpg.decoder:decode_expected"
    typical_bpp = tuple(
        (float(STEPS * (MAX_QP - qp)), bpp)
        for qp, bpp in ((51, 0.0248), (45, 0.0786), (40, 0.197), (35, 0.41), (30, 0.72), (25, 1.13),
                        (20, 1.68), (10, 3.64), (0, 6.30))
    )  # fmt: skip

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES, chroma: str | int = "420") -> None:
        super().__init__(packet_bytes)
        # Without quotes, YAML reads 420 as a number.
        named = str(chroma) if isinstance(chroma, int) else chroma
        self.chroma = choice(self.name, "chroma", named, CHROMA)
        load_av()

    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if the picture is too large for
        x265.
        """
        return encode_bpg(picture, LADDER[setting], self.chroma)

    def setting(self, quality: float) -> int:
        """Return the setting of a QP. Raises ConfigError unless it is a whole number from 0
        to 51.
        """
        if not MIN_QP <= quality <= MAX_QP or quality != int(quality):
            raise ConfigError(
                f"bpg quality={quality:g} is a QP: a whole number from {MIN_QP} (best) to {MAX_QP}"
            )
        return LADDER.index(quality)

    def quality(self, setting: int) -> float:
        """Return the QP of a setting, which may be fractional."""
        return LADDER[setting]

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        av = load_av()
        return {
            "PyAV": str(av.__version__),
            "libavcodec": ".".join(map(str, av.library_versions["libavcodec"])),
            "parameters": f"x265 preset {PRESET}, tune {TUNE}, {self.chroma}, {STATED}, "
            f"{X265_PARAMS}",
        }

    def check_whole(self, data: bytes) -> None:
        """Raise DataError if a file is cut short, too large, or not supported."""
        from sqlink.data.pictures import max_pixels_allowed

        BPGFile.from_bytes(data, max_pixels_allowed())
