"""What a rebuilt picture is trained towards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sqlink.training.config import load_train_config
from sqlink.training.trainer import Trainer
from sqlink.weights.manifest import load


def test_losses_may_ask_for_spectra_and_leave_blended_classes_their_places(
    tmp_path: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    recipe: dict[str, Any],
) -> None:
    losses = {"perceptual": 0.0, "features": 1.0, "spectrum": 0.3, "adversarial": 0.0}
    losses |= {"feature_matching": 0.0}
    terms = []
    for share in (1.0, 0.0):
        recipe = recipe | {"losses": losses | {"blended_weight": share}}
        terms.append(trainer(settings(tmp_path, recipe=recipe)).advance())
    assert terms[0]["spectrum"] == terms[1]["spectrum"] > 0
    assert terms[1]["features"] < terms[0]["features"]


def test_with_lpips_two_realisations_are_scored_and_blended_classes_count_less(
    tmp_path: Path,
    shared: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    recipe: dict[str, Any],
) -> None:
    losses = {"perceptual": 1.0, "energy": 1.0, "adversarial": 0.0, "feature_matching": 0.0}
    found: dict[str, dict[str, float]] = {}
    for name, more in (
        ("one", {"losses": losses | {"energy": 0.0}}),
        ("two", {"losses": losses, "realisations": 2}),
        ("blended", {"losses": losses | {"blended_weight": 0.0}, "realisations": 2}),
    ):
        run = trainer(
            settings(tmp_path, recipe=recipe | more, lpips_weights=str(shared / "weights"))
        )
        with torch.no_grad():
            for noise in run.network.image_decoder.noises:
                noise.scale.fill_(0.2)
        found[name] = run.advance()
    assert found["two"]["perceptual"] < found["one"]["perceptual"]
    assert found["two"]["energy"] > 0
    assert found["blended"]["perceptual"] < found["two"]["perceptual"]
    assert found["blended"]["energy"] < found["two"]["energy"]


def test_without_lpips_files_the_loss_looks_through_tx(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Callable[..., Path],
    recipe: dict[str, Any],
) -> None:
    monkeypatch.delenv("SQLINK_LPIPS", raising=False)
    lines: list[str] = []
    recipe = recipe | {"losses": {"perceptual": 1.0}}
    run = Trainer(load_train_config(settings(tmp_path, recipe=recipe)), lines.append)
    assert "uses the segmenter `tx`" in lines[0]
    assert run.advance()["perceptual"] > 0
    assert load(str(run.export()), "sqgan").metadata["trained_on"] == ""
