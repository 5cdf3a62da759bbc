"""The mean colour of a picture, which the receiver gives to what it draws.

A network draws streets in the light of those that it learned from; of another camera's cast, a
level or two over the whole picture, it keeps little. Three bytes of the session say it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_PARTS = 256
"""Parts of a level that are summed."""
_TIMES = 3
"""Times that the shift is made greater where it was clamped."""


def mean_colours(pictures: Tensor) -> list[bytes]:
    """Return the mean red, green and blue of pictures, [N, 3, H, W] in [0, 1], in levels of 255.

    Values beyond [0, 1] count as its ends, NaN as 0.

    >>> mean_colours(torch.full((1, 3, 4, 4), 0.5))
    [b'\\x80\\x80\\x80']
    """
    level = _PARTS * pictures[0, 0].numel()
    sums = _sums(pictures.nan_to_num(0).clamp(0, 1))
    return [bytes(row) for row in ((2 * sums + level) // (2 * level)).tolist()]


def with_mean_colours(pictures: Tensor, colours: Sequence[bytes | None]) -> Tensor:
    """Shift the colours of pictures, [N, 3, H, W] in [0, 1], to these means; None: leave it.

    The result is clamped to [0, 1]; nearly all that this takes from the shift is added to it.
    """
    said = torch.tensor([colour is not None for colour in colours]).view(-1, 1)
    wanted = torch.tensor([list(colour or bytes(3)) for colour in colours], dtype=torch.float64)
    shift = torch.zeros_like(wanted)
    shown = pictures
    for _ in range(_TIMES):
        means = _sums(shown).cpu().double() / (_PARTS * pictures[0, 0].numel())
        shift += torch.where(said, wanted - means, 0) / 255
        shown = (pictures + shift.to(pictures).view(-1, 3, 1, 1)).clamp(0, 1)
    return shown


def _sums(pictures: Tensor) -> Tensor:
    """Return the sums in parts of a level, int64 [N, 3]: the same in any order."""
    return (pictures * (255 * _PARTS)).round().int().sum((2, 3), dtype=torch.int64)
