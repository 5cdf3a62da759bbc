"""Concealment: units that were lost are predicted from their neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sqlink.model.concealment import (
    LowRankDifferences,
    NeighbourPrediction,
    neighbours,
    tokens_of_units,
)


def ramps(count: int, generator: torch.Generator) -> Tensor:
    """Tokens of units: the first coefficient is a ramp, the second its slope; [N, 2, 16, 16]."""
    slopes = torch.randn(count, 2, generator=generator)
    place = torch.arange(8.0)
    ramp = slopes[:, :1, None] * place[:, None] + slopes[:, 1:, None] * place
    units = torch.zeros(count, 8, 8, 8)
    units[:, 0] = ramp - ramp.mean((1, 2), keepdim=True)
    units[:, 1] = slopes[:, :1, None]
    return tokens_of_units(units)


def test_a_ramp_is_predicted_where_it_was_lost_and_nowhere_else() -> None:
    generator = torch.Generator().manual_seed(1)
    prediction = NeighbourPrediction(2)
    everywhere = torch.ones(20, 16, 16, dtype=torch.bool)
    prediction.fit(iter([(ramps(20, generator), everywhere)]), ridge=1e-6)
    true = ramps(3, generator)
    lost = torch.zeros(3, 1, 8, 8)
    lost[:, :, 3, 4] = lost[:, :, 5, 2] = lost[:, :, 5, 3] = 1  # two side by side as well
    lost = F.interpolate(lost, scale_factor=2.0)[:, 0].bool()
    values = torch.where(lost.unsqueeze(1), 1e3, true)  # what is there must not matter
    found = prediction(values, ~lost)
    assert (found[~lost.unsqueeze(1).expand_as(found)] == 0).all()
    torch.testing.assert_close(
        torch.where(lost.unsqueeze(1), found, true), true, rtol=0.02, atol=0.02
    )


def test_only_units_among_whole_ones_are_learned_from() -> None:
    generator = torch.Generator().manual_seed(2)
    values, came = ramps(20, generator), torch.ones(20, 16, 16, dtype=torch.bool)
    came[:, 6:8, 6:8] = False
    spoilt = torch.where(came.unsqueeze(1), values, 50.0)
    fitted = []
    for tokens in (values, spoilt):
        prediction = NeighbourPrediction(2)
        prediction.fit(iter([(tokens, came)]))
        fitted.append(prediction.weights)
    assert fitted[0].abs().max() > 0.1
    torch.testing.assert_close(fitted[0], fitted[1])


def test_nothing_is_predicted_at_first() -> None:
    tokens = ramps(1, torch.Generator().manual_seed(3))
    assert not NeighbourPrediction(4)(tokens, torch.zeros(1, 16, 16, dtype=torch.bool)).any()


def test_neighbours_are_above_below_left_and_right() -> None:
    grid = torch.arange(9.0).view(1, 1, 3, 3)
    assert neighbours(grid)[0, :, 0, 1, 1].tolist() == [1, 7, 3, 5]
    assert neighbours(grid)[0, :, 0, 0, 0].tolist() == [0, 3, 0, 1]


def test_differences_are_none_at_first_and_of_their_rank() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(6, 8, 3), nn.SiLU(), nn.Conv2d(8, 5, 1))
    differences = LowRankDifferences(network, 2)
    for name, changed in differences.weights(network).items():
        torch.testing.assert_close(changed, network.get_parameter(name))
    with torch.no_grad():
        for factor in differences.up.values():
            factor.normal_()
    for number in ("0", "2"):
        old = network.get_parameter(f"{number}.weight")
        change = differences.weights(network)[f"{number}.weight"] - old
        assert torch.linalg.matrix_rank(change.flatten(1)) == 2
