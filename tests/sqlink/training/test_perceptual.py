"""Losses through the segmenter's features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sqlink.data.base import open_dataset
from sqlink.segmentation.builtin import built_in
from sqlink.segmentation.two_branch import TwoBranch
from sqlink.training.perceptual import SegmenterFeatures, features_loss


def scene() -> torch.Tensor:
    return open_dataset("streets", seed=3, count=1, height=96, width=128)[0].image.unsqueeze(0)


def test_equal_pictures_are_at_0_and_worse_ones_farther() -> None:
    network = built_in("tx").network
    assert isinstance(network, TwoBranch)
    loss, image = SegmenterFeatures(network), scene()
    blurred = [F.avg_pool2d(F.pad(image, 4 * (k,), mode="replicate"), 2 * k + 1, 1) for k in (1, 4)]
    values = [float(loss(each, image)) for each in (image, *blurred)]
    assert values[0] == 0
    assert 0 < values[1] < values[2]


def test_a_texture_in_another_place_costs_less_than_none() -> None:
    """What LPIPS alone cannot tell: grain that lies elsewhere against no grain at all."""
    draw = torch.Generator().manual_seed(1)
    grain = torch.randn(1, 8, 32, 32, generator=draw)
    moved, none = grain.roll((5, 9), (2, 3)), torch.zeros_like(grain)
    pointwise = ((moved - grain).abs().mean(), (none - grain).abs().mean())
    assert pointwise[0] > pointwise[1]
    assert features_loss((moved,), (grain,), (4,)) < features_loss((none,), (grain,), (4,))


def test_a_pass_in_parts_is_the_segmenters_own() -> None:
    network = built_in("tx").network
    assert isinstance(network, TwoBranch)
    image = scene()
    assert torch.equal(network.classes(*network.features(image)), network(image))


def test_a_weight_lifts_the_demand_for_places_but_not_for_moments() -> None:
    draw = torch.Generator().manual_seed(9)
    wanted = torch.randn(1, 4, 16, 16, generator=draw)
    moved = wanted.roll(3, 2)  # the same texture elsewhere
    ones = torch.ones(1, 64, 64)
    whole = features_loss((moved,), (wanted,), (4,))
    assert features_loss((moved,), (wanted,), (4,), ones) == pytest.approx(float(whole))
    free = features_loss((moved,), (wanted,), (4,), 0 * ones)
    assert 0 <= float(free) < 0.1 * float(whole)
    assert float(features_loss((0 * wanted,), (wanted,), (4,), 0 * ones)) > 0.3
