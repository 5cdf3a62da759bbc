"""Training: resumable to the step, every mistake in one line, and it does learn."""

from __future__ import annotations

import csv
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
from sqlink.training.augmentation import CropSettings, ResidentPictures, draw_crops, step_generator
from sqlink.training.checkpoint import load_checkpoint, save_checkpoint
from sqlink.training.config import load_train_config
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


def settings(folder: Path, **changes: object) -> Path:
    values: dict[str, object] = {
        "model": "tiny",
        "output": str(folder / "run"),
        "sources": [{"name": "folder", "options": painted(folder)}],
        "crop": [32, 48],
        "batch_size": 2,
        "max_steps": 6,
        "warmup_steps": 2,
        "adversarial_start": 0.3,
        "losses": {"lpips": 0.0},
        "device": "cpu",
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def trainer(path: Path) -> Trainer:
    return Trainer(load_train_config(path), lambda line: None)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = trainer(settings(tmp_path / "a"))
    for _ in range(6):
        whole.advance()
    path = settings(tmp_path / "b")
    first = trainer(path)
    for _ in range(3):
        first.advance()
    first.save()
    second = trainer(path)
    assert second.resume()
    assert second.step == 3
    for _ in range(3):
        second.advance()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    for name, value in whole.average.state_dict().items():
        assert torch.equal(value, second.average.state_dict()[name]), name


def test_training_lowers_the_losses(tmp_path: Path) -> None:
    run = trainer(settings(tmp_path, max_steps=100, learning_rate=2e-3))
    steps = [run.advance() for _ in range(80)]
    for name in ("l1", "map"):
        values = [step[name] for step in steps]
        assert sum(values[-8:]) < 0.85 * sum(values[:8]), name


def test_a_run_leaves_weights_that_load_and_a_log(tmp_path: Path) -> None:
    weights = train_from_config(settings(tmp_path, max_steps=3), lambda line: None)
    codec = load_codec("sqgan", weights=str(weights))
    picture = torch.rand(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(1, 40, 56, dtype=torch.long)
    stream = codec.encode(picture, Rate(quality=1.0), labels)[0]
    assert isinstance(stream, Stream)
    assert codec.decode([Received.whole(stream)]).images.shape == picture.shape
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["step"]) == 3
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_run_can_start_from_weights(tmp_path: Path) -> None:
    weights = train_from_config(settings(tmp_path, max_steps=2), lambda line: None)
    run = trainer(settings(tmp_path, start=str(weights), output=str(tmp_path / "next")))
    stored = load(str(weights), "sqgan").tensors
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, stored[name]), name
    with pytest.raises(WeightsError, match="another model"):
        trainer(settings(tmp_path, start=str(weights), model="streets"))


def test_judge_may_not_be_trained_against(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="judge"):
        trainer(settings(tmp_path, segmenter="judge"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": [40, 64]}, "multiples of"),
        ({"crop": [64]}, r"crop: needs more values than \[64\]$"),
        ({"crop": [64, 96, 128]}, r"crop: takes 2 values at most, got \[64, 96, 128\]$"),
        ({"crop": 64}, "crop: should be a list of values, got 64$"),
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


def test_no_shipped_training_configuration_names_the_judge() -> None:
    folder = Path(model_sizes.__file__).parent.parent / "training" / "configs"
    for path in folder.glob("*.yaml"):
        values = yaml.safe_load(path.read_text())
        assert values.get("segmenter") != "judge", path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bath_size": 3}, "unknown key 'bath_size': did you mean 'batch_size'"),
        ({"losses": {"lipps": 1}}, "losses: unknown key 'lipps': did you mean 'lpips'"),
        ({"batch_size": 0}, "batch_size"),
        ({"sources": []}, "sources"),
        ({"max_steps": None}, "max_steps, max_minutes"),
        ({"learning_rate": "fast"}, "learning_rate"),
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
    with pytest.raises(SQLinkError, match="step 0: a loss is not finite"):
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
