"""The 11 classes of CamVid in the SegNet layout, their colours, and "no label".

Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 2009; class list and
colours as in the SegNet tutorial (Badrinarayanan, Kendall, Cipolla, PAMI 2017).
"""

from __future__ import annotations

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
