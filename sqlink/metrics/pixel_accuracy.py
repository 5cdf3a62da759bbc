"""Pixel accuracy: the share of labelled pixels that the judge classifies correctly."""

from __future__ import annotations

from torch import Tensor

from sqlink.data.classes import NUM_CLASSES
from sqlink.metrics.base import Compared, register
from sqlink.metrics.semantic import accuracy, confusion


@register("pixel_accuracy")
class PixelAccuracy:
    """Pixel accuracy of the picture received, against the labels."""

    name = "pixel_accuracy"
    unit = ""
    higher_is_better = True
    compares: Compared = "image"
    kept = "confusion"
    shape = (NUM_CLASSES, NUM_CLASSES)

    def counts(self, found: Tensor, truth: Tensor) -> Tensor:
        return confusion(found, truth)

    def value(self, sums: Tensor) -> Tensor:
        return accuracy(sums)
