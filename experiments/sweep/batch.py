"""Choice of the number of pictures computed at once: fewer if the GPU's memory is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from sqlink.errors import ConfigError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batch:
    """A number of pictures, permanently halved whenever they do not fit into the GPU's memory.

    say: is called with one line when that happens.

    >>> Batch(2, print).over([1, 2, 3], lambda part: [10 * one for one in part])
    [10, 20, 30]
    """

    def __init__(self, size: int, say: Callable[[str], None]) -> None:
        self.size = size
        self._say = say

    def over(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Answer]]
    ) -> list[Answer]:
        """Apply `work` to the items in batches; return one answer per item.

        Raises ConfigError if a single picture does not fit.
        """
        answers: list[Answer] = []
        while len(answers) < len(items):
            start = len(answers)

            def some(size: int, start: int = start) -> Sequence[Answer]:
                return work(items[start : start + size])

            answers += self.attempt(some)
        return answers

    def attempt(self, work: Callable[[int], Answer]) -> Answer:
        """Call `work` with the batch size, halved until it fits; return its result.

        Raises ConfigError if a size of 1 does not fit.
        """
        while True:
            size = self.size
            try:
                return work(size)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise ConfigError(
                        "the memory of the GPU does not hold one picture: use device: cpu, "
                        "smaller pictures, or end other programs on that GPU"
                    ) from error
            # Outside the handler, whose traceback still holds the tensors.
            self.size = size // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self._say(f"out of GPU memory: going on with batches of {self.size} (were {size})")
