"""The training pass through both halves of the codec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sqlink.training.data import draw_transmission
from sqlink.training.trainer import Trainer


def test_two_realisations_of_a_crop_differ_by_their_noise_alone(
    tmp_path: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    recipe: dict[str, Any],
) -> None:
    recipe = recipe | {"realisations": 2, "batch_size": 2}
    run = trainer(settings(tmp_path, recipe=recipe))
    draw = torch.Generator().manual_seed(1)
    images, _, inputs = run.data.batch(run.stage, draw)
    transmission = draw_transmission(run.stage, run.model_config, False, draw)
    assert isinstance(transmission.noise, torch.Tensor)
    with torch.no_grad():
        still = run.link(images, inputs, transmission, "joint", False).images
        for noise in run.network.image_decoder.noises:
            noise.scale.fill_(0.1)
        lively = run.link(images, inputs, transmission, "joint", False).images
        transmission.noise = transmission.noise[[1, 0, 3, 2]]
        swapped = run.link(images, inputs, transmission, "joint", False).images
    assert still.shape[0] == 4
    torch.testing.assert_close(still[0::2], still[1::2])
    assert (lively[0::2] - lively[1::2]).abs().mean() > 1e-4
    torch.testing.assert_close(swapped, lively[[1, 0, 3, 2]])
    run.advance()
