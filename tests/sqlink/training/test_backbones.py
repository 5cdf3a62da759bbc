"""Conversion of pretrained trunks: names, hostile files, and what a trunk then computes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.errors import WeightsError
from sqlink.segmentation.efficientnet import EfficientNetLite
from sqlink.training.backbones import load_backbone, main

VARIANT = "efficientnet-lite0"
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A state of random values under the names that the published files use."""
    draws = torch.Generator().manual_seed(4)
    own = EfficientNetLite(VARIANT).state_dict()
    state: dict[str, Tensor] = {"_fc.weight": torch.zeros(10, 1280)}

    def layer(ours: str, conv: str, norm: str) -> None:
        shape = own[f"{ours}.conv.weight"].shape
        fan = shape[1:].numel()
        state[f"{conv}.weight"] = torch.randn(shape, generator=draws) / fan**0.5
        for field in NORM:
            value = torch.rand(shape[0], generator=draws) + 0.5
            state[f"{norm}.{field}"] = torch.tensor(7) if "tracked" in field else value

    layer("stem", "_conv_stem", "_bn0")
    for n in range(16):
        if n:
            layer(f"blocks.{n}.expand", f"_blocks.{n}._expand_conv", f"_blocks.{n}._bn0")
        layer(f"blocks.{n}.spread", f"_blocks.{n}._depthwise_conv", f"_blocks.{n}._bn1")
        layer(f"blocks.{n}.project", f"_blocks.{n}._project_conv", f"_blocks.{n}._bn2")
    return state


def normalised(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.batch_norm(x, mean, var, weight, bias, eps=1e-3)


def test_a_converted_trunk_computes_what_the_published_layers_do(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    source, target = tmp_path / "lite0.pth", tmp_path / "made" / "lite0.safetensors"
    torch.save(published, source)
    assert main([str(source), VARIANT, str(target)]) == 0
    trunk = EfficientNetLite(VARIANT, blocks=2)
    load_backbone(trunk, target, VARIANT)
    images = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(5))

    x = F.pad((images * 255 - 127) / 128, (0, 1, 0, 1))
    x = normalised(F.conv2d(x, published["_conv_stem.weight"], stride=2), published, "_bn0")
    x = x.clamp(0, 6)
    kernel = published["_blocks.0._depthwise_conv.weight"]
    x = normalised(F.conv2d(x, kernel, padding=1, groups=32), published, "_blocks.0._bn1")
    x = F.conv2d(x.clamp(0, 6), published["_blocks.0._project_conv.weight"])
    first = normalised(x, published, "_blocks.0._bn2")
    x = F.conv2d(first, published["_blocks.1._expand_conv.weight"])
    x = F.pad(normalised(x, published, "_blocks.1._bn0").clamp(0, 6), (0, 1, 0, 1))
    kernel = published["_blocks.1._depthwise_conv.weight"]
    x = normalised(F.conv2d(x, kernel, stride=2, groups=96), published, "_blocks.1._bn1")
    x = F.conv2d(x.clamp(0, 6), published["_blocks.1._project_conv.weight"])
    second = normalised(x, published, "_blocks.1._bn2")

    found = trunk(images)
    torch.testing.assert_close(found[0], first, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], second, rtol=1e-4, atol=1e-4)


def test_a_file_that_is_not_the_weights_is_refused_in_one_line(
    published: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "some.pth", tmp_path / "out.safetensors"

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "harmed"),)

    cases = {
        b"": "cannot be read as weights",
        b"not weights at all": "cannot be read as weights",
        pickle.dumps(Harm()): "cannot be read as weights",
    }
    for content, message in cases.items():
        source.write_bytes(content)
        assert main([str(source), VARIANT, str(target)]) == 2
        line = capsys.readouterr().err.strip()
        assert message in line
        assert "\n" not in line
    torch.save(published, source)
    assert main([str(source), "efficientnet-lite2", str(target)]) == 2
    assert "is missing or not of efficientnet-lite2" in capsys.readouterr().err
    assert main([str(source), "efficientnet-lite7", str(target)]) == 2
    assert "unknown backbone 'efficientnet-lite7'" in capsys.readouterr().err
    torch.save([torch.zeros(1)], source)
    assert main([str(source), VARIANT, str(target)]) == 2
    assert "holds no table of tensors" in capsys.readouterr().err
    assert not target.exists()
    assert not (tmp_path / "harmed").exists()


def test_a_trunk_takes_no_weights_of_another(published: dict[str, Tensor], tmp_path: Path) -> None:
    source, target = tmp_path / "lite0.pth", tmp_path / "lite0.safetensors"
    torch.save(published, source)
    main([str(source), VARIANT, str(target)])
    with pytest.raises(WeightsError, match="holds 'efficientnet-lite0', not"):
        load_backbone(EfficientNetLite("efficientnet-lite2"), target, "efficientnet-lite2")
    with pytest.raises(WeightsError, match="no backbone weights"):
        load_backbone(EfficientNetLite(VARIANT), tmp_path / "none.safetensors", VARIANT)
