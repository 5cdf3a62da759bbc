"""Losses through the segmenter's features."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sqlink.data import open_dataset
from sqlink.metrics.lpips import LPIPS
from sqlink.segmentation.builtin import built_in
from sqlink.segmentation.pyramid import Pyramid
from sqlink.training.perceptual import SegmenterFeatures, energy_score, features_loss


def scene() -> torch.Tensor:
    return open_dataset("streets", seed=3, count=1, height=96, width=128)[0].image.unsqueeze(0)


def test_equal_pictures_are_at_0_and_worse_ones_farther() -> None:
    network = built_in("tx").network
    assert isinstance(network, Pyramid)
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
    assert isinstance(network, Pyramid)
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


class OneTap(LPIPS):
    """LPIPS whose features are given, of one tap and one channel that weighs 1."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.heads = torch.nn.ParameterList([torch.ones(1, 1, 1, 1)]).requires_grad_(False)


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_no_texture_scores_better_than_one_drawn_as_the_original_was(spread: float) -> None:
    draw = torch.Generator().manual_seed(10)

    def texture(scale: float) -> torch.Tensor:
        return scale * torch.randn(40, 1, 32, 32, generator=draw)

    wanted = [texture(1.0)[0::2].repeat_interleave(2, 0)]

    def score(scale: float) -> float:
        return float(energy_score(OneTap(), [texture(scale)], wanted, root=True))

    assert score(1.0) < score(spread) - 0.01
    # Without the part between realisations a compromise that is always the same scores best.
    plain = [float(OneTap().between([texture(s)], wanted, root=True).mean()) for s in (0.0, 1.0)]
    assert plain[0] < plain[1]


def test_features_of_two_realisations_are_held_against_each_other_too() -> None:
    draw = torch.Generator().manual_seed(11)
    wanted = torch.randn(2, 3, 16, 16, generator=draw)[:1].repeat(2, 1, 1, 1)
    alike = torch.randn(1, 3, 16, 16, generator=draw).repeat(2, 1, 1, 1)
    apart = torch.randn(2, 3, 16, 16, generator=draw)
    one = features_loss((alike,), (wanted,), (4,), realisations=2)
    assert float(one) == pytest.approx(float(features_loss((alike,), (wanted,), (4,))))
    assert float(features_loss((apart,), (wanted,), (4,), realisations=2)) < float(one)
