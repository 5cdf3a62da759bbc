"""Semantic distortion: confusion matrices between maps, and their scores.

Results keep the matrices, because they add up: the mIoU of a data set is that of the sum of its
pictures' matrices, not the mean of their mIoUs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sqlink.data.classes import NO_LABEL, NUM_CLASSES
from sqlink.errors import DataError


def confusion(predicted: Tensor, labels: Tensor, num_classes: int = NUM_CLASSES) -> Tensor:
    """Count pixels by true and predicted class, picture by picture.

    predicted: [N, H, W] class ids; labels: [N, H, W] class ids, or 255 for pixels that are not
    counted. Returns int64 [N, C, C]: rows are labels, columns predictions. Raises DataError if the
    shapes differ or an id is outside 0..C-1.

    >>> confusion(torch.tensor([[[0, 1, 1]]]), torch.tensor([[[0, 0, 255]]]), num_classes=2)
    tensor([[[1, 1],
             [0, 0]]])
    """
    if predicted.shape != labels.shape or predicted.dim() != 3:
        raise DataError(
            f"maps to compare must have one shape [N, H, W]; got {tuple(predicted.shape)} and "
            f"{tuple(labels.shape)}"
        )
    n = labels.shape[0]
    counts = labels != NO_LABEL
    pairs = labels.to(torch.int64) * num_classes + predicted.to(torch.int64)
    for name, ids in (("label", labels), ("predicted", predicted)):
        outside = counts & ((ids < 0) | (ids >= num_classes))
        if bool(outside.any()):
            raise DataError(
                f"{name} map holds class id {int(ids[outside][0])}: ids are 0..{num_classes - 1}, "
                f"and {NO_LABEL} in labels for pixels that do not count"
            )
    picture = torch.arange(n, device=labels.device).view(n, 1, 1)
    cells = (picture * num_classes**2 + pairs)[counts]
    return torch.bincount(cells, minlength=n * num_classes**2).view(n, num_classes, num_classes)


def iou(matrix: Tensor) -> Tensor:
    """Return the intersection over union of each class.

    matrix: [..., C, C], rows are labels; sum it over pictures first for the IoU of a set. Returns
    float64 [..., C]; NaN for a class that does not occur in the labels (pixels wrongly assigned to
    it still count against their true classes).
    """
    cells = matrix.double()
    hits = cells.diagonal(dim1=-2, dim2=-1)
    labelled = cells.sum(dim=-1)
    union = labelled + cells.sum(dim=-2) - hits
    return torch.where(labelled > 0, hits / union.clamp(min=1), torch.nan)


def miou(matrix: Tensor) -> Tensor:
    """Return the mean IoU over the classes that occur in the labels.

    matrix: [..., C, C]. Returns float64 [...]; NaN where no pixel has a label.
    """
    return iou(matrix).nanmean(dim=-1)


def accuracy(matrix: Tensor) -> Tensor:
    """Return the share of labelled pixels classified correctly.

    matrix: [..., C, C]. Returns float64 [...]; NaN where no pixel has a label.
    """
    cells = matrix.double()
    return cells.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / cells.sum(dim=(-2, -1))
