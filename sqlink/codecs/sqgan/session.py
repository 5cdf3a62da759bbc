"""The session of a stored `.sqg`: 21 bytes before the packets, all of `packet_bytes` but the last.

offset 0   "SQG"            3 bytes
       3   version, packing 1, four bits each: 5, and how tokens became packets
       4   height, width    2 + 2, big-endian
       8   packet_bytes     2
      10   step             1, which of the weights' quantiser steps, 0 the coarsest
      11   weights          3, the first bytes of their file's SHA-256
      14   colour           3, the picture's mean red, green and blue
      17   CRC-32           4, of all the other bytes of the file
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from sqlink.bitstream.packets import Packing
from sqlink.errors import DataError

_FIELDS = struct.Struct(">3sBHHHB3s3sI")
_MAGIC = b"SQG"
_VERSION = 5
_CRC_BYTES = 4
WEIGHTS_BYTES = 3
"""Of a weights file's SHA-256, its first ones."""
SESSION_BYTES = _FIELDS.size
MAX_SIDE = 65535
"""Longest side of a picture, pixels."""


@dataclass(frozen=True)
class SessionHeader:
    """What a session says.

    packing: how tokens became packets. height, width: pixels. packet_bytes: of every packet but the
    last. step: index of the quantiser's step. weights: the first 3 bytes of their SHA-256. colour:
    mean red, green and blue of the picture, see `sqlink.codecs.sqgan.mean_colour`. crc: of the
    file, as it was read.
    """

    packing: Packing
    height: int
    width: int
    packet_bytes: int
    step: int
    weights: bytes
    colour: bytes
    crc: int = 0

    def to_bytes(self, packets: Iterable[bytes]) -> bytes:
        """Return the session of a file that holds these packets."""
        kind = _VERSION << 4 | self.packing.number
        size = self.height, self.width, self.packet_bytes
        fields = (_MAGIC, kind, *size, self.step, self.weights, self.colour)
        crc = zlib.crc32(_FIELDS.pack(*fields, 0)[:-_CRC_BYTES])
        for packet in packets:
            crc = zlib.crc32(packet, crc)
        return _FIELDS.pack(*fields, crc)

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionHeader:
        """Read the session that a file begins with.

        Raises DataError if the file begins otherwise, or is of another version of the format.
        """
        known = begins_as_session(data)
        version = data[len(_MAGIC)] >> 4 or data[len(_MAGIC)] if known else 0
        if known and version != _VERSION:
            raise DataError(f"a .sqg stream of version {version}: this SQLink reads {_VERSION}")
        if not known or len(data) < SESSION_BYTES:
            raise DataError(f"not a .sqg stream: its {len(data)} bytes do not begin as one")
        _, kind, height, width, packet_bytes, step, weights, colour, crc = _FIELDS.unpack_from(data)
        packing = Packing.of(kind & 15)
        return cls(packing, height, width, packet_bytes, step, weights, colour, crc)


def begins_as_session(data: bytes) -> bool:
    """Return whether bytes begin with a session of any version."""
    return len(data) > len(_MAGIC) and data[: len(_MAGIC)] == _MAGIC


def split_file(data: bytes) -> tuple[SessionHeader, bytes, bytes]:
    """Return a file's session, read and as its bytes, and the packets' bytes.

    Raises DataError if the file is cut short, damaged, or of another version.
    """
    session = SessionHeader.from_bytes(data)
    header, body = data[:SESSION_BYTES], data[SESSION_BYTES:]
    if zlib.crc32(body, zlib.crc32(header[:-_CRC_BYTES])) != session.crc:
        raise DataError("the .sqg stream is cut short or damaged: its CRC-32 does not match")
    return session, header, body
