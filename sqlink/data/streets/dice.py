"""Random numbers for the renderer: Philox streams by seed and purpose.

Every part of a scene draws from its own stream, so that a change to one does not affect the others.
Only raw doubles in [0, 1) are used, because they are the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Dice:
    """Random choices of one part of one scene.

    >>> Dice(3, "cars").uniform(0, 1) == Dice(3, "cars").uniform(0, 1)
    True
    """

    def __init__(self, seed: int, *purpose: str | int) -> None:
        digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
        tag = int.from_bytes(digest[:8], "little")
        self._generator = np.random.Generator(np.random.Philox(key=(tag << 64) | seed))

    def uniform(self, low: float, high: float) -> float:
        """Draw a number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        return float(self._generator.random()) < probability

    def integer(self, low: int, high: int) -> int:
        """Draw an integer in [low, high], both ends included."""
        return low + int(self._generator.random() * (high - low + 1))

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """Pick one of the options, by weight if weights are given."""
        if weights is None:
            return options[int(self._generator.random() * len(options))]
        mark = float(self._generator.random()) * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            mark -= weight
            if mark < 0:
                return option
        return options[-1]

    def many(self, *shape: int) -> NDArray[np.float64]:
        """Draw numbers in [0, 1) of the given shape."""
        return self._generator.random(shape)
