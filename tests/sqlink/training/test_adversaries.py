"""The discriminators of training: they learn, resume, and may join later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sqlink.errors import ConfigError
from sqlink.training.checkpoint import load_checkpoint, save_checkpoint
from sqlink.training.trainer import Trainer


def test_a_discriminator_of_features_learns_resumes_and_may_join_later(
    tmp_path: Path,
    settings: Callable[..., Path],
    trainer: Callable[[Path], Trainer],
    stopped_and_resumed: Callable[[Path, int], Trainer],
    recipe: dict[str, Any],
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    recipe = recipe | {"adversarial_start": 0.0, "losses": {"perceptual": 0.0, "projected": 0.1}}
    whole = trainer(settings(tmp_path / "a", recipe=recipe))
    assert whole.adversaries.features is not None
    untrained = {k: v.clone() for k, v in whole.adversaries.features.state_dict().items()}
    terms = [whole.advance() for _ in range(4)]
    assert all("projected" in each for each in terms)
    trained = whole.adversaries.features.state_dict()
    assert all(not torch.equal(v, trained[k]) for k, v in untrained.items() if "original" in k)

    second = stopped_and_resumed(settings(tmp_path / "b", recipe=recipe), 2)
    second.save()
    assert second.adversaries.features is not None
    for name, value in second.adversaries.features.state_dict().items():
        assert torch.equal(value, trained[name]), name
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name

    plain = trainer(settings(tmp_path / "b"))
    assert plain.resume()  # a run that leaves it, and one that takes it up again
    plain.advance()
    plain.save()
    again = trainer(settings(tmp_path / "b", recipe=recipe))
    assert again.resume()
    assert "projected" in again.advance()


def test_an_earlier_versions_discriminator_is_refused_in_one_line(
    tmp_path: Path, settings: Callable[..., Path], trainer: Callable[[Path], Trainer]
) -> None:
    run = trainer(settings(tmp_path))
    run.output.mkdir(parents=True, exist_ok=True)
    run.save()
    state, facts = load_checkpoint(run.checkpoint_path)
    state["critic"] = {"layers.0.bias": torch.zeros(4)}
    save_checkpoint(run.checkpoint_path, state, **facts)
    with pytest.raises(ConfigError, match="discriminator is of an earlier version"):
        trainer(settings(tmp_path)).resume()
