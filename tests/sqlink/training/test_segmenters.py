"""Training of the segmenters: crops that keep picture and map together, losses, resuming."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sqlink.data import open_dataset
from sqlink.data.base import Sample
from sqlink.data.classes import IDD, NAMES, NO_LABEL, NUM_CLASSES, PALETTE
from sqlink.data.idd import CAMVID_SETS
from sqlink.errors import ConfigError, WeightsError
from sqlink.training import segmenters
from sqlink.training.segmenters import (
    NUM_SETS,
    Frames,
    NetworkPlan,
    Run,
    Sampler,
    class_weights,
    coarse_frames,
    confusion_of,
    loss_of,
    lovasz_softmax,
    read_frames,
    read_plan,
    set_weights,
)

CONFIG = Path(segmenters.__file__).parent / "configs" / "segmenters.yaml"


@pytest.fixture(autouse=True)
def _camvid(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAMVID", "IDD", "BACKBONES"):
        monkeypatch.setenv(f"SQLINK_{name}", name.lower())


def small_plan(**changes: object) -> NetworkPlan:
    plan = read_plan(CONFIG).networks["tx"]
    whole = {"backbone": None, "trunk_rate": 1.0, "frozen_blocks": 0}
    still = {"colour": 0.0, "blur": 0.0, "noise": 0.0, "shrink": 0.0}
    return NetworkPlan.model_validate(
        {**plan.model_dump(), "batch": 4, "crop": (64, 64), **whole, **still, **changes}
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
    sampler = Sampler([(painted, 1.0)], small_plan(turn_degrees=8.0))
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
    one, two = Sampler([(painted, 1.0)], noisy), Sampler([(painted, 1.0)], noisy)
    one.draw(0)
    assert torch.equal(one.draw(7)[0], two.draw(7)[0])
    assert not torch.equal(one.draw(7)[0], one.draw(8)[0])


def test_every_source_makes_its_share_of_the_crops(painted: Frames) -> None:
    shades = (0, 128, 255)
    black, grey, white = (
        Frames(torch.full_like(painted.images, shade), torch.full_like(painted.labels, 3))
        for shade in shades
    )
    plan = small_plan(batch=64, crop=(16, 16))
    sampler = Sampler([(black, 1.0), (grey, 0.25), (white, 0.15)], plan)
    drawn = torch.cat([sampler.draw(step)[0].mean((1, 2, 3)) for step in range(6)]) * 255
    shares = [((drawn - shade).abs() < 30).float().mean() for shade in shades]
    assert [float(share) for share in shares] == pytest.approx([0.6, 0.25, 0.15], abs=0.07)


def test_every_crop_can_be_centred_on_a_rare_class() -> None:
    labels = torch.zeros(6, 120, 160, dtype=torch.uint8)
    labels[2, 10:20, 130:150] = 9
    frames = Frames(torch.zeros(6, 3, 120, 160, dtype=torch.uint8), labels)
    sampler = Sampler([(frames, 1.0)], small_plan(focus=1.0, batch=64, scale=(1.0, 1.01)))
    with_it = (sampler.draw(0)[1] == 9).flatten(1).any(1).float().mean()
    # The two classes that occur are drawn alike, though one has a thousandth of the pixels.
    assert 0.3 < with_it < 0.7


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


def test_coarse_labels_ask_for_one_of_a_set() -> None:
    """Against the sum of probabilities, pixel by pixel."""
    draws = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, NUM_CLASSES, 4, 6, generator=draws)
    coarse = torch.randint(0, len(IDD), (1, 4, 6), generator=draws) + NUM_CLASSES
    fine = torch.randint(0, NUM_CLASSES, (1, 4, 6), generator=draws)
    labels = torch.cat([coarse, fine])
    labels[:, 0, :2] = NO_LABEL
    weights = torch.rand(NUM_SETS, generator=draws) + 0.5
    total, mass = 0.0, 0.0
    for n, row, column in itertools.product(range(2), range(4), range(6)):
        label = int(labels[n, row, column])
        if label == NO_LABEL:
            continue
        p = logits[n, :, row, column].softmax(0)
        if label >= NUM_CLASSES:
            members = CAMVID_SETS[IDD.names[label - NUM_CLASSES]]
            chance = sum(float(p[NAMES.index(member)]) for member in members)
        else:
            chance = float(p[label])
        total -= float(weights[label]) * math.log(chance)
        mass += float(weights[label])
    assert float(loss_of(logits, labels, weights, 0.0, 0)) == pytest.approx(total / mass, rel=1e-4)
    assert float(loss_of(logits, labels, weights, 1.0, 0)) > total / mass


def test_emphasis_lifts_the_weight_of_a_class(painted: Frames) -> None:
    raised = Frames(painted.images, (painted.labels % len(IDD)) + NUM_CLASSES)
    plain, lifted = (set_weights([painted, raised], e) for e in ({}, {"sign": 1.5}))
    assert plain.shape == (NUM_SETS,)
    assert float(lifted[6] / plain[6]) == pytest.approx(1.5)
    assert torch.equal(torch.cat([plain[:6], plain[7:]]), torch.cat([lifted[:6], lifted[7:]]))
    torch.testing.assert_close(plain[:NUM_CLASSES], class_weights(painted.labels))
    with pytest.raises(ConfigError, match="'sing' is not a class of camvid: did you mean 'sign'"):
        set_weights([painted], {"sing": 2.0})


def test_coarse_frames_are_scaled_with_their_maps() -> None:
    ids = torch.tensor([[0, 6], [2, NO_LABEL]]).repeat_interleave(20, 0).repeat_interleave(30, 1)
    image = torch.where(ids == 0, 1.0, 0.0).expand(3, -1, -1)
    frames = coarse_frames([Sample("one", image, ids, "one")], (60, 90))
    assert frames.labels[0, ::30, ::45].tolist() == [[11, 17], [13, NO_LABEL]]
    assert frames.images[0, 0, 10, 10] == 255
    assert frames.images[0, 0, 50, 80] == 0


def test_the_first_blocks_stay_as_they_are(painted: Frames) -> None:
    plan = small_plan(frozen_blocks=2, trunk_rate=0.5)
    run = Run("tx", plan)
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    sampler, weights = Sampler([(painted, 1.0)], plan), set_weights([painted], {})
    for step in range(2):
        run.advance(*sampler.draw(step), weights, 600.0)
    after = run.network.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert all(n in still for n in before if n.startswith(("trunk.stem", "trunk.blocks.1.")))
    assert "trunk.blocks.2.expand.conv.weight" not in still
    assert "trunk.blocks.9.project.norm.weight" not in still
    assert "trunk.blocks.9.project.norm.running_mean" in still
    rates = {group["share"]: group["lr"] for group in run.optimiser.param_groups}
    assert rates[0.5] == pytest.approx(0.5 * rates[1.0])


def test_a_run_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    frames = read_frames(open_dataset("streets", seed=5, count=2, height=64, width=96), "streets")
    plan = small_plan(rate=0.01)
    sampler, weights = Sampler([(frames, 1.0)], plan), set_weights([frames], {})
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
    for key in (
        "backbone",
        "seed",
        "crop",
        "scale",
        "colour",
        "blur_pixels",
        "noise_level",
        "shrink",
    ):
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
