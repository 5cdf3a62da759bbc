"""The refinement's networks: exact quantisation, tokens that help from the start, true masks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import laplace
from torch import Tensor

from sqlink.errors import ConfigError
from sqlink.model.config import STREETS
from sqlink.model.refinement import (
    ROUND_UP,
    STEP8,
    DigitRates,
    Refinement,
    RefinementConfig,
    ScalarQuantizer,
    gains_of,
)
from sqlink.model.sqgan import SQGAN

SMALL = RefinementConfig(
    levels8=(9, 5, 5, 7, 7),
    levels4=(7, 5, 5),
    width4=16,
    width8=16,
    width16=16,
    blocks8=1,
    blocks4=1,
    width2=8,
)


def made() -> Refinement:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Refinement(SMALL, 12, 8, 6).eval()


def test_indices_and_values_are_each_others_inverse() -> None:
    quantizer = ScalarQuantizer((3, 5, 7))
    indices = torch.arange(105)
    values = quantizer.values(indices)
    assert values.unique(dim=0).shape == (105, 3)
    back = quantizer.indices(values.t()[None, :, None])
    torch.testing.assert_close(back[0, 0], indices)
    assert quantizer.codes == math.prod((3, 5, 7))


def test_rounding_is_to_the_level_next_below_or_the_nearest_and_passes_gradients() -> None:
    """A size goes up from a level where it is over 1 - ROUND_UP above it, else down to it."""
    z = torch.linspace(-3.1, 3, 42).view(1, 1, 1, -1).requires_grad_()
    rounded = ScalarQuantizer((5,))(z).detach().flatten()
    sizes = z.detach().flatten().abs()
    thresholds = torch.tensor([1.0, 2.0]) - ROUND_UP
    expected = (sizes[:, None] > thresholds).sum(1) / 2 * z.detach().flatten().sign()
    torch.testing.assert_close(rounded, expected)
    assert 0 < ROUND_UP < 0.5
    rounded = ScalarQuantizer((5,))(z)
    rounded.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, (z.detach().abs() <= 2) / 2)


@pytest.mark.parametrize("spread", [0.2, 0.7])
def test_rates_are_those_of_a_laplace_variable_that_is_rounded(spread: float) -> None:
    rates = DigitRates((9,))
    rates.log_spreads.data.fill_(math.log(spread))
    steps = np.arange(-4, 5)
    found = rates((torch.from_numpy(steps) / 4).float().view(1, 1, 1, -1))[0, 0]
    law = laplace(scale=spread)
    expected = -np.log2(law.cdf(steps + 0.5) - law.cdf(steps - 0.5))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize("levels", [(4, 5), (), (17,), (15, 15, 15, 15, 3)])
def test_levels_that_no_unit_can_hold_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="levels"):
        RefinementConfig(levels8=levels)


def inputs(size: int = 64) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """A picture, shares of classes, and a base whose picture is a blurred one."""
    generator = torch.Generator().manual_seed(3)
    coarse = 0.4 + 0.2 * torch.rand(1, 3, size // 16, size // 16, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    blurred = torch.full_like(image, 0.5)
    base = (
        torch.zeros(1, 8, size // 8, size // 8),
        torch.zeros(1, 6, size // 4, size // 4),
        blurred,
    )
    return image, torch.zeros(1, 12, size // 4, size // 4), base


def error_with(share8: float, share4: float) -> float:
    network = made()
    image, shares, base = inputs()
    found = network.encoder(image, shares, base[2], base[0])
    came8 = torch.zeros(1, 8, 8, dtype=torch.bool)
    came8.flatten()[: round(64 * share8)] = True
    came4 = torch.zeros(1, 16, 16, dtype=torch.bool)
    came4.flatten()[: round(256 * share4)] = True
    tokens = found.values8, came8, found.values4, came4
    shown = network.decoder(base, *tokens, torch.zeros(1))
    return float((shown - image).detach().square().mean())


def test_tokens_lower_the_error_before_any_training() -> None:
    errors = [error_with(*shares) for shares in ((0, 0), (0.5, 0), (1, 0), (1, 1))]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.5 * errors[0]


def test_what_did_not_come_does_not_matter() -> None:
    network, (_, _, base) = made(), inputs()
    came8 = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    came4 = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(2)) < 0.5
    shown = []
    for seed in (4, 5):
        generator = torch.Generator().manual_seed(seed)
        values8 = torch.where(came8, 0.5, torch.randn(1, 5, 8, 8, generator=generator))
        values4 = torch.where(came4, -0.5, torch.randn(1, 3, 16, 16, generator=generator))
        shown.append(network.decoder(base, values8, came8, values4, came4, torch.ones(1)))
    assert torch.equal(shown[0], shown[1])


def test_a_zero_leaves_the_invented_detail_that_rounds_to_it_at_realism_1_alone() -> None:
    decoder = made().decoder
    generator = torch.Generator().manual_seed(3)
    faint = 0.5 + 0.01 * torch.randn(1, 3, 32, 32, generator=generator)
    strong = 0.5 + 0.4 * torch.randn(1, 3, 32, 32, generator=generator)
    came8 = torch.ones(1, 4, 4, dtype=torch.bool)
    came4 = torch.zeros(1, 8, 8, dtype=torch.bool)
    nothing = torch.zeros(1, 5, 4, 4), came8, torch.zeros(1, 3, 8, 8), came4

    def drawn(picture: Tensor, realism: float) -> Tensor:
        base = torch.zeros(1, 8, 4, 4), torch.zeros(1, 6, 8, 8), picture
        out: Tensor = decoder(base, *nothing, torch.tensor([realism]))
        return out

    def slopes(picture: Tensor) -> Tensor:
        """Of grey, along the rows of blocks of 8 pixels, by a loop."""
        grey = picture.sum(1)[0] / 3**0.5
        wave = torch.cos(torch.pi / 8 * (torch.arange(8) + 0.5))
        wave = (wave / wave.norm()).repeat(8, 1) / 8**0.5
        blocks = [grey[y : y + 8, x : x + 8] for y in range(0, 32, 8) for x in range(0, 32, 8)]
        return torch.stack([(block * wave).sum() for block in blocks])

    with torch.no_grad():
        torch.testing.assert_close(drawn(faint, 1.0), faint)
        low = F.interpolate(F.avg_pool2d(faint, 8), scale_factor=8.0, mode="bilinear")
        assert slopes(drawn(faint, 0.0) - low).abs().max() < 1e-5
        low = F.interpolate(F.avg_pool2d(strong, 8), scale_factor=8.0, mode="bilinear")
        before = slopes(strong - low).abs().max()
        assert before > STEP8 > slopes(drawn(strong, 1.0) - low).abs().max() > 0.1


def test_gains_are_falls_of_errors() -> None:
    errors = torch.tensor([[0.5, 0.1, 0.2], [0.2, 0.3, 0.1]]).log().view(1, 2, 3, 1, 1)
    torch.testing.assert_close(gains_of(errors).flatten(), torch.tensor([0.3, 0.0, 0.1]))


def test_the_configuration_travels_as_text() -> None:
    assert RefinementConfig.from_json(SMALL.to_json()) == SMALL
    with pytest.raises(ConfigError, match="cannot be read"):
        RefinementConfig.from_json('{"levels9": 1}')


def test_a_model_without_places_at_a_quarter_is_refused() -> None:
    shallow = replace(
        STREETS,
        channels=(16, 32),
        map_channels=(16, 32),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        map_blocks=(1, 1),
    )
    for config in (shallow, replace(shallow, stem=8)):
        with pytest.raises(ConfigError, match="1/4"):
            SQGAN(config).refine(SMALL)


def test_a_picture_does_not_depend_on_its_batch_and_realism_mixes() -> None:
    config = STREETS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = SQGAN(config)
        model.refine(SMALL)
    model.eval()
    for parameter in model.refinement.parameters() if model.refinement else ():
        parameter.data += 0.01
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(1, 64, 64, dtype=torch.int64)
    found = model.analyse(images, maps)
    assert [layer.tokens.shape[1:] for layer in found.refinements] == [(8, 8), (16, 16)]
    tokens = [layer.tokens for layer in found.refinements]
    shown = [
        model.synthesise(found.image_indices, found.map_indices, 64, 64, tokens, realism)[0]
        for realism in (0.0, 0.25, 1.0)
    ]
    inside = (shown[0] > 0) & (shown[0] < 1) & (shown[2] > 0) & (shown[2] < 1)
    mixed = torch.lerp(shown[0], shown[2], 0.25)
    assert inside.any()
    torch.testing.assert_close(shown[1][inside], mixed[inside])
