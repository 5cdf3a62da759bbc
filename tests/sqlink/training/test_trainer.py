"""Training of SQ-GAN: resumable to the step, every mistake in one line, and it does learn."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sqlink.codecs import load_codec
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.errors import ConfigError, SQLinkError, WeightsError
from sqlink.model import config as model_sizes
from sqlink.model.config import ModelConfig
from sqlink.training import train_from_config
from sqlink.training.checkpoint import load_checkpoint, save_checkpoint
from sqlink.training.reconstruction import IMAGE_BRANCH, MAP_BRANCH
from sqlink.training.trainer import Trainer
from sqlink.weights.manifest import load


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    stopped_and_resumed: Callable[[Path, int], Trainer],
) -> None:
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


def test_training_lowers_the_losses(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    stage = {"max_steps": 100, "learning_rate": 2e-3, "map_fraction": [0.5, 1.0], "paste": 0.0}
    losses = {"perceptual": 0.0, "features": 0.2, "semantic": 0.1}
    stage |= {"losing": {"pictures": 0.0}, "losses": losses}
    run = trainer(settings(tmp_path, stages={"joint": stage}))
    steps = [run.advance() for _ in range(80)]
    for name in ("l1", "map", "features"):
        values = [step[name] for step in steps]
        assert sum(values[-20:]) < 0.92 * sum(values[:20]), name


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"losses": {"perceptual": 0.0, "energy": 0.1}}, "set realisations to 2"),
    ],
)
def test_realisations_that_cannot_be_are_refused(
    tmp_path: Path,
    wrong: dict[str, object],
    says: str,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    recipe: dict[str, Any],
) -> None:
    with pytest.raises(ConfigError, match=says):
        trainer(settings(tmp_path, recipe=recipe | wrong))


def test_a_model_without_noise_has_one_realisation(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    recipe: dict[str, Any],
    tiny: ModelConfig,
) -> None:
    silent = dataclasses.replace(model_sizes.CONFIGS["tiny"], noise=False)
    monkeypatch.setitem(model_sizes.CONFIGS, "tiny", silent)
    with pytest.raises(ConfigError, match="draws no noise"):
        trainer(settings(tmp_path, recipe=recipe | {"realisations": 2}))


def test_mixed_precision_takes_steps_against_both_discriminators(
    tmp_path: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    recipe: dict[str, Any],
) -> None:
    recipe = recipe | {"adversarial_start": 0.0, "losses": {"perceptual": 0.0, "projected": 0.1}}
    run = trainer(settings(tmp_path, recipe=recipe, precision="bf16-mixed"))
    before = run.network.image_decoder.conv_out.weight.detach().clone()
    terms = [run.advance() for _ in range(3)]
    assert terms[-1].keys() >= {"projected", "adversarial", "feature_matching", "l1"}
    assert not torch.equal(before, run.network.image_decoder.conv_out.weight)


def test_stages_train_their_own_parts_and_resume_where_they_were(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
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


def test_a_frozen_map_branch_stays_as_it_is(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    run = trainer(settings(tmp_path, stages={"joint": {"max_steps": 2, "freeze_map": True}}))
    before = {k: v.clone() for k, v in run.network.state_dict().items()}
    run.advance()
    after = run.network.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith("map_"))
    assert not torch.equal(
        after["image_decoder.conv_out.weight"], before["image_decoder.conv_out.weight"]
    )


@pytest.mark.parametrize(
    "part", ["samm-map", "relevance", "spade", "semantic-discriminator", "losing"]
)
def test_every_ablation_trains_and_gives_weights_that_decode(
    tmp_path: Path, part: str, settings: Callable[..., Path]
) -> None:
    path = settings(tmp_path, stages={"joint": {"max_steps": 2}}, without=[part])
    weights = train_from_config(path, lambda line: None)
    codec = load_codec("sqgan", weights=str(weights))
    picture = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    stream = codec.encode(picture, Rate(quality=0.5), torch.zeros(1, 40, 56, dtype=torch.long))[0]
    assert isinstance(stream, Stream)
    assert codec.decode([Received.whole(stream)]).images.shape == picture.shape


def test_without_the_map_the_score_is_the_same_whatever_the_map(
    tmp_path: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    tiny: ModelConfig,
) -> None:
    run = trainer(settings(tmp_path, without=["spade"]))
    net = run.average
    codes = torch.zeros(1, 2, 3, tiny.code_dim)
    received = torch.ones(1, 2, 3, dtype=torch.bool)
    size = (2 * tiny.downsampling, 3 * tiny.downsampling)
    pictures = [net.decode_image(codes, received, torch.full((1, *size), n)) for n in (0, 8)]
    assert torch.equal(*pictures)


def test_ctrl_c_ends_the_step_saves_and_goes_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
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


def test_a_run_can_start_from_weights(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
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


def test_judge_may_not_be_trained_against(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
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
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(settings(tmp_path, **changes))


def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    run = trainer(settings(tmp_path))
    run.network.image_decoder.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(
        SQLinkError, match=r"step 0, stage joint: .*l1.* is not finite; there was no checkpoint"
    ):
        run.advance()


def test_a_checkpoint_of_another_model_is_refused(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    path = settings(tmp_path)
    run = trainer(path)
    run.save()
    state, facts = load_checkpoint(run.checkpoint_path)
    save_checkpoint(run.checkpoint_path, state, **(facts | {"model": "{}"}))
    with pytest.raises(ConfigError, match="another model"):
        run.resume()


def test_a_damaged_checkpoint_is_refused(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    run = trainer(settings(tmp_path))
    run.save()
    run.checkpoint_path.write_bytes(run.checkpoint_path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be read") as caught:
        run.resume()
    assert "\n" not in str(caught.value)
