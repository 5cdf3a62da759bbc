"""The receiver: received packets to picture and map, and the evaluator's map of the picture.

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
    """Make the result for `count` pictures that cannot be decoded: OUTAGE_COLOUR, no map.

    >>> outage(1, 16, 16).outage.tolist()
    [True]
    """
    return Decoded(
        images=outage_images(count, height, width),
        segmentation=None,
        outage=torch.ones(count, dtype=torch.bool),
    )


class Receiver:
    """A codec, and the segmenter (`judge`) that evaluates decoded pictures."""

    def __init__(self, codec: Codec, evaluator: Segmenter | None = None) -> None:
        self.codec = codec
        self.evaluator = evaluator

    def receive(self, received: Sequence[Received]) -> Decoded:
        """Decode pictures of one size from received packets; missing or wrong bytes raise no
        error.
        """
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
