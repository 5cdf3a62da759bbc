"""Checkpoints give back what was put in."""

from __future__ import annotations

from pathlib import Path

import torch

from sqlink.training.checkpoint import load_checkpoint, save_checkpoint


def test_checkpoints_keep_every_kind_of_leaf(tmp_path: Path) -> None:
    state = {"a": {0: {"step": torch.tensor(3.0)}, 1: [1, 2.5, None, True]}, "b": "text"}
    save_checkpoint(tmp_path / "c.safetensors", state, step=7)
    again, facts = load_checkpoint(tmp_path / "c.safetensors")
    assert facts == {"step": 7}
    assert again["a"][0]["step"] == 3.0
    assert again["a"][1] == [1, 2.5, None, True]
    assert again["b"] == "text"
