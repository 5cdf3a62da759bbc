"""SQ-GAN's networks: shapes, masking, quantisation, and what the demasker may look at."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sqlink.errors import ConfigError
from sqlink.model.config import PAPER, STREETS, ModelConfig, model_config
from sqlink.model.demasker import AttentionDemasker
from sqlink.model.discriminator import blend_towards_real
from sqlink.model.quantizer import VectorQuantizer
from sqlink.model.residual import SelfAttention, Upsample
from sqlink.model.samm import keep_most_relevant
from sqlink.model.spade import SpadeNorm, one_hot_map, unshuffled_map
from sqlink.model.sqgan import SQGAN


@pytest.fixture(scope="module")
def network(tiny: ModelConfig) -> SQGAN:
    torch.manual_seed(0)
    return SQGAN(tiny).eval()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 33), (64, 48), (90, 121)])
def test_any_size_comes_back_at_its_size(
    network: SQGAN, height: int, width: int, tiny: ModelConfig
) -> None:
    images = torch.rand(2, 3, height, width)
    segmentation = torch.randint(0, 11, (2, height, width))
    found = network.analyse(images, segmentation)
    assert found.image_indices.shape == (2, *network.grid(height, width))
    assert found.map_indices.max() < tiny.map_codes
    assert ((found.image_scores > 0) & (found.image_scores < 1)).all()
    rebuilt, maps = network.synthesise(found.image_indices, found.map_indices, height, width)
    assert rebuilt.shape == images.shape
    assert maps.shape == segmentation.shape
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    assert maps.max() < 11


def test_the_papers_layers_run_through_the_same_code(tiny_paper: ModelConfig) -> None:
    torch.manual_seed(0)
    network = SQGAN(tiny_paper).eval()
    found = network.analyse(torch.rand(1, 3, 32, 64), torch.randint(0, 19, (1, 32, 64)))
    assert found.image_indices.shape == (1, 2, 4)
    images, maps = network.synthesise(found.image_indices, found.map_indices, 32, 64)
    assert images.shape == (1, 3, 32, 64)
    assert maps.shape == (1, 32, 64)


def test_the_papers_grid_and_codebooks_are_the_papers() -> None:
    assert PAPER.grid(256, 512) == (16, 32)
    assert (PAPER.image_codes, PAPER.map_codes, PAPER.code_dim) == (1024, 1024, 256)
    assert PAPER.downsampling == STREETS.downsampling == 16


def test_nothing_received_still_gives_a_picture(network: SQGAN) -> None:
    nothing = torch.full((1, 2, 2), -1)
    images, _ = network.synthesise(nothing, nothing, 32, 32)
    assert torch.isfinite(images).all()


def test_masked_indices_do_not_reach_the_picture(network: SQGAN) -> None:
    """What stands behind a mask is invisible: only places that came count."""
    indices = torch.randint(0, 16, (1, 4, 4))
    masked = indices.clone()
    masked[0, 1:3] = -1
    other = network.image_quantizer.lookup(masked).clone()
    received = masked >= 0
    first = network.image_demasker(other, received)
    other[~received] = 7.0
    assert torch.equal(first, network.image_demasker(other, received))


def test_any_other_id_is_the_null_class() -> None:
    labels = one_hot_map(torch.tensor([[[0, 10, 11, 255, -1]]]), 11)
    assert labels.sum(1).eq(1).all()
    assert labels[0, 11, 0].tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_an_unshuffled_map_is_the_one_hot_map_unshuffled(factor: int) -> None:
    ids = torch.randint(-1, 13, (2, 16, 24), generator=torch.Generator().manual_seed(3))
    expected = torch.nn.functional.pixel_unshuffle(one_hot_map(ids, 11), factor)
    assert torch.equal(unshuffled_map(ids, 11, factor), expected)


def test_keep_most_relevant_keeps_the_highest_and_the_right_number() -> None:
    scores = torch.rand(3, 5, 7)
    fraction = torch.tensor([0.0, 0.4, 1.0])
    kept = keep_most_relevant(scores, fraction)
    assert kept.flatten(1).sum(1).tolist() == [0, 14, 35]
    assert scores[1][kept[1]].min() > scores[1][~kept[1]].max()


def test_ties_go_to_the_earlier_place() -> None:
    kept = keep_most_relevant(torch.ones(1, 2, 3), torch.tensor([0.5]))
    assert kept.flatten().tolist() == [True, True, True, False, False, False]


def test_quantiser_finds_the_nearest_code_and_passes_the_gradient() -> None:
    quantizer = VectorQuantizer(16, 4).eval()
    vectors = torch.randn(2, 3, 3, 4, requires_grad=True)
    kept = torch.rand(2, 3, 3) > 0.3
    codes, indices, commitment = quantizer(vectors, kept)
    brute = torch.cdist(vectors.detach().reshape(-1, 4), quantizer.codebook).argmin(1)
    assert torch.equal(indices.flatten(), brute)
    assert torch.allclose(codes, quantizer.lookup(indices), atol=1e-6)
    codes.sum().backward()
    assert vectors.grad is not None
    assert torch.equal(vectors.grad, torch.ones_like(vectors))
    error = (vectors.detach() - quantizer.lookup(indices)).square()[kept].mean()
    assert torch.allclose(commitment, error, atol=1e-6)


def test_codebook_settles_on_the_data() -> None:
    """EMA updates of well-parted clusters end on the clusters' means."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    quantizer = VectorQuantizer(4, 2, decay=0.9).train()
    kept = torch.ones(1, 8, 8, dtype=torch.bool)
    for _ in range(200):
        which = torch.randint(0, 4, (64,), generator=generator)
        noise = 0.1 * torch.randn(64, 2, generator=generator)
        quantizer((centres[which] + noise).reshape(1, 8, 8, 2), kept)
    distance = torch.cdist(centres, quantizer.codebook).min(1).values
    assert distance.max() < 0.2


def test_spade_without_map_features_is_a_plain_group_norm() -> None:
    norm = SpadeNorm(8, 4, 3, hidden=0)
    x = torch.randn(2, 8, 5, 5)
    assert torch.allclose(
        torch.nn.functional.group_norm(x, 4, eps=1e-6)
        * (1 + norm.modulation.bias[:8].view(8, 1, 1))
        + norm.modulation.bias[8:].view(8, 1, 1),
        norm(x, torch.zeros(2, 3, 5, 5)),
        atol=1e-5,
    )


def test_places_of_no_weight_give_nothing_to_the_others() -> None:
    """The attention over a mask equals the attention over the unmasked places alone."""
    torch.manual_seed(1)
    attention = SelfAttention(8, 4)
    attention.norm = torch.nn.Identity()  # a group norm would couple places by its statistics
    torch.nn.init.normal_(attention.project_out.weight)
    x = torch.randn(1, 8, 2, 2)
    weights = torch.tensor([[1.0, 1.0, 1e-9, 1e-9]])
    with torch.inference_mode():
        masked = attention(x, weights)[..., 0, :]
        alone = attention(x[..., :1, :])[..., 0, :]
    assert torch.allclose(masked, alone, atol=1e-5)


def test_the_demaskers_mask_weight_rises_to_one_by_square_roots() -> None:
    seen: list[float] = []
    demasker = AttentionDemasker(4, 8, 3, 4, start=0.0001)
    for layer in demasker.attentions:
        layer.register_forward_hook(lambda _m, inputs, _o: seen.append(float(inputs[1].min())))
    demasker(torch.zeros(1, 2, 2, 4), torch.tensor([[[True, False], [True, True]]]))
    assert seen == pytest.approx([0.0001, 0.01, 0.1])


def test_blend_moves_only_the_chosen_classes_and_never_past_its_share() -> None:
    fake, real = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    segmentation = torch.tensor([[[0, 3], [5, 255]]])
    out = blend_towards_real(fake, real, segmentation, [0, 5], 0.5)
    assert out[0, 0].tolist() == [[0.5, 0.0], [0.5, 0.0]]


def test_a_convolution_may_come_before_the_doubling_or_after() -> None:
    x = torch.rand(1, 3, 4, 5)
    for smooth, mode in ((True, "bilinear"), (False, "nearest")):
        first = Upsample(3, 2, smooth, conv_first=True)
        after = Upsample(3, 2, smooth)
        after.load_state_dict(first.state_dict())
        conv = first.conv
        torch.testing.assert_close(first(x), F.interpolate(conv(x), scale_factor=2.0, mode=mode))
        torch.testing.assert_close(after(x), conv(F.interpolate(x, scale_factor=2.0, mode=mode)))


def test_configuration_survives_json_and_names_the_nearest() -> None:
    assert ModelConfig.from_json(STREETS.to_json()) == STREETS
    with pytest.raises(ConfigError, match="did you mean 'streets'"):
        model_config("street")
    with pytest.raises(ConfigError, match="cannot be read"):
        ModelConfig.from_json('{"name": "x"}')
