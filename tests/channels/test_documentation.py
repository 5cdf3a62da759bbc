"""The YAML in docs/channels.md describes channels, and every channel is in it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from channels.config import READY, build

PAGE = (Path(__file__).parents[2] / "docs" / "channels.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_yaml_blocks_are_channels() -> None:
    assert len(blocks("yaml")) >= 2
    for block in blocks("yaml"):
        build(yaml.safe_load(block))


def test_every_ready_and_registered_channel_is_described() -> None:
    for name in [*READY, "lossless", "iid_erasure", "coded", "uncoded"]:
        assert f"`{name}`" in PAGE
