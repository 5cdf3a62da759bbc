"""The receiving end: received packets to picture and map, and what is still understood of it.

Received ──> codec.decode ──> Decoded ──> evaluator ──> map of the decoded picture
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sqlink.codecs.base import Codec, Decoded, Received, outage_images
from sqlink.errors import ConfigError
from sqlink.segmentation.base import Segmenter


def outage(count: int, height: int, width: int) -> Decoded:
    """Make the decoded form of `count` pictures of which nothing can be decoded: OUTAGE_COLOUR, no
    map.

    >>> outage(1, 16, 16).outage.tolist()
    [True]
    """
    return Decoded(
        images=outage_images(count, height, width),
        segmentation=None,
        outage=torch.ones(count, dtype=torch.bool),
    )


class Receiver:
    """A codec, and the segmenter (`judge`) that says what can still be understood of a picture."""

    def __init__(self, codec: Codec, evaluator: Segmenter | None = None) -> None:
        self.codec = codec
        self.evaluator = evaluator

    def receive(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size from what came; missing or wrong bytes are borne."""
        return self.codec.decode(received)

    def understand(self, images: Tensor) -> Tensor:
        """Segment decoded pictures, float32 [N, 3, H, W], into int64 [N, H, W] of class ids.

        Raises ConfigError if the receiver was given no evaluator.
        """
        if self.evaluator is None:
            raise ConfigError(
                "this receiver has no evaluator: give one, Receiver(codec, evaluator)"
            )
        return self.evaluator.segment(images)
