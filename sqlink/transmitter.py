"""The transmitter: picture -> map -> codec -> stream.

    images [N,3,H,W] ─┬─────────────> codec.encode ──> Stream | Unreachable, one per picture
                      └─ segmenter ──> map ──┘

The map is the transmitter's own segmentation of the picture. Labels are used only if the caller
gives them.
"""

from __future__ import annotations

from torch import Tensor

from sqlink.codecs.base import Codec, Rate, Stream, Unreachable
from sqlink.errors import DataError
from sqlink.segmentation.base import Segmenter


class Transmitter:
    """A codec, and the segmenter that gives it maps.

    segmenter: None leaves the map to the codec: a codec that carries a map then uses its own
    segmenter, other codecs need no map.
    """

    def __init__(self, codec: Codec, segmenter: Segmenter | None = None) -> None:
        self.codec = codec
        self.segmenter = segmenter

    def send(
        self, images: Tensor, rate: Rate, segmentation: Tensor | None = None
    ) -> list[Stream | Unreachable]:
        """Encode N pictures of one size, each within `rate`.

        images: float32 [N, 3, H, W] in [0, 1], H, W >= 16. segmentation: int64 [N, H, W] of class
        ids, 255 for "no label", sent instead of the segmenter's map, such as the ground truth.
        Raises DataError if the shapes do not fit each other.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise DataError(f"pictures must be [N, 3, H, W], not {list(images.shape)}")
        expected = (images.shape[0], *images.shape[2:])
        if segmentation is None and self.segmenter is not None:
            segmentation = self.segmenter.segment(images)
        if segmentation is not None and tuple(segmentation.shape) != expected:
            raise DataError(
                f"a map must be {list(expected)} like the pictures, not {list(segmentation.shape)}"
            )
        return self.codec.encode(images, rate, segmentation)
