"""The refinement's networks: exact quantisation, tokens that help from the start, true masks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import scipy.fft
import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.errors import ConfigError
from sqlink.model.config import STREETS
from sqlink.model.refinement import (
    LARGEST,
    BlockCosines,
    Refinement,
    RefinementConfig,
    _places_in_blocks,
    errors_at,
    quantised,
    share_of_classes,
    table_row,
)
from sqlink.model.sqgan import SQGAN

SMALL = RefinementConfig(
    values8=5,
    values4=3,
    steps=(0.8, 0.2),
    width4=16,
    width8=16,
    width16=16,
    widths_natural=(8, 16, 16, 16),
    blocks_natural=(1, 1, 1, 1),
)


def made() -> Refinement:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Refinement(SMALL, 12, 8, 6).eval()


def trained_somehow(generator: torch.Generator) -> Refinement:
    """A refinement whose decoders' networks do something."""
    network = made()
    with torch.no_grad():
        for parameter in (*network.probable.parameters(), *network.natural.parameters()):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def test_rounding_is_to_the_digit_next_below_or_the_nearest() -> None:
    """A size goes up from a digit where it is over 1 - round_up above it, else down to it."""
    z = torch.linspace(-3.1, 3, 42).view(1, 1, 1, -1)
    sizes = z.flatten().abs()
    for step, round_up in ((1.0, 0.33), (0.5, 0.25)):
        digits = quantised(z, torch.tensor([step]), round_up)
        thresholds = step * (torch.arange(1, 8) - round_up)
        expected = (sizes[:, None] > thresholds).sum(1) * z.flatten().sign()
        torch.testing.assert_close(digits.flatten(), expected.float())
    far = quantised(torch.full((1, 1, 1, 1), -1e3), torch.ones(1), 0.33)
    assert float(far) == -LARGEST
    hard = quantised(torch.tensor([0.2, -0.2, 1.7]).view(1, 1, 1, 3), torch.ones(1), -0.6)
    assert hard.flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"values8": 0}, "values"),
        ({"steps": ()}, "steps"),
        ({"steps": (0.5, 0.8)}, "steps"),
        ({"steps_per_row": 0}, "steps_per_row"),
        ({"steps_per_row": 1}, "steps_per_row"),
        ({"steps": (0.5, 0.0)}, "steps"),
        ({"round_up": 0.6}, "round_up"),
        ({"predicted": 49}, "predicted"),
        ({"lossy_rank": -1}, "lossy_rank"),
    ],
)
def test_layers_that_cannot_be_coded_are_refused(change: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        RefinementConfig(**change)


def inputs(size: int = 64) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """A picture, shares of classes, and a base whose picture is a blurred one."""
    generator = torch.Generator().manual_seed(3)
    grey = torch.rand(1, 1, size // 16, size // 16, generator=generator)
    coarse = 0.4 + 0.2 * grey + 0.02 * torch.rand(1, 3, *grey.shape[2:], generator=generator)
    image = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    blurred = torch.full_like(image, 0.5)
    base = (
        torch.zeros(1, 8, size // 8, size // 8),
        torch.zeros(1, 6, size // 4, size // 4),
        blurred,
    )
    return image, torch.zeros(1, 12, size // 4, size // 4), base


def test_networks_compute_the_same_with_and_without_gradients() -> None:
    """Without them some operations are in place: none may overwrite what is used again."""
    generator = torch.Generator().manual_seed(9)
    network = trained_somehow(generator)
    with torch.no_grad():
        for parameter in network.encoder.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    image, shares, base = inputs()

    def computed() -> list[Tensor]:
        found = network.encoder(image, shares, base[2], base[0])
        at = torch.tensor([0.3])
        made = network.encoder.digits(found, at)
        came8, came4 = torch.ones(1, 8, 8).bool(), torch.ones(1, 16, 16).bool()
        tokens = made.digits8, came8, made.digits4, came4
        nowhere = torch.zeros(1, 64, 64, dtype=torch.int64)
        pictures = [network.decoded(realism, base, tokens, at, nowhere) for realism in (0, 1)]
        return [found.errors8, found.errors4, *pictures]

    with_gradients = computed()
    with torch.inference_mode():
        without = computed()
    for one, other in zip(with_gradients, without, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def error_with(share8: float, share4: float, step: float) -> float:
    network = made()
    image, shares, base = inputs()
    at = torch.tensor([step])
    found = network.encoder.digits(network.encoder(image, shares, base[2], base[0]), at)
    came8 = torch.zeros(1, 8, 8, dtype=torch.bool)
    came8.flatten()[: round(64 * share8)] = True
    came4 = torch.zeros(1, 16, 16, dtype=torch.bool)
    came4.flatten()[: round(256 * share4)] = True
    tokens = found.digits8, came8, found.digits4, came4
    shown = network.probable(base[2], tokens, at)
    return float((shown - image).detach().square().mean())


def test_tokens_lower_the_error_before_any_training() -> None:
    errors = [error_with(*shares, 0.4) for shares in ((0, 0), (0.5, 0), (1, 0), (1, 1))]
    errors.append(error_with(1, 1, 0.1))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.1 * errors[0]


def test_the_fall_of_the_squared_error_is_what_sending_a_unit_brings() -> None:
    """Of the transform alone: with the networks' part at nothing, which is how they begin."""
    network = made()
    image, shares, base = inputs()
    at = torch.tensor([0.2])
    found = network.encoder.digits(network.encoder(image, shares, base[2], base[0]), at)
    none8, none4 = torch.zeros(1, 8, 8, dtype=torch.bool), torch.zeros(1, 16, 16, dtype=torch.bool)

    def error(came8: Tensor, came4: Tensor) -> Tensor:
        tokens = found.digits8, came8, found.digits4, came4
        return (network.probable(base[2], tokens, at) - image).square().mean(1)[0]

    one8 = none8.clone()
    one8[0, 2:4, 4:6] = True
    fall = (error(none8, none4) - error(one8, none4))[16:32, 32:48].mean()
    gain = found.gains8[0, 0, 2:4, 4:6].mean()
    torch.testing.assert_close(gain, fall.detach(), rtol=1e-3, atol=1e-6)
    all8, one4 = torch.ones_like(none8), none4.clone()
    one4[0, 4:6, 6:8] = True
    fall = (error(all8, none4) - error(all8, one4))[16:24, 24:32].mean()
    gain = found.gains4[0, 0, 4:6, 6:8].mean()
    torch.testing.assert_close(gain, fall.detach(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("values", "side"), [(5, 16), (12, 16), (10, 8)])
def test_units_are_orthonormal_cosines_of_blocks_long_waves_first(values: int, side: int) -> None:
    """Against SciPy, in grey; and the networks see each quarter of a block in its own place."""
    cosines = BlockCosines(values, side)
    own = cosines.waves.double()
    torch.testing.assert_close(own @ own.T, torch.eye(4 * values).double(), rtol=0, atol=1e-5)
    picture = torch.rand(1, 3, 2 * side, 3 * side, generator=torch.Generator().manual_seed(1))
    tokens = cosines.analysed(picture)
    assert tokens.shape == (1, values, 4, 6)
    block = picture[0, :, side:, side : 2 * side].sum(0).double().numpy() / 3**0.5
    spectrum = scipy.fft.dctn(block, norm="ortho")
    first = tokens[0, :, 2:4, 2:4]  # the first token of the block holds its longest waves
    assert float(first[0, 0, 0]) == pytest.approx(spectrum[0, 0], abs=1e-4)
    assert {round(float(v), 3) for v in first[1:3, 0, 0]} == {
        round(float(v), 3) for v in (spectrum[0, 1], spectrum[1, 0])
    }
    torch.testing.assert_close(cosines.analysed(cosines.drawn(tokens)), tokens)
    half = BlockCosines(values, side).local(tokens)
    quarter = cosines.drawn(tokens)[0, :, side : side + side // 2, side + side // 2 : 2 * side]
    mean = quarter.sum() / 3**0.5 / (side // 2)
    torch.testing.assert_close(half[0, 0, 2, 3], mean, rtol=1e-4, atol=1e-5)


def test_layers_of_another_version_are_refused() -> None:
    said = json.loads(RefinementConfig().to_json())
    del said["version"]
    for more, version in (({}, 1), ({"transform": 2}, 2), ({"version": 3}, 3)):
        with pytest.raises(ConfigError, match=f"version {version}, this program of 4"):
            RefinementConfig.from_json(json.dumps(said | more))


def units(came: Tensor) -> Tensor:
    """Which tokens came, where all four of a unit come or none."""
    return came.repeat_interleave(2, 1).repeat_interleave(2, 2)


def test_what_did_not_come_does_not_matter() -> None:
    network, (_, _, base) = made(), inputs()
    came8 = units(torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.5)
    came4 = units(torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2)) < 0.5)
    shown = []
    for seed in (4, 5):
        generator = torch.Generator().manual_seed(seed)
        digits8 = torch.where(came8, 2.0, torch.randn(1, 5, 8, 8, generator=generator))
        digits4 = torch.where(came4, -1.0, torch.randn(1, 3, 16, 16, generator=generator))
        at = torch.tensor([0.8])
        shown.append(network.natural(base, (digits8, came8, digits4, came4), at))
    assert torch.equal(shown[0], shown[1])


def test_a_unit_of_zeros_is_as_one_that_did_not_come() -> None:
    generator = torch.Generator().manual_seed(6)
    network, (_, _, base) = trained_somehow(generator), inputs()
    digits8 = torch.randn(1, 5, 8, 8, generator=generator).round()
    digits8[..., :4, 2:6] = 0
    came8 = torch.ones(1, 8, 8, dtype=torch.bool)
    without = came8.clone()
    without[0, :4, 2:6] = False
    nothing = torch.zeros(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    at = torch.tensor([0.8])
    nowhere = torch.zeros(1, 64, 64, dtype=torch.int64)
    for realism in (0, 1):
        shown = [
            network.decoded(realism, base, (digits8, came, *nothing), at, nowhere)
            for came in (came8, without, torch.zeros_like(came8))
        ]
        assert torch.equal(shown[0], shown[1])
        assert not torch.equal(shown[0], shown[2])


def test_a_zero_leaves_the_invented_detail_that_rounds_to_it_at_realism_1_alone() -> None:
    network = made()
    generator = torch.Generator().manual_seed(3)
    faint = 0.5 + 0.01 * torch.randn(1, 3, 32, 32, generator=generator)
    strong = 0.5 + 0.4 * torch.randn(1, 3, 32, 32, generator=generator)
    came8 = torch.ones(1, 4, 4, dtype=torch.bool)
    came4 = torch.zeros(1, 8, 8, dtype=torch.bool)
    little = torch.zeros(1, 5, 4, 4)
    little[:, 4, ::2, ::2] = 1e-6  # so that no unit holds zeros alone
    nothing = little, came8, torch.zeros(1, 3, 8, 8), came4

    def drawn(picture: Tensor, realism: int) -> Tensor:
        base = torch.zeros(1, 8, 4, 4), torch.zeros(1, 6, 8, 8), picture
        nowhere = torch.zeros(1, 32, 32, dtype=torch.int64)
        return network.decoded(realism, base, nothing, torch.tensor([0.8]), nowhere)

    def slopes(picture: Tensor) -> Tensor:
        """Of grey, along the rows of blocks of 16 pixels, by a loop."""
        grey = picture.sum(1)[0] / 3**0.5
        wave = torch.cos(3 * torch.pi / 16 * (torch.arange(16) + 0.5))
        wave = (wave / wave.norm()).repeat(16, 1) / 16**0.5
        blocks = [grey[y : y + 16, x : x + 16] for y in (0, 16) for x in (0, 16)]
        return torch.stack([(block * wave).sum() for block in blocks])

    with torch.no_grad():
        torch.testing.assert_close(drawn(faint, 1), faint, rtol=0, atol=2e-3)
        low = F.interpolate(F.avg_pool2d(faint, 8), scale_factor=8.0, mode="bilinear")
        assert slopes(drawn(faint, 0) - low).abs().max() < 1e-5
        low = F.interpolate(F.avg_pool2d(strong, 8), scale_factor=8.0, mode="bilinear")
        before = slopes(strong - low).abs().max()
        assert before > 0.4 > slopes(drawn(strong, 1) - low).abs().max() > 0.1


def test_errors_of_what_is_sent_grow_with_the_step() -> None:
    errors = torch.tensor([[0.5, 0.1], [0.2, 0.3], [0.0, 2.0]]).view(1, 3, 2, 1, 1)
    found = errors_at(errors, torch.tensor([math.e]))[0, :, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.1], [0.2, 2.3]]))


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


def test_where_it_is_restrained_the_network_leaves_the_base_and_the_tokens_at_realism_1() -> None:
    generator = torch.Generator().manual_seed(6)
    network, (_, _, base) = trained_somehow(generator), inputs()
    with torch.no_grad():
        network.natural.detail.fill_(0.8)
    network.config = replace(SMALL, restrained=(5,))
    came8 = torch.zeros(1, 8, 8, dtype=torch.bool)
    came8[0, 2:4, :2] = True
    digits8 = torch.randn(1, 5, 8, 8, generator=generator).round()
    nothing = torch.zeros(1, 3, 16, 16), torch.zeros(1, 16, 16, dtype=torch.bool)
    left = torch.zeros(1, 64, 64, dtype=torch.int64)
    left[..., :40] = 5  # the border of the classes is soft, about 12 pixels on either side

    def drawn(realism: int, classes: Tensor) -> Tensor:
        tokens = digits8, came8, *nothing
        with torch.no_grad():
            out: Tensor = network.decoded(realism, base, tokens, torch.tensor([0.2]), classes)
        return out

    free, half = drawn(1, torch.zeros_like(left)), drawn(1, left)
    assert torch.equal(half[..., 56:], free[..., 56:])
    plain = base[2].clone()
    plain[..., 16:32, :16] = half[..., 16:32, :16]  # where a unit came
    torch.testing.assert_close(half[..., :24], plain[..., :24])
    assert (free - half)[..., :24].abs().mean() > 0.01
    assert (half - base[2])[..., 16:32, :16].abs().mean() > 0.01
    assert torch.equal(drawn(0, left), drawn(0, torch.zeros_like(left)))


def test_the_decoder_of_realism_0_knows_where_in_its_block_a_pixel_lies() -> None:
    """Blocks of 16 and 8 pixels are told apart from their halves, and repeat."""
    places = _places_in_blocks(16, 24)[0]  # of pixels at half size
    assert places.shape == (8, 16, 24)
    torch.testing.assert_close(places[:, 8:, 8:16], places[:, :8, :8])
    seen = places[:, :8, :8].flatten(1).T
    apart = torch.cdist(seen, seen) + 9 * torch.eye(64)
    assert apart.min() > 0.5
    torch.testing.assert_close(places[4:, 4:8, 4:8], places[4:, :4, :4])


def test_weights_from_before_classes_could_be_restrained_restrain_none() -> None:
    said = json.loads(RefinementConfig(restrained=(5,)).to_json())
    assert RefinementConfig.from_json(json.dumps(said)).restrained == (5,)
    del said["restrained"]
    assert RefinementConfig.from_json(json.dumps(said)).restrained == ()
    with pytest.raises(ConfigError, match="restrained"):
        RefinementConfig(restrained=(-1,))


def test_a_share_of_classes_is_local_and_soft_at_borders() -> None:
    labels = torch.zeros(1, 64, 64, dtype=torch.int64)
    labels[..., 32:] = 5
    labels[..., 48:] = 7
    share = share_of_classes(labels, (5, 7))[0, 0]
    torch.testing.assert_close(share[0], share[40])
    assert (share[0].diff() >= -1e-6).all()
    torch.testing.assert_close(share[0, :18], torch.zeros(18))
    torch.testing.assert_close(share[0, 46:], torch.ones(18))
    assert 0.3 < share[0, 31:33].mean() < 0.7


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
    assert found.finer is not None
    coefficients = model.coefficients(found.finer, found.image_indices, found.map_indices)
    layers = model.layers(coefficients, 1)
    assert [layer.digits.shape[1:] for layer in layers] == [(8, 8, 5), (16, 16, 3)]
    tokens = [(layer.digits, torch.ones(layer.digits.shape[:3]).bool()) for layer in layers]
    base, step = (found.image_indices, found.map_indices, 64, 64), torch.tensor([1])
    shown = [model.synthesise(*base, tokens, step, realism)[0] for realism in (0.0, 0.25, 1.0)]
    none = [(digits, ~came) for digits, came in tokens]
    without, _ = model.synthesise(*base)
    torch.testing.assert_close(model.synthesise(*base, none, step)[0], without)
    both = model.analyse(images.repeat(2, 1, 1, 1), maps.repeat(2, 1, 1))
    assert both.finer is not None
    batch = model.coefficients(both.finer, both.image_indices, both.map_indices)
    torch.testing.assert_close(batch.z4[1:], coefficients.z4, rtol=1e-4, atol=1e-4)
    inside = (shown[0] > 0) & (shown[0] < 1) & (shown[2] > 0) & (shown[2] < 1)
    mixed = torch.lerp(shown[0], shown[2], 0.25)
    assert inside.any()
    torch.testing.assert_close(shown[1][inside], mixed[inside])


def test_coefficients_are_of_what_the_tokens_that_are_sent_leave() -> None:
    """Against the picture that a receiver of these tokens alone draws at realism 0, without
    the cast between the two.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = SQGAN(STREETS).eval()
        model.refine(SMALL).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = model.analyse(images, torch.zeros(1, 64, 64, dtype=torch.int64))
    assert found.finer is not None
    assert model.refinement is not None
    some = torch.arange(16).view(1, 4, 4) % 3 > 0
    image, map_ = (
        torch.where(there, own, -1)
        for there, own in ((some, found.image_indices), (~some, found.map_indices))
    )
    with torch.no_grad():
        model.refinement.probable.detail.fill_(1.0)  # so that the base's picture is shown as it is
    shown, _ = model.synthesise(image, map_, 64, 64, realism=0.0)
    low = F.interpolate(F.avg_pool2d(shown, 8), scale_factor=8.0, mode="bilinear")
    differences = F.avg_pool2d(images - shown, 8).flatten(2).median(2).values
    cast = -differences.view(1, 3, 1, 1)
    expected = BlockCosines(SMALL.values8, 16).analysed(images + cast - low)
    sent = model.coefficients(found.finer, image, map_)
    torch.testing.assert_close(sent.z8, expected, rtol=1e-3, atol=1e-4)
    whole = model.coefficients(found.finer, found.image_indices, found.map_indices)
    assert (whole.z8 - sent.z8).abs().max() > 1e-2


def test_pictures_with_losses_have_a_decoder_of_their_own() -> None:
    """In a batch with others, each is as alone; and stored are its differences, not the decoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = SQGAN(STREETS).eval()
        refinement = model.refine(replace(SMALL, predicted=8, lossy_rank=2)).eval()
        assert refinement.differences is not None
        assert refinement.prediction is not None
        with torch.no_grad():
            for part in (refinement.natural, refinement.differences):
                for parameter in part.parameters():
                    parameter.add_(0.05 * torch.randn(parameter.shape))
            refinement.prediction.weights.fill_(0.02)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = model.analyse(images, torch.zeros(1, 64, 64, dtype=torch.int64))
    assert found.finer is not None
    layers = model.layers(
        model.coefficients(found.finer, found.image_indices, found.map_indices), 1
    )
    came8 = units(torch.arange(16).view(1, 4, 4) % 5 > 0)
    came = came8, torch.ones(1, 16, 16, dtype=torch.bool)
    tokens = [(layer.digits, there) for layer, there in zip(layers, came, strict=True)]
    base, step = (found.image_indices, found.map_indices), torch.tensor([1])

    def shown(lossy: list[bool] | None, realism: float) -> Tensor:
        count = 1 if lossy is None else len(lossy)
        given = [(d.repeat(count, 1, 1, 1), t.repeat(count, 1, 1)) for d, t in tokens]
        which = None if lossy is None else torch.tensor(lossy)
        repeated = (indices.repeat(count, 1, 1) for indices in base)
        return model.synthesise(*repeated, 64, 64, given, step.repeat(count), realism, lossy=which)[
            0
        ]

    before = {realism: shown([True], realism) for realism in (0.0, 1.0)}
    state = model.weights()
    model.load_weights(state)  # makes the decoder for losses from its differences
    assert model.weights().keys() == state.keys()
    assert not any("for_losses" in name for name in state)
    for realism, other in before.items():
        clean, lossy = shown(None, realism), shown([True], realism)
        torch.testing.assert_close(lossy, other, rtol=1e-4, atol=1e-5)
        assert (clean - lossy).abs().max() > 1e-3
        mixed = shown([True, False, True], realism)
        for row, expected in zip(mixed, (lossy, clean, lossy), strict=True):
            torch.testing.assert_close(row, expected[0], rtol=1e-4, atol=1e-5)


def test_steps_are_fine_and_four_of_them_share_a_row_of_the_tables() -> None:
    config = RefinementConfig()
    ratios = [a / b for a, b in pairwise(config.steps)]
    assert len(config.steps) == 57
    assert 1.04 < min(ratios) <= max(ratios) < 1.08
    rows = [table_row(step, config.steps_per_row) for step in range(57)]
    assert (rows[0], rows[-1]) == (0, 14)
    anchors = config.steps[:: config.steps_per_row]
    for step, row in zip(config.steps, rows, strict=True):  # the row's own step is the nearest
        assert abs(math.log(step / anchors[row])) <= 1.2 * min(
            abs(math.log(step / anchor)) for anchor in anchors
        )
