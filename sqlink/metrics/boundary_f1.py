"""Boundary F1: agreement of class boundaries with those in the labels.

    boundary of class c: pixels of c beside a pixel of another class
    precision: share of the boundary seen that lies within `tolerance` of the true one; recall: the
    other way round; F1 their harmonic mean; the mean over classes that have a boundary in the truth

The tolerance is .75 % of the picture's diagonal, 4.5 pixels for 480x360. Counts are summed over
pictures before precision and recall are taken, as for mIoU; for one picture this is the measure of
the source. Pixels without a label, and pixels next to them, belong to no boundary.

Source: Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?",
BMVC 2013, section 3.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from sqlink.data.classes import NO_LABEL, NUM_CLASSES
from sqlink.errors import ConfigError
from sqlink.metrics.base import Compared, register

TOLERANCE = 0.0075
"""Tolerance as a share of the picture's diagonal."""

Mask = npt.NDArray[np.bool_]
Map = npt.NDArray[np.int64]


@register("boundary_f1")
class BoundaryF1:
    """Boundary F1 of the judge's map of the picture received, against the labels.

    tolerance: share of the diagonal, between 0 and 1. Raises ConfigError for another value.
    """

    name = "boundary_f1"
    unit = ""
    higher_is_better = True
    compares: Compared = "image"
    shape = (NUM_CLASSES, 4)

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        if not 0 < tolerance < 1:
            raise ConfigError(
                f"boundary_f1: tolerance={tolerance!r} must lie between 0 and 1, a share of the "
                "diagonal"
            )
        self.tolerance = tolerance
        self.kept = "boundary" if tolerance == TOLERANCE else f"boundary_{tolerance:g}"

    def counts(self, found: Tensor, truth: Tensor) -> Tensor:
        """Count boundary pixels, int64 [N, C, 4].

        The counts are: pixels of the found boundary, those of them within the tolerance, pixels of
        the true boundary, those of them within the tolerance.
        """
        rows = [
            self._of_pair(one.cpu().numpy(), other.cpu().numpy())
            for one, other in zip(found, truth, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, *self.shape).long()

    def value(self, sums: Tensor) -> Tensor:
        seen, hit, true, reached = sums.double().unbind(dim=-1)  # [..., C]
        precision, recall = hit / seen.clamp(min=1), reached / true.clamp(min=1)
        both = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
        return torch.where(true > 0, both, torch.nan).nanmean(dim=-1)

    def _of_pair(self, found: Map, truth: Map) -> Map:
        labelled = truth != NO_LABEL
        inside = labelled & ~_beside(~labelled)
        reach = self.tolerance * math.hypot(*truth.shape)
        counts = np.zeros(self.shape, dtype=np.int64)
        for c in np.union1d(np.unique(truth[labelled]), np.unique(found[labelled])):
            seen, true = (_boundary(one == c) & inside for one in (found, truth))
            counts[c] = (
                seen.sum(),
                (seen & _within(true, reach)).sum(),
                true.sum(),
                (true & _within(seen, reach)).sum(),
            )
        return counts


def _beside(mask: Mask) -> Mask:
    """Return the pixels that have a pixel of `mask` above, below, to the left or to the right."""
    found = np.zeros_like(mask)
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    return found


def _boundary(mask: Mask) -> Mask:
    return mask & _beside(~mask)


def _within(mask: Mask, reach: float) -> Mask:
    """Return the pixels within `reach` of a pixel of `mask`."""
    if not mask.any():
        return np.zeros_like(mask)
    return np.asarray(distance_transform_edt(~mask) <= reach)
