"""JPEG2000 (ITU-T T.800) by OpenJPEG through Pillow, fitted to the budget.

A raw codestream without the box of a .jp2 file (85 bytes) and without the encoder's comment (39
bytes), irreversible 9/7 wavelet and colour transform. The packets are slices of the codestream in
order, and the receiver decodes the part before the first loss. The first slices hold the main
header, without which nothing can be decoded; the ledger counts it as `header`.

Quality layers order the stream for such losses. On CamVid at 0.04 to 0.2 bpp, a stream cut to three
quarters is 0.6 to 1.5 dB better with four layers than with one layer, and a complete stream 0.1 to
0.2 dB worse. Eight layers are no better than four under any cut, and another 0.1 dB worse if
complete.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from PIL import Image, features
from torch import Tensor

from channels.config.checks import integer
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    MAX_PACKET_BYTES,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    register,
)
from sqlink.codecs.jpeg2000.codestream import (
    EOC,
    cut_to_packets,
    packet_ends,
    read_header,
    strip_comments,
)
from sqlink.codecs.slices import Pixels, beginning, cut, decode_each, to_image, to_pixels
from sqlink.codecs.worker import DEFAULT_TIME_LIMIT_S, decode_in_worker
from sqlink.data.pictures import check_size
from sqlink.errors import ConfigError, DataError

AUTO = "auto"
_LAYERS_FOR_LOSSES = 4
_FILLED = 0.92
"""Share of a budget below which fewer layers are tried, as OpenJPEG fills small pictures less."""
_STEPS = 14
"""Number of encodings in the search for the largest file within a budget."""

_SLOWEST = 1e6
"""Lowest decoding speed in pixels per second; slower decoders are stopped."""


@register("jpeg2000")
class JPEG2000:
    """The codec `jpeg2000`.

    packet_bytes: size of the slices of the codestream. layers: quality layers, 1 to 32. "auto" is
    four, for links that lose or cut packets, and fewer if four do not fit or fill a budget badly; a
    sweep whose channels are all `lossless` uses one.

    A native `quality` is the compression ratio, raw bytes (3 per pixel) over coded bytes: a higher
    value gives a smaller file. OpenJPEG's files do not exceed the size asked for.
    """

    name = "jpeg2000"
    suffix = ".j2k"
    carries_map = False
    lossless_options = MappingProxyType({"layers": 1})

    def __init__(
        self, packet_bytes: int = DEFAULT_PACKET_BYTES, layers: int | str = "auto"
    ) -> None:
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, MAX_PACKET_BYTES)
        self._auto = layers == AUTO
        asked = _LAYERS_FOR_LOSSES if self._auto else layers
        self.layers = integer(self.name, "layers", asked, 1, 32)

    def describe(self) -> Mapping[str, str]:
        """Return versions and parameters."""
        order = "ordered for packets lost or cut" if self.layers > 1 else "for links without losses"
        return {
            "OpenJPEG": str(features.version("jpg_2000")),
            "parameters": "raw codestream without comment, 9/7 irreversible, colour transform, up "
            f"to 5 decompositions, quality layers: {self.layers} ({order})",
        }

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode float32 [N, 3, H, W] in [0, 1]; a map is ignored. See `Codec`.

        Raises ConfigError for a quality below 1 and for channel uses, DataError if a side is below
        16 pixels or the picture is too large for OpenJPEG.
        """
        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        budget = rate.budget_bytes(height, width)
        answers: list[Stream | Unreachable] = []
        for picture in to_pixels(images):
            if budget is None:
                assert rate.quality is not None
                if rate.quality < 1:
                    raise ConfigError(
                        f"jpeg2000 quality={rate.quality:g} is a compression ratio: at least 1"
                    )
                answers.append(
                    self._stream(self._code(picture, picture.size / rate.quality, self.layers))
                )
                continue
            data = self._fit(picture, budget, self.layers)
            for layers in range(self.layers - 1, 0, -1) if self._auto else ():
                if _FILLED * budget <= len(data) <= budget:
                    break
                other = self._fit(picture, budget, layers)
                if len(data) > budget or len(data) < len(other) <= budget:
                    data = other
            if len(data) > budget:
                answers.append(Unreachable(self.name, height, width, budget, len(data)))
            else:
                answers.append(self._stream(data))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode the part before the first loss; an outage if it does not hold one JPEG2000
        packet.
        """
        return decode_each(received, _decode)

    def parse(self, data: bytes) -> Stream:
        """Parse a stored codestream into its stream. Raises DataError if it is cut or damaged."""
        header = read_header(data)
        check_size(header.height, header.width, "the codestream")
        if header.components != 3:
            raise DataError(f"this JPEG2000 codestream has {header.components} components, not 3")
        end = header.tile + header.tile_bytes
        ends = packet_ends(data, header)
        if data[end:] != EOC or (ends and ends[-1] != end):
            raise DataError("this JPEG2000 codestream is cut short or damaged")
        return self._stream(data)

    def _stream(self, data: bytes) -> Stream:
        header = read_header(data)
        packets = []
        for rank, piece in enumerate(cut(data, self.packet_bytes)):
            head = min(max(header.body - rank * self.packet_bytes, 0), len(piece))
            bits = {"header": 8 * head, "payload": 8 * (len(piece) - head)}
            packets.append(Packet(piece, rank, {k: v for k, v in bits.items() if v}))
        return Stream(Session(self.name, header.height, header.width), tuple(packets))

    def _code(self, picture: Pixels, target: float, layers: int) -> bytes:
        """Encode uint8 [H, W, 3] to one codestream of about `target` bytes."""
        file = io.BytesIO()
        ratios = [
            max(picture.size * layers / (target * (layer + 1)), 1.0) for layer in range(layers)
        ]
        try:
            Image.fromarray(picture).save(
                file,
                format="JPEG2000",
                quality_mode="rates",
                quality_layers=ratios,
                irreversible=True,
                mct=1,
                no_jp2=True,
                num_resolutions=min(6, min(picture.shape[:2]).bit_length()),
            )
        except OSError as error:
            height, width = picture.shape[:2]
            raise DataError(
                f"OpenJPEG cannot code a picture of {width}x{height} ({error})"
            ) from error
        return strip_comments(file.getvalue())

    def _fit(self, picture: Pixels, budget: int, layers: int) -> bytes:
        """Return the largest codestream within `budget` bytes, or the smallest of all if none fits.

        OpenJPEG stays below the size that it is asked for, sometimes far below. Therefore the size
        to ask for is found by bisection between the budget and the smallest size known to exceed
        it.
        """
        low, high = 1.0, float(budget + 64)
        best: bytes | None = None
        target = float(budget)
        for _ in range(_STEPS):
            data = self._code(picture, target, layers)
            if len(data) <= budget:
                low = target
                if best is None or len(data) > len(best):
                    best = data
                if len(data) == budget or target >= picture.size:
                    break
            else:
                high = target
            if high - low < 0.25:
                break
            target = (low + high) / 2
        return best if best is not None else self._code(picture, 1.0, layers)


def _decode(received: Received) -> Tensor | None:
    """Decode the slices before the first loss to float32 [3, H, W]; None for an outage."""
    session = received.session
    data, whole = beginning(received)
    try:
        header = read_header(data)
        size = (header.height, header.width, header.components)
        if size != (session.height, session.width, 3):
            return None
        readable = data if whole else cut_to_packets(data, header)
        if readable is None:
            return None
        limit_s = DEFAULT_TIME_LIMIT_S + header.height * header.width / _SLOWEST
        pixels = decode_in_worker(
            "sqlink.codecs.jpeg2000.codestream:decode_codestream", readable, limit_s
        )
    except DataError:
        return None
    return to_image(pixels) if pixels.shape == size else None
