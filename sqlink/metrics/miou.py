"""mIoU between two maps: `miou`, `miou_map`, `map_fidelity` and `consistency`.

`miou` and `miou_map` need labels. `map_fidelity` compares the map received with the map sent.
`consistency` takes the judge's map of the original as the truth, so that pictures without labels
have a value, too. It measures what the link changed for the judge, not whether the judge is right.
"""

from __future__ import annotations

from torch import Tensor

from sqlink.data.classes import NUM_CLASSES
from sqlink.metrics.base import Compared, register
from sqlink.metrics.semantic import confusion, miou


class MeanIou:
    """mIoU of the summed confusion matrix of one comparison, over the classes in the true map."""

    unit = ""
    higher_is_better = True
    kept = "confusion"
    shape = (NUM_CLASSES, NUM_CLASSES)

    def __init__(self, name: str, compares: Compared) -> None:
        self.name = name
        self.compares: Compared = compares

    def counts(self, found: Tensor, truth: Tensor) -> Tensor:
        return confusion(found, truth)

    def value(self, sums: Tensor) -> Tensor:
        return miou(sums)


@register("miou")
def of_picture() -> MeanIou:
    """Make `miou`: the judge's map of the picture received, against the labels."""
    return MeanIou("miou", "image")


@register("miou_map")
def of_map() -> MeanIou:
    """Make `miou_map`: the map received, against the labels."""
    return MeanIou("miou_map", "map")


@register("map_fidelity")
def map_fidelity() -> MeanIou:
    """Make `map_fidelity`: the map received, against the map that was sent."""
    return MeanIou("map_fidelity", "sent")


@register("consistency")
def consistency() -> MeanIou:
    """Make `consistency`: the judge's map of the picture received, against that of the original."""
    return MeanIou("consistency", "original")
