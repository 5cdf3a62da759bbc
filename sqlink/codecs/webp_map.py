"""Conventional coding of a segmentation map: lossless WebP of the map at a fraction of its size.

    ids [h, w] ─ grey picture ─ lossless WebP (VP8L) ─ without the container's 20 bytes ─> bytes

Of the common lossless coders WebP gives by far the smallest files for such maps: on CamVid's maps
at factors from 1 to 12, PNG takes 1.5 to 2.6 times as many bytes and lossless JPEG2000 3 to 5
times.

Source: RFC 9649, WebP image format (2024), chunk VP8L. This module must not need PyTorch, because
the decoding process imports it.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
from PIL import Image

from sqlink.errors import DataError

_CONTAINER = 20
"""Bytes that need not be sent (RIFF, size, WEBP, VP8L, size): they follow from the rest."""
_EFFORT = 6
_MAX_SIDE = 16383
"""Largest side of a WebP picture."""

Ids = npt.NDArray[np.uint8]


def encode_ids(ids: Ids) -> bytes:
    """Encode uint8 [h, w] class ids, sides up to 16383, to bytes."""
    file = io.BytesIO()
    Image.fromarray(np.repeat(ids[..., None], 3, axis=2)).save(
        file, format="WEBP", lossless=True, quality=100, method=_EFFORT
    )
    data = file.getvalue()
    size = struct.unpack("<I", data[16:20])[0]
    if data[12:16] != b"VP8L":
        raise DataError("WebP did not code a map as a plain lossless picture: install Pillow again")
    return data[_CONTAINER : _CONTAINER + size]


def decode_ids(data: bytes) -> Ids:
    """Decode what `encode_ids` wrote, with ids repeated three times, uint8 [h, w, 3].

    Native code reads the bytes: decode bytes of unknown origin by `decode_in_worker`. Raises
    DataError if they are damaged.
    """
    padded = data + bytes(len(data) % 2)
    head = (
        b"RIFF" + struct.pack("<I", len(padded) + 12) + b"WEBPVP8L" + struct.pack("<I", len(data))
    )
    try:
        with Image.open(io.BytesIO(head + padded), formats=("WEBP",)) as picture:
            if max(picture.size) > _MAX_SIDE:
                raise DataError("the map is damaged: its size cannot be")
            return np.array(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the map is damaged: {error}") from error
