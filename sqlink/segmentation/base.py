"""The protocol of segmenters: pictures to maps of class ids."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from channels.registry import Registry
from sqlink.segmentation import BUILT_IN


@runtime_checkable
class Segmenter(Protocol):
    """A network, a stored map or a person: anything that assigns a class to each pixel."""

    name: str

    def segment(self, images: Tensor) -> Tensor:
        """Segment images: float32 [N, 3, H, W] in [0, 1], any H, W >= 16.

        Returns int64 [N, H, W] class ids. The map of a picture does not depend on its batch.
        """
        ...


SEGMENTERS: Registry[Segmenter] = Registry("segmenter", "sqlink.segmenters", BUILT_IN)
register = SEGMENTERS.register
