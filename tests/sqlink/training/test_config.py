"""Files of settings of a training of SQ-GAN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sqlink.errors import ConfigError
from sqlink.model import config as model_sizes
from sqlink.training.config import load_train_config


def test_a_stage_adds_to_the_recipe_what_it_says_itself(
    tmp_path: Path, settings: Callable[..., Path]
) -> None:
    stages = {"map": {"max_steps": 1}, "image": {"max_minutes": 2.0, "losses": {"l1": 3.0}}}
    plan = load_train_config(settings(tmp_path, stages=stages)).plan()
    assert list(plan) == ["map", "image"]
    assert plan["map"].crop == plan["image"].crop == (32, 48)
    assert (plan["map"].losses.l1, plan["image"].losses.l1) == (1.5, 3.0)
    assert plan["image"].losses.perceptual == 0.0


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
    tmp_path: Path, changes: dict[str, object], message: str, settings: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_train_config(settings(tmp_path, **changes))
    assert "\n" not in str(caught.value)
    assert "train.yaml" in str(caught.value)


@pytest.mark.parametrize("text", ["output: 2001-13-45", "output: 0x_", "[" * 5000])
def test_what_yaml_itself_stumbles_over_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"train\.yaml") as caught:
        load_train_config(path)
    assert "\n" not in str(caught.value)
