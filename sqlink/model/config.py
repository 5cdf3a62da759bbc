"""Configurations of SQ-GAN: `paper` (arXiv 2502.09520) and `streets` (for two CPU cores)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from channels.registry import nearest
from sqlink.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ABLATIONS = {
    "samm-map": "SAMM scores places without seeing the map, as MQ-VAE's masking does",
    "relevance": "places are kept by chance, not by SAMM's score",
    "spade": "D_x is steered by the same map for every picture, one without classes",
}
"""Ablations that `ModelConfig.without` may name; layers and parameters do not change."""


Sizes = TypeVar("Sizes", bound="DataclassInstance")


def sizes_to_json(sizes: DataclassInstance) -> str:
    """Return a dataclass of numbers, texts and tuples of them as JSON text."""
    return json.dumps(dataclasses.asdict(sizes), sort_keys=True)


def sizes_from_json(kind: type[Sizes], text: str, title: str) -> Sizes:
    """Read what `sizes_to_json` wrote. Raises ConfigError, naming `title`, for anything else."""
    try:
        values: dict[str, Any] = json.loads(text)
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{title} cannot be read: {error}") from None


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of SQ-GAN's layers; widths are channels, finest level first.

    stem: pixel-unshuffle factor before the first convolution (1: work at full size).
    channels, map_channels: width of each level of the image and the map branch; every level except
        the first halves the resolution, so the latent grid is 1 / (stem * 2**(levels - 1)) of the
        picture.
    encoder_blocks, decoder_blocks, map_blocks: residual blocks in each level.
    label_width: 0 gives every SPADE its own 3x3 convolution on the resized one-hot map (the paper);
        above 0, each level shares one set of `label_width` map features.
    fine_width: channels of D_x's last residual block, at twice the resolution of its finest level
        (0: none; the finest level is then shuffled up to full size).
    smooth: whether D_x doubles resolutions bilinearly rather than by nearest neighbour.
    conv_first: whether D_x's convolutions come before the doublings, at a quarter of the cost,
        rather than after them.
    map_stem_kernel: side of the first convolution of the map's encoder.
    noise: whether D_x gets noise at every level, for textures.
    demask_start: attention weight of a masked place in the first demasker block.
    without: parts that an ablation leaves out; see `ABLATIONS`.
    """

    name: str
    num_classes: int
    stem: int
    channels: tuple[int, ...]
    map_channels: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    map_blocks: tuple[int, ...]
    image_codes: int
    map_codes: int
    code_dim: int
    demasker_blocks: int
    samm_width: int
    spade_hidden: int
    label_width: int
    fine_width: int = 0
    smooth: bool = False
    conv_first: bool = False
    map_stem_kernel: int = 3
    noise: bool = False
    norm_groups: int = 32
    demask_start: float = 0.02
    without: tuple[str, ...] = ()

    @property
    def downsampling(self) -> int:
        """Side in pixels of the block that one latent vector stands for."""
        return int(self.stem * 2 ** (len(self.channels) - 1))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of latent vectors for a picture size, padding included."""
        return -(-height // self.downsampling), -(-width // self.downsampling)

    def to_json(self) -> str:
        """Return the sizes as text, for a weights file."""
        return sizes_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read what `to_json` wrote. Raises ConfigError on unknown or missing keys."""
        return sizes_from_json(cls, text, "model configuration")


PAPER = ModelConfig(
    name="paper",
    num_classes=19,
    stem=1,
    channels=(128, 128, 256, 256, 512),
    map_channels=(128, 128, 256, 256, 512),
    encoder_blocks=(2, 2, 2, 2, 2),
    decoder_blocks=(2, 2, 2, 2, 2),
    map_blocks=(2, 2, 2, 2, 2),
    image_codes=1024,
    map_codes=1024,
    code_dim=256,
    demasker_blocks=8,
    samm_width=256,
    spade_hidden=128,
    label_width=0,
    fine_width=0,
)

STREETS = ModelConfig(
    name="streets",
    num_classes=11,
    stem=4,
    channels=(64, 128, 192),
    map_channels=(32, 64, 128),
    encoder_blocks=(1, 2, 1),
    decoder_blocks=(1, 2, 2),
    map_blocks=(1, 1, 1),
    image_codes=512,
    map_codes=512,
    code_dim=32,
    demasker_blocks=3,
    samm_width=64,
    spade_hidden=0,
    label_width=48,
    fine_width=32,
    smooth=True,
    conv_first=True,
    map_stem_kernel=1,
    noise=True,
    norm_groups=16,
)

CONFIGS = {config.name: config for config in (PAPER, STREETS)}


def model_config(name: str) -> ModelConfig:
    """Return a configuration by name. Raises ConfigError for an unknown name.

    >>> model_config("streets").grid(360, 480)
    (23, 30)
    """
    if name not in CONFIGS:
        raise ConfigError(f"unknown model '{name}': {nearest(name, list(CONFIGS))}")
    return CONFIGS[name]
