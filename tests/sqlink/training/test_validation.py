"""Validation: held-out pictures through the codec without loss."""

from __future__ import annotations

import pytest
import torch

from sqlink.data.classes import NO_LABEL
from sqlink.model.config import ModelConfig
from sqlink.model.sqgan import SQGAN
from sqlink.training.augmentation import ResidentPictures
from sqlink.training.validation import validate


def test_figures_are_those_of_the_pictures_that_come_back(tiny: ModelConfig) -> None:
    torch.manual_seed(2)
    draw = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (5, 3, 48, 64), generator=draw, dtype=torch.uint8)
    maps = torch.randint(0, 11, (5, 48, 64), generator=draw, dtype=torch.uint8)
    maps[:, :4] = NO_LABEL
    passed = validate(SQGAN(tiny).eval(), ResidentPictures(images, maps, maps), limit=3)
    assert torch.equal(passed.images, images[[0, 2, 4]].float() / 255)
    figures = passed.figures()
    by_picture = [
        -10 * torch.log10(((a - b) ** 2).mean())
        for a, b in zip(passed.rebuilt, passed.images, strict=True)
    ]
    assert figures["val_psnr_db"] == pytest.approx(float(sum(by_picture)) / 3, abs=1e-4)
    same = passed.maps[:, 4:] == passed.sent[:, 4:]  # unlabelled pixels do not count
    assert figures["val_map_accuracy"] == pytest.approx(float(same.float().mean()))
