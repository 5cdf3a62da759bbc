"""LPIPS: known answers, gradients, and refusal of anything but the published weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sqlink.errors import DataError, WeightsError
from sqlink.metrics import load_metric
from sqlink.metrics.lpips import FOLDER_VARIABLE, LPIPS, Lpips, load_lpips
from sqlink.metrics.trunks import TRUNKS

FEATURES_FILE = TRUNKS["squeeze"].files[0]
HEADS_FILE = "lpips-v0.1-squeeze-heads.safetensors"


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    folder = shared / "weights"
    if not (folder / FEATURES_FILE).is_file():
        pytest.skip(f"{FEATURES_FILE} is not among the development data")
    return folder


@pytest.fixture(scope="module")
def lpips(weights: Path) -> LPIPS:
    return load_lpips(weights)


def _noise(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, 3, 100, 100, generator=generator)


def test_known_answer_of_torchmetrics_per_picture(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(42)
    ours, theirs = _noise(2, generator), _noise(2, generator)
    assert lpips(ours, theirs).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_known_answer_of_torchmetrics_mean(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(42)
    ours, theirs = _noise(10, generator), _noise(10, generator)
    assert lpips(ours, theirs).mean().item() == pytest.approx(0.1005, abs=5e-5)


def test_equal_pictures_score_zero_and_order_does_not_matter(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = _noise(2, generator), _noise(2, generator)
    assert lpips(a, a).tolist() == [0.0, 0.0]
    assert torch.equal(lpips(a, b), lpips(b, a))


def test_stronger_noise_scores_worse(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(2)
    clean = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    noise = torch.randn(1, 3, 64, 64, generator=generator)
    scores = [lpips((clean + s * noise).clamp(0, 1), clean).item() for s in (0.01, 0.05, 0.2)]
    assert scores == sorted(scores)
    assert scores[0] > 0


def test_a_picture_scores_alike_in_any_batch(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = _noise(3, generator), _noise(3, generator)
    alone = torch.cat([lpips(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(lpips(a, b), alone, atol=1e-6, rtol=0)


def test_a_weight_counts_places_as_a_loss_wants(lpips: LPIPS) -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(8))
    other = images.flip(3)
    taps = lpips.taps(images), lpips.taps(other)
    plain = lpips.between(*taps)
    ones = torch.ones(2, 64, 64)
    torch.testing.assert_close(lpips.between(*taps, ones), plain)
    left = ones.clone()
    left[..., 32:] = 0
    right = 1 - left
    both = lpips.between(*taps, left) + lpips.between(*taps, right)
    torch.testing.assert_close(both, plain)
    assert bool((lpips.between(*taps, left) < plain).all())


def test_gradient_is_that_of_finite_differences(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(1, 3, 32, 40, generator=generator).requires_grad_()
    reference = torch.rand(1, 3, 32, 40, generator=generator)
    (gradient,) = torch.autograd.grad(lpips(images, reference).sum(), images)
    direction = gradient / gradient.norm()
    step = 0.02
    with torch.no_grad():
        ahead, behind = (lpips(images + s * step * direction, reference).item() for s in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(gradient.norm().item(), rel=0.02)
    assert not any(p.requires_grad for p in lpips.parameters())


def test_bfloat16_only_when_asked_for(lpips: LPIPS) -> None:
    generator = torch.Generator().manual_seed(5)
    a, b = _noise(2, generator), _noise(2, generator)
    exact = lpips(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lpips(a, b), exact)
    rough = lpips(a.requires_grad_(), b, autocast=True)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.003, rtol=0.03)
    rough.sum().backward()
    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("size", [(17, 17), (17, 300), (45, 60)])
def test_smallest_and_odd_sizes(lpips: LPIPS, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(6)
    a, b = torch.rand(2, 1, 3, *size, generator=generator)
    assert lpips(a, b).item() > 0


def test_wrong_shapes_are_refused(lpips: LPIPS) -> None:
    with pytest.raises(DataError, match="17 pixels a side"):
        lpips(torch.zeros(1, 3, 16, 64), torch.zeros(1, 3, 16, 64))
    with pytest.raises(DataError, match="one shape"):
        lpips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 33))


def test_folder_from_the_environment(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(weights))
    assert isinstance(load_lpips(), LPIPS)


@pytest.mark.parametrize(
    ("net", "file"),
    [
        ("squeeze", FEATURES_FILE),
        ("alex", "alexnet-owt-7be5be79.pth"),
        ("vgg", "vgg16-397923af.pth"),
    ],
)
def test_without_weights_one_line_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: str, file: str
) -> None:
    for name in ("SQLINK_METRICS", "SQLINK_LPIPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=f"{file}.*folder that SQLINK_METRICS names") as found:
        load_lpips(net=net)
    assert "\n" not in str(found.value)
    with pytest.raises(WeightsError, match="not found in"):
        load_lpips(tmp_path, net)


def test_the_heads_of_torchmetrics_are_those_of_the_file(weights: Path, tmp_path: Path) -> None:
    (tmp_path / FEATURES_FILE).symlink_to(weights / FEATURES_FILE)
    ours, theirs = load_lpips(tmp_path), load_lpips(weights)
    for a, b in zip(ours.heads, theirs.heads, strict=True):
        assert torch.equal(a, b)


def test_damaged_or_foreign_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    features, heads = tmp_path / FEATURES_FILE, tmp_path / HEADS_FILE
    features.write_bytes((weights / FEATURES_FILE).read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_lpips(tmp_path)
    features.write_bytes((weights / HEADS_FILE).read_bytes())
    with pytest.raises(WeightsError, match="other tensors"):
        load_lpips(tmp_path)
    features.write_bytes((weights / FEATURES_FILE).read_bytes())
    tensors = load_file(weights / HEADS_FILE)
    tensors["lin3.model.1.weight"][0, 0] += 0.001
    save_file(tensors, heads)
    with pytest.raises(WeightsError, match="not the published ones"):
        load_lpips(tmp_path)


def test_a_file_that_is_not_the_one_its_name_says_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "vgg16-397923af.pth")
    with pytest.raises(WeightsError, match="is not the published file: its SHA-256 begins with"):
        load_lpips(tmp_path, "vgg")


def test_as_a_column_of_results(weights: Path, lpips: LPIPS) -> None:
    metric = load_metric("lpips", folder=weights)
    generator = torch.Generator().manual_seed(7)
    a, b = torch.rand(2, 10, 3, 40, 48, generator=generator)
    scores = metric(a, b)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores.float(), lpips(a, b), atol=1e-6, rtol=0)
    assert not metric.higher_is_better
    assert metric.unavailable(17, 17) is None
    assert metric.unavailable(16, 64) is not None


def test_a_references_features_are_computed_once(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Lpips(weights)
    pictures: list[int] = []
    taps = LPIPS.taps

    def counted(network: LPIPS, images: torch.Tensor, autocast: bool = False) -> list[torch.Tensor]:
        pictures.append(len(images))
        return taps(network, images, autocast)

    monkeypatch.setattr(LPIPS, "taps", counted)
    a, b = torch.rand(2, 3, 3, 40, 48, generator=torch.Generator().manual_seed(8))
    first = metric(a, b)
    assert sum(pictures) == 6
    pictures.clear()
    assert torch.equal(metric(a.flip(0), b.flip(0)), first.flip(0))
    assert torch.equal(metric(a, b[:1].expand(3, -1, -1, -1))[0], first[0])
    assert sum(pictures) == 6  # the pictures received alone
    monkeypatch.setattr("sqlink.metrics.lpips._KEPT_BYTES", 0)
    torch.testing.assert_close(metric(a, b), first, atol=1e-7, rtol=0)
    pictures.clear()
    metric(a, b)
    assert sum(pictures) == 6  # nothing was kept
