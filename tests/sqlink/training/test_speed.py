"""Training speed: counted operations, timed steps, one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sqlink.training.config import load_train_config
from sqlink.training.speed import main, matmul_rate, training_speed


def test_operations_grow_with_the_crop_and_nothing_is_left_behind(
    tmp_path: Path, settings: Callable[..., Path]
) -> None:
    small, large = (
        training_speed(
            load_train_config(
                settings(tmp_path, stages={"joint": {"max_steps": 3, "crop": [64, side]}})
            ),
            steps=2,
        )
        for side in (64, 128)
    )
    assert 1.3 < large.flops_per_crop / small.flops_per_crop < 2.2
    assert len(small.seconds) == 2
    assert 0 < small.share < 1
    assert not (tmp_path / "run").exists()


def test_the_command_prints_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: Callable[..., Path]
) -> None:
    assert main([str(settings(tmp_path)), "--steps", "1"]) == 0
    assert "crops/s" in capsys.readouterr().out
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_matrix_rate_is_a_rate() -> None:
    assert matmul_rate(torch.device("cpu"), torch.float32, repeats=2) > 1e8
