"""The YAML of a training run, validated before anything is loaded; see `sqlink.settings`.

recipe: what the stages share          stages: {map: ..., image: ..., joint: ...}
                    └──────── Stage = recipe with what the stage says itself ───────┘
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sqlink.errors import ConfigError
from sqlink.settings import Pair, Section, load_settings

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Pixels = Annotated[int, Field(ge=16)]
Range = Pair[Share]
StageName = Literal["map", "image", "joint"]

STAGES: tuple[StageName, ...] = ("map", "image", "joint")
"""In the order in which they run."""


class Source(Section):
    """A data set with maps, its options, and its share of the crops."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    share: Weight = 1.0


class Losses(Section):
    """Weight of each loss; see `sqlink.training.losses`.

    perceptual is LPIPS where its files are given (`lpips_weights`, or the environment variable
    SQLINK_LPIPS), else the same distance on the features of the segmenter `tx`. adversarial is the
    share of the other losses' gradient, at the decoder's last layer, that the adversarial one is
    given (VQ-GAN's adaptive weight), and adversarial_most the highest weight. features is the
    distance between what the segmenter `tx` sees in the rebuilt picture and in the original, and
    semantic its cross-entropy on the rebuilt one. projected is a discriminator on the features of
    both frozen networks. With two realisations perceptual and features are energy scores; energy is
    one of the square roots of LPIPS's distances, and needs LPIPS's files. spectrum is the distance
    between local power spectra. blended_weight, no loss, is the weight of the task's blended
    classes, whose details do not matter, in perceptual, energy, and features less its moments.
    """

    l1: Weight = 1.5
    colour: Weight = 1.0
    perceptual: Weight = 1.5
    map: Weight = 1.0
    commitment: Weight = 0.25
    adversarial: Weight = 0.15
    adversarial_most: Weight = 0.2
    feature_matching: Weight = 0.5
    features: Weight = 0.0
    semantic: Weight = 0.0
    projected: Weight = 0.0
    energy: Weight = 0.0
    spectrum: Weight = 0.0
    blended_weight: Share = 1.0


class Losing(Section):
    """What training loses of pictures in transmission; see `sqlink.training.packet_loss`.

    pictures: share of the pictures that lose anything. rate: range of the share of its packets that
    such a one loses. stream: probability that one of the two streams is lost whole.
    """

    pictures: Share = 0.5
    rate: Range = (0.05, 0.5)
    stream: Share = 0.03


class Recipe(Section):
    """How steps are made; sizes in pixels, `crop` is (height, width)."""

    crop: Pair[Pixels] = (128, 256)
    batch_size: Annotated[int, Field(gt=0)] = 4
    realisations: Literal[1, 2] = 1
    """Pictures that D_x makes of each crop, each with other noise."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    discriminator_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    weight_decay: Weight = 1e-4
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    ema_decay: Share = 0.998
    image_fraction: Range = (0.02, 1.0)
    """Least and largest share of the picture's tokens that a crop keeps."""
    map_fraction: Range = (0.02, 1.0)
    losing: Losing = Losing()
    paste: Share = 0.3
    """Share of the crops that components of the task's pasted classes are pasted into."""
    true_map_share: Share = 0.3
    """Share of the batches in which D_x is steered by the true map rather than the decoded one."""
    adversarial_start: Share = 0.35
    """Progress of the stage at which the discriminator joins."""
    losses: Losses = Losses()


class Stage(Recipe):
    """A stage's budget, in steps, minutes, or both (the first that is spent ends it)."""

    max_steps: Annotated[int, Field(gt=0)] | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    freeze_map: bool = False
    """Stage `joint` only: leave the map branch unchanged, as the paper does."""


class Stages(Section):
    """map: the map branch alone. image: the picture branch, steered by the true map. joint: all,
    the picture steered by the decoded map. A stage that is not named is left out.
    """

    map: Stage | None = None
    image: Stage | None = None
    joint: Stage | None = None


class TrainConfig(Section):
    """One run. Times are minutes of training."""

    model: str = "streets"
    output: str
    start: str | None = None
    """Weights to start from, a shipped name or a file; None starts from chance."""
    seed: int = 1
    sources: Annotated[list[Source], Field(min_length=1)]
    validation: Source | None = None
    task: str = "driving"
    """Which classes matter: a shipped task or a file; see `sqlink.training.task`."""
    segmenter: str | None = None
    """Transmitter's segmenter: half of the crops carry its map instead of the labels."""
    recipe: Recipe = Recipe()
    stages: Stages
    without: list[Literal["samm-map", "relevance", "spade", "semantic-discriminator", "losing"]] = (
        Field(default_factory=list)
    )
    """Parts left out, to measure what they contribute; see docs/guide/training.md."""
    lpips_weights: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Field(gt=0)] = 1
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "auto"] = "32-true"
    """`auto` times some steps in float32 and with bfloat16, and takes the faster."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the networks: `auto` does on CUDA, where it pays, and not on a CPU, where it does
    not.
    """
    threads: Annotated[int, Field(gt=0)] | None = None
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    validate_minutes: Annotated[float, Field(gt=0)] = 10.0

    def plan(self) -> dict[StageName, Stage]:
        """Return the stages to run, in order, each the recipe with the stage's own settings."""
        shared = self.recipe.model_dump(exclude_unset=True)
        stages = self.stages
        named = dict(zip(STAGES, (stages.map, stages.image, stages.joint), strict=True))
        return {
            name: Stage(**_merged(shared, own.model_dump(exclude_unset=True)))
            for name, own in named.items()
            if own is not None
        }


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = shared | own
    for key in shared.keys() & own.keys():
        if isinstance(shared[key], dict):
            both[key] = _merged(shared[key], own[key])
    return both


def load_train_config(path: Path) -> TrainConfig:
    """Read and check a file. Raises ConfigError, one line, on any mistake."""
    config = load_settings(path, TrainConfig)
    plan = config.plan()
    if not plan:
        raise ConfigError(f"{path.name}: stages: name at least one of {', '.join(STAGES)}")
    for name, stage in plan.items():
        if stage.max_steps is None and stage.max_minutes is None:
            raise ConfigError(
                f"{path.name}: stages.{name}: name a budget: max_steps, max_minutes, or both"
            )
        if stage.freeze_map and name != "joint":
            raise ConfigError(f"{path.name}: stages.{name}: freeze_map is for stage joint alone")
    return config
