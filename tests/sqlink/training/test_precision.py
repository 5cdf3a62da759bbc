"""The precision of training steps, chosen by the clock."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from sqlink.training.precision import Precision, autocast, fastest_precision


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [(2.0, 1.0, "bf16-mixed"), (1.0, 1.0, "32-true"), (1.0, 3.0, "32-true")],
)
def test_the_faster_is_taken_and_float32_where_they_are_alike(
    monkeypatch: pytest.MonkeyPatch, float32: float, bfloat16: float, chosen: str
) -> None:
    """The clock is a made one: a step in float32, then one with bfloat16, again and again."""
    spent = itertools.cycle([0.0, float32, 0.0, bfloat16])
    now = itertools.accumulate(spent)
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    lines: list[str] = []
    assert fastest_precision(torch.device("cpu"), lines.append) == chosen
    assert lines == [
        f"precision: {chosen} (a step with bfloat16 is {float32 / bfloat16:.2f} times as fast as "
        "in float32)"
    ]


def test_steps_run_in_what_was_chosen() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    dtypes: dict[Precision, torch.dtype] = {
        "32-true": torch.float32,
        "bf16-mixed": torch.bfloat16,
    }
    for name, dtype in dtypes.items():
        with autocast(torch.device("cpu"), name):
            assert layer(x).dtype == dtype
