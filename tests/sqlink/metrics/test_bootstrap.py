"""The two-level bootstrap against closed forms, a plain loop, and the coverage it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sqlink.errors import DataError
from sqlink.metrics import bootstrap
from sqlink.metrics.bootstrap import (
    Interval,
    consecutive_blocks,
    interval,
    mean,
    mean_iou,
    mean_sums,
    paired_difference,
    percentiles,
    resample,
)
from sqlink.metrics.semantic import miou


def _normal(*shape: int, seed: int = 0) -> bootstrap.Floats:
    return np.random.default_rng(seed).normal(size=shape)


def _half_width(result: Interval) -> float:
    return (result.high - result.low) / 2


def test_mean_of_independent_pictures_has_the_textbook_interval() -> None:
    values = _normal(400, 1)
    result = interval(mean_sums(values), seed=1, resamples=4000)
    assert result.estimate == pytest.approx(values.mean())
    assert _half_width(result) == pytest.approx(1.96 * values.std() / math.sqrt(400), rel=0.05)


def test_both_levels_add_their_variance() -> None:
    pictures, realisations = 60, 5
    values = _normal(pictures, 1) + 2 * _normal(pictures, realisations, seed=1)
    between = values.mean(axis=1).var() / pictures
    within = values.var(axis=1).mean() / (pictures * realisations)
    result = interval(mean_sums(values), seed=2, resamples=8000)
    assert _half_width(result) == pytest.approx(1.96 * math.sqrt(between + within), rel=0.06)


def test_blocks_of_alike_pictures_widen_the_interval() -> None:
    values = np.repeat(_normal(20, 1), 10, axis=0)
    blocked = interval(mean_sums(values), seed=3, blocks=consecutive_blocks(200, 10))
    loose = interval(mean_sums(values), seed=3)
    assert blocked.blocks == 20
    assert _half_width(blocked) / _half_width(loose) == pytest.approx(math.sqrt(10), rel=0.1)


def _by_loops(
    sums: bootstrap.Floats, groups: bootstrap.Integers, resamples: int
) -> bootstrap.Floats:
    """The same resampling, one draw at a time; [resamples, ...] sums."""
    generator = np.random.default_rng(5)
    realisations = sums.shape[1]
    names = np.unique(groups)
    totals = []
    for _ in range(resamples):
        total = np.zeros(sums.shape[2:])
        for block in generator.choice(names, len(names)):
            for picture in np.flatnonzero(groups == block):
                for realisation in generator.integers(realisations, size=realisations):
                    total = total + sums[picture, realisation]
        totals.append(total)
    return np.stack(totals)


def test_miou_agrees_with_a_plain_loop() -> None:
    generator = np.random.default_rng(4)
    hits = generator.integers(20, 100, size=(12, 3, 4))
    sums = generator.integers(0, 30, size=(12, 3, 4, 4)) + hits[..., None] * np.eye(4, dtype=int)
    groups = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 6])
    result = interval(sums, mean_iou, seed=6, blocks=groups, resamples=4000)
    assert result.estimate == pytest.approx(miou(torch.from_numpy(sums.sum(axis=(0, 1)))).item())
    draws = mean_iou(_by_loops(sums.astype(float), groups, 1500))
    spread = draws.std()
    assert result.low == pytest.approx(np.quantile(draws, 0.025), abs=0.2 * spread)
    assert result.high == pytest.approx(np.quantile(draws, 0.975), abs=0.2 * spread)


def test_intervals_cover_as_often_as_they_say() -> None:
    covered = 0
    for trial in range(300):
        values = _normal(40, 1, seed=trial) + _normal(40, 3, seed=1000 + trial)
        result = interval(mean_sums(values), seed=trial, resamples=400, level=0.9)
        covered += result.low <= 0.0 <= result.high
    assert 0.84 <= covered / 300 <= 0.95


def test_pairing_takes_out_what_both_share() -> None:
    shared_part = 10 * _normal(50, 4)
    ours, theirs = shared_part + 0.1 + 0.05 * _normal(50, 4, seed=1), shared_part
    result = paired_difference(mean_sums(ours), mean_sums(theirs), seed=7)
    assert result.estimate == pytest.approx((ours - theirs).mean())
    assert 0.08 < result.low < result.high < 0.12
    with pytest.raises(DataError, match="same pictures"):
        paired_difference(mean_sums(ours), mean_sums(theirs[:, :3]), seed=7)


def test_paired_miou_of_equal_results_is_zero() -> None:
    sums = np.random.default_rng(8).integers(0, 50, size=(6, 2, 3, 3))
    result = paired_difference(sums, sums, mean_iou, seed=1)
    assert (result.estimate, result.low, result.high) == (0.0, 0.0, 0.0)


def test_missing_values_have_no_part_in_a_mean() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    assert interval(mean_sums(values), seed=1).estimate == pytest.approx(3.0)
    assert mean(np.array([[0.0, 0.0], [6.0, 2.0]]))[1] == 3.0


def test_same_seed_same_interval_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = mean_sums(_normal(30, 4))
    np.random.seed(0)  # noqa: NPY002
    first = interval(sums, seed=9)
    state = np.random.get_state()[1]  # noqa: NPY002
    monkeypatch.setattr(bootstrap, "_CHUNK_WEIGHTS", 700)
    second = interval(sums, seed=9)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), rel=1e-12)
    assert interval(sums, seed=10).low != first.low
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_one_block_gives_no_interval() -> None:
    result = interval(mean_sums(_normal(5, 3)), seed=1, blocks=np.zeros(5))
    assert math.isfinite(result.estimate)
    assert math.isnan(result.low)
    assert math.isnan(result.high)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="at least one of each"):
        interval(np.zeros((0, 3, 2)), seed=1)
    with pytest.raises(DataError, match="5 pictures need as many block numbers"):
        interval(mean_sums(np.ones((5, 1))), seed=1, blocks=[0, 1])


def test_a_biased_statistic_is_centred_on_its_estimate() -> None:
    # The square of a mean: a resample's is larger by the variance of the mean.
    values = _normal(10, 1, seed=3)

    def square(sums: bootstrap.Floats) -> bootstrap.Floats:
        return np.asarray(mean(sums) ** 2, dtype=np.float64)

    plain, moved = (
        interval(mean_sums(values), square, seed=1, resamples=20000, centred=centred)
        for centred in (False, True)
    )
    assert moved.estimate == plain.estimate
    bias = float(values.var() / 10)
    assert plain.low - moved.low == pytest.approx(bias, rel=0.05)
    assert plain.high - moved.high == pytest.approx(bias, rel=0.05)


def test_draws_under_one_seed_are_paired() -> None:
    ours, theirs = _normal(12, 3, seed=1), _normal(12, 3, seed=2)
    blocks = np.arange(12) // 3
    draws = [
        mean(resample(mean_sums(v), seed=5, blocks=blocks, resamples=500)) for v in (ours, theirs)
    ]
    found = percentiles(float(ours.mean() - theirs.mean()), draws[0] - draws[1], 4)
    expected = paired_difference(
        mean_sums(ours), mean_sums(theirs), seed=5, blocks=blocks, resamples=500
    )
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate == pytest.approx(expected.estimate)
