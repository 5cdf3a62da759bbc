"""Codecs whose stream is one file of a known format, cut into packets.

    picture ─ ladder of settings ─ finest within the budget ─> file ─ slices ─> packets
    packets ─ joined ─> file, whole or its beginning ─ decoder, in the worker ─> picture

A format only adds the encoder for one setting, the name of its native quality, and the decoding
function. That function runs in the worker process. Its request begins with the size that the
picture must have, so that nothing larger is ever decoded.
"""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from channels.config.checks import integer
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    MAX_PACKET_BYTES,
    Decoded,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
)
from sqlink.codecs.rate_control import Ladder, Ladders, finest_setting
from sqlink.codecs.slices import Pixels, beginning, decode_each, sliced, to_image, to_pixels
from sqlink.codecs.worker import DEFAULT_TIME_LIMIT_S, decode_in_worker
from sqlink.errors import DataError, one_line

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

_PIXELS_PER_S = 1_000_000
"""Decoding speed of a slow machine, which determines the time limit for large pictures."""
_EXPECTED = struct.Struct(">II")
"""Height and width that a file must have; or 0 and the largest allowed number of pixels."""
_SMALL = 128 * 128
_BEYOND = 2
"""Settings tried beyond the first one that is too large, for small pictures."""


class FileCodec(ABC):
    """Base of the codecs whose stream is one file; see `Codec` for the protocol.

    packet_bytes: size of the slices of the file. If `cut_decodes`, the receiver decodes the slices
    before the first loss; otherwise all are needed, and one loss is an outage.
    """

    name: str
    suffix: str
    carries_map: bool = False
    settings: int
    """Number of settings of the ladder; 0 is the coarsest."""
    decoder: str
    """Decoding function for the worker, `module:function`, from a request (`expected`) to uint8 [H,
    W, 3].
    """
    cut_decodes: bool = False
    """Whether the beginning of a file can be decoded to a picture."""
    typical_bpp: Sequence[tuple[float, float]] = ()
    """(setting, bpp) of a street scene of 480x360: where the search starts."""

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES) -> None:
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, MAX_PACKET_BYTES)
        self._ladders = Ladders()

    @abstractmethod
    def code(self, picture: Pixels, setting: int) -> bytes:
        """Encode uint8 [H, W, 3] to a file. Raises DataError if the encoder refuses the picture."""

    @abstractmethod
    def setting(self, quality: float) -> int:
        """Return the setting of a native quality. Raises ConfigError if it is not one."""

    def quality(self, setting: int) -> float | None:
        """Return the native quality of a setting, which may be fractional; None if there is
        none.
        """
        return None

    @abstractmethod
    def describe(self) -> Mapping[str, str]:
        """Return the versions and parameters that are needed to reproduce the files."""

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1]; a map is ignored. See `Codec`.

        Raises ConfigError for a quality that is not one of the codec's and for channel uses,
        DataError for a picture too small or too large.
        """
        from sqlink.data.pictures import check_size

        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        budget = rate.budget_bytes(height, width)
        fixed = None if rate.quality is None else self.setting(rate.quality)
        answers: list[Stream | Unreachable] = []
        for picture in to_pixels(images):
            ladder = self.ladder(picture)
            if fixed is not None:
                answers.append(self._stream(ladder.file(fixed), height, width, fixed))
                continue
            assert budget is not None
            beyond = _BEYOND if height * width <= _SMALL else 0
            typical = [(setting, bpp * height * width / 8) for setting, bpp in self.typical_bpp]
            chosen = finest_setting(ladder.size, budget, self.settings, typical, beyond)
            if chosen is not None:
                answers.append(self._stream(ladder.file(chosen), height, width, chosen))
            else:
                lowest = min(ladder.size(setting) for setting in range(beyond + 1))
                answers.append(Unreachable(self.name, height, width, budget, lowest))
        return answers

    def ladder(self, picture: Pixels) -> Ladder:
        """Return the ladder of files of a picture, uint8 [H, W, 3]; recent ladders are cached."""
        return self._ladders.of(np.ascontiguousarray(picture), self.code)

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size; a picture that cannot be decoded is an outage."""
        return decode_each(received, self._decode)

    def _decode(self, received: Received) -> Tensor | None:
        """Decode to float32 [3, H, W]; None if there is no picture of the session's size."""
        data, whole = beginning(received)
        if not data or not (whole or self.cut_decodes):
            return None
        height, width = received.session.height, received.session.width
        try:
            pixels = self.picture(data, height, width)
        except DataError:
            return None
        return to_image(pixels) if pixels.shape == (height, width, 3) else None

    def picture(self, file: bytes, height: int, width: int) -> Pixels:
        """Decode a file to uint8 [H, W, 3].

        height, width: its size; a height of 0 allows any size of up to `width` pixels. Raises
        DataError if the file is visibly damaged or of another size.
        """
        pixels = min(height * width if height else width, 1 << 26)
        limit_s = DEFAULT_TIME_LIMIT_S + pixels / _PIXELS_PER_S
        return decode_in_worker(self.decoder, _EXPECTED.pack(height, width) + file, limit_s)

    def parse(self, data: bytes) -> Stream:
        """Parse a stored file into its stream. Raises DataError if it is cut short or damaged."""
        from sqlink.data.pictures import check_size, max_pixels_allowed

        most = min(max_pixels_allowed(), (1 << 32) - 1)
        self.check_whole(data)
        pixels = self.picture(data, 0, most)
        height, width = pixels.shape[:2]
        check_size(height, width, f"the {self.name} file's picture")
        return self._stream(data, height, width)

    def check_whole(self, data: bytes) -> None:
        """Raise DataError if a file is visibly cut short or of another format."""
        if not data:
            raise DataError(f"the {self.name} file is empty")

    def _stream(self, data: bytes, height: int, width: int, setting: int | None = None) -> Stream:
        session = Session(self.name, height, width)
        quality = None if setting is None else self.quality(setting)
        return sliced(session, data, self.packet_bytes, self.cut_decodes, quality)


# The functions below run in the worker.


def expected(data: bytes) -> tuple[bytes, Callable[[int, int], None]]:
    """Split a request into the file and the check of its picture's (height, width).

    The check raises DataError if the size is not the expected one or exceeds the limit; call it as
    soon as the header is read.

    >>> file, check = expected(_EXPECTED.pack(2, 3) + b"file")
    >>> file, check(2, 3)
    (b'file', None)
    """
    height, width = _EXPECTED.unpack(data[: _EXPECTED.size])

    def check(found_height: int, found_width: int) -> None:
        size = f"{found_width}x{found_height}"
        if height and (found_height, found_width) != (height, width):
            raise DataError(f"the file says {size} pixels, not {width}x{height}")
        if not height and found_height * found_width > width:
            raise DataError(
                f"the file's picture is {size}, {found_height * found_width} pixels, over the "
                f"limit of {width}: raise max_pixels (--max-pixels, SQLINK_MAX_PIXELS)"
            )

    return data[_EXPECTED.size :], check


def decode_with_pillow(data: bytes, format: str, truncated: bool = False) -> Pixels:
    """Decode the file in a request by Pillow's plugin `format` to uint8 [H, W, 3].

    truncated: whether to decode the beginning of a file that is cut short. Raises DataError for a
    damaged file.
    """
    from PIL import Image, ImageFile

    file, check = expected(data)
    Image.MAX_IMAGE_PIXELS = None
    ImageFile.LOAD_TRUNCATED_IMAGES = truncated
    try:
        with Image.open(io.BytesIO(file), formats=[format]) as picture:
            check(picture.height, picture.width)
            return _rgb(picture)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(f"the {format} file is damaged: {one_line(error)}") from error


def _rgb(picture: Image.Image) -> Pixels:
    if getattr(picture, "n_frames", 1) != 1:
        raise DataError("the file holds an animation, not a picture")
    if picture.mode not in ("RGB", "L"):
        raise DataError(f"the file's picture is {picture.mode}, not RGB or grey")
    return np.asarray(picture.convert("RGB"))
