"""The protocols of metrics; the three kinds differ in how a set of pictures is summarised.

    Metric      N pictures against N references: one number per picture; a set has their mean
    MapMetric   the judge's map, or the map received, against another map: counts that add
                up over pictures, such as confusion matrices; a set has the value of their sum
    SetMetric   vectors of features of a set of pictures against those of the originals: one number
                a set, such as the Fréchet distance

All are registered in one registry, and a sweep names any of them.
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
"""The two maps that a MapMetric compares, the found map against the true map:

image      the judge's map of the picture received, against the labels
original   the judge's map of the picture received, against its map of the original
map        the map received, against the labels
sent       the map received, against the map that was sent
"""


@runtime_checkable
class Metric(Protocol):
    """A distance or a similarity between a picture and its reference."""

    name: str
    unit: str
    """Unit written after the number; empty without one."""
    higher_is_better: bool

    def unavailable(self, height: int, width: int) -> str | None:
        """Return the reason why pictures of this size have no value, or None.

        A sweep shows the reason and stores NaN.
        """
        ...

    def __call__(self, images: Tensor, reference: Tensor) -> Tensor:
        """Measure images against reference: float32 [N, 3, H, W], RGB in [0, 1].

        Returns float64 [N] on the CPU.

        The value of a picture does not depend on its batch. Raises DataError if the shapes differ
        or `unavailable` gives a reason for the size.
        """
        ...


@runtime_checkable
class MapMetric(Protocol):
    """A function of counts that add up over pairs of maps.

    kept: name of the counts; metrics with the same name share them. shape: of the counts of one
    pair of maps.
    """

    name: str
    unit: str
    higher_is_better: bool
    compares: Compared
    kept: str

    @property
    def shape(self) -> tuple[int, ...]: ...

    def counts(self, found: Tensor, truth: Tensor) -> Tensor:
        """Count found against truth: int64 [N, H, W]; truth may hold 255, "no label".

        Returns int64 [N, *shape].

        All counts of a pair are 0 if none of its pixels counts.
        """
        ...

    def value(self, sums: Tensor) -> Tensor:
        """Compute the value of summed counts, float64 [..., *shape].

        Returns float64 [...]; NaN if nothing was counted.
        """
        ...


@runtime_checkable
class Extractor(Protocol):
    """A network that computes vectors of features, the same number for each picture of one size.

    name: of the columns in which a sweep keeps them; extractors with the same name compute the same
    vectors.
    """

    name: str

    def unavailable(self, height: int, width: int) -> str | None:
        """Return the reason why pictures of this size have no vectors, or None."""
        ...

    def vectors(self, images: Tensor) -> Tensor:
        """Extract features of images: float32 [N, 3, H, W] in [0, 1].

        Returns float32 [N, n, C] on the CPU.
        """
        ...


@runtime_checkable
class SetMetric(Protocol):
    """A distance between two sets of feature vectors."""

    name: str
    unit: str
    higher_is_better: bool
    lowest: float
    """Lower bound of the value and of its interval; -inf if there is none."""
    extractor: Extractor

    def distance(self, received: Sequence[Floats], reference: Floats, block: Integers) -> Jackknife:
        """Return the distance of a set, with and without each block of pictures in turn.

        received: for each realisation the vectors of all pictures received, [n, C]. reference:
        those of the originals in the same order, [n, C]. block: int64 [n], number of each vector's
        block, from 0 on. The distance is NaN if a set is too small. `jackknife.by_leaving_out`
        computes the result from a function of two sets.
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
    """Raise DataError if the metric refuses the size of pictures [N, 3, H, W]."""
    reason = metric.unavailable(images.shape[2], images.shape[3])
    if reason is not None:
        raise DataError(reason)
