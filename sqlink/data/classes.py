"""The 11 classes of CamVid in the SegNet layout, their colours, and "no label".

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009; class list and
colours as in the SegNet tutorial (Badrinarayanan, Kendall, Cipolla, PAMI 2017).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
NUM_CLASSES = len(NAMES)
NO_LABEL = 255
"""Pixels of a map that carry no label and are left out of every metric."""

PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)


def colourise(segmentation: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Class ids of any shape [...] as colours of PALETTE, uint8 [..., 3]; black for anything else.

    >>> colourise(np.array([[8, 255]])).tolist()
    [[[64, 0, 128], [0, 0, 0]]]
    """
    table = np.zeros((256, 3), np.uint8)
    table[:NUM_CLASSES] = PALETTE
    return table[np.where((segmentation >= 0) & (segmentation < 256), segmentation, NO_LABEL)]
