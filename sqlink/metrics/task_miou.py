"""mIoU weighted for a task, and mIoU of the classes that a task is about.

`task_miou` is the mean of the classes' IoUs, weighted by the task, over the classes that occur in
the labels. `relevant_miou` is the plain mean over the classes that the task is about (signs and
poles for `driving`).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sqlink.data.classes import CAMVID
from sqlink.errors import ConfigError
from sqlink.metrics.base import Compared, register
from sqlink.metrics.semantic import confusion, iou


class WeightedIou:
    """The weighted mean of IoUs, weights [C], over the classes that occur in the labels."""

    unit = ""
    higher_is_better = True
    compares: Compared = "image"
    kept = "confusion"
    shape = (len(CAMVID), len(CAMVID))

    def __init__(self, name: str, weights: Tensor) -> None:
        self.name = name
        self.weights = weights.double()

    def counts(self, found: Tensor, truth: Tensor) -> Tensor:
        return confusion(found, truth)

    def value(self, sums: Tensor) -> Tensor:
        each = iou(sums)
        weights = self.weights * each.isfinite()
        return (each.nan_to_num() * weights).sum(dim=-1) / weights.sum(dim=-1)


@register("task_miou")
def task_miou(task: str | Path = "driving") -> WeightedIou:
    """Make the mIoU with a task's weights; task: the name of a shipped task, or a file.

    Raises ConfigError for an unknown task or a file that is not a task.
    """
    from sqlink.training.task import load_task

    return WeightedIou("task_miou", load_task(task, CAMVID).tensors()[0])


@register("relevant_miou")
def relevant_miou(task: str | Path = "driving", classes: list[str] | None = None) -> WeightedIou:
    """Make the mIoU over the classes that a task is about, or over the classes named in `classes`.

    Raises ConfigError for an unknown task or class.
    """
    from sqlink.training.task import load_task

    weights = torch.zeros(len(CAMVID))
    if classes is None:
        weights[list(load_task(task, CAMVID).pasted)] = 1
    else:
        weights[[CAMVID.index(name) for name in classes]] = 1
    if not bool(weights.any()):
        raise ConfigError("relevant_miou: no class is named: name some, classes: [sign, pole]")
    return WeightedIou("relevant_miou", weights)
