"""A training of SQ-GAN on painted pictures that takes a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from sqlink.training.config import load_train_config
from sqlink.training.trainer import Trainer


def _painted(folder: Path) -> dict[str, str]:
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


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The recipe of `settings`."""
    return {
        "crop": [32, 48],
        "batch_size": 2,
        "warmup_steps": 2,
        "adversarial_start": 0.3,
        "losses": {"perceptual": 0.0},
    }


@pytest.fixture
def settings(recipe: dict[str, Any], tiny_is_known: None) -> Callable[..., Path]:
    """A function of a folder and of changed keys to the file of a training of six steps."""

    def written(folder: Path, **changes: object) -> Path:
        values: dict[str, object] = {
            "model": "tiny",
            "output": str(folder / "run"),
            "sources": [{"name": "folder", "options": _painted(folder)}],
            "recipe": recipe,
            "stages": {"joint": {"max_steps": 6}},
            "device": "cpu",
        }
        path = folder / "train.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    return written


@pytest.fixture
def trainer() -> Callable[[Path], Trainer]:
    """A function of a file of settings to the run at its first step."""
    return lambda path: Trainer(load_train_config(path), lambda line: None)


@pytest.fixture
def stopped_and_resumed(trainer: Callable[[Path], Trainer]) -> Callable[[Path, int], Trainer]:
    """A function of a file and of steps to a run stopped after them, and as many steps on."""

    def resumed(path: Path, steps: int) -> Trainer:
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

    return resumed
