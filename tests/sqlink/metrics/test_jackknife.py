"""Jackknife intervals against closed forms, a plain loop, and the coverage they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sqlink.errors import DataError
from sqlink.metrics.coverage import covered, populations
from sqlink.metrics.jackknife import (
    Floats,
    Interval,
    Jackknife,
    consecutive_blocks,
    interval,
    leave_one_out,
    mean,
    mean_iou,
    mean_sums,
    paired_difference,
)
from sqlink.metrics.semantic import miou

POPULATIONS = {one.name: one for one in populations()}


def _normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


def _half_width(result: Interval) -> float:
    return (result.high - result.low) / 2


def test_a_mean_has_scipys_t_interval_on_block_means() -> None:
    values = _normal(24, 5) + np.repeat(_normal(6, 1, seed=1), 4, axis=0)
    result = interval(mean_sums(values), blocks=consecutive_blocks(24, 4))
    means = values.reshape(6, -1).mean(axis=1)
    low, high = stats.t.interval(0.95, 5, loc=means.mean(), scale=stats.sem(means))
    assert result.estimate == pytest.approx(values.mean())
    assert (result.low, result.high) == pytest.approx((low, high), rel=1e-9)
    assert result.blocks == 6


def test_a_level_is_the_levels_own_quantile() -> None:
    values = mean_sums(_normal(9, 1))
    wide, narrow = interval(values, level=0.99), interval(values, level=0.9)
    ratio = stats.t.ppf(0.995, 8) / stats.t.ppf(0.95, 8)
    assert _half_width(wide) / _half_width(narrow) == pytest.approx(ratio)


def test_blocks_of_alike_pictures_widen_the_interval() -> None:
    values = np.repeat(_normal(20, 1), 10, axis=0)
    blocked = interval(mean_sums(values), blocks=consecutive_blocks(200, 10))
    loose = interval(mean_sums(values))
    expected = math.sqrt(199 / 19) * stats.t.ppf(0.975, 19) / stats.t.ppf(0.975, 199)
    assert _half_width(blocked) / _half_width(loose) == pytest.approx(expected)


def test_a_ratio_agrees_with_a_plain_loop() -> None:
    generator = np.random.default_rng(4)
    hits = generator.integers(20, 100, size=(12, 3, 4))
    sums = generator.integers(0, 30, size=(12, 3, 4, 4)) + hits[..., None] * np.eye(4, dtype=int)
    groups = np.array([0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 6])
    whole = miou(torch.from_numpy(sums.sum(axis=(0, 1)))).item()
    without = [miou(torch.from_numpy(sums[groups != g].sum(axis=(0, 1)))).item() for g in range(7)]
    centre = sum(without) / 7
    spread = math.sqrt(6 / 7 * sum((one - centre) ** 2 for one in without))
    result = interval(sums, mean_iou, blocks=groups)
    assert result.estimate == pytest.approx(whole)
    assert _half_width(result) == pytest.approx(stats.t.ppf(0.975, 6) * spread)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("mean, blocks of 3 to 6", 12),
        ("difference of means", 4),
        ("mIoU, rare classes", 4),
        ("difference of mIoU", 5),
    ],
)
def test_95_percent_intervals_cover_the_truth_93_to_97_times_of_100(name: str, blocks: int) -> None:
    # 1000 samples: two standard deviations of the share are 1.4 %.
    assert 0.93 <= covered(POPULATIONS[name], blocks, 1000, seed=7) <= 0.97


def test_a_percentile_bootstrap_does_not() -> None:
    for name in ("mean, blocks of 4 pictures", "mIoU"):
        assert covered(POPULATIONS[name], 4, 100, seed=7, bootstrap=True) < 0.88


def test_pairing_takes_out_what_both_share() -> None:
    shared_part = 10 * _normal(50, 4)
    ours, theirs = shared_part + 0.1 + 0.05 * _normal(50, 4, seed=1), shared_part
    result = paired_difference(mean_sums(ours), mean_sums(theirs))
    assert result.estimate == pytest.approx((ours - theirs).mean())
    assert 0.08 < result.low < result.high < 0.12
    apart = interval(mean_sums(ours - theirs))
    assert (result.low, result.high) == pytest.approx((apart.low, apart.high))
    with pytest.raises(DataError, match="same pictures"):
        paired_difference(mean_sums(ours), mean_sums(theirs[:, :3]))


def test_equal_results_differ_by_nothing() -> None:
    sums = np.random.default_rng(8).integers(1, 50, size=(6, 2, 3, 3))
    result = paired_difference(sums, sums, mean_iou)
    assert (result.estimate, result.low, result.high) == (0.0, 0.0, 0.0)


def test_missing_values_have_no_part_in_a_mean() -> None:
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan]])
    assert interval(mean_sums(values)).estimate == pytest.approx(3.0)
    assert mean(np.array([[0.0, 0.0], [6.0, 2.0]]))[1] == 3.0


def test_a_block_that_holds_nothing_of_a_result_does_not_count() -> None:
    values = np.concatenate([_normal(8, 1), np.full((4, 1), np.nan)])
    blocks = consecutive_blocks(12, 2)
    found, expected = (
        interval(mean_sums(v), blocks=b) for v, b in ((values, blocks), (values[:8], blocks[:8]))
    )
    assert found == expected
    assert found.blocks == 4


def test_below_3_blocks_there_is_no_interval_but_the_reason() -> None:
    for count, said in ((1, "1 block"), (2, "2 blocks")):
        result = interval(mean_sums(_normal(6, 3)), blocks=np.arange(6) % count)
        assert math.isfinite(result.estimate)
        assert math.isnan(result.low)
        assert math.isnan(result.high)
        assert str(result).endswith(f"[n/a: {said}]")
    assert math.isfinite(interval(mean_sums(_normal(6, 3)), blocks=np.arange(6) % 3).low)


def test_what_rests_on_one_block_has_no_interval() -> None:
    sums = np.zeros((3, 1, 2))
    sums[0] = [5.0, 1.0]
    sums[1:, :, 0] = 1.0  # values that nobody counted
    result = interval(sums)
    assert result.reason == "it rests on one of 3 blocks"


def test_an_interval_stays_within_what_can_be() -> None:
    values = leave_one_out(mean_sums([[0.0], [0.0], [0.9], [0.1]]))
    assert values.interval().low < 0
    assert values.interval(low=0.0, high=1.0).low == 0


def test_the_bias_of_a_small_sample_does_not_widen_the_interval() -> None:
    values = _normal(10, 1, seed=3)

    def biased(sums: Floats) -> Floats:
        return np.asarray(mean(sums) + 50 / sums[..., 1], dtype=np.float64)

    plain = interval(mean_sums(values))
    moved = interval(mean_sums(values), biased)
    assert moved.estimate == pytest.approx(plain.estimate + 5)
    assert _half_width(moved) == pytest.approx(_half_width(plain))


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="at least one of each"):
        interval(np.zeros((0, 3, 2)))
    with pytest.raises(DataError, match="5 pictures need as many block numbers"):
        interval(mean_sums(np.ones((5, 1))), blocks=[0, 1])


def test_differences_count_the_blocks_of_either() -> None:
    some, all_of_them = (
        Jackknife(1.0, np.ones(4), np.array(counted))
        for counted in ([True, True, False, False], [True] * 4)
    )
    assert (some - all_of_them).interval().blocks == 4
    assert (some - some).interval().reason == "2 blocks"
