"""The protocol of metrics; their three kinds differ in how a set of pictures is summarised.

    Metric      N pictures against N references: one number a picture; a set has their mean
    MapMetric   what a segmenter sees, or the map that came, against another map: counts that add
                up over pictures, such as confusion matrices; a set has the value of their sum
    SetMetric   vectors of features of a set of pictures against those of the originals: one number
                a set, such as the Fréchet distance

All are registered by name in one registry, and a sweep measures any of them by its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from channels.registry import Registry
from sqlink.errors import DataError
from sqlink.metrics import BUILT_IN
from sqlink.metrics.jackknife import Floats, Integers, Jackknife

Compared = Literal["image", "original", "map", "sent"]
"""The two maps that a MapMetric compares, the one found against the one that counts as true:

image      what the judge sees in the picture received, against the labels
original   what the judge sees in the picture received, against what it sees in the original
map        the map received, against the labels
sent       the map received, against the map that was sent
"""


@runtime_checkable
class Metric(Protocol):
    """A distance or likeness between a picture and its reference."""

    name: str
    unit: str
    """As written behind the number; empty if there is none."""
    higher_is_better: bool

    def unavailable(self, height: int, width: int) -> str | None:
        """Say why pictures of that size have no such value; None if they have. A sweep shows the
        reason and stores NaN.
        """
        ...

    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        """Measure images against reference: float32 [N, 3, H, W], RGB in [0, 1]. Returns float64
        [N] on the CPU.

        A picture's number does not depend on the batch it comes in. Raises DataError if the
        shapes differ or the size is one that `unavailable` names.
        """
        ...


@runtime_checkable
class MapMetric(Protocol):
    """A function of counts that add up over pairs of maps.

    kept: the name of the counts; metrics of one name share them. shape: of the counts of one pair.
    """

    name: str
    unit: str
    higher_is_better: bool
    compares: Compared
    kept: str

    @property
    def shape(self) -> tuple[int, ...]: ...

    def counts(self, found: Tensor, truth: Tensor) -> Tensor:
        """Count found against truth: int64 [N, H, W]; truth may hold 255, "no label". Returns int64
        [N, *shape].

        All of a pair's counts are 0 where no pixel of it counts.
        """
        ...

    def value(self, sums: Tensor) -> Tensor:
        """Compute the value of summed counts: float64 [..., *shape]. Returns float64 [...]; NaN if
        nothing was counted.
        """
        ...


@runtime_checkable
class Extractor(Protocol):
    """A network that makes vectors of pictures, the same number of each picture of one size.

    name: of the columns in which a sweep keeps them; extractors of one name make the same vectors.
    """

    name: str

    def unavailable(self, height: int, width: int) -> str | None:
        """Say why pictures of that size have no vectors; None if they have."""
        ...

    def vectors(self, images: Tensor) -> Tensor:
        """Extract features of images: float32 [N, 3, H, W] in [0, 1]. Returns float32 [N, n, C] on
        the CPU.
        """
        ...


@runtime_checkable
class SetMetric(Protocol):
    """A distance between two sets of vectors of features."""

    name: str
    unit: str
    higher_is_better: bool
    lowest: float
    """Lower bound of the value and of its interval; -inf if there is none."""
    extractor: Extractor

    def distance(self, received: Sequence[Floats], reference: Floats, block: Integers) -> Jackknife:
        """Return the distance of a set, and without each block of pictures in turn.

        received: for each realisation the vectors of all pictures received, [n, C]; reference:
        those of the originals in the same order, [n, C]; block: int64 [n], numbers from 0 on of the
        blocks that they belong to. NaN where a set is too small. `jackknife.by_leaving_out` makes
        it of a function of two sets.
        """
        ...


AnyMetric = Metric | MapMetric | SetMetric


@runtime_checkable
class Bounded(Protocol):
    """A metric that names the range of its values."""

    lowest: float
    highest: float


def bounds(metric: AnyMetric) -> tuple[float, float]:
    """Return the range of a metric's values, at which intervals are cut off.

    It is the range that the metric names (`Bounded`), else [0, 1] for a MapMetric, and for a
    SetMetric its `lowest` and no upper bound. Other metrics have none: (-inf, inf).

    >>> from sqlink.metrics import load_metric
    >>> bounds(load_metric("ms_ssim")), bounds(load_metric("psnr"))
    ((0.0, 1.0), (-inf, inf))
    """
    if isinstance(metric, Bounded):
        return metric.lowest, metric.highest
    if isinstance(metric, MapMetric):
        return 0.0, 1.0
    return (metric.lowest, math.inf) if isinstance(metric, SetMetric) else (-math.inf, math.inf)


METRICS: Registry[AnyMetric] = Registry("metric", "sqlink.metrics", BUILT_IN)
register = METRICS.register


def check_pair(name: str, images: Tensor, reference: Tensor) -> None:
    """Raise DataError unless both are RGB pictures of one shape."""
    if images.shape != reference.shape or images.dim() != 4 or images.shape[1] != 3:
        raise DataError(
            f"{name} compares RGB pictures of one shape [N, 3, H, W]; got {tuple(images.shape)} "
            f"and {tuple(reference.shape)}"
        )


def check_size(metric: Metric, images: Tensor) -> None:
    """Raise DataError if pictures [N, 3, H, W] are of a size that the metric refuses."""
    reason = metric.unavailable(images.shape[2], images.shape[3])
    if reason is not None:
        raise DataError(reason)
