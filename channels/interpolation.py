"""Linear interpolation in a table with equal steps, on any device."""

from __future__ import annotations

import torch
from torch import Tensor


def interpolate(table: Tensor, low: float, step: float, at: Tensor) -> Tensor:
    """Interpolate a table at `at`, float64 of any shape. Beyond the ends it is constant.

    table: float64 [T], T >= 2, at low, low + step, low + 2 step ... Returns float64 like `at`.

    >>> interpolate(torch.tensor([0.0, 10.0, 30.0]), -1.0, 0.5, torch.tensor([-2.0, -0.75, 0.0]))
    tensor([ 0.,  5., 30.])
    """
    place = ((at - low) / step).clamp(0, len(table) - 1)
    left = place.floor().clamp(max=len(table) - 2).to(torch.int64)
    share = place - left
    values = table.to(at.device)
    return values[left] * (1 - share) + values[left + 1] * share
