"""The share of each stream in a budget: the path on which the loss is least."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from sqlink.bitstream import Tables
from sqlink.bitstream.refinement_table import RefinementTable
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.codecs.sqgan.codec import SQGANCodec
from sqlink.codecs.sqgan.rate_path import checked_rows
from sqlink.errors import ConfigError
from sqlink.model.config import STREETS
from sqlink.model.refinement import RefinementConfig
from sqlink.model.sqgan import SQGAN
from sqlink.training import rate_allocation
from sqlink.training.rate_allocation import Point, best_path, explore, interpolated, joined, measure


def _grid(cost: np.ndarray, sizes: np.ndarray) -> dict[Point, tuple[float, float]]:
    return {
        (a, b): (float(sizes[a, b]), float(cost[a, b]))
        for a in range(cost.shape[0])
        for b in range(cost.shape[1])
    }


def test_the_path_takes_what_lowers_the_loss_soonest() -> None:
    """Loss falls with the map alone: the map is bought first, the image when nothing is left."""
    sizes = 100.0 + 50 * np.add.outer(np.arange(4), np.arange(4))
    cost = np.repeat([[4.0], [3.0], [2.0], [1.0]], 4, axis=1)
    first = [p for p in best_path(_grid(cost, sizes)) if not p[1]]
    assert first[-1] == (3, 0)
    first = [p for p in best_path(_grid(cost.T, sizes)) if not p[0]]
    assert first[-1] == (0, 3)


def test_the_path_is_the_best_of_all() -> None:
    """Against every rising path of a small grid, up to two steps at once."""
    rng = np.random.default_rng(0)
    cost, sizes = rng.random((3, 4)), np.cumsum(np.cumsum(rng.random((3, 4)) + 0.1, 0), 1)

    def integral(path: list[Point]) -> float:
        spans = [np.log(sizes[q] / sizes[p]) * (cost[p] + cost[q]) / 2 for p, q in pairwise(path)]
        return float(np.sum(spans))

    def paths(at: tuple[int, int]) -> list[list[Point]]:
        if at == (2, 3):
            return [[at]]
        ups = [up for up in product(range(3), range(3)) if up != (0, 0)]
        after = [(at[0] + a, at[1] + b) for a, b in ups if at[0] + a < 3 and at[1] + b < 4]
        return [[at, *p] for step in after for p in paths(step)]

    found = best_path(_grid(cost, sizes))
    assert integral(found) == pytest.approx(min(integral(p) for p in paths((0, 0))))


def test_exploring_finds_the_path_that_a_whole_grid_would_give() -> None:
    """Costs that add up over the streams, falling ever less: what greed is best at."""
    worth = [np.array([0.0, 4, 6, 7]), np.array([0.0, 3, 5]), np.array([0.0, 2.5, 2.7, 2.8, 2.9])]
    takes = [np.array([0.0, 10, 20, 30]), np.array([0.0, 30, 80]), np.array([0.0, 20, 40, 60, 99])]

    def costs(point: Point) -> tuple[float, float]:
        size = 100 + sum(t[p] for t, p in zip(takes, point, strict=True))
        return float(size), float(20 - sum(w[p] for w, p in zip(worth, point, strict=True)))

    seen: list[Point] = []

    def count(point: Point) -> tuple[float, float]:
        seen.append(point)
        return costs(point)

    found = explore((4, 3, 5), count)
    everything: dict[Point, tuple[float, float]] = {
        p: costs(p) for p in product(range(4), range(3), range(5))
    }
    assert (found[0], found[-1]) == ((0, 0, 0), (3, 2, 4))
    assert len(seen) == len(set(seen)) < len(everything)

    def integral(path: list[Point]) -> float:
        pairs = [(everything[p], everything[q]) for p, q in pairwise(path)]
        return float(sum(np.log(q[0] / p[0]) * (p[1] + q[1]) / 2 for p, q in pairs))

    assert integral(found) <= 1.01 * integral(best_path(everything))


@pytest.mark.parametrize("refined", [False, True])
def test_measuring_gives_bytes_that_rise_and_figures_of_what_is_decoded(refined: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SQGAN(STREETS)
        if refined:
            model.refine(RefinementConfig())
        model.eval().requires_grad_(False)
        images = torch.rand(2, 3, 48, 64)
    maps = (images[:, 0] > 0.5).long()
    tables = Tables.uniform(STREETS.map_codes, STREETS.image_codes)
    points: list[tuple[float, ...]] = [(0.1, 0.1), (0.1, 0.5), (1.0, 1.0)]
    if refined:
        config = model.refinement.config if model.refinement else RefinementConfig()
        codes = STREETS.map_codes, STREETS.image_codes
        finer = (
            RefinementTable.even(config.values8, *codes),
            RefinementTable.even(config.values4, *codes, config.values8),
        )
        tables = replace(tables, refinements=finer)
        points = [(0.1, 0.1, 0.0, 0.0, 0), (0.1, 0.5, 0.3, 0.0, 0), (1.0, 1.0, 1.0, 1.0, 0)]
    steps = RefinementConfig().steps if refined else ()
    codec = SQGANCodec(model, tables, "0" * 64, steps=steps)
    weights = torch.zeros(11)
    weights[1] = 1
    found = [
        measure(
            codec,
            point,
            images,
            maps,
            lambda x: (x[:, 0] > 0.5).long(),
            lambda x, y: (x - y).abs().mean((1, 2, 3)),
            weights,
        )
        for point in points
    ]
    assert (np.diff([one.bytes for one in found]) > 0).all()
    split = (points[0], points[-1])
    last = SQGANCodec(model, tables, "0" * 64, split=split, steps=steps)
    streams = last.encode(images, Rate(quality=1.0), maps)
    whole = [s for s in streams if isinstance(s, Stream)]
    pictures = last.decode([Received.whole(s) for s in whole]).images
    assert found[-1].bytes == np.mean([s.size for s in whole])
    assert found[-1].lpips == pytest.approx(float((pictures - images).abs().mean()), rel=1e-5)
    seen, true = pictures[:, 0] > 0.5, maps == 1
    assert found[-1].miou == pytest.approx(float((seen & true).sum() / (seen | true).sum()))
    assert found[-1].cost("faithful") == -found[-1].psnr


def test_the_measuring_segmenter_may_not_be_tuned_to(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(ConfigError, match="only measures"):
        rate_allocation.calibrate("streets", Path("none"), Path("none"), segmenter="judge")


def test_a_finer_step_begins_where_the_coarser_one_ends() -> None:
    path = [(0.5, 1.0, 0.2, 0.0, 0), (1.0, 1.0, 0.8, 0.3, 0), (1.0, 1.0, 1.0, 0.4, 2)]

    def size(row: tuple[float, ...]) -> float:
        return 100 * (row[0] + row[1]) + (300 * row[2] + 900 * row[3]) * 1.3 ** row[4]

    found = joined(path, size)
    assert found[:2] + found[3:] == path
    between = found[2]
    assert between[:2] == path[2][:2]
    assert between[4] == 2
    assert 0.9 < size(between) / size(path[1]) <= 0.95
    assert between[2] / path[2][2] == pytest.approx(between[3] / path[2][3], rel=0.01)
    assert joined(path[:2], size) == path[:2]
    bare = [(0.5, 0.6, 0.0, 0.0, 0), (1.0, 1.0, 0.0, 0.0, 1), (1.0, 1.0, 0.3, 0.0, 1)]
    assert joined(bare, size) == [(0.5, 0.6, 0.0, 0.0, 1), *bare[1:]]  # nothing lies between steps


def test_a_path_goes_through_every_step_and_ends_with_everything() -> None:
    path = [(0.1, 0.1, 0.0, 0.0, 0), (1.0, 0.5, 0.3, 0.0, 4), (1.0, 1.0, 0.5, 0.8, 8)]
    found = interpolated(path, 13)
    assert [row[-1] for row in found] == [4, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12]
    assert found[3] == (1.0, 0.75, 0.4, 0.4, 6)
    assert found[-1] == (1.0, 1.0, 1.0, 1.0, 12)

    def size(row: tuple[float, ...]) -> float:
        return 100 * (row[0] + row[1]) + (300 * row[2] + 900 * row[3]) * 1.08 ** row[4]

    assert checked_rows(joined(found, size), 4, 13)
