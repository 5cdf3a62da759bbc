"""Crops: picture and map stay together, and windows meet every phase of the token grid."""

from __future__ import annotations

import torch

from sqlink.training.augmentation import (
    CropSettings,
    ResidentPictures,
    draw_crops,
    draw_window,
    step_generator,
)


def test_windows_of_losses_meet_every_phase_of_the_grid() -> None:
    draw = torch.Generator().manual_seed(1)
    windows = [draw_window((64, 96), draw) for _ in range(400)]
    assert (
        {w[2].start % 16 for w in windows} == {w[3].start % 16 for w in windows} == set(range(16))
    )
    assert all(w[2].stop <= 64 and w[3].stop <= 96 for w in windows)
    assert {w[2].stop - w[2].start for w in windows} == {48}
    assert draw_window((32, 48), draw, halved=True)[3].stop <= 48


def test_crops_keep_picture_and_map_together() -> None:
    """The picture is painted by its map, so a crop of one must be a crop of the other."""
    maps = (torch.arange(64)[:, None] // 16 * 3 + torch.arange(96)[None] // 32).to(torch.uint8)
    images = (maps * 20).expand(3, -1, -1).clone()
    pictures = ResidentPictures(images[None], maps[None], maps[None])
    plain = CropSettings((32, 48), brightness=0, contrast=0)
    drawn, labels, inputs = draw_crops(
        pictures,
        torch.zeros(4, dtype=torch.long),
        plain,
        step_generator(1, 2, 0, torch.device("cpu")),
    )
    assert torch.equal(labels, inputs)
    agree = ((drawn[:, 0] * 255 / 20).round() == labels).float().mean()
    assert agree > 0.9
    assert len(labels.unique()) > 4
