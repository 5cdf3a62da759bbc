"""Half-resolution variants of codecs, for rates below their floor: `bpg_half`, `avif_half`, ...

    picture ─ half its sides (area) ─ the codec ─> packets ─ the codec ─ twice its sides (bicubic)

This is an additional baseline and does not replace the full-resolution codec: it reaches about a
third of the codec's lowest rate, and is worse at rates that both reach. A stored file is one byte,
which says which sides of the picture are odd, followed by the codec's file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate, pad

from sqlink.codecs.avif import AVIF
from sqlink.codecs.base import (
    Codec,
    Decoded,
    Described,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    outage_images,
    register,
)
from sqlink.codecs.bpg import BPG
from sqlink.codecs.heic import HEIC
from sqlink.codecs.jpeg import JPEG
from sqlink.codecs.jpegxl import JPEGXL
from sqlink.codecs.webp import WebP
from sqlink.data.pictures import check_size
from sqlink.errors import DataError

_HEADER_BYTES = 1


class HalfResolution:
    """A codec at half the picture's sides.

    codec: the inner codec, which carries no map. A native `quality` is that of the inner codec.
    """

    carries_map = False
    session_bytes = _HEADER_BYTES

    def __init__(self, name: str, suffix: str, codec: Codec) -> None:
        self.name = name
        self.suffix = suffix
        self.codec = codec

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters: those of the inner codec, and the change of size."""
        own = dict(self.codec.describe()) if isinstance(self.codec, Described) else {}
        said = f"{own.get('parameters', '')}, at half the sides: area down, bicubic up"
        return {**own, "parameters": said.removeprefix(", ")}

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1]; a map is ignored. See `Codec`.

        Raises ConfigError for channel uses and for what the inner codec refuses, DataError for a
        picture that is too small (31 pixels a side are needed) or too large.
        """
        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        if min(height, width) < 31:
            raise DataError(
                f"the picture is {width}x{height}: {self.name} needs 31 pixels a side, as its half "
                "needs 16"
            )
        budget = rate.budget_bytes(height, width)
        inner = rate if budget is None else Rate(bytes=max(budget - _HEADER_BYTES, 1))
        answers: list[Stream | Unreachable] = []
        for answer in self.codec.encode(halved(images), inner):
            if isinstance(answer, Unreachable):
                lowest = answer.lowest_bytes + _HEADER_BYTES
                answers.append(Unreachable(self.name, height, width, budget or 0, lowest))
            else:
                answers.append(self._stream(answer, height, width))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size; an outage of the inner codec is an outage."""
        if not received:
            raise ValueError("nothing to decode")
        height, width = received[0].session.height, received[0].session.width
        session = Session(self.codec.name, (height + 1) // 2, (width + 1) // 2)
        decoded = self.codec.decode([replace(one, session=session) for one in received])
        images = doubled(decoded.images, height, width)
        images[decoded.outage] = outage_images(1, height, width)
        return Decoded(images, None, decoded.outage)

    def parse(self, data: bytes) -> Stream:
        """Parse a stored file into its stream. Raises DataError if it is cut short or damaged."""
        if not data or data[0] > 3:
            raise DataError(f"this is not a file of {self.name}: its first byte must be 0 to 3")
        inner = self.codec.parse(data[_HEADER_BYTES:])
        height = 2 * inner.session.height - (data[0] & 1)
        width = 2 * inner.session.width - (data[0] >> 1)
        check_size(height, width, f"the {self.name} file's picture")
        return self._stream(inner, height, width)

    def _stream(self, inner: Stream, height: int, width: int) -> Stream:
        header = bytes((height & 1 | (width & 1) << 1,)) + inner.session.header
        return Stream(Session(self.name, height, width, header), inner.packets, inner.setting)


def halved(images: Tensor) -> Tensor:
    """Average 2 x 2 pixels, with an odd last row or column repeated: [N, 3, ceil(H/2),
    ceil(W/2)].
    """
    height, width = images.shape[2:]
    even = pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    return interpolate(even, scale_factor=0.5, mode="area")


def doubled(images: Tensor, height: int, width: int) -> Tensor:
    """Double the size by bicubic interpolation, cut to [N, 3, height, width], in [0, 1]."""
    twice = interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)
    return twice[:, :, :height, :width].clamp(0, 1).contiguous()


def _register(codec: type[Codec], suffix: str) -> None:
    name = f"{codec.name}_half"

    @wraps(codec, assigned=("__doc__",))
    def half(**options: Any) -> HalfResolution:
        return HalfResolution(name, suffix, codec(**options))

    make: Callable[..., Codec] = half
    register(name)(make)


for _codec, _suffix in (
    (BPG, ".bpgh"),
    (AVIF, ".avifh"),
    (JPEG, ".jpgh"),
    (WebP, ".webph"),
    (HEIC, ".heich"),
    (JPEGXL, ".jxlh"),
):
    _register(_codec, _suffix)
