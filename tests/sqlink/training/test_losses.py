"""Losses weigh classes, leave out what has no label, and are finite on crops without relevance."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sqlink.model.discriminator import FeatureDiscriminator
from sqlink.training.losses import (
    feature_matching,
    hinge_discriminator,
    image_loss,
    map_loss,
    spectrum_loss,
    unit_power,
)

WEIGHTS = torch.tensor([1.0, 0.5, 0.0])
LABELS = torch.tensor([[[0, 1, 2, 255]]])


def test_the_maps_loss_is_pytorchs_weighted_mean() -> None:
    logits = torch.randn(1, 3, 1, 4, generator=torch.Generator().manual_seed(2))
    expected = F.cross_entropy(logits, LABELS, WEIGHTS, ignore_index=255)
    assert float(map_loss(logits, LABELS, WEIGHTS)) == pytest.approx(float(expected))


def test_the_pictures_loss_weighs_by_class() -> None:
    fake, real = torch.zeros(1, 3, 1, 4), torch.tensor([0.2, 0.4, 0.9, 0.9]).expand(1, 3, 1, 4)
    assert float(image_loss(fake, real, LABELS, WEIGHTS)) == pytest.approx((0.2 + 0.5 * 0.4) / 1.5)


@pytest.mark.parametrize("label", [2, 255])
def test_a_crop_where_nothing_matters_costs_nothing(label: int) -> None:
    labels = torch.full((1, 2, 2), label)
    logits = torch.zeros(1, 3, 2, 2, requires_grad=True)
    picture = torch.zeros(1, 3, 2, 2, requires_grad=True)
    losses = (
        map_loss(logits, labels, WEIGHTS),
        image_loss(picture, torch.ones(1, 3, 2, 2), labels, WEIGHTS),
    )
    for loss, leaf in zip(losses, (logits, picture), strict=True):
        loss.backward()  # type: ignore[no-untyped-call]
        assert loss.item() == 0
        assert leaf.grad is not None
        assert not leaf.grad.any()


def test_the_hinge_rests_where_verdicts_are_sure() -> None:
    assert float(hinge_discriminator(torch.tensor([1.5]), torch.tensor([-2.0]))) == 0
    assert float(hinge_discriminator(torch.tensor([0.0]), torch.tensor([0.0]))) == 2


def test_features_are_matched_against_the_real_ones_alone() -> None:
    fake = [torch.ones(2, 3, requires_grad=True)]
    real = [torch.zeros(2, 3, requires_grad=True)]
    loss = feature_matching(fake, real)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 1
    assert fake[0].grad is not None
    assert real[0].grad is None


def test_unit_power_measures_by_the_reference() -> None:
    reference = torch.tensor([3.0, -4.0]).view(1, 2, 1, 1)
    assert float(unit_power(reference, reference).square().mean()) == pytest.approx(1.0)
    assert torch.equal(unit_power(2 * reference, reference), 2 * unit_power(reference, reference))


def test_a_discriminator_of_features_learns_to_tell_textures_of_equal_power() -> None:
    draw = torch.Generator().manual_seed(4)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        critic = FeatureDiscriminator([4, 6], width=16)
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.99))

    def maps(smooth: bool) -> list[torch.Tensor]:
        made = [torch.randn(8, c, 12, 12, generator=draw) for c in (4, 6)]
        return [F.avg_pool2d(x, 3, 1, 1) * 3 for x in made] if smooth else made

    for _ in range(60):
        verdicts = zip(critic(maps(True)), critic(maps(False)), strict=True)
        loss = torch.stack([hinge_discriminator(real, fake) for real, fake in verdicts]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for real, fake in zip(critic(maps(True)), critic(maps(False)), strict=True):
        assert real.shape == (8, 1, 12, 12)
        assert bool(real.mean() > fake.mean() + 0.3)


def test_spectrum_loss_takes_a_texture_for_another_of_its_kind_but_not_hatching() -> None:
    draw = torch.Generator().manual_seed(6)

    def twigs() -> torch.Tensor:
        made = F.avg_pool2d(torch.randn(1, 1, 98, 130, generator=draw), 3, 1)
        return (0.5 + 0.1 * made / made.std()).expand(-1, 3, -1, -1)

    y, x = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    hatching = 0.5 + 0.1 * 2**0.5 * torch.sin((x + y) * 2 * torch.pi / 7).expand(1, 3, -1, -1)
    reference = twigs()
    assert float(spectrum_loss(reference, reference)) == 0
    of_its_kind = float(spectrum_loss(twigs(), reference))
    assert of_its_kind < 0.6
    assert float(spectrum_loss(hatching, reference)) > 3 * of_its_kind
    turned = spectrum_loss(hatching.mT, reference.mT)  # no direction counts more than another
    assert float(turned) == pytest.approx(float(spectrum_loss(hatching, reference)), rel=1e-4)
    mirrored = hatching.flip(3)  # strokes of the other direction
    assert float(spectrum_loss(mirrored, hatching)) > 1.0


def test_spectrum_loss_has_a_gradient_on_flat_pictures_and_none_for_what_no_one_sees() -> None:
    flat = torch.full((1, 3, 48, 64), 0.5, requires_grad=True)
    draw = torch.Generator().manual_seed(7)
    faint = 0.5 + torch.randn(1, 3, 48, 64, generator=draw) / 2550
    assert float(spectrum_loss(faint, flat.detach())) < 0.01
    loss = spectrum_loss(flat, torch.rand(1, 3, 48, 64, generator=draw))
    loss.backward()  # type: ignore[no-untyped-call]
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())
