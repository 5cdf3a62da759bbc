"""Labels in place of a segmenter's map: a transmitter with perfect segmentation.

Labels may have pixels without a label; a map to be sent has a class everywhere.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from sqlink.data.classes import NUM_CLASSES
from sqlink.errors import DataError


def fill_unlabelled(labels: Tensor) -> Tensor:
    """Give each pixel without a label the label of the nearest labelled pixel.

    labels: int64 [N, H, W], class ids or NO_LABEL (any id outside 0..10 counts as none). Returns
    int64 [N, H, W] of class ids on the same device. Raises DataError for a map without any label.

    >>> fill_unlabelled(torch.tensor([[[255, 255, 3, 255, 1]]])).tolist()
    [[[3, 3, 3, 3, 1]]]
    """
    maps = labels.detach().cpu().numpy()
    filled = np.empty_like(maps, dtype=np.int64)
    for n, one in enumerate(maps):
        missing = (one < 0) | (one >= NUM_CLASSES)
        if missing.all():
            raise DataError(f"map {n} of the batch has no labelled pixel: leave that picture out")
        nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
        filled[n] = one[tuple(nearest)]
    return torch.from_numpy(filled).to(labels.device)
