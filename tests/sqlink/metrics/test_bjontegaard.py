"""Bjøntegaard deltas against curves whose delta is known, and their refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from sqlink.errors import DataError
from sqlink.metrics.bjontegaard import Curve, bd_metric, bd_rate

RATES = [0.03, 0.05, 0.08, 0.13, 0.2]


def _line(rates: list[float], at_one: float, slope: float) -> Curve:
    """A metric that is a straight line over log10 of the rate."""
    return Curve(rates, [at_one + slope * math.log10(r) for r in rates])


@pytest.mark.parametrize(("slope", "higher_is_better"), [(6.0, True), (0.2, True), (-0.3, False)])
def test_a_curve_moved_along_the_rate_axis(slope: float, higher_is_better: bool) -> None:
    anchor = _line(RATES, 30.0, slope)
    test = Curve([0.8 * r for r in RATES], anchor.metric)
    saving = bd_rate(anchor, test, higher_is_better=higher_is_better)
    assert saving.value == pytest.approx(-20.0, abs=1e-6)
    assert saving.overlap == pytest.approx(1.0)
    assert (saving.low, saving.high) == pytest.approx((min(anchor.metric), max(anchor.metric)))
    gain = bd_metric(anchor, test)
    assert gain.value == pytest.approx(-slope * math.log10(0.8), abs=1e-6)
    assert (gain.low, gain.high) == pytest.approx((0.03, 0.16))


def test_deltas_of_bent_curves_equal_an_integral_on_a_fine_grid() -> None:
    anchor = Curve(RATES, [24.1, 25.6, 27.0, 28.1, 29.9])
    test = Curve([0.04, 0.07, 0.1, 0.16], [24.9, 26.9, 27.4, 29.2])
    grid = np.linspace(24.9, 29.2, 20001)
    a = PchipInterpolator(anchor.metric, np.log10(anchor.rates))(grid)
    t = PchipInterpolator(test.metric, np.log10(test.rates))(grid)
    expected = 100 * (10 ** (np.trapezoid(t - a, grid) / (29.2 - 24.9)) - 1)
    assert bd_rate(anchor, test, higher_is_better=True).value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("anchor", "test", "percent"),
    [
        (
            Curve([686.76, 309.58, 157.11, 85.95], [40.28, 37.18, 34.24, 31.42]),
            Curve([893.34, 407.8, 204.93, 112.75], [40.39, 37.21, 34.17, 31.24]),
            31.397,
        ),
        (
            Curve([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851]),
            Curve([9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987]),
            -4.420,
        ),
    ],
)
def test_published_curves_have_the_delta_of_vceg_m33(
    anchor: Curve, test: Curve, percent: float
) -> None:
    # The examples of two published tools, by the source's cubics; ours are monotone.
    assert bd_rate(anchor, test, higher_is_better=True).value == pytest.approx(percent, abs=0.15)


def test_order_of_points_does_not_matter() -> None:
    anchor, test = _line(RATES, 30, 6), _line(RATES, 31, 6)
    turned = Curve(list(test.rates)[::-1], list(test.metric)[::-1])
    forward = bd_rate(anchor, test, higher_is_better=True)
    assert bd_rate(anchor, turned, higher_is_better=True) == forward
    assert forward.value == pytest.approx(100 * (10 ** (-1 / 6) - 1), abs=1e-6)


def test_curves_that_share_too_little_give_a_reason_and_no_number() -> None:
    anchor, test = _line(RATES, 30, 6), _line(RATES, 34.5, 6)
    little = bd_rate(anchor, test, higher_is_better=True)
    assert math.isnan(little.value)
    assert 0 < little.overlap < 0.1
    assert little.reason is not None
    assert "25% is needed" in little.reason
    assert math.isfinite(bd_rate(anchor, test, higher_is_better=True, min_overlap=0).value)
    apart = bd_metric(anchor, _line([1.0, 2.0, 3.0], 30, 6), min_overlap=0)
    assert math.isnan(apart.value)
    assert apart.overlap == 0


def test_a_metric_that_falls_with_rate_has_no_rate_delta_but_a_metric_delta() -> None:
    anchor = _line(RATES, 0.8, 0.2)
    test = Curve(RATES, [0.5, 0.55, 0.54, 0.6, 0.62])
    delta = bd_rate(anchor, test, higher_is_better=True)
    assert math.isnan(delta.value)
    assert delta.reason == "the test curve does not get better from rate 0.05 to 0.08"
    assert math.isfinite(bd_metric(anchor, test).value)


def test_too_few_points_give_a_reason() -> None:
    delta = bd_metric(_line(RATES, 30, 6), _line(RATES[:2], 30, 6))
    assert delta.reason == "a curve has 2 points; 3 are needed"
    alone = bd_metric(_line(RATES, 30, 6), _line(RATES[:1], 30, 6))
    assert alone.reason == "a curve has 1 point; 3 are needed"
    with pytest.raises(DataError, match="a curve has no points"):
        bd_metric(_line(RATES, 30, 6), Curve([], []))


@pytest.mark.parametrize(
    "curve",
    [
        Curve([0.1, 0.2], [1.0]),
        Curve([0.0, 0.1, 0.2], [1.0, 2.0, 3.0]),
        Curve([0.1, 0.1, 0.2], [1.0, 2.0, 3.0]),
        Curve([0.1, 0.2, 0.3], [1.0, math.nan, 3.0]),
        Curve([], []),
    ],
)
def test_points_that_are_none_are_refused(curve: Curve) -> None:
    with pytest.raises(DataError, match="a curve"):
        bd_metric(_line(RATES, 30, 6), curve)
