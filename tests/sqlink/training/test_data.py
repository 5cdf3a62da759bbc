"""Data sets of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sqlink.errors import SQLinkError
from sqlink.training.trainer import Trainer


def test_a_missing_data_set_is_one_line(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    path = settings(
        tmp_path,
        sources=[{"name": "camvid", "options": {"root": str(tmp_path / "no"), "split": "fit"}}],
    )
    with pytest.raises(SQLinkError) as caught:
        trainer(path)
    assert "\n" not in str(caught.value)
