"""Networks small enough to be built in a test."""

from __future__ import annotations

import dataclasses

import pytest

from sqlink.model import config as sizes
from sqlink.model.config import PAPER, STREETS, ModelConfig


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """The sizes of `streets`, narrow."""
    return dataclasses.replace(
        STREETS,
        name="tiny",
        channels=(16, 24, 32),
        map_channels=(8, 16, 16),
        demasker_blocks=2,
        label_width=8,
        norm_groups=8,
        samm_width=16,
        image_codes=32,
        map_codes=16,
    )


@pytest.fixture
def tiny_is_known(tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets files of settings name the model `tiny`."""
    monkeypatch.setitem(sizes.CONFIGS, "tiny", tiny)


@pytest.fixture(scope="session")
def tiny_paper() -> ModelConfig:
    """The paper's layers (stem 1, five levels, SPADE of its own in each norm), narrow."""
    return dataclasses.replace(
        PAPER,
        channels=(8, 8, 16, 16, 16),
        map_channels=(8, 8, 16, 16, 16),
        demasker_blocks=2,
        spade_hidden=8,
        samm_width=8,
        code_dim=8,
        image_codes=16,
        map_codes=16,
        norm_groups=4,
    )
