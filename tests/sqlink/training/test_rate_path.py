"""The share of map and image in a budget: the path on which the loss is least."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from sqlink.bitstream import Packing, Tables
from sqlink.codecs.sqgan.codec import SQGANCodec
from sqlink.errors import ConfigError
from sqlink.model.config import STREETS
from sqlink.model.sqgan import SQGAN
from sqlink.training import rate_path
from sqlink.training.rate_path import best_path, measure


def test_the_path_takes_what_lowers_the_loss_soonest() -> None:
    """Loss falls with the map alone: the map is bought first, the image when nothing is left."""
    sizes = 100.0 + 50 * np.add.outer(np.arange(4), np.arange(4))
    cost = np.repeat([[4.0], [3.0], [2.0], [1.0]], 4, axis=1)
    assert best_path(cost, sizes)[:4] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert best_path(cost.T, sizes)[:4] == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_the_path_is_the_best_of_all() -> None:
    """Against every monotone path of a small grid."""
    rng = np.random.default_rng(0)
    cost, sizes = rng.random((3, 4)), np.cumsum(np.cumsum(rng.random((3, 4)) + 0.1, 0), 1)

    def integral(path: list[tuple[int, int]]) -> float:
        return sum(np.log(sizes[q] / sizes[p]) * (cost[p] + cost[q]) / 2 for p, q in pairwise(path))

    def paths(at: tuple[int, int]) -> list[list[tuple[int, int]]]:
        if at == (2, 3):
            return [[at]]
        steps = [(at[0] + a, at[1] + b) for a, b in ((1, 0), (0, 1), (1, 1))]
        return [[at, *p] for s in steps if s[0] < 3 and s[1] < 4 for p in paths(s)]

    found = best_path(cost, sizes)
    assert integral(found) == pytest.approx(min(integral(p) for p in paths((0, 0))))


def test_measuring_gives_bytes_that_rise_and_a_path_the_codec_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_path, "MAP_FRACTIONS", (0.1, 1.0))
    monkeypatch.setattr(rate_path, "IMAGE_FRACTIONS", (0.1, 0.5, 1.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SQGAN(STREETS).eval().requires_grad_(False)
        images = torch.rand(2, 3, 48, 64)
    maps = (images[:, 0] > 0.5).long()
    tables = Tables.uniform(STREETS.map_codes, STREETS.image_codes)
    found = measure(
        model,
        tables,
        images,
        maps,
        lambda x: (x[:, 0] > 0.5).long(),
        lambda x, y: (x - y).abs().mean((1, 2, 3)),
        Packing("single"),
        report=lambda line: None,
    )
    assert (np.diff(found.bytes, axis=0) > 0).all()
    assert (np.diff(found.bytes, axis=1) > 0).all()
    assert found.lpips.min() > 0
    assert 0 <= found.miou.min() <= found.miou.max() <= 1
    path = best_path(found.lpips, found.bytes)
    split = [(rate_path.MAP_FRACTIONS[a], rate_path.IMAGE_FRACTIONS[b]) for a, b in path]
    assert SQGANCodec(model, tables, "0" * 64, split=split).split == tuple(split)


def test_the_measuring_segmenter_may_not_be_tuned_to(tmp_path: object) -> None:
    from pathlib import Path

    with pytest.raises(ConfigError, match="only measures"):
        rate_path.calibrate("streets", Path("none"), Path("none"), segmenter="judge")
