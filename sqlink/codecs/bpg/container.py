"""The BPG file: a few bytes of header around one HEVC intra picture.

    "BPG" FB │ format, alpha, depth │ colour, flags │ ue7 W │ ue7 H │ ue7 length of picture data
    [ue7 length, extension data] │ ue7 length, HEVC tools │ PPS │ 00 00 01 │ slice

Source: BPG Specification, Fabrice Bellard, bellard.org/bpg/bpg_spec.txt. Supported are pictures of
8 bits, grey, 4:2:0 or 4:2:2 (JPEG siting) or 4:4:4, in YCbCr BT.601 of full range, as the reference
encoder writes them by default. Other files raise a DataError that names their format.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlink.codecs.bpg.hevc import Tools
from sqlink.errors import DataError

MAGIC = b"BPG\xfb"
GREY, YUV420, YUV422, YUV444 = 0, 1, 2, 3
"""pixel_format; the same numbers as HEVC's chroma_format_idc."""
_FORMATS = ("grey", "4:2:0", "4:2:2", "4:4:4", "4:2:0 (MPEG2 siting)", "4:2:2 (MPEG2 siting)")
_COLOURS = ("YCbCr BT.601", "RGB", "YCgCo", "YCbCr BT.709", "YCbCr BT.2020")
DEFAULT_MAX_PIXELS = 64_000_000
"""Pixels of the largest picture that is decoded by default."""


@dataclass(frozen=True)
class BPGFile:
    """The parts of a BPG file.

    pixel_format: GREY, YUV420, YUV422 or YUV444. units: PPS and slice, the first without a start
    code.
    """

    width: int
    height: int
    pixel_format: int
    tools: Tools
    units: bytes

    @property
    def coded_size(self) -> tuple[int, int]:
        """Width and height of the HEVC picture: rounded up to whole smallest coding blocks."""
        block = self.tools.min_cb
        return -(-self.width // block) * block, -(-self.height // block) * block

    def to_bytes(self) -> bytes:
        """Return the file's bytes. They state the length of the data, which reveals a truncated
        file.
        """
        tools = self.tools.to_bytes()
        data = ue7(len(tools)) + tools + self.units
        return b"".join(
            (
                MAGIC,
                bytes((self.pixel_format << 5, 0)),
                ue7(self.width),
                ue7(self.height),
                ue7(len(data)),
                data,
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> BPGFile:
        """Parse a file; sizes are checked before they are used.

        Raises DataError for a file that is not BPG, is cut short, has more than `max_pixels` pixels
        (None: any number), or is not supported: alpha, animation, other colours, other depths.
        """
        if data[:4] != MAGIC:
            raise DataError("this is not a BPG file: it does not start with 'BPG' FB")
        if len(data) < 6:
            raise DataError(f"the BPG file is cut short: it ends after {len(data)} bytes")
        first, second = data[4], data[5]
        pixel_format, depth = first >> 5, 8 + (first & 15)
        if pixel_format > YUV444 or depth != 8:
            name = _FORMATS[pixel_format] if pixel_format < len(_FORMATS) else "of unknown format"
            raise DataError(
                f"the BPG file is {name} with {depth} bits; grey, 4:2:0, 4:2:2 and 4:4:4 with 8 "
                "bits can be read (bpgenc -b 8 -f 420)"
            )
        if first >> 4 & 1 or second >> 2 & 1:
            raise DataError("the BPG file has an alpha plane: make it of a picture without one")
        if second & 1:
            raise DataError("the BPG file is animated: make it of one picture")
        colour, limited = second >> 4, second >> 1 & 1
        if colour and pixel_format != GREY:
            name = _COLOURS[colour] if colour < len(_COLOURS) else "unknown"
            raise DataError(
                f"the BPG file's colours are {name}; YCbCr BT.601 can be read (bpgenc -c ycbcr)"
            )
        if limited:
            raise DataError(
                "the BPG file's colours are of limited range; full range can be read "
                "(bpgenc without -limitedrange)"
            )
        width, at = read_ue7(data, 6)
        height, at = read_ue7(data, at)
        if width == 0 or height == 0:
            raise DataError(f"the BPG file's header says {width}x{height} pixels; it is damaged")
        if max_pixels is not None and width * height > max_pixels:
            raise DataError(
                f"the BPG file is {width}x{height}, {width * height} pixels, over the limit of "
                f"{max_pixels}: raise max_pixels (--max-pixels, SQLINK_MAX_PIXELS)"
            )
        length, at = read_ue7(data, at)
        if second >> 3 & 1:
            extension, at = read_ue7(data, at)
            at += extension
        end = at + length if length else len(data)
        header, start = read_ue7(data, at)
        if end > len(data) or start + header >= end:
            raise DataError(
                f"the BPG file is cut short: it has {len(data)} bytes, its header promises "
                f"{max(end, start + header + 1)}"
            )
        tools = Tools.from_bytes(data[start : start + header])
        return cls(width, height, pixel_format, tools, data[start + header : end])


def ue7(value: int) -> bytes:
    """Encode a number in groups of 7 bits, most significant first; the bit 0x80 means that more
    follow.

    >>> ue7(480).hex()
    '8360'
    """
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F | 0x80)
    return bytes(reversed(groups))


def read_ue7(data: bytes, at: int) -> tuple[int, int]:
    """Read the number at offset `at`, below 2^32; return it and its end. Raises DataError.

    >>> read_ue7(bytes.fromhex("8360"), 0)
    (480, 2)
    """
    value = 0
    for count in range(5):
        if at >= len(data):
            raise DataError(f"the BPG file is cut short: it ends after {len(data)} bytes")
        byte = data[at]
        at += 1
        if count == 0 and byte == 0x80:
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80 and value < 1 << 32:
            return value, at
    raise DataError("the BPG file's header holds a number that is not allowed; it is damaged")
