"""The structure of a JPEG2000 codestream: its header, and the ends of its packets.

    SOC SIZ COD QCD | SOT SOD | packet packet ... packet | EOC
    main header     | tile    | one per (layer, resolution, component)

OpenJPEG refuses a codestream that was cut short. If it is cut after its last complete packet, and
each missing packet is replaced by an empty one (a zero byte), the picture can be decoded at the
quality and resolution received. The end of a packet is given only in its own header, which is
therefore parsed here. Filling up an incomplete packet with zeros or ones is worse: the arithmetic
decoder then loses up to 7 dB.

Supported are the codestreams of `jpeg2000`: one tile, no precincts, no SOP, EPH or code-block
style.

Source: ITU-T T.800 (2002), annexes A (markers) and B.10 (packet headers, tag trees).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sqlink.errors import DataError

SOC, SOT, SOD, EOC = b"\xff\x4f", b"\xff\x90", b"\xff\x93", b"\xff\xd9"
_SIZ, _COD, _COMMENT = 0xFF51, 0xFF52, 0xFF64
_LRCP, _RLCP = 0, 1
_MAX_PRECINCT = 1 << 15


@dataclass(frozen=True)
class Header:
    """Contents of the headers of a codestream.

    tile: offset of the tile's header (SOT). body: offset of the first packet. tile_bytes: from
    `tile` to the end of the last packet, according to the header.
    """

    width: int
    height: int
    components: int
    levels: int
    layers: int
    progression: int
    block: tuple[int, int]
    tile: int
    body: int
    tile_bytes: int


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """List marker, start and end of each segment between SOC and SOT. Raises DataError."""
    if data[:2] != SOC:
        raise DataError("this is not a JPEG2000 codestream (no SOC marker)")
    found, at = [], 2
    while data[at : at + 2] != SOT:
        marker, size = _word(data, at, 2), _word(data, at + 2, 2)
        if marker < 0xFF00 or size < 2 or at + 2 + size > len(data):
            raise DataError("the main header of this JPEG2000 codestream is damaged or cut short")
        found.append((marker, at, at + 2 + size))
        at += 2 + size
    found.append((0xFF90, at, at + 12))
    return found


def _word(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise DataError("this JPEG2000 codestream is cut short in its header")
    return int.from_bytes(data[at : at + size], "big")


def read_header(data: bytes) -> Header:
    """Read the headers up to the first packet. Raises DataError if damaged or not supported."""
    segments = _segments(data)
    where = {marker: start + 4 for marker, start, _ in segments}
    if _SIZ not in where or _COD not in where:
        raise DataError("this JPEG2000 codestream has no SIZ or COD segment")
    siz, cod, tile = where[_SIZ], where[_COD], segments[-1][1]
    size = [_word(data, siz + 2 + 4 * k, 4) for k in range(8)]
    width, height, components = size[0], size[1], _word(data, siz + 34, 2)
    if (
        min(width, height) < 1
        or size[2:] != [0, 0, width, height, 0, 0]
        or any(_word(data, siz + 36 + 3 * c, 3) != 0x070101 for c in range(components))
    ):
        raise DataError("this JPEG2000 codestream is not one tile of 8-bit components of one size")
    levels = _word(data, cod + 5, 1)
    block = _word(data, cod + 6, 1) + 2, _word(data, cod + 7, 1) + 2
    style = _word(data, cod, 1), _word(data, cod + 8, 1)
    layers = _word(data, cod + 2, 2)
    if style != (0, 0) or levels > 32 or max(block) > 10 or layers < 1:
        raise DataError("this JPEG2000 codestream has a coding style that is not read here")
    tile_bytes = _word(data, tile + 6, 4)
    if data[tile + 12 : tile + 14] != SOD:
        raise DataError("the tile header of this JPEG2000 codestream is damaged or cut short")
    return Header(
        width=width,
        height=height,
        components=components,
        levels=levels,
        layers=layers,
        progression=_word(data, cod + 1, 1),
        block=block,
        tile=tile,
        body=tile + 14,
        tile_bytes=tile_bytes,
    )


def strip_comments(data: bytes) -> bytes:
    """Remove the COM segments (an encoder's signature) from the main header of a codestream."""
    segments = _segments(data)
    kept = [data[start:end] for marker, start, end in segments[:-1] if marker != _COMMENT]
    return data[:2] + b"".join(kept) + data[segments[-1][1] :]


class _Bits:
    """Bits of a packet header: after a byte 0xFF the next one holds only seven (B.10.1)."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at, self.left, self.byte = data, at, 0, 0

    def read(self, count: int = 1) -> int:
        value = 0
        for _ in range(count):
            if self.left == 0:
                if self.at >= len(self.data):
                    raise EOFError
                self.left = 7 if self.byte == 0xFF else 8
                self.byte = self.data[self.at]
                self.at += 1
            self.left -= 1
            value = value << 1 | (self.byte >> self.left & 1)
        return value

    def align(self) -> int:
        """Return the offset of the first byte after the header."""
        if self.byte == 0xFF:
            self.at += 1
        return self.at


class _TagTree:
    """A tag tree: minima of a grid over 2 x 2 cells, level by level up to one root (B.10.2)."""

    def __init__(self, width: int, height: int) -> None:
        self.sizes = [(width, height)]
        while self.sizes[-1] != (1, 1):
            w, h = self.sizes[-1]
            self.sizes.append((-(-w // 2), -(-h // 2)))
        self.low = [[0] * (w * h) for w, h in self.sizes]
        self.known = [[False] * (w * h) for w, h in self.sizes]

    def below(self, bits: _Bits, x: int, y: int, threshold: int) -> bool:
        """Read bits until it is known whether the value of cell (x, y) is below `threshold`."""
        low = 0
        for level in reversed(range(len(self.sizes))):
            cell = (y >> level) * self.sizes[level][0] + (x >> level)
            low = max(low, self.low[level][cell])
            while low < threshold and not self.known[level][cell]:
                if bits.read():
                    self.known[level][cell] = True
                else:
                    low += 1
            self.low[level][cell] = low
        return self.known[0][y * self.sizes[0][0] + x] and low < threshold


class _Band:
    """The code-blocks of one sub-band of one component, with their state so far."""

    def __init__(self, width: int, height: int, block: tuple[int, int]) -> None:
        self.columns, self.rows = -(-width // (1 << block[0])), -(-height // (1 << block[1]))
        if self.columns and self.rows:
            self.inclusion = _TagTree(self.columns, self.rows)
            self.planes = _TagTree(self.columns, self.rows)
        self.length_bits = [0] * (self.columns * self.rows)

    def read(self, bits: _Bits, layer: int) -> int:
        """Read this band's part of a packet header; return its number of bytes in the packet's
        body.
        """
        total = 0
        for index in range(self.columns * self.rows):
            x, y = index % self.columns, index // self.columns
            first = self.length_bits[index] == 0
            if not (self.inclusion.below(bits, x, y, layer + 1) if first else bits.read()):
                continue
            if first:
                planes = 1
                while not self.planes.below(bits, x, y, planes):
                    planes += 1
                    if planes > 80:
                        raise EOFError
                self.length_bits[index] = 3
            passes = _passes(bits)
            while bits.read():
                self.length_bits[index] += 1
            total += bits.read(self.length_bits[index] + passes.bit_length() - 1)
        return total


def _passes(bits: _Bits) -> int:
    """Read the number of coding passes of a code-block (table B.4)."""
    if not bits.read():
        return 1
    if not bits.read():
        return 2
    if (more := bits.read(2)) < 3:
        return 3 + more
    if (more := bits.read(5)) < 31:
        return 6 + more
    return 37 + bits.read(7)


def packet_ends(data: bytes, header: Header) -> list[int]:
    """Return the end offsets of the complete packets in `data`, in codestream order.

    The list is empty for a codestream that is not supported. Damaged bytes raise no error: they are
    parsed as far as possible.
    """
    covered = header.progression in (_LRCP, _RLCP)
    if not covered or max(header.width, header.height) > _MAX_PRECINCT:
        return []
    bands = [
        [_bands(header, resolution) for _ in range(header.components)]
        for resolution in range(header.levels + 1)
    ]
    layers, resolutions = range(header.layers), range(header.levels + 1)
    if header.progression == _LRCP:
        order = [(layer, resolution) for layer in layers for resolution in resolutions]
    else:
        order = [(layer, resolution) for resolution in resolutions for layer in layers]
    ends: list[int] = []
    at = header.body
    try:
        for layer, resolution in order:
            for component in range(header.components):
                bits = _Bits(data, at)
                body = 0
                if bits.read():
                    body = sum(band.read(bits, layer) for band in bands[resolution][component])
                at = bits.align() + body
                if at > len(data):
                    return ends
                ends.append(at)
    except EOFError:
        pass
    return ends


def _bands(header: Header, resolution: int) -> list[_Band]:
    """Return the sub-bands of a resolution (equation B-15, tile at the origin): LL, or HL, LH and
    HH.
    """
    if resolution == 0:
        step = 1 << header.levels
        return [_Band(-(-header.width // step), -(-header.height // step), header.block)]
    step = 1 << (header.levels - resolution + 1)
    return [
        _Band(
            max(-(-(header.width - step // 2 * x) // step), 0),
            max(-(-(header.height - step // 2 * y) // step), 0),
            header.block,
        )
        for x, y in ((1, 0), (0, 1), (1, 1))
    ]


def cut_to_packets(prefix: bytes, header: Header) -> bytes | None:
    """Cut `prefix` to a decodable codestream of its whole packets; None if no packet is whole."""
    ends = packet_ends(prefix, header)
    if not ends:
        return None
    missing = header.layers * (header.levels + 1) * header.components - len(ends)
    packets = prefix[header.body : ends[-1]] + bytes(missing)
    size = (header.body - header.tile + len(packets)).to_bytes(4, "big")
    tile = prefix[header.tile : header.tile + 6] + size + prefix[header.tile + 10 : header.body]
    return prefix[: header.tile] + tile + packets + EOC


def decode_codestream(data: bytes) -> npt.NDArray[np.uint8]:
    """Decode a whole codestream to uint8 [H, W, 3]; runs in the decoders' worker process."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(io.BytesIO(data), formats=["JPEG2000"]) as picture:
        if picture.mode != "RGB":
            raise DataError(f"this JPEG2000 codestream is {picture.mode}, not RGB")
        return np.asarray(picture)
