"""Confidence intervals by a two-level bootstrap: blocks of pictures, and realisations inside.

    level 1: draw G of the G blocks with replacement (frames of one video are alike: one block)
    level 2: for each picture of each block drawn, draw R of its R realisations with replacement

A result is a function of sums over pictures and realisations: a mean is (sum of values, count), an
mIoU is a function of the summed confusion matrix. Drawing with replacement therefore comes down to
integer weights, and B resamples to one matrix product. Two results on the same pictures and
realisations are compared under the same weights, which takes what they share out of the interval.

Sources: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, percentile intervals; Davison,
Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8, hierarchical data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sqlink.errors import DataError
from sqlink.metrics.semantic import miou

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Statistic = Callable[[Floats], Floats]
"""Sums [B, ...] to results [B]."""

RESAMPLES = 2000
_CHUNK_WEIGHTS = 1 << 24


@dataclass(frozen=True)
class Interval:
    """An estimate and its percentile interval.

    low and high are NaN where there is but one block: one block says nothing of others.
    """

    estimate: float
    low: float
    high: float
    level: float
    blocks: int

    def __str__(self) -> str:
        return f"{self.estimate:.4g} [{self.low:.4g}, {self.high:.4g}]"


def consecutive_blocks(pictures: int, length: int) -> Integers:
    """Block numbers [pictures] of runs of `length` consecutive pictures; the last may be shorter.

    >>> consecutive_blocks(5, 2).tolist()
    [0, 0, 1, 1, 2]
    """
    return np.arange(pictures, dtype=np.int64) // length


def mean_sums(values: npt.ArrayLike) -> Floats:
    """[pictures, realisations] values, NaN where there is none, to the sums that `mean` reads.

    Returns [pictures, realisations, 2]: value and count. A NaN has no part in the mean: a metric
    given delivery is the mean over what was delivered.
    """
    array = np.asarray(values, dtype=np.float64)
    there = np.isfinite(array)
    return np.stack((np.where(there, array, 0.0), there.astype(np.float64)), axis=-1)


def mean(sums: Floats) -> Floats:
    """[B, 2] sums of values and counts to [B] means; NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def mean_iou(sums: Floats) -> Floats:
    """[B, C, C] summed confusion matrices to [B] mIoUs, by the rule of `semantic.miou`."""
    return np.asarray(miou(torch.from_numpy(sums)).numpy(), dtype=np.float64)


def interval(
    sums: npt.ArrayLike,
    statistic: Statistic = mean,
    *,
    seed: int,
    blocks: npt.ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    centred: bool = False,
) -> Interval:
    """The statistic of the summed data, with its interval.

    sums: [pictures, realisations, ...], what each realisation adds (`mean_sums`, or confusion
    matrices [pictures, realisations, C, C]). blocks: [pictures] block numbers; by default each
    picture is its own. centred: move the draws so that their mean is the estimate, for a statistic
    that a smaller sample biases (a resample holds fewer different blocks than the data), such as
    the Fréchet distance. Raises DataError if the shapes do not fit or there are no data.

    >>> interval(mean_sums([[1.0], [2.0], [3.0], [6.0]]), seed=1).estimate
    3.0
    """
    data = _data(sums)
    groups = _blocks(blocks, data.shape[0])
    draws = statistic(_resampled(data, groups, seed, resamples))
    estimate = float(statistic(_total(data))[0])
    return percentiles(estimate, draws, int(groups.max()) + 1, level, centred)


def paired_difference(
    sums: npt.ArrayLike,
    baseline: npt.ArrayLike,
    statistic: Statistic = mean,
    *,
    seed: int,
    blocks: npt.ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    centred: bool = False,
) -> Interval:
    """statistic(sums) - statistic(baseline) on the same pictures and realisations.

    Both of one shape, as for `interval`: entry [p, r] of either is the same picture p over the same
    realisation r. centred: as for `interval`. Raises DataError if they are not of one shape.
    """
    ours, theirs = _data(sums), _data(baseline)
    if ours.shape != theirs.shape:
        raise DataError(
            f"paired results need the same pictures and realisations; got {ours.shape} and "
            f"{theirs.shape}"
        )
    groups = _blocks(blocks, ours.shape[0])
    both = np.stack((ours, theirs), axis=2)
    drawn, total = _resampled(both, groups, seed, resamples), _total(both)
    estimate = float(statistic(total[:, 0])[0] - statistic(total[:, 1])[0])
    draws = statistic(drawn[:, 0].copy()) - statistic(drawn[:, 1].copy())
    return percentiles(estimate, draws, int(groups.max()) + 1, level, centred)


def resample(
    sums: npt.ArrayLike, *, seed: int, blocks: npt.ArrayLike | None = None, resamples: int
) -> Floats:
    """The summed data of each resample, [resamples, ...]; arguments as for `interval`.

    Data of one shape in pictures and realisations are drawn alike under one seed, so what is
    computed of several such draws, number by number, is paired.
    """
    data = _data(sums)
    return _resampled(data, _blocks(blocks, data.shape[0]), seed, resamples)


def _data(sums: npt.ArrayLike) -> Floats:
    data = np.asarray(sums, dtype=np.float64)
    if data.ndim < 3 or data.shape[0] == 0 or data.shape[1] == 0:
        raise DataError(
            f"a bootstrap needs sums [pictures, realisations, ...], at least one of each; got "
            f"{data.shape}"
        )
    return data


def _blocks(blocks: npt.ArrayLike | None, pictures: int) -> Integers:
    """Block numbers 0..G-1, [pictures]."""
    if blocks is None:
        return np.arange(pictures, dtype=np.int64)
    given = np.asarray(blocks)
    if given.shape != (pictures,):
        raise DataError(f"{pictures} pictures need as many block numbers; got {given.shape}")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _total(data: Floats) -> Floats:
    """[1, ...]: the sums as they are."""
    return np.asarray(data.sum(axis=(0, 1))[None], dtype=np.float64)


def _resampled(data: Floats, groups: Integers, seed: int, resamples: int) -> Floats:
    """[pictures, realisations, ...] to the sums of `resamples` resamples, [resamples, ...]."""
    pictures, realisations = data.shape[:2]
    count = int(groups.max()) + 1
    randomness = np.random.Generator(np.random.Philox(seed))
    drawn = randomness.multinomial(count, np.full(count, 1 / count), size=resamples)
    times = drawn[:, groups] * realisations  # [B, P] draws among each picture's realisations
    share = np.full(realisations, 1 / realisations)
    flat = data.reshape(pictures * realisations, -1)
    rows = max(1, _CHUNK_WEIGHTS // (pictures * realisations))
    parts = []
    for start in range(0, resamples, rows):
        chunk = times[start : start + rows]
        weights = randomness.multinomial(chunk, share).reshape(len(chunk), -1)
        parts.append(weights.astype(np.float64) @ flat)
    return np.concatenate(parts).reshape(resamples, *data.shape[2:])


def percentiles(
    estimate: float, draws: Floats, blocks: int, level: float = 0.95, centred: bool = False
) -> Interval:
    """The interval of an estimate from its values on resamples, [B], NaN where one has none.

    blocks: how many were drawn from. centred: as for `interval`.
    """
    finite = draws[np.isfinite(draws)]
    if blocks < 2 or finite.size == 0:
        return Interval(estimate, np.nan, np.nan, level, blocks)
    if centred:
        finite = finite + (estimate - finite.mean())
    low, high = np.quantile(finite, ((1 - level) / 2, (1 + level) / 2))
    return Interval(estimate, float(low), float(high), level, blocks)
