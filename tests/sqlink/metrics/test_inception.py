"""FID's Inception network, against torch-fidelity's where that is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sqlink.errors import WeightsError
from sqlink.metrics import SetMetric, load_metric
from sqlink.metrics.inception import FILES, Inception, InceptionFeatures, resized


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights under the published names, with the classifier that we leave out."""
    torch.manual_seed(3)
    state = Inception().state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bn.bias")):
            value.normal_(std=0.1)
        elif name.endswith("conv.weight"):
            value.normal_(std=(2 / value[0].numel()) ** 0.5)
    state["fc.weight"], state["fc.bias"] = torch.randn(1008, 2048), torch.randn(1008)
    path = tmp_path_factory.mktemp("inception") / "inception.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 60, 90, generator=torch.Generator().manual_seed(4))


def test_features_are_those_of_torch_fidelity(weights: Path, pictures: torch.Tensor) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    theirs = module.FeatureExtractorInceptionV3("inception", ["2048"], str(weights))
    levels = (pictures * 255).round().to(torch.uint8)
    found = InceptionFeatures(weights).vectors(pictures)
    assert found.shape == (2, 1, 2048)
    torch.testing.assert_close(found[:, 0], theirs(levels)[0], atol=1e-4, rtol=1e-4)


def test_a_picture_has_one_vector_whatever_the_batch(weights: Path, pictures: torch.Tensor) -> None:
    features = InceptionFeatures(weights)
    together = features.vectors(pictures)
    torch.testing.assert_close(features.vectors(pictures[1:]), together[1:], atol=1e-4, rtol=1e-4)
    assert float((together[0] - together[1]).abs().max()) > 0.01


def test_sizes_change_as_tensorflow_1_did_it() -> None:
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 4, 4)
    row = resized(ramp, 8)[0, 0, 0].tolist()
    assert row == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]  # place i is i · 4 / 8, the last repeated


def test_a_file_that_runs_code_or_is_another_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "inception.pth"
    torch.save({"weights": np.random.default_rng}, foreign)
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        InceptionFeatures(foreign)
    torch.save({"conv.weight": torch.zeros(1)}, foreign)
    with pytest.raises(WeightsError, match="other tensors than FID's Inception has"):
        InceptionFeatures(foreign)


@pytest.mark.parametrize("name", ["fid", "fid_patch", "kid", "kid_patch"])
def test_without_the_file_one_line_says_which(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLINK_METRICS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=f"{FILES[0]} or {FILES[1]} not found") as caught:
        load_metric(name)
    assert "\n" not in str(caught.value)


def test_an_fid_is_made_from_the_file_in_the_folder(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    from safetensors.torch import save_file

    path = tmp_path / "inception.safetensors"
    save_file(state, path)
    metric = load_metric("fid", weights=path)
    assert isinstance(metric, SetMetric)
    assert metric.extractor.name == "inception"
