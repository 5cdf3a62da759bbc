"""Metrics of pictures against independent implementations, on 50 random and 20 real pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from sqlink.metrics.dists import DISTS
from sqlink.metrics.lpips import LPIPS, load_lpips
from sqlink.metrics.psnr import psnr
from sqlink.metrics.ssim import ssim
from sqlink.metrics.ws_psnr import ws_psnr

Array = npt.NDArray[np.float64]
Pairs = Callable[[int, int], tuple[Tensor, Tensor]]
Trunks = Callable[[str], nn.Sequential]


def _each(function: Callable[[Array, Array], float], ours: Tensor, theirs: Tensor) -> list[float]:
    both = zip(ours.double().numpy(), theirs.double().numpy(), strict=True)
    return [function(a, b) for a, b in both]


def _psnr(a: Array, b: Array) -> float:
    return -10 * math.log10(float(np.square(a - b).sum()) / a.size)


def _ws_psnr(a: Array, b: Array) -> float:
    total = weights = 0.0
    height = a.shape[1]
    for row in range(height):
        weight = math.cos((row + 0.5 - height / 2) * math.pi / height)
        total += weight * float(np.square(a[:, row] - b[:, row]).sum())
        weights += weight * a[:, row].size
    return -10 * math.log10(total / weights)


def _ssim(a: Array, b: Array) -> float:
    """Channel by channel, places where the 11x11 window lies inside alone."""

    def blur(x: Array) -> Array:
        return np.asarray(gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5])

    found = []
    for x, y in zip(a, b, strict=True):
        mean_x, mean_y = blur(x), blur(y)
        spread_x, spread_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
        both = blur(x * y) - mean_x * mean_y
        one = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
        other = (2 * both + 9e-4) / (spread_x + spread_y + 9e-4)
        found.append(float((one * other).mean()))
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("ours", "theirs", "size", "tolerance"),
    [
        (psnr, _psnr, (48, 64), 1e-5),
        (ws_psnr, _ws_psnr, (48, 96), 1e-9),
        (ssim, _ssim, (48, 64), 1e-6),
    ],
)
def test_pixel_metrics(
    pairs: Pairs,
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Array, Array], float],
    size: tuple[int, int],
    tolerance: float,
) -> None:
    images, reference = pairs(*size)
    found = ours(images, reference).tolist()
    assert found == pytest.approx(_each(theirs, images, reference), abs=tolerance)
    assert max(found) - min(found) > 0.1


@pytest.fixture
def torchmetrics_net(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, nn.Sequential], nn.Module]:
    """torchmetrics' LPIPS over convolutions that we give it in torchvision's place."""
    from torchmetrics.functional.image import lpips

    def build(net: str, features: nn.Sequential) -> nn.Module:
        monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: features)
        return lpips._NoTrainLpips(net=net)

    return build


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_of_other_networks(
    pairs: Pairs,
    random_trunk: Trunks,
    torchmetrics_net: Callable[[str, nn.Sequential], nn.Module],
    net: str,
) -> None:
    features = random_trunk(net)
    theirs = torchmetrics_net(net, features)
    heads = [getattr(theirs, f"lin{i}").model[1].weight for i in range(5)]
    ours = LPIPS(features, heads, net)
    images, reference = pairs(32, 40)
    with torch.no_grad():
        expected = theirs(images, reference, normalize=True).flatten()
        torch.testing.assert_close(ours(images, reference), expected, atol=1e-6, rtol=1e-4)


def test_lpips_with_its_published_weights(
    pairs: Pairs, shared: Path, torchmetrics_net: Callable[[str, nn.Sequential], nn.Module]
) -> None:
    ours = load_lpips(shared / "weights")
    theirs = torchmetrics_net("squeeze", ours.features)
    images, reference = pairs(64, 80)
    with torch.no_grad():
        expected = theirs(images, reference, normalize=True).flatten()
        torch.testing.assert_close(ours(images, reference), expected, atol=1e-6, rtol=1e-4)


def test_dists(pairs: Pairs, random_trunk: Trunks, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image import dists

    features = random_trunk("vgg")

    class Vgg:
        def __init__(self, **_: object) -> None:
            self.features = features

    monkeypatch.setattr(dists, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(dists, "vgg16", Vgg, raising=False)
    monkeypatch.setattr(
        dists, "VGG16_Weights", type("Weights", (), {"DEFAULT": None}), raising=False
    )
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda path: load(path, map_location="cpu"))
    theirs = dists.DISTSNetwork()
    monkeypatch.setattr(torch, "load", load)
    ours = DISTS(features, theirs.alpha, theirs.beta)
    images, reference = pairs(32, 40)
    expected = theirs(images, reference).double()
    torch.testing.assert_close(ours(images, reference), expected, atol=2e-5, rtol=0)
    assert float((expected.max() - expected.min()).detach()) > 0.01
