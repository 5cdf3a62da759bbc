"""The YAML in the pages of channels describes channels, and every channel is in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import yaml

from channels.base import CHANNELS
from channels.config.builder import build
from channels.config.description import READY
from channels.fading.base import SYMBOL_CHANNELS
from channels.fading.binary import BIT_CHANNELS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "guide/channels.md",
    "guide/link_adaptation.md",
    "guide/protection.md",
    "guide/unequal_protection.md",
    "reference/channels_links.md",
    "reference/channels_packet.md",
    "reference/channels_symbols.md",
    "reference/references.md",
    "results/validation.md",
    "tutorial/own_channel.md",
)
PAGE = "\n".join((DOCS / page).read_text(encoding="utf-8") for page in PAGES)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def own() -> list[tuple[str, Callable[..., object]]]:
    """What the package registers itself; other tests register more."""
    found = [
        (name, registry.get(name))
        for registry in (CHANNELS, SYMBOL_CHANNELS, BIT_CHANNELS)
        for name in registry.names()
    ]
    return [(name, made) for name, made in found if made.__module__.startswith("channels.")]


def test_yaml_blocks_are_channels() -> None:
    assert len(blocks("yaml")) >= 2
    for block in blocks("yaml"):
        build(yaml.safe_load(block))


def test_every_ready_and_registered_channel_is_described() -> None:
    for name in (*READY, *dict(own())):
        assert f"`{name}`" in PAGE, name


def test_every_parameter_is_described() -> None:
    for name, factory in own():
        for parameter in signature(factory).parameters:
            assert f"`{parameter}`" in PAGE, f"{name}.{parameter}"
