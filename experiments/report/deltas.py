"""Differences between the curves of two codecs: Bjøntegaard deltas, and values at a rate.

    cells of a codec ── curve_of ──> Curve ── rate_delta, metric_delta ──> Delta
                                        └─── value_at ──> the metric at a rate in bits a pixel

Intervals (95 %) leave out the same blocks of pictures on both sides. A Bjøntegaard delta averages
over the range that both codecs reach. It is given with the share of the narrower range that this
is, or with the reason why there is no delta. A curve leaves out rates that the codec cannot reach
for every picture, and points that another one equals at fewer bits (`bjontegaard.front`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from experiments.report.estimates import Measured
from sqlink.errors import DataError
from sqlink.metrics.bjontegaard import Curve, Delta, bd_metric, bd_rate, front
from sqlink.metrics.jackknife import LEVEL, Interval, Jackknife

SMALL = 0.5
"""Overlap below which a Bjøntegaard delta is marked as "small"."""
MIN_OVERLAP = 0.05
"""Overlap below which there is no delta."""
NEAR = 0.02
"""Distance beyond the last point of a curve, as a share of its rate, within which it is used."""

Line = Mapping[str, Any]
Between = Callable[[Curve, Curve], Delta]


def has(cell: Measured, name: str) -> bool:
    """Say whether a metric was measured in a cell."""
    found = cell.result(name)
    return found is not None and bool(np.isfinite(found.estimate))


def curves_of(cells: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return codec -> cells that are points of its curve; the list may be empty."""
    curves: dict[str, list[Measured]] = {}
    for cell in cells:
        curve = curves.setdefault(cell.title, [])
        if not cell.column("unreachable").any():
            curve.append(cell)
    return curves


def curve_of(cells: Sequence[Measured], name: str, without: int | None = None) -> Curve:
    """Return rates and metric of a codec's cells, for all blocks of pictures or without one."""
    rates: list[float] = []
    values: list[float] = []
    for cell in cells:
        for target, column in ((rates, "bpp_sent"), (values, name)):
            found = cell.result(column)
            assert found is not None
            target.append(float(found.estimate if without is None else found.without[without]))
    return Curve(rates, values)


def rate_delta(test: Curve, anchor: Curve, higher_is_better: bool) -> Delta:
    """Return the BD-rate over the fronts of two curves; a reason if there is none."""
    fronts = [front(curve, higher_is_better=higher_is_better) for curve in (test, anchor)]
    try:
        found = bd_rate(
            fronts[1], fronts[0], higher_is_better=higher_is_better, min_overlap=MIN_OVERLAP
        )
    except DataError as error:
        return Delta(np.nan, 0.0, np.nan, np.nan, str(error))
    if np.isfinite(found.value) or found.overlap > 0 or found.reason is None:
        return found
    ours, theirs = (np.asarray(one.metric) * (1 if higher_is_better else -1) for one in fronts)
    if len(ours) == len(theirs) == 1:
        reason = "one rate of each codec is no curve"
    elif ours.min() > theirs.max():
        reason = "the codec's worst is better than the anchor's best"
    elif theirs.min() > ours.max():
        reason = "the codec's best is worse than the anchor's worst"
    else:
        reason = found.reason
    return Delta(np.nan, 0.0, np.nan, np.nan, reason)


def metric_delta(test: Curve, anchor: Curve, higher_is_better: bool) -> Delta:
    """Return the BD-metric over the fronts of two curves; a reason if there is none."""
    ours, theirs = (front(curve, higher_is_better=higher_is_better) for curve in (test, anchor))
    try:
        return bd_metric(theirs, ours, min_overlap=MIN_OVERLAP)
    except DataError as error:
        return Delta(np.nan, 0.0, np.nan, np.nan, str(error))


def with_interval(
    between: Between, test: Sequence[Measured], anchor: Sequence[Measured], name: str
) -> tuple[Delta, Interval]:
    """Return a delta of two codecs' curves and its interval; both have the same blocks."""
    estimate = between(curve_of(test, name), curve_of(anchor, name))
    if not np.isfinite(estimate.value):
        return estimate, Interval(estimate.value, np.nan, np.nan, LEVEL, 0)
    without = [
        between(curve_of(test, name, g), curve_of(anchor, name, g)).value
        for g in range(test[0].num_blocks)
    ]
    return estimate, Jackknife(estimate.value, np.asarray(without)).interval()


def value_at(cells: Sequence[Measured], name: str, bpp: float) -> Jackknife | str:
    """Return a codec's metric at a rate, interpolated over the logarithm of the rate (PCHIP).

    Returns the reason as a text if the rate is outside the codec's range.
    """
    curve = curve_of(cells, name)
    low, high = min(curve.rates), max(curve.rates)
    if bpp < low * (1 - NEAR):
        return f"its lowest is {low:.4f} bpp"
    if bpp > high * (1 + NEAR):
        return f"its highest is {high:.4f} bpp"
    without = [_interpolated(curve_of(cells, name, g), bpp) for g in range(cells[0].num_blocks)]
    return Jackknife(_interpolated(curve, bpp), np.asarray(without))


def _interpolated(curve: Curve, bpp: float) -> float:
    """Return the metric at a rate; beyond an end of the curve, that of the end."""
    points = dict(sorted(zip(curve.rates, curve.metric, strict=True)))
    if len(points) == 1:
        return next(iter(points.values()))
    across = np.log2(np.asarray(list(points)))
    at = np.clip(np.log2(bpp), across[0], across[-1])
    return float(PchipInterpolator(across, list(points.values()))(at))


def folded(lines: Sequence[Line], reason: str = "reason") -> str:
    """Write a line about comparisons without a number: their count, and the reasons with counts.

    >>> folded([{"codec": "a", "reason": "too few points"}, {"codec": "b", "reason": None}])
    'None for 1 of 2 (a): too few points.'
    >>> folded([{"codec": "b", "reason": None}])
    ''
    """
    without = [line for line in lines if line[reason] is not None]
    if not without:
        return ""
    reasons = [line[reason] for line in without]
    counted = sorted(dict.fromkeys(reasons), key=lambda one: -reasons.count(one))
    times = {one: f" ({reasons.count(one)})" if len(counted) > 1 else "" for one in counted}
    said = "; ".join(f"{one}{times[one]}" for one in counted)
    codecs = ", ".join(dict.fromkeys(line["codec"] for line in without))
    return f"None for {len(without)} of {len(lines)} ({codecs}): {said}."
