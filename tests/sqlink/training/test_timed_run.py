"""Runs with a budget of seconds: the clock, the means, and going on where a run stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sqlink.errors import WeightsError
from sqlink.training import timed_run
from sqlink.training.timed_run import TimedRun


def run_of(width: int = 3) -> TimedRun:
    network, average = nn.Linear(width, 1), nn.Linear(width, 1)
    return TimedRun(network, average, torch.optim.Adam(network.parameters()))


def test_a_run_measures_on_the_way_and_ends_with_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clock on which every step takes one second."""
    seconds = iter(range(1000))
    monkeypatch.setattr(timed_run.time, "monotonic", lambda: float(next(seconds)))
    run, losses = run_of(), iter(range(1, 100))
    means = list(run.losses(10.0, 4.0, lambda: float(next(losses))))
    assert means == [2.5, 6.5, 9.5]  # of steps 1 to 4, 5 to 8, and the two that were left
    assert run.seconds == 10.0
    assert list(run.losses(10.0, 4.0, lambda: float(next(losses)))) == [0.0]


def test_what_was_saved_is_what_goes_on(tmp_path: Path) -> None:
    run = run_of()
    run.network(torch.ones(2, 3)).sum().backward()
    run.optimiser.step()
    run.step, run.seconds, run.history = 7, 12.5, [{"step": 7, "loss": 0.25}]
    run.save(tmp_path / "run.safetensors")
    again = run_of()
    again.resume(tmp_path / "run.safetensors")
    assert (again.step, again.seconds, again.history) == (7, 12.5, run.history)
    for one, other in ((run.network, again.network), (run.average, again.average)):
        assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    stored, loaded = (r.optimiser.state_dict()["state"][0] for r in (run, again))
    assert torch.equal(stored["exp_avg"], loaded["exp_avg"])
    with pytest.raises(WeightsError, match="is not of this network") as caught:
        run_of(width=4).resume(tmp_path / "run.safetensors")
    assert "\n" not in str(caught.value)
