"""The channels that a JPEG2000 file declares, and the declarations that Pillow ignores.

Pillow returns the components of a codestream in their order. It ignores a channel definition box
(ISO/IEC 15444-1, I.5.3.6), takes every enumerated colour space but sYCC, grey and CMYK for sRGB
(I.5.3.3), merges equal colours of a palette (I.5.3.4), and shears sub-sampled components whose last
column or row is half a sample. A file that would therefore be read wrongly is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

CODESTREAM = b"\xff\x4f\xff\x51"
"""Markers SOC and SIZ, with which every codestream begins."""

SRGB, GREY, SYCC, CMYK, BILEVEL = 16, 17, 18, 12, 15
COLOUR_SPACES = {SRGB: 3, GREY: 1, SYCC: 3, CMYK: 4, BILEVEL: 1}
"""Number of colour channels of each supported enumerated colour space; in bilevel 15, 0 is black.
"""

PROFILE_SPACES = {b"RGB ": 3, b"GRAY": 1}
"""Number of colour channels of each supported colour space of an ICC profile."""

COLOUR, OPACITY = 0, 1
"""Types of a channel in a channel definition box."""


def unfollowed(file: BinaryIO) -> str | None:
    """Describe what Pillow would ignore in a JPEG2000 file, as "has ..."; None if nothing.

    file: positioned at the start of a JP2 file or of a bare codestream. Raises struct.error if it
    is cut short.
    """
    start = file.read(4)
    file.seek(0)
    if start == CODESTREAM:
        return _components(file.read(1 << 16), colours=None, described=False)
    header: dict[bytes, bytes] = {}
    for kind, length in _boxes(file):
        if kind == b"jp2h":
            header |= dict(_inside(file.read(length)))
        elif kind == b"jp2c":
            described = b"cdef" in header or b"pclr" in header
            return _header(header) or _components(file.read(1 << 16), _colours(header), described)
        else:
            file.seek(length, 1)
    return None


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the type and content length of each box; the caller moves past the content."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
            length -= 8
        if length == 0:  # up to the end of the file
            length = 1 << 30
        if length < 8:
            return
        yield kind, length - 8


def _inside(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Return the type and content of each box of a superbox; the first box of each type."""
    at, seen = 0, set()
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if length < 8:
            return
        if kind not in seen:
            yield kind, content[at + 8 : at + length]
        seen.add(kind)
        at += length


def _colours(header: dict[bytes, bytes]) -> int | None:
    """Return the number of colour channels of a supported colour specification, else None."""
    method, space = struct.unpack_from(">B2xI", header.get(b"colr", b"\0" * 7))
    if method == 1:
        return COLOUR_SPACES.get(space)
    return PROFILE_SPACES.get(header.get(b"colr", b"")[19:23])


def _header(header: dict[bytes, bytes]) -> str | None:
    """Describe what Pillow ignores in a JP2 header."""
    colours = _colours(header)
    if colours is None:
        return "has a colour space that is neither sRGB, grey, sYCC nor CMYK"
    if b"pclr" in header:
        entries, columns = struct.unpack_from(">HB", header[b"pclr"])
        table = header[b"pclr"][3 + columns :]
        colour = {table[columns * k : columns * (k + 1)] for k in range(entries)}
        straight = b"".join(struct.pack(">HBB", 0, 1, k) for k in range(columns))
        if columns != 3 or len(colour) < entries or header.get(b"cmap") != straight:
            return "has a palette that is not one of distinct RGB colours in their order"
        return None
    if b"cdef" in header:
        (count,) = struct.unpack_from(">H", header[b"cdef"])
        found = sorted(struct.iter_unpack(">3H", header[b"cdef"][2 : 2 + 6 * count]))
        plain = [(k, COLOUR, k + 1) for k in range(colours)]
        if found not in (plain, [*plain, (colours, OPACITY, 0)]):
            return "has a channel definition other than its colours in order, then opacity"
    return None


def _components(codestream: bytes, colours: int | None, described: bool) -> str | None:
    """Describe what Pillow ignores in the components that segment SIZ declares.

    colours: number of colour channels by the header, None without a header. described: whether the
    header defines each component.
    """
    numbers = struct.unpack_from(">4x4x8IH", codestream)
    (right, lower, left, upper, wide, high, _, _), count = numbers[:8], numbers[8]
    facts = [struct.unpack_from(">3B", codestream, 42 + 3 * k) for k in range(count)]
    if any(depth & 0x80 for depth, _, _ in facts):
        return "has signed samples"
    sides = {(x, y) for _, x, y in facts}
    if sides != {(1, 1)}:
        tiles = [(wide, high)] if (wide, high) < (right, lower) else []
        for x, y in sides:
            if any(a % x or b % y for a, b in [(right, lower), (left, upper), *tiles]):
                return "has sub-sampled colour whose last column or row is half a sample"
    wanted = colours or (1 if count < 3 else 3)
    if count != wanted and not described:
        return f"has {count} channels where its colours are {wanted}, and says nothing of the rest"
    return None
