"""The discriminator of patches: what it sees, and how soon it sees what a person would."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.model.discriminator import BLOCK, PatchDiscriminator
from sqlink.training.losses import hinge_discriminator


def natural(count: int, generator: torch.Generator) -> Tensor:
    """Pictures whose power falls with the square of the frequency, float32 [count, 3, 48, 64]."""
    rows = torch.fft.fftfreq(48).view(-1, 1)
    columns = torch.fft.rfftfreq(64).view(1, -1)
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / 64)
    noise = torch.fft.rfft2(torch.randn(count, 3, 48, 64, generator=generator))
    made = torch.fft.irfft2(noise / frequency, s=(48, 64))
    return (0.5 + 0.15 * made / made.std()).clamp(0, 1)


def seeded(**sizes: int) -> PatchDiscriminator:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return PatchDiscriminator(**sizes)


def test_one_verdict_for_eight_pixels_a_side_and_the_features_of_each_layer() -> None:
    critic = seeded(num_classes=4, width=8)
    segmentation = torch.randint(0, 5, (2, 32, 64), generator=torch.Generator().manual_seed(1))
    verdicts, features = critic(torch.rand(2, 3, 32, 64), segmentation)
    assert verdicts.shape == (2, 1, 4, 8)
    assert [tuple(f.shape[1:]) for f in features] == [(8, 16, 32), (16, 8, 16), (24, 4, 8)]


def test_the_cosine_transform_is_orthonormal_in_every_plane() -> None:
    bands = seeded(num_classes=2).bands.double()
    luma, blue = bands[: BLOCK**2, 1] / 0.587, bands[2 * BLOCK**2 :, 2] / (1 - 0.114)
    for plane in (luma, blue):
        rows = plane.reshape(BLOCK**2, -1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(BLOCK**2).double())
    assert bands[BLOCK**2 :].sum(1).abs().max() < 1e-6  # grey has no colour


def test_whitened_every_band_of_real_pictures_weighs_alike_but_not_mere_rounding() -> None:
    draw = torch.Generator().manual_seed(2)
    critic = seeded(num_classes=2)
    pictures = natural(6, draw)
    critic.whiten_by(pictures)
    inside = F.conv2d(pictures - 0.5, critic.bands, stride=2)  # no padding: no edges
    assert (inside.square().mean((0, 2, 3)).sqrt() - 1).abs().max() < 0.3
    first = critic.bands.clone()
    critic.whiten_by(pictures)
    assert torch.equal(critic.bands, first)
    critic.whiten_by(torch.full((1, 3, 48, 64), 0.5))
    assert float(critic.bands.abs().max()) <= 255


def right_after(steps: int, pattern: str, whitened: bool) -> float:
    """Share of right verdicts on new pictures, half of which carry a faint pattern."""
    draw = torch.Generator().manual_seed(3)
    critic = seeded(num_classes=2, width=16)
    if whitened:
        critic.whiten_by(natural(8, draw))
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    wave = x % 4 if pattern == "comb" else (x + y) % 6
    faint = 0.02 * (2.0 * (wave < wave.max() / 2) - 1)
    optimizer = torch.optim.Adam(critic.parameters(), lr=2e-3, betas=(0.5, 0.99))
    segmentation = torch.zeros(8, 48, 64, dtype=torch.int64)
    for _ in range(steps):
        pictures = torch.cat((natural(4, draw), natural(4, draw) + faint)).clamp(0, 1)
        loss = hinge_discriminator(*critic(pictures, segmentation)[0].chunk(2))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        pictures = torch.cat((natural(4, draw), natural(4, draw) + faint)).clamp(0, 1)
        real, fake = critic(pictures, segmentation)[0].chunk(2)
    return float(torch.cat((real > 0, fake < 0)).float().mean())


@pytest.mark.parametrize("pattern", ["comb", "hatching"])
def test_it_sees_faint_patterns_within_a_few_steps_and_not_unwhitened(pattern: str) -> None:
    assert right_after(10, pattern, whitened=True) > 0.85
    assert right_after(10, pattern, whitened=False) < 0.7


def test_it_is_told_the_classes() -> None:
    critic = seeded(num_classes=4, width=8).eval()
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    sky, road = (torch.full((1, 16, 16), label) for label in (0, 3))
    assert not torch.allclose(critic(pictures, sky)[0], critic(pictures, road)[0])
