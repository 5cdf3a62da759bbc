"""The codec `bpg`: genuine BPG files, fitted to the budget, all or nothing over a link.

A quantiser step is 13 to 20 % of the bytes at low rates, so a file within a budget may be that much
below it: that is BPG's own granularity, as its encoder has no other control of the rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from channels.config.checks import choice, integer
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    MAX_PACKET_BYTES,
    OUTAGE_COLOUR,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    register,
)
from sqlink.codecs.bpg.colour import Plane
from sqlink.codecs.bpg.container import BPGFile
from sqlink.codecs.bpg.decoder import load_av
from sqlink.codecs.bpg.encoder import CHROMA, MAX_QP, MIN_QP, encode_planes, planes
from sqlink.codecs.worker import DEFAULT_TIME_LIMIT_S, decode_in_worker
from sqlink.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torch import Tensor

DECODER = "sqlink.codecs.bpg.decoder:decode_sized"
_PIXELS_PER_S = 1_000_000
"""What the decoder is allowed for pictures that are large, on a slow machine."""
_TYPICAL_QP = (0, 10, 20, 25, 30, 35, 40, 45, 51)
_TYPICAL_BPP = (6.30, 3.64, 1.68, 1.13, 0.72, 0.41, 0.197, 0.0786, 0.0248)
"""A street scene of 480x360: where the search for a QP starts, and no matter to what it finds."""
_SMALL = 64 * 64
_NEIGHBOURS = 2


@register("bpg")
class BPG:
    """The codec `bpg`: x265 in BPG's container, as libbpg's `bpgenc -m 8` makes it.

    packet_bytes: slices of the file; each of them is as needed as any other. chroma: "420", as the
    reference encoder's default, "444" or "grey".

    A native `quality` is the QP, 0 (best) to 51. Raises MissingExtraError without PyAV.
    """

    name = "bpg"
    suffix = ".bpg"
    carries_map = False

    def __init__(self, packet_bytes: int = DEFAULT_PACKET_BYTES, chroma: str | int = "420") -> None:
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, MAX_PACKET_BYTES)
        # Without quotes, YAML reads 420 as a number.
        named = str(chroma) if isinstance(chroma, int) else chroma
        self.chroma = choice(self.name, "chroma", named, CHROMA)
        load_av()

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1]; a map is ignored. See `Codec`.

        Raises ConfigError for a quality that is no QP and for channel uses, DataError for a picture
        too small or too large.
        """
        import torch

        from sqlink.data.pictures import check_size

        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        budget = rate.budget_bytes(height, width)
        quality = None if rate.quality is None else _qp(rate.quality)
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        answers: list[Stream | Unreachable] = []
        for picture in pixels.cpu().numpy():
            coded = planes(picture, self.chroma)
            files: dict[int, bytes] = {}
            if quality is not None:
                answers.append(self._stream(encode_planes(coded, height, width, quality)))
                continue
            assert budget is not None

            def size(qp: int, coded: list[Plane] = coded, files: dict[int, bytes] = files) -> int:
                if qp not in files:
                    files[qp] = encode_planes(coded, height, width, qp)
                return len(files[qp])

            qp = finest_qp(size, budget, height * width)
            if qp is None:
                answers.append(Unreachable(self.name, height, width, budget, size(MAX_QP)))
            else:
                answers.append(self._stream(files[qp]))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size; an outage where a packet is missing or nothing comes out."""
        import torch

        if not received:
            raise ValueError("nothing to decode")
        height, width = received[0].session.height, received[0].session.width
        colour = torch.tensor(OUTAGE_COLOUR).view(1, 3, 1, 1)
        images = colour.repeat(len(received), 1, height, width)
        outage = torch.ones(len(received), dtype=torch.bool)
        for n, one in enumerate(received):
            pixels = _decode(one)
            if pixels is not None:
                images[n] = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
                outage[n] = False
        return Decoded(images, None, outage)

    def parse(self, data: bytes) -> Stream:
        """A stored file back into its stream. Raises DataError if it is cut short or damaged."""
        from sqlink.data.pictures import max_pixels_allowed

        file = BPGFile.from_bytes(data, max_pixels_allowed())
        _pixels(data, file)
        return self._stream(data)

    def _stream(self, data: bytes) -> Stream:
        file = BPGFile.from_bytes(data, None)
        pieces = [
            data[start : start + self.packet_bytes]
            for start in range(0, len(data), self.packet_bytes)
        ]
        return Stream(
            Session(self.name, file.height, file.width),
            tuple(Packet(piece, 0, {"payload": 8 * len(piece)}) for piece in pieces),
        )


def finest_qp(size: Callable[[int], int], budget: int, pixels: int) -> int | None:
    """The lowest QP whose file is within the budget; None if that of QP 51 is not.

    size: bytes of the file at a QP; each call is an encoding. Bytes fall as the QP rises: the
    search starts from the curve of a typical picture, moves it onto the first size seen, and then
    draws a line through the logarithms of the two nearest. The answer is exact all the same: it
    fits, and the QP below it was tried and does not. Of pictures below 64x64, where a few bytes do
    not always fall, the two QPs below that are tried too.
    """
    target = math.log(max(budget, 1))
    typical = np.log(np.array(_TYPICAL_BPP) * pixels / 8)
    above, below = MIN_QP - 1, MAX_QP + 1  # too large; small enough
    known: dict[int, float] = {}
    shift = 0.0
    while below - above > 1:
        if above in known and below in known:
            slope = (known[above] - known[below]) / (below - above)
            guess = above + (known[above] - target) / slope if slope > 0 else above + 1.0
            if len(known) > 4:
                guess = (above + below) / 2
        else:
            guess = float(np.interp(shift - target, -typical, _TYPICAL_QP))
        qp = min(max(math.ceil(guess), above + 1), below - 1)
        known[qp] = math.log(size(qp))
        shift = known[qp] - float(np.interp(qp, _TYPICAL_QP, typical))
        if size(qp) <= budget:
            below = qp
        else:
            above = qp
    if below > MAX_QP:
        return None
    if pixels < _SMALL:
        tried = range(max(below - 1 - _NEIGHBOURS, MIN_QP), below)
        below = next((qp for qp in tried if size(qp) <= budget), below)
    return below


def _qp(quality: float) -> int:
    if not MIN_QP <= quality <= MAX_QP or quality != int(quality):
        raise ConfigError(
            f"bpg quality={quality:g} is a QP: a whole number from {MIN_QP} (best) to {MAX_QP}"
        )
    return int(quality)


def _pixels(data: bytes, file: BPGFile) -> Plane:
    """The picture of a file whose size is checked, uint8 [H, W, 3]. Raises DataError."""
    limit = DEFAULT_TIME_LIMIT_S + file.height * file.width / _PIXELS_PER_S
    pixels = decode_in_worker(DECODER, data, limit)
    if pixels.shape != (file.height, file.width, 3):
        raise DataError("the BPG file's picture data are damaged: they do not fit its header")
    return pixels


def _decode(received: Received) -> Plane | None:
    """uint8 [H, W, 3]; None where a packet is missing or no picture of the session's size comes."""
    data = b"".join(piece for piece in received.packets if piece is not None)
    if None in received.packets:
        return None
    try:
        file = BPGFile.from_bytes(data, None)
        if (file.height, file.width) != (received.session.height, received.session.width):
            return None
        return _pixels(data, file)
    except DataError:
        return None
