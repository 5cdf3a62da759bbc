"""What the receiver draws from the base's tokens, and a memory of the last such drawings."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from torch import Tensor


class BaseDrawing(NamedTuple):
    """What the base's tokens draw.

    segmentation: int64 [N, H, W]. coarse, fine: features at 1/8 and 1/4. picture: float32
    [N, 3, H, W] in [0, 1].
    """

    segmentation: Tensor
    coarse: Tensor
    fine: Tensor
    picture: Tensor


class RecentDrawings:
    """The last drawings of the base, by their tokens: the next rate of a picture often has the same
    ones, and drawing the base is half of the receiver's work.
    """

    def __init__(self, most: int = 4) -> None:
        self.most = most
        self._held: OrderedDict[bytes, BaseDrawing] = OrderedDict()
        self._lock = Lock()

    def of(
        self, image_indices: Tensor, map_indices: Tensor, end: int, draw: Callable[[], BaseDrawing]
    ) -> BaseDrawing:
        """Return the drawing of these tokens at realism `end`, made by `draw` if it is not held."""
        digest = hashlib.blake2b(repr((tuple(image_indices.shape), end)).encode())
        for indices in (image_indices, map_indices):
            digest.update(indices.cpu().contiguous().numpy().data)
        key = digest.digest()
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                self._held.move_to_end(key)
                return held
        made = draw()
        with self._lock:
            self._held[key] = made
            while len(self._held) > self.most:
                self._held.popitem(last=False)
        return made

    def clear(self) -> None:
        """Drop all drawings."""
        with self._lock:
            self._held.clear()
