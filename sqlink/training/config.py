"""The YAML of a training run, validated before anything is loaded; see `sqlink.settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sqlink.errors import ConfigError
from sqlink.settings import Section, load_settings


def _as_pair(value: object) -> object:
    """YAML has lists, the settings have pairs."""
    return tuple(value) if isinstance(value, list) else value


Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Pixels = Annotated[int, Field(ge=16)]
Range = Annotated[tuple[Share, Share], BeforeValidator(_as_pair)]


class Source(Section):
    """A data set with maps, its options, and its share of the crops."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    share: Weight = 1.0


class Losses(Section):
    """Weight of each loss; see `sqlink.training.losses`.

    lpips needs the LPIPS files (`lpips_weights`, or the environment variable SQLINK_LPIPS);
    adversarial is the share of the other losses' gradient, at the decoder's last layer, that the
    adversarial one is given (VQ-GAN's adaptive weight), and adversarial_most the highest weight;
    semantic is the cross-entropy of the transmitter's segmenter on the rebuilt picture.
    """

    l1: Weight = 2.0
    lpips: Weight = 1.5
    map: Weight = 1.0
    commitment: Weight = 0.25
    colour: Weight = 1.0
    adversarial: Weight = 0.15
    adversarial_most: Weight = 0.2
    feature_matching: Weight = 0.5
    semantic: Weight = 0.0


class TrainConfig(Section):
    """One run. Times are minutes of training, sizes pixels; `crop` is (height, width)."""

    model: str = "streets"
    output: str
    start: str | None = None
    """Weights to start from, a shipped name or a file; None starts from chance."""
    seed: int = 1
    sources: Annotated[list[Source], Field(min_length=1)]
    validation: Source | None = None
    crop: Annotated[tuple[Pixels, Pixels], BeforeValidator(_as_pair)] = (128, 256)
    batch_size: Annotated[int, Field(gt=0)] = 4
    max_steps: Annotated[int, Field(gt=0)] | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    discriminator_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    weight_decay: Weight = 1e-4
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Share = 0.998
    image_fraction: Range = (0.02, 1.0)
    """Least and largest share of the picture's tokens that a crop keeps."""
    map_fraction: Range = (0.02, 1.0)
    token_loss: Range = (0.05, 0.5)
    """Range of the share of tokens that half of the crops lose on the way."""
    stream_loss: Share = 0.03
    """Probability that every token of one of the two streams is lost."""
    true_map_share: Share = 0.3
    """Share of batches in which D_x is steered by the true map rather than the decoded one."""
    adversarial_start: Share = 0.35
    """Progress of the run at which the discriminator joins."""
    blend_share: Share = 0.5
    """How far classes whose look does not matter are blended for the discriminator."""
    segmenter: str | None = None
    """Transmitter's segmenter: half of the crops carry its map, and the semantic loss uses it."""
    losses: Losses = Losses()
    lpips_weights: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(gt=0)] = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    threads: Annotated[int, Field(gt=0)] | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    validate_minutes: Annotated[float, Field(gt=0)] = 10.0


def load_train_config(path: Path) -> TrainConfig:
    """Read and check a file. Raises ConfigError, one line, on any mistake."""
    config = load_settings(path, TrainConfig)
    if config.max_steps is None and config.max_minutes is None:
        raise ConfigError(f"{path.name}: name a budget: max_steps, max_minutes, or both")
    return config
