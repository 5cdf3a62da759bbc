"""The YAML in docs/channels.md describes channels, and every channel is in it."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path

import yaml

from channels.base import CHANNELS
from channels.bits import BIT_CHANNELS
from channels.config import READY, build
from channels.symbols import SYMBOL_CHANNELS

PAGE = (Path(__file__).parents[2] / "docs" / "channels.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_yaml_blocks_are_channels() -> None:
    assert len(blocks("yaml")) >= 2
    for block in blocks("yaml"):
        build(yaml.safe_load(block))


def test_every_ready_and_registered_channel_is_described() -> None:
    registered = [*CHANNELS.names(), *SYMBOL_CHANNELS.names(), *BIT_CHANNELS.names()]
    for name in (*READY, *registered):
        assert f"`{name}`" in PAGE, name


def test_every_parameter_is_described() -> None:
    for registry in (CHANNELS, SYMBOL_CHANNELS, BIT_CHANNELS):
        for name in registry.names():
            for parameter in signature(registry.get(name)).parameters:
                assert f"`{parameter}`" in PAGE, f"{name}.{parameter}"
