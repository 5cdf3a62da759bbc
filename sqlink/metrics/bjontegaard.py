"""Bjøntegaard deltas: the difference of two rate curves as one number.

BD-rate is the mean difference of log rate at equal quality, in per cent; BD-metric the mean
difference of the metric at equal rate (log scale). Both average over the range that the curves
share; if that is too small, a reason replaces the number.

Sources: Bjøntegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001;
interpolation by monotone cubics (PCHIP), as in the package `bjontegaard`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sqlink.errors import DataError
from sqlink.wording import counted

MIN_OVERLAP = 0.25
MIN_POINTS = 3


@dataclass(frozen=True)
class Curve:
    """One codec's points: rates (bpp, bytes, channel uses; above 0) and the metric at each."""

    rates: Sequence[float]
    metric: Sequence[float]


@dataclass(frozen=True)
class Delta:
    """A Bjøntegaard delta.

    value: NaN if there is none; `reason` then says why. overlap: share of the narrower curve's
    range that lies within the other's, 0..1. low, high: the range that was averaged over, in the
    metric for BD-rate, in rate for BD-metric.
    """

    value: float
    overlap: float
    low: float
    high: float
    reason: str | None = None


def bd_rate(
    anchor: Curve, test: Curve, *, higher_is_better: bool, min_overlap: float = MIN_OVERLAP
) -> Delta:
    """Return the mean difference in rate of `test` against `anchor` at equal metric, per cent.

    A value below 0 means that `test` needs fewer bits, whether higher or lower is better. The value
    is NaN, with a reason, if a curve has fewer than MIN_POINTS points, does not get strictly better
    with rate, or the curves overlap by less than `min_overlap`. Raises DataError for points that
    are not numbers.

    >>> anchor = Curve([0.1, 0.2, 0.4], [30.0, 33.0, 36.0])
    >>> test = Curve([0.09, 0.18, 0.36], [30.0, 33.0, 36.0])
    >>> round(bd_rate(anchor, test, higher_is_better=True).value, 6)
    -10.0
    """
    from bjontegaard import bd_rate as delta

    sign = 1.0 if higher_is_better else -1.0
    (rates_a, metric_a), (rates_t, metric_t) = _sorted(anchor, sign), _sorted(test, sign)
    overlap, low, high = _overlap(metric_a, metric_t)
    bounds = (low, high) if higher_is_better else (-high, -low)
    reason = _refusal(len(rates_a), len(rates_t), overlap, min_overlap, "metric")
    for name, rates, metric in (("anchor", rates_a, metric_a), ("test", rates_t, metric_t)):
        falls = np.flatnonzero(np.diff(metric) <= 0)
        if reason is None and falls.size:
            at = int(falls[0])
            reason = (
                f"the {name} curve does not get better from rate {rates[at]:g} to {rates[at + 1]:g}"
            )
    if reason is not None:
        return Delta(float("nan"), overlap, *bounds, reason)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = delta(rates_a, metric_a, rates_t, metric_t, "pchip", False)
    return Delta(float(value), overlap, *bounds)


def bd_metric(anchor: Curve, test: Curve, *, min_overlap: float = MIN_OVERLAP) -> Delta:
    """Return the mean difference in metric of `test` against `anchor` at equal rate, in its unit.

    For PSNR and mIoU a value above 0 is better, for LPIPS one below 0. Reasons are those of
    `bd_rate`, except that the metric need not improve with rate.

    >>> anchor = Curve([0.1, 0.2, 0.4], [30.0, 33.0, 36.0])
    >>> test = Curve([0.1, 0.2, 0.4], [31.0, 34.0, 37.0])
    >>> round(bd_metric(anchor, test).value, 6)
    1.0
    """
    from bjontegaard import bd_psnr as delta

    (rates_a, metric_a), (rates_t, metric_t) = _sorted(anchor, 1.0), _sorted(test, 1.0)
    overlap, low, high = _overlap(np.log10(rates_a), np.log10(rates_t))
    reason = _refusal(len(rates_a), len(rates_t), overlap, min_overlap, "rate")
    if reason is not None:
        return Delta(float("nan"), overlap, 10**low, 10**high, reason)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = delta(rates_a, metric_a, rates_t, metric_t, "pchip", False)
    return Delta(float(value), overlap, 10**low, 10**high)


def front(curve: Curve, *, higher_is_better: bool) -> Curve:
    """Remove the points of a curve that a point at a lower rate equals or exceeds in quality.

    If more bits do not improve quality, one uses the lower rate. The remaining points get strictly
    better with rate, as `bd_rate` requires.

    >>> front(Curve([1, 2, 4], [47.0, 46.8, 48.0]), higher_is_better=True)
    Curve(rates=[1, 4], metric=[47.0, 48.0])
    """
    sign = 1.0 if higher_is_better else -1.0
    kept: list[tuple[float, float]] = []
    for rate, value in sorted(zip(curve.rates, curve.metric, strict=True)):
        if not kept or sign * value > sign * kept[-1][1]:
            kept.append((rate, value))
    return Curve([rate for rate, _ in kept], [value for _, value in kept])


def _sorted(curve: Curve, sign: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return rates in ascending order and `sign` times the metric. Raises DataError for bad
    points.
    """
    rates = np.asarray(curve.rates, dtype=np.float64)
    metric = np.asarray(curve.metric, dtype=np.float64)
    if rates.size == metric.size == 0:
        raise DataError("a curve has no points")
    if rates.ndim != 1 or rates.shape != metric.shape:
        raise DataError(f"a curve needs as many rates as values; got {rates.shape}, {metric.shape}")
    if not (np.isfinite(rates).all() and np.isfinite(metric).all() and (rates > 0).all()):
        raise DataError(
            "a curve needs finite values at rates above 0; leave out points without any"
        )
    if np.unique(rates).size != rates.size:
        raise DataError("a curve has two points at one rate; keep one of them")
    order = np.argsort(rates)
    return rates[order], sign * metric[order]


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the share of the narrower range that is common, and the bounds of the common range."""
    low, high = max(a.min(), b.min()), min(a.max(), b.max())
    narrower = min(np.ptp(a), np.ptp(b))
    share = max(high - low, 0.0) / narrower if narrower > 0 else 0.0
    return float(share), float(low), float(high)


def _refusal(anchor: int, test: int, overlap: float, min_overlap: float, axis: str) -> str | None:
    if min(anchor, test) < MIN_POINTS:
        return f"a curve has {counted(min(anchor, test), 'point')}; {MIN_POINTS} are needed"
    if overlap == 0 or overlap < min_overlap:
        return (
            f"the curves overlap in {axis} over {overlap:.0%} of the narrower one's range; "
            f"{min_overlap:.0%} is needed"
        )
    return None
