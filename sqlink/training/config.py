"""The YAML of a training run, validated before anything is loaded.

Unknown keys are refused with the nearest known one; every mistake is one line that names the file
and the key.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from channels.registry import nearest
from sqlink.errors import ConfigError

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Base of every part of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """A data set with maps, its options, and its share of the crops."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    share: Weight = 1.0


class Losses(Section):
    """Weight of each loss; see `sqlink.training.losses`.

    lpips needs the LPIPS files (`lpips_weights`, or the environment variable SQLINK_LPIPS);
    semantic is the cross-entropy of the transmitter's segmenter on the rebuilt picture.
    """

    l1: Weight = 2.0
    lpips: Weight = 1.5
    map: Weight = 1.0
    commitment: Weight = 0.25
    adversarial: Weight = 0.05
    feature_matching: Weight = 0.5
    semantic: Weight = 0.0


class TrainConfig(Section):
    """One run. Times are minutes of training, sizes pixels; `crop` is (height, width)."""

    model: str = "streets"
    output: str
    seed: int = 1
    sources: Annotated[list[Source], Field(min_length=1)]
    validation: Source | None = None
    crop: tuple[int, int] = (128, 256)
    batch_size: Annotated[int, Field(gt=0)] = 4
    max_steps: Annotated[int, Field(gt=0)] | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    discriminator_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    weight_decay: Weight = 1e-4
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Share = 0.998
    image_fraction: tuple[Share, Share] = (0.1, 1.0)
    map_fraction: tuple[Share, Share] = (0.1, 1.0)
    token_loss: tuple[Share, Share] = (0.05, 0.5)
    """Range of the share of tokens that half of the crops lose on the way."""
    stream_loss: Share = 0.03
    """Probability that every token of one of the two streams is lost."""
    true_map_share: Share = 0.3
    """Share of batches in which D_x is steered by the true map rather than the decoded one."""
    adversarial_start: Share = 0.35
    """Progress of the run at which the discriminator joins."""
    segmenter: str | None = None
    """Transmitter's segmenter: half of the crops carry its map, and the semantic loss uses it."""
    losses: Losses = Losses()
    lpips_weights: str | None = None
    device: str = "auto"
    devices: Annotated[int, Field(gt=0)] = 1
    precision: str = "32-true"
    threads: Annotated[int, Field(gt=0)] | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    validate_minutes: Annotated[float, Field(gt=0)] = 10.0


def load_train_config(path: Path) -> TrainConfig:
    """Read and check a file. Raises ConfigError, one line, on any mistake."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        line = str(error).replace("\n", " ")
        raise ConfigError(f"{path}: not valid YAML: {line}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a training configuration is a mapping of keys")
    try:
        config = TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}") from None
    if config.max_steps is None and config.max_minutes is None:
        raise ConfigError(f"{path}: name a budget: max_steps, max_minutes, or both")
    return config


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields: dict[str, type[Section]] = {
            "losses": Losses,
            "sources": Source,
            "validation": Source,
        }
        owner = (
            fields.get(str(problem["loc"][0]), TrainConfig)
            if len(problem["loc"]) > 1
            else TrainConfig
        )
        return (
            f"unknown key '{where}': {nearest(str(problem['loc'][-1]), list(owner.model_fields))}"
        )
    given = json.dumps(problem.get("input"), default=str)
    return f"{where}: {problem['msg']} (got {given})"
