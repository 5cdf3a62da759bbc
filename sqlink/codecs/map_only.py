"""Controls: the map alone, and the map together with a BPG picture, conventionally coded.

    map_only   map ─ most frequent class of factor x factor pixels ─ lossless WebP ─> packets
    bpg+map    the same map in a share of the budget, BPG's picture in what is left

They show what SQ-GAN's map achieves alone, and what a conventional codec achieves with the same map
in the same number of bytes. The picture of `map_only` is its map in the classes' mean colours,
without invented detail. A map is coded at the smallest factor that fits, and scaled up by it at the
receiver.

A stored file is a session and then the packets:

    offset 0   "SQM" or "SQB"    3 bytes
           3   version, 1        1
           4   height, width     2 + 2, big-endian
           8   bytes of the map  4
          12   CRC-32            4, of all the other bytes of the file

and a map begins with the factor, one byte.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot, pad

from channels.config.checks import integer, number
from sqlink.codecs.base import (
    DEFAULT_PACKET_BYTES,
    MAX_PACKET_BYTES,
    Codec,
    Decoded,
    Packet,
    Rate,
    Received,
    Session,
    Stream,
    Unreachable,
    outage_images,
    register,
)
from sqlink.codecs.webp_map import encode_ids
from sqlink.codecs.worker import DEFAULT_TIME_LIMIT_S, decode_in_worker
from sqlink.data.classes import NO_LABEL, NUM_CLASSES
from sqlink.data.pictures import check_size
from sqlink.errors import ConfigError, DataError
from sqlink.segmentation import check_segmenter
from sqlink.segmentation.ground_truth import fill_unlabelled

if TYPE_CHECKING:
    from sqlink.segmentation.base import Segmenter

MEAN_COLOURS = (
    (229, 239, 241),
    (86, 88, 87),
    (83, 85, 89),
    (78, 81, 86),
    (72, 72, 73),
    (104, 106, 103),
    (78, 75, 82),
    (67, 65, 63),
    (59, 62, 68),
    (36, 36, 40),
    (33, 34, 38),
)
"""Mean RGB of the pixels of each class in the 302 frames of CamVid `fit`, 0 to 255."""

DECODER = "sqlink.codecs.webp_map:decode_ids"
MAX_FACTOR = 255
_HEADER = struct.Struct(">3sBHHII")
_VERSION = 1
_PIXELS_PER_S = 1_000_000


class _MapCodec:
    """Base of both codecs: session, coding and source of the map."""

    carries_map = True
    session_bytes = _HEADER.size
    magic: bytes
    name: str

    def __init__(
        self, packet_bytes: int, device: torch.device | str, segmenter: Segmenter | str
    ) -> None:
        self.packet_bytes = integer(self.name, "packet_bytes", packet_bytes, 1, MAX_PACKET_BYTES)
        check_segmenter(self.name, segmenter)
        self.device = torch.device(device)
        self.segmenter = segmenter

    def _maps(self, images: Tensor, segmentation: Tensor | None) -> list[_Map]:
        """Return the map of each picture, as given or as the segmenter sees it."""
        height, width = images.shape[2:]
        check_size(height, width, "the picture")
        if max(height, width) > 65535:
            raise DataError(f"the picture is {width}x{height}: {self.name} takes sides to 65535")
        if segmentation is None:
            if isinstance(self.segmenter, str):
                from sqlink.segmentation import load_segmenter

                self.segmenter = load_segmenter(self.segmenter, device=self.device)
            segmentation = self.segmenter.segment(images)
        expected = [images.shape[0], height, width]
        if list(segmentation.shape) != expected:
            raise DataError(f"a map must be {expected}, not {list(segmentation.shape)}")
        return [_Map(one) for one in fill_unlabelled(segmentation.cpu())]

    def _stream(self, height: int, width: int, coded: bytes, picture: bytes = b"") -> Stream:
        """Make a stream of a session, the map's packets and, if any, the picture's packets."""
        fields = (self.magic, _VERSION, height, width, len(coded))
        crc = zlib.crc32(coded + picture, zlib.crc32(_HEADER.pack(*fields, 0)[:-4]))
        size = self.packet_bytes
        pieces = [
            (priority, part[start : start + size])
            for priority, part in enumerate((coded, picture))
            for start in range(0, len(part), size)
        ]
        packets = tuple(Packet(p, priority, {"payload": 8 * len(p)}) for priority, p in pieces)
        return Stream(Session(self.name, height, width, _HEADER.pack(*fields, crc)), packets)

    def parse(self, data: bytes) -> Stream:
        """Parse a stored file into its stream. Raises DataError if it is cut short or damaged."""
        if len(data) < _HEADER.size or data[:3] != self.magic:
            raise DataError(f"not a file of {self.name}: its {len(data)} bytes do not begin as one")
        _, version, height, width, size, crc = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise DataError(f"a {self.name} file of version {version}: this SQLink reads 1")
        body = data[_HEADER.size :]
        if zlib.crc32(body, zlib.crc32(data[: _HEADER.size - 4])) != crc or size > len(body):
            raise DataError(f"the {self.name} file is cut short or damaged: its CRC-32 is wrong")
        check_size(height, width, f"the {self.name} file's picture")
        return self._stream(height, width, body[:size], body[size:])

    def _map_packets(self, received: Received) -> int:
        """Return the number of the map's packets, according to the session."""
        size = _HEADER.unpack(received.session.header)[4]
        return -(-int(size) // self.packet_bytes)


class _Map:
    """One map, coded at any factor; each factor is coded once."""

    def __init__(self, segmentation: Tensor) -> None:
        self._map = segmentation
        self._coded: dict[int, bytes] = {}
        longest = max(segmentation.shape)
        self.factors = (max(1, -(-longest // 16383)), min(MAX_FACTOR, longest))
        """The smallest and the largest."""

    def at(self, factor: int) -> bytes:
        """Encode the map at a fraction of its size, preceded by one byte for the factor."""
        if factor not in self._coded:
            small = shrink(self._map[None], factor)[0].numpy().astype(np.uint8)
            self._coded[factor] = bytes([factor]) + encode_ids(small)
        return self._coded[factor]

    def lowest(self) -> bytes:
        return self.at(self.factors[1])

    def within(self, budget: int) -> bytes | None:
        """Return the finest map that fits, by bisection: sizes fall with the factor, within a few
        bytes.
        """
        low, high = self.factors
        if len(self.at(high)) > budget:
            return None
        while low < high:
            middle = math.isqrt(low * high)
            if len(self.at(middle)) <= budget:
                high = middle
            else:
                low = middle + 1
        return self.at(high)


def shrink(maps: Tensor, factor: int) -> Tensor:
    """Return the most frequent class of each block of factor x factor pixels.

    maps: int64 [N, H, W] of class ids. Returns [N, ceil(H / factor), ceil(W / factor)]; of classes
    equally frequent, the lowest.

    >>> shrink(torch.tensor([[[0, 0, 3], [1, 0, 3]]]), 2).tolist()
    [[[0, 3]]]
    """
    classes = one_hot(maps, NUM_CLASSES).permute(0, 3, 1, 2).float()  # [N, C, H, W]
    missing = (0, -maps.shape[2] % factor, 0, -maps.shape[1] % factor)
    return avg_pool2d(pad(classes, missing), factor).argmax(dim=1)


def in_colours(maps: Tensor) -> Tensor:
    """Paint each class of int64 [N, H, W] in its mean colour: float32 [N, 3, H, W]."""
    table = torch.tensor(MEAN_COLOURS, dtype=torch.float32) / 255
    return table[maps].permute(0, 3, 1, 2).contiguous()


def _decoded_map(pieces: Sequence[bytes | None], height: int, width: int) -> Tensor | None:
    """Decode a map to int64 [H, W]; None if a piece is missing or the result has another size."""
    data = b"".join(piece for piece in pieces if piece is not None)
    if None in pieces or len(data) < 2 or not data[0]:
        return None
    factor = data[0]
    limit_s = DEFAULT_TIME_LIMIT_S + height * width / _PIXELS_PER_S
    try:
        ids: NDArray[np.uint8] = decode_in_worker(DECODER, data[1:], limit_s)[..., 0]
    except DataError:
        return None
    if ids.shape != (-(-height // factor), -(-width // factor)) or ids.max() >= NUM_CLASSES:
        return None
    whole = ids.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    return torch.from_numpy(whole.astype(np.int64))


@register("map_only")
class MapOnly(_MapCodec):
    """The codec `map_only`: every packet is needed for the map.

    segmenter: a segmenter or its name, which makes the map if `encode` gets none. A native
    `quality` is the factor: side in pixels of the blocks that get one class, 1 to 255; a higher
    value gives a smaller file.
    """

    name = "map_only"
    suffix = ".sqm"
    magic = b"SQM"

    def __init__(
        self,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        device: torch.device | str = "cpu",
        segmenter: Segmenter | str = "tx",
    ) -> None:
        super().__init__(packet_bytes, device, segmenter)

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode the maps of N pictures. See `Codec`.

        Raises ConfigError for a quality that is not a factor and for channel uses, DataError for a
        picture too small or too large, or a map of another size.
        """
        height, width = images.shape[2:]
        budget = rate.budget_bytes(height, width)
        answers: list[Stream | Unreachable] = []
        for one in self._maps(images, segmentation):
            if budget is None:
                coded: bytes | None = one.at(_factor(rate.quality, one.factors))
            else:
                coded = one.within(budget - _HEADER.size)
            if coded is None:
                lowest = _HEADER.size + len(one.lowest())
                answers.append(Unreachable(self.name, height, width, budget or 0, lowest))
            else:
                answers.append(self._stream(height, width, coded))
        return answers

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode maps, and pictures in mean colours; an outage if a packet is missing or wrong."""
        if not received:
            raise ValueError("nothing to decode")
        height, width = received[0].session.height, received[0].session.width
        found = [_decoded_map(one.packets, height, width) for one in received]
        lost = torch.tensor([one is None for one in found])
        nothing = torch.full((height, width), NO_LABEL)
        maps = torch.stack([nothing if one is None else one for one in found])
        images = in_colours(maps.masked_fill(maps == NO_LABEL, 0))
        images[lost] = outage_images(1, height, width)
        return Decoded(images, maps, lost)


@register("bpg+map")
class BPGAndMap(_MapCodec):
    """The codec `bpg+map`: a map and a BPG picture in one budget.

    map_share: largest share of the budget for the map, 0.01 to 0.99; the picture gets the rest. The
    map is made smaller, down to its smallest size, if BPG would not fit. A lost packet of the map
    or of the picture loses that part: what remains is a picture without a map, or the map in the
    classes' mean colours. chroma: see `bpg`. Raises MissingExtraError without PyAV.

    There is no native `quality`.
    """

    name = "bpg+map"
    suffix = ".sqb"
    magic = b"SQB"

    def __init__(
        self,
        packet_bytes: int = DEFAULT_PACKET_BYTES,
        device: torch.device | str = "cpu",
        segmenter: Segmenter | str = "tx",
        map_share: float = 0.25,
        chroma: str | int = "420",
    ) -> None:
        from sqlink.codecs import load_codec

        super().__init__(packet_bytes, device, segmenter)
        self.map_share = number(self.name, "map_share", map_share, 0.01, 0.99)
        self._bpg: Codec = load_codec("bpg", packet_bytes=packet_bytes, chroma=chroma)

    def encode(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode N pictures and their maps. See `Codec`.

        Raises ConfigError for a quality and for channel uses, DataError for a picture too small or
        too large, or a map of another size.
        """
        height, width = images.shape[2:]
        budget = rate.budget_bytes(height, width)
        if budget is None:
            raise ConfigError("bpg+map has no quality of its own: give bpp or bytes")
        maps = self._maps(images, segmentation)
        return [
            self._one(image[None], one, budget) for image, one in zip(images, maps, strict=True)
        ]

    def _one(self, image: Tensor, one: _Map, budget: int) -> Stream | Unreachable:
        height, width = image.shape[2:]
        room = budget - _HEADER.size
        coded = one.within(int(self.map_share * room)) or one.lowest()
        (answer,) = self._bpg.encode(image, Rate(bytes=max(room - len(coded), 1)))
        if isinstance(answer, Unreachable):
            smaller = one.within(room - answer.lowest_bytes)
            if smaller is None:
                lowest = _HEADER.size + len(one.lowest()) + answer.lowest_bytes
                return Unreachable(self.name, height, width, budget, lowest)
            coded = smaller
            (answer,) = self._bpg.encode(image, Rate(bytes=room - len(coded)))
            assert isinstance(answer, Stream)
        return self._stream(height, width, coded, answer.to_bytes())

    def decode(self, received: Sequence[Received]) -> Decoded:
        """Decode the pictures and maps that were received; an outage if neither was."""
        if not received:
            raise ValueError("nothing to decode")
        height, width = received[0].session.height, received[0].session.width
        found = [
            _decoded_map(one.packets[: self._map_packets(one)], height, width) for one in received
        ]
        session = Session("bpg", height, width)
        decoded = self._bpg.decode(
            [Received(session, one.packets[self._map_packets(one) :]) for one in received]
        )
        nothing = torch.full((height, width), NO_LABEL)
        maps = torch.stack([nothing if one is None else one for one in found])
        outage = decoded.outage.clone()
        for n, one in enumerate(found):
            if outage[n] and one is not None:
                decoded.images[n] = in_colours(one[None])[0]
                outage[n] = False
        return Decoded(decoded.images, maps, outage)


def _factor(quality: float | None, factors: tuple[int, int]) -> int:
    low, high = factors
    if quality is None or quality != int(quality) or not low <= quality <= high:
        raise ConfigError(
            f"map_only quality={quality!r} is a factor: a whole number from {low} to {high}"
        )
    return int(quality)
