"""Training of the segmenters: crops that keep picture and map together, losses, resuming."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sqlink.data import open_dataset
from sqlink.data.classes import NO_LABEL, NUM_CLASSES, PALETTE
from sqlink.errors import ConfigError, WeightsError
from sqlink.training import segmenters
from sqlink.training.segmenters import (
    Frames,
    NetworkPlan,
    Run,
    Sampler,
    class_weights,
    confusion_of,
    lovasz_softmax,
    read_frames,
    read_plan,
)

CONFIG = Path(segmenters.__file__).parent / "configs" / "segmenters.yaml"


@pytest.fixture(autouse=True)
def _camvid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQLINK_CAMVID", "camvid")


def small_plan(**changes: object) -> NetworkPlan:
    plan = read_plan(CONFIG).networks["tx"]
    still = {"colour": 0.0, "blur": 0.0, "noise": 0.0, "shrink": 0.0}
    return NetworkPlan.model_validate(
        {**plan.model_dump(), "batch": 4, "crop": (64, 64), **still, **changes}
    )


@pytest.fixture(scope="module")
def painted() -> Frames:
    """Maps of large blocks, and pictures that paint every class in its colour; some unlabelled."""
    draws = torch.Generator().manual_seed(8)
    coarse = torch.randint(0, NUM_CLASSES + 1, (5, 6, 8), generator=draws)
    maps = coarse.repeat_interleave(20, 1).repeat_interleave(20, 2)
    colours = torch.tensor([*PALETTE, (0, 0, 0)], dtype=torch.uint8)
    labels = torch.where(maps == NUM_CLASSES, NO_LABEL, maps).to(torch.uint8)
    return Frames(colours[maps].permute(0, 3, 1, 2).contiguous(), labels)


def test_crops_keep_picture_and_map_together(painted: Frames) -> None:
    sampler = Sampler(painted, None, 0.0, small_plan(turn_degrees=8.0))
    images, labels = sampler.draw(3)
    assert images.shape == (4, 3, 64, 64)
    assert labels.shape == (4, 32, 32)
    colours = torch.tensor(PALETTE).float() / 255
    seen = F.interpolate(images, (32, 32), mode="area").permute(0, 2, 3, 1)
    distance = (seen[:, :, :, None] - colours).abs().sum(-1)
    labelled = labels != NO_LABEL
    assert labelled.float().mean() > 0.3
    assert (distance.argmin(-1) == labels)[labelled].float().mean() > 0.9


def test_a_batch_depends_on_seed_and_step_alone(painted: Frames) -> None:
    noisy = small_plan(noise=1.0, colour=0.5, blur=0.5, shrink=0.5)
    one, two = Sampler(painted, None, 0.0, noisy), Sampler(painted, None, 0.0, noisy)
    one.draw(0)
    assert torch.equal(one.draw(7)[0], two.draw(7)[0])
    assert not torch.equal(one.draw(7)[0], one.draw(8)[0])


def test_rendered_frames_make_their_share_of_the_crops(painted: Frames) -> None:
    white = Frames(torch.full_like(painted.images, 255), torch.full_like(painted.labels, 3))
    black = Frames(torch.zeros_like(painted.images), torch.full_like(painted.labels, 4))
    sampler = Sampler(black, white, 0.25, small_plan(batch=64, crop=(16, 16)))
    share = sum(float(sampler.draw(step)[0].mean()) for step in range(6)) / 6
    assert 0.15 < share < 0.35


def test_every_crop_can_be_centred_on_a_rare_class() -> None:
    labels = torch.zeros(6, 120, 160, dtype=torch.uint8)
    labels[2, 10:20, 130:150] = 9
    frames = Frames(torch.zeros(6, 3, 120, 160, dtype=torch.uint8), labels)
    sampler = Sampler(frames, None, 0.0, small_plan(focus=1.0, batch=64, scale=(1.0, 1.01)))
    with_it = (sampler.draw(0)[1] == 9).flatten(1).any(1).float().mean()
    # Of 11 classes drawn two exist: in one of eleven draws it is the rare one.
    assert 0.02 < with_it < 0.3


def test_lovasz_softmax_is_the_jaccard_loss_where_predictions_are_certain() -> None:
    for assignment in itertools.product(range(2), repeat=5):
        truth = torch.tensor([0, 0, 1, 1, 1])
        found = torch.tensor(assignment)
        logits = 200.0 * F.one_hot(found, 2).float()
        jaccard = []
        for c in (0, 1):
            both = ((truth == c) & (found == c)).sum()
            either = ((truth == c) | (found == c)).sum()
            jaccard.append(1 - both / either)
        expected = torch.stack(jaccard).mean()
        torch.testing.assert_close(lovasz_softmax(logits, truth), expected)


def test_rare_classes_weigh_more() -> None:
    labels = torch.zeros(2, 40, 50, dtype=torch.uint8)
    labels[0, :4] = 1
    labels[1, 0, :2] = 2
    labels[1, 30:] = NO_LABEL
    weights = class_weights(labels)
    assert weights[0] < weights[1] < weights[2]
    # Class 1: 200 of the 2000 pixels of the one picture that shows it; the median class.
    assert float(weights[1]) == pytest.approx(1.0)


def test_a_run_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    frames = read_frames(open_dataset("streets", seed=5, count=2, height=64, width=96))
    plan = small_plan(rate=0.003)
    sampler, weights = Sampler(frames, None, 0.0, plan), class_weights(frames.labels)
    run = Run("tx", plan)
    losses = [run.advance(*sampler.draw(step), weights, 600.0) for step in range(16)]
    assert sum(losses[-4:]) < 0.93 * sum(losses[:4])
    matrices = confusion_of(run.average, frames)
    labelled = (frames.labels != NO_LABEL).flatten(1).sum(1)
    assert torch.equal(matrices.sum((1, 2)), labelled)

    run.save(tmp_path / "tx.safetensors")
    again = Run("tx", plan)
    again.resume(tmp_path / "tx.safetensors")
    assert again.step == 16
    batch = sampler.draw(16)
    assert again.advance(*batch, weights, 600.0) == run.advance(*batch, weights, 600.0)
    with pytest.raises(WeightsError, match="is not of this network"):
        Run("judge", plan).resume(tmp_path / "tx.safetensors")


def test_the_two_networks_differ_in_seed_and_augmentation() -> None:
    plan = read_plan(CONFIG)
    tx, judge = plan.networks["tx"].model_dump(), plan.networks["judge"].model_dump()
    for key in ("seed", "crop", "scale", "colour", "blur_pixels", "noise_level", "shrink"):
        assert tx[key] != judge[key], key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kind: segmenters\nstreet: 3\n", "unknown key 'street': did you mean 'streets'"),
        ("kind: other\n", "kind: should be 'segmenters'"),
        ("networks: [", "line 1"),
        ("- 1\n", "mapping"),
    ],
)
def test_a_wrong_configuration_gets_one_line(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(change)
    with pytest.raises(ConfigError, match=message) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="no such file"):
        read_plan(tmp_path / "missing.yaml")
