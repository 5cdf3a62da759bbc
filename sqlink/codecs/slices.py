"""A codec's file in slices, one per packet, and pictures decoded one after another.

file ── cut ── packets ── link ── joined, or its beginning ── decoder ── picture or outage
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sqlink.codecs.base import Decoded, Packet, Received, Session, Stream, outage_images

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8]


def cut(data: bytes, packet_bytes: int) -> list[bytes]:
    """Cut a file into slices of `packet_bytes`, the last one shorter.

    >>> cut(b"abcde", 2)
    [b'ab', b'cd', b'e']
    """
    return [data[start : start + packet_bytes] for start in range(0, len(data), packet_bytes)]


def sliced(
    session: Session,
    data: bytes,
    packet_bytes: int,
    ranked: bool,
    quality: float | None = None,
) -> Stream:
    """Make a stream of a file.

    ranked: whether earlier slices are more important than later ones. quality: native quality, if
    known.
    """
    return Stream(
        session,
        tuple(
            Packet(piece, rank if ranked else 0, {"payload": 8 * len(piece)})
            for rank, piece in enumerate(cut(data, packet_bytes))
        ),
        quality,
    )


def beginning(received: Received) -> tuple[bytes, bool]:
    """Join the slices before the first loss; return them, and whether they are the whole file.

    >>> session = Session("jpeg", 16, 16)
    >>> beginning(Received(session, (b"ab", None, b"e")))
    (b'ab', False)
    """
    pieces: list[bytes] = []
    for piece in received.packets:
        if piece is None:
            break
        pieces.append(piece)
    return b"".join(pieces), len(pieces) == len(received.packets)


def to_pixels(images: Tensor) -> Pixels:
    """Convert float32 [N, 3, H, W] in [0, 1] to uint8 [N, H, W, 3]."""
    import torch

    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return pixels.cpu().numpy()


def to_image(pixels: Pixels) -> Tensor:
    """Convert uint8 [H, W, 3] to float32 [3, H, W] in [0, 1]."""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def decode_each(
    received: Sequence[Received], decode: Callable[[Received], Tensor | None]
) -> Decoded:
    """Decode pictures of one size one after another, for a codec that carries no map.

    decode: function that returns float32 [3, H, W], or None for an outage. Raises ValueError if
    `received` is empty.
    """
    import torch

    if not received:
        raise ValueError("nothing to decode")
    height, width = received[0].session.height, received[0].session.width
    images = outage_images(len(received), height, width)
    outage = torch.ones(len(received), dtype=torch.bool)
    for n, one in enumerate(received):
        image = decode(one)
        if image is not None:
            images[n] = image
            outage[n] = False
    return Decoded(images, None, outage)
