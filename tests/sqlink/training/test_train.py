"""Training: resumable to the step, every mistake in one line, and it does learn."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sqlink.codecs import load_codec
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.errors import ConfigError, SQLinkError, WeightsError
from sqlink.model import config as model_sizes
from sqlink.training.augmentation import (
    CropSettings,
    ResidentPictures,
    draw_crops,
    draw_window,
    step_generator,
)
from sqlink.training.checkpoint import load_checkpoint, save_checkpoint
from sqlink.training.config import load_train_config
from sqlink.training.reconstruction import IMAGE_BRANCH, MAP_BRANCH
from sqlink.training.train import Trainer, train_from_config
from sqlink.weights.manifest import load
from tests.sqlink.model.test_sqgan import TINY


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model_sizes.CONFIGS, "tiny", TINY)


def painted(folder: Path) -> dict[str, str]:
    """Three small pictures whose colours follow their maps."""
    draw = np.random.Generator(np.random.Philox(key=5))
    for part in ("pictures", "maps"):
        (folder / part).mkdir(exist_ok=True)
    for name in "abc":
        labels = np.kron(draw.integers(0, 11, (2, 3)), np.ones((32, 32))).astype(np.uint8)
        colours = (labels[..., None] * np.array([20, 9, 5]) + 10).astype(np.uint8)
        Image.fromarray(colours).save(folder / "pictures" / f"{name}.png")
        Image.fromarray(labels).save(folder / "maps" / f"{name}.png")
    return {"root": str(folder / "pictures"), "maps": str(folder / "maps")}


RECIPE: dict[str, object] = {
    "crop": [32, 48],
    "batch_size": 2,
    "warmup_steps": 2,
    "adversarial_start": 0.3,
    "losses": {"perceptual": 0.0},
}


def settings(folder: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "model": "tiny",
        "output": str(folder / "run"),
        "sources": [{"name": "folder", "options": painted(folder)}],
        "recipe": RECIPE,
        "stages": {"joint": {"max_steps": 6}},
        "device": "cpu",
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def trainer(path: Path) -> Trainer:
    return Trainer(load_train_config(path), lambda line: None)


def stopped_and_resumed(path: Path, steps: int) -> Trainer:
    """A run that was stopped after so many steps, and as many steps on."""
    first = trainer(path)
    for _ in range(steps):
        first.advance()
    first.save()
    second = trainer(path)
    assert second.resume()
    assert second.step == steps
    for _ in range(steps):
        second.advance()
    return second


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = trainer(settings(tmp_path / "a"))
    for _ in range(6):
        whole.advance()
    second = stopped_and_resumed(settings(tmp_path / "b"), 3)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name


def test_training_lowers_the_losses(tmp_path: Path) -> None:
    stage = {"max_steps": 100, "learning_rate": 2e-3, "map_fraction": [0.5, 1.0], "paste": 0.0}
    losses = {"perceptual": 0.0, "features": 0.2, "semantic": 0.1}
    stage |= {"losing": {"pictures": 0.0}, "losses": losses}
    run = trainer(settings(tmp_path, stages={"joint": stage}))
    steps = [run.advance() for _ in range(80)]
    for name in ("l1", "map", "features"):
        values = [step[name] for step in steps]
        assert sum(values[-20:]) < 0.92 * sum(values[:20]), name


def test_a_discriminator_of_features_learns_resumes_and_may_join_later(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    recipe = RECIPE | {"adversarial_start": 0.0, "losses": {"perceptual": 0.0, "projected": 0.1}}
    whole = trainer(settings(tmp_path / "a", recipe=recipe))
    assert whole.feature_critic is not None
    untrained = {k: v.clone() for k, v in whole.feature_critic.state_dict().items()}
    terms = [whole.advance() for _ in range(4)]
    assert all("projected" in each for each in terms)
    trained = whole.feature_critic.state_dict()
    assert all(not torch.equal(v, trained[k]) for k, v in untrained.items() if "original" in k)

    second = stopped_and_resumed(settings(tmp_path / "b", recipe=recipe), 2)
    second.save()
    assert second.feature_critic is not None
    for name, value in second.feature_critic.state_dict().items():
        assert torch.equal(value, trained[name]), name
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name

    plain = trainer(settings(tmp_path / "b"))
    assert plain.resume()  # a run that leaves it, and one that takes it up again
    plain.advance()
    plain.save()
    again = trainer(settings(tmp_path / "b", recipe=recipe))
    assert again.resume()
    assert "projected" in again.advance()


def test_losses_may_ask_for_spectra_and_leave_blended_classes_their_places(tmp_path: Path) -> None:
    losses = {"perceptual": 0.0, "features": 1.0, "spectrum": 0.3, "adversarial": 0.0}
    losses |= {"feature_matching": 0.0}
    terms = []
    for share in (1.0, 0.0):
        recipe = RECIPE | {"losses": losses | {"blended_weight": share}}
        terms.append(trainer(settings(tmp_path, recipe=recipe)).advance())
    assert terms[0]["spectrum"] == terms[1]["spectrum"] > 0
    assert terms[1]["features"] < terms[0]["features"]


def test_two_realisations_of_a_crop_differ_by_their_noise_alone(tmp_path: Path) -> None:
    recipe = RECIPE | {"realisations": 2, "batch_size": 2}
    run = trainer(settings(tmp_path, recipe=recipe))
    draw = torch.Generator().manual_seed(1)
    images, _, inputs = run.batch(draw)
    way = run.on_the_way(draw)
    assert isinstance(way.noise, torch.Tensor)
    with torch.no_grad():
        still = run.link(images, inputs, way, "joint", False).images
        for noise in run.network.image_decoder.noises:
            noise.scale.fill_(0.1)
        lively = run.link(images, inputs, way, "joint", False).images
        way.noise = way.noise[[1, 0, 3, 2]]
        swapped = run.link(images, inputs, way, "joint", False).images
    assert still.shape[0] == 4
    torch.testing.assert_close(still[0::2], still[1::2])
    assert (lively[0::2] - lively[1::2]).abs().mean() > 1e-4
    torch.testing.assert_close(swapped, lively[[1, 0, 3, 2]])
    run.advance()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"losses": {"perceptual": 0.0, "energy": 0.1}}, "set realisations to 2"),
    ],
)
def test_realisations_that_cannot_be_are_refused(
    tmp_path: Path, wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        trainer(settings(tmp_path, recipe=RECIPE | wrong))


def test_a_model_without_noise_has_one_realisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = dataclasses.replace(model_sizes.CONFIGS["tiny"], noise=False)
    monkeypatch.setitem(model_sizes.CONFIGS, "tiny", silent)
    with pytest.raises(ConfigError, match="draws no noise"):
        trainer(settings(tmp_path, recipe=RECIPE | {"realisations": 2}))


def test_an_earlier_versions_discriminator_is_refused_in_one_line(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path))
    run.output.mkdir(parents=True, exist_ok=True)
    run.save()
    state, facts = load_checkpoint(run.checkpoint_path)
    state["critic"] = {"layers.0.bias": torch.zeros(4)}
    save_checkpoint(run.checkpoint_path, state, **facts)
    with pytest.raises(ConfigError, match="discriminator is of an earlier version"):
        trainer(settings(tmp_path)).resume()


def test_with_lpips_two_realisations_are_scored_and_blended_classes_count_less(
    tmp_path: Path, shared: Path
) -> None:
    losses = {"perceptual": 1.0, "energy": 1.0, "adversarial": 0.0, "feature_matching": 0.0}
    found: dict[str, dict[str, float]] = {}
    for name, more in (
        ("one", {"losses": losses | {"energy": 0.0}}),
        ("two", {"losses": losses, "realisations": 2}),
        ("blended", {"losses": losses | {"blended_weight": 0.0}, "realisations": 2}),
    ):
        run = trainer(
            settings(tmp_path, recipe=RECIPE | more, lpips_weights=str(shared / "weights"))
        )
        with torch.no_grad():
            for noise in run.network.image_decoder.noises:
                noise.scale.fill_(0.2)
        found[name] = run.advance()
    assert found["two"]["perceptual"] < found["one"]["perceptual"]
    assert found["two"]["energy"] > 0
    assert found["blended"]["perceptual"] < found["two"]["perceptual"]
    assert found["blended"]["energy"] < found["two"]["energy"]


def test_mixed_precision_takes_steps_against_both_discriminators(tmp_path: Path) -> None:
    recipe = RECIPE | {"adversarial_start": 0.0, "losses": {"perceptual": 0.0, "projected": 0.1}}
    run = trainer(settings(tmp_path, recipe=recipe, precision="bf16-mixed"))
    before = run.network.image_decoder.conv_out.weight.detach().clone()
    terms = [run.advance() for _ in range(3)]
    assert terms[-1].keys() >= {"projected", "adversarial", "feature_matching", "l1"}
    assert not torch.equal(before, run.network.image_decoder.conv_out.weight)


def test_stages_train_their_own_parts_and_resume_where_they_were(tmp_path: Path) -> None:
    stages = {name: {"max_steps": 2} for name in ("map", "image", "joint")}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    run = trainer(settings(tmp_path / "a", stages=stages))
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    run.advance()
    run.advance()
    after_map = {k: v.clone() for k, v in run.network.state_dict().items()}
    changed = {k.split(".")[0] for k, v in after_map.items() if not torch.equal(v, before[k])}
    assert changed == set(MAP_BRANCH)
    run.begin("image")
    run.advance()
    after_image = run.network.state_dict()
    changed = {k.split(".")[0] for k, v in after_image.items() if not torch.equal(v, after_map[k])}
    assert changed == set(IMAGE_BRANCH)
    train_from_config(settings(tmp_path / "a", stages=stages), lambda line: None)
    path = settings(tmp_path / "b", stages=stages)
    part = trainer(path)
    part.advance()
    part.advance()
    part.begin("image")
    part.advance()
    part.save()
    lines: list[str] = []
    train_from_config(path, lines.append)
    assert "going on from step 3, stage image" in lines[0]
    whole, resumed = (
        load_checkpoint(tmp_path / n / "run" / "checkpoint.safetensors") for n in "ab"
    )
    assert whole[1]["stage"] == resumed[1]["stage"] == "joint"
    for name, value in whole[0]["network"].items():
        assert torch.equal(value, resumed[0]["network"][name]), name


def test_a_frozen_map_branch_stays_as_it_is(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path, stages={"joint": {"max_steps": 2, "freeze_map": True}}))
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    run.advance()
    after = run.network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith("map_"))
    assert not torch.equal(
        after["image_decoder.conv_out.weight"], before["image_decoder.conv_out.weight"]
    )


def test_a_stage_adds_to_the_recipe_what_it_says_itself(tmp_path: Path) -> None:
    stages = {"map": {"max_steps": 1}, "image": {"max_minutes": 2.0, "losses": {"l1": 3.0}}}
    plan = load_train_config(settings(tmp_path, stages=stages)).plan()
    assert list(plan) == ["map", "image"]
    assert plan["map"].crop == plan["image"].crop == (32, 48)
    assert (plan["map"].losses.l1, plan["image"].losses.l1) == (1.5, 3.0)
    assert plan["image"].losses.perceptual == 0.0


@pytest.mark.parametrize(
    "part", ["samm-map", "relevance", "spade", "semantic-discriminator", "losing"]
)
def test_every_ablation_trains_and_gives_weights_that_decode(tmp_path: Path, part: str) -> None:
    path = settings(tmp_path, stages={"joint": {"max_steps": 2}}, without=[part])
    weights = train_from_config(path, lambda line: None)
    codec = load_codec("sqgan", weights=str(weights))
    picture = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    stream = codec.encode(picture, Rate(quality=0.5), torch.zeros(1, 40, 56, dtype=torch.long))[0]
    assert isinstance(stream, Stream)
    assert codec.decode([Received.whole(stream)]).images.shape == picture.shape


def test_without_the_map_the_score_is_the_same_whatever_the_map(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path, without=["spade"]))
    net = run.average
    codes = torch.zeros(1, 2, 3, TINY.code_dim)
    received = torch.ones(1, 2, 3, dtype=torch.bool)
    size = (2 * TINY.downsampling, 3 * TINY.downsampling)
    pictures = [net.decode_image(codes, received, torch.full((1, *size), n)) for n in (0, 8)]
    assert torch.equal(*pictures)


def test_without_lpips_files_the_loss_looks_through_tx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SQLINK_LPIPS", raising=False)
    lines: list[str] = []
    recipe = RECIPE | {"losses": {"perceptual": 1.0}}
    run = Trainer(load_train_config(settings(tmp_path, recipe=recipe)), lines.append)
    assert "looks through the segmenter `tx`" in lines[0]
    assert run.advance()["perceptual"] > 0
    assert load(str(run.export()), "sqgan").metadata["trained_on"] == ""


def test_ctrl_c_ends_the_step_saves_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings(tmp_path)
    run = trainer(path)
    advance = run.advance

    def interrupted() -> dict[str, float]:
        figures = advance()
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        return figures

    monkeypatch.setattr(run, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run()
    again = trainer(path)
    assert again.resume()
    assert again.step == 2


def test_a_run_leaves_weights_that_load_and_a_log(tmp_path: Path) -> None:
    weights = train_from_config(
        settings(tmp_path, stages={"joint": {"max_steps": 3}}), lambda line: None
    )
    codec = load_codec("sqgan", weights=str(weights))
    picture = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(1, 40, 56, dtype=torch.long)
    stream = codec.encode(picture, Rate(quality=1.0), labels)[0]
    assert isinstance(stream, Stream)
    assert codec.decode([Received.whole(stream)]).images.shape == picture.shape
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 3
    assert rows[-1]["stage"] == "joint"
    assert json.loads(load(str(weights), "sqgan").metadata["task"])["name"] == "driving"
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_run_can_start_from_weights(tmp_path: Path) -> None:
    weights = train_from_config(
        settings(tmp_path, stages={"joint": {"max_steps": 2}}), lambda line: None
    )
    run = trainer(settings(tmp_path, start=str(weights), output=str(tmp_path / "next")))
    stored = load(str(weights), "sqgan").tensors
    for name, value in run.network.weights().items():
        assert torch.equal(value, stored[name]), name
    for quantizer in (run.network.image_quantizer, run.network.map_quantizer):
        # What is not stored: averages of which the codebook is the mean, so that it stays.
        assert torch.equal(quantizer.sums / quantizer.counts.unsqueeze(1), quantizer.codebook)
        assert float(quantizer.counts.min()) > quantizer.restart_below
    with pytest.raises(WeightsError, match="another model"):
        trainer(settings(tmp_path, start=str(weights), model="streets"))


def test_judge_may_not_be_trained_against(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="judge"):
        trainer(settings(tmp_path, segmenter="judge"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"crop": [40, 64]}}, r"stages\.joint\.crop: .*multiples of"),
        ({"recipe": {"crop": [64]}}, r"crop: needs more values than \[64\]$"),
        (
            {"recipe": {"crop": [64, 96, 128]}},
            r"crop: takes 2 values at most, got \[64, 96, 128\]$",
        ),
        ({"recipe": {"crop": 64}}, "crop: should be a list of values, got 64$"),
        ({"stages": {}}, "name at least one of map, image, joint"),
        ({"stages": {"map": {"max_steps": 1, "freeze_map": True}}}, "joint alone"),
        ({"task": "drivin"}, "unknown task 'drivin': did you mean 'driving'"),
        ({"model": "paper", "recipe": {"losses": {"semantic": 1}}}, "knows CamVid's 11 classes"),
        (
            {"sources": [{"name": "streets", "options": {"seed": 1}, "share": 0}]},
            "every share is 0",
        ),
        ({"device": "cuda", "devices": 1000}, "CUDA devices"),
    ],
)
def test_what_the_networks_or_the_machine_cannot_do_is_one_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(settings(tmp_path, **changes))


@pytest.mark.parametrize("name", ["streets", "paper"])
def test_shipped_training_configurations_are_valid(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("SQLINK_CAMVID", "SQLINK_CITYSCAPES"):
        monkeypatch.setenv(variable, "/data")
    folder = Path(model_sizes.__file__).parent.parent / "training" / "configs"
    config = load_train_config(folder / f"{name}.yaml")
    assert config.model == name
    assert list(config.plan()) == {"streets": ["joint"], "paper": ["map", "image", "joint"]}[name]


def test_windows_of_losses_meet_every_phase_of_the_grid() -> None:
    draw = torch.Generator().manual_seed(1)
    windows = [draw_window((64, 96), draw) for _ in range(400)]
    assert (
        {w[2].start % 16 for w in windows} == {w[3].start % 16 for w in windows} == set(range(16))
    )
    assert all(w[2].stop <= 64 and w[3].stop <= 96 for w in windows)
    assert {w[2].stop - w[2].start for w in windows} == {48}
    assert draw_window((32, 48), draw, halved=True)[3].stop <= 48


def test_no_shipped_training_configuration_names_the_judge() -> None:
    folder = Path(model_sizes.__file__).parent.parent / "training" / "configs"
    for path in folder.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        assert values.get("segmenter") != "judge", path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"bath_size": 3}}, "unknown key 'bath_size': did you mean 'batch_size'"),
        (
            {"stages": {"map": {"losses": {"perceptul": 1}}}},
            "stages.map.losses: unknown key 'perceptul': did you mean 'perceptual'",
        ),
        ({"recipe": {"batch_size": 0}}, "recipe.batch_size"),
        ({"sources": []}, "sources"),
        ({"stages": {"joint": {}}}, "stages.joint: name a budget: max_steps, max_minutes"),
        ({"stages": {"joint": {"learning_rate": "fast"}}}, "learning_rate"),
        ({"without": ["spad"]}, "without"),
        ({"device": "gpuu"}, "device: should be 'auto', 'cpu' or 'cuda'"),
        ({"precision": "8"}, "precision"),
    ],
)
def test_mistakes_in_the_file_are_one_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_train_config(settings(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert "train.yaml" in str(caught.value)


def test_a_missing_data_set_is_one_line(tmp_path: Path) -> None:
    path = settings(
        tmp_path,
        sources=[{"name": "camvid", "options": {"root": str(tmp_path / "no"), "split": "fit"}}],
    )
    with pytest.raises(SQLinkError) as caught:
        trainer(path)
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path))
    run.network.image_decoder.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(
        SQLinkError, match=r"step 0, stage joint: .*l1.* is not finite; there was no checkpoint"
    ):
        run.advance()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    path = settings(tmp_path)
    run = trainer(path)
    run.save()
    state, facts = load_checkpoint(run.checkpoint_path)
    save_checkpoint(run.checkpoint_path, state, **(facts | {"model": "{}"}))
    with pytest.raises(ConfigError, match="another model"):
        run.resume()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path))
    run.save()
    run.checkpoint_path.write_bytes(run.checkpoint_path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        run.resume()
    assert "\n" not in str(caught.value)


def test_checkpoints_keep_every_kind_of_leaf(tmp_path: Path) -> None:
    state = {"a": {0: {"step": torch.tensor(3.0)}, 1: [1, 2.5, None, True]}, "b": "text"}
    save_checkpoint(tmp_path / "c.safetensors", state, step=7)
    again, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert facts == {"step": 7}
    assert again["a"][0]["step"] == 3.0
    assert again["a"][1] == [1, 2.5, None, True]
    assert again["b"] == "text"


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


@pytest.mark.parametrize("text", ["output: 2001-13-45", "output: 0x_", "[" * 5000])
def test_what_yaml_itself_stumbles_over_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"train\.yaml") as caught:
        load_train_config(path)
    assert "\n" not in str(caught.value)
