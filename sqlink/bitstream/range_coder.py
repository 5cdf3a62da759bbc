"""The range coder's ends: the shortest bytes that decode alike, and bytes back to a decoder.

The coder is constriction's. Its state is an interval [lower, lower + range) of binary fractions,
any number in which decodes to the same symbols; what it writes itself is a number of whole 32-bit
words. Here the shortest byte string in the interval is written, and a decoder reads zeros after its
end, so that a packet padded with zeros is the same packet.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np

Encoder = Any  # constriction.stream.queue.RangeEncoder, which has no type stubs
Decoder = Any


def encoder() -> Encoder:
    """A fresh encoder."""
    return constriction.stream.queue.RangeEncoder()


def decoder(data: bytes) -> Decoder:
    """A decoder of `data` followed by zeros."""
    padded = data + bytes(8 + -len(data) % 4)
    return constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))


def shortest_bytes(state: Encoder) -> bytes:
    """The fewest bytes from which everything encoded so far decodes; the encoder stays usable.

    >>> coder = encoder()
    >>> coder.encode(3, constriction.stream.model.Uniform(16))
    >>> shortest_bytes(coder)
    b'0'
    """
    count: int
    lower: int
    width: int
    count, (lower, width) = state.pos()
    bits = 32 * count + 64
    point = 0
    words = state.get_compressed().tolist()
    for word in words:
        point = point << 32 | word
    point <<= bits - 32 * len(words)
    # `lower` is known modulo 2^64; the words give the rest, up to a carry.
    base = (point >> 64 << 64) + lower
    if base > point:
        base -= 1 << 64
    size = max(0, (bits - width.bit_length()) // 8)
    while True:
        shift = bits - 8 * size
        value = -(-base >> shift)
        if value << shift < base + width:
            return value.to_bytes(size, "big")
        size += 1
