"""Choose the precision that training steps run fastest in, by timing them: `precision: auto`.

A CPU with bfloat16 instructions takes half the time with them; one without takes more. What is
timed is what training does most: 3x3 convolutions of 128 channels, forward and backward.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

WORTH = 1.1
"""How many times as fast bfloat16 must be to be taken."""
_SIZE = (2, 128, 32, 48)


def fastest_precision(
    device: torch.device, report: Callable[[str], None] = print, steps: int = 5
) -> Precision:
    """Time `steps` steps in float32 and as many with bfloat16, in turn, and name the faster."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.SiLU()).to(device)
        images = torch.rand(_SIZE, device=device)
    seconds: dict[Precision, float] = {"32-true": float("inf"), "bf16-mixed": float("inf")}
    for step in range(steps + 1):
        for precision in seconds:
            start = time.perf_counter()
            with autocast(device, precision):
                loss = network(images).square().mean()
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent = time.perf_counter() - start
            if step:  # the first chooses kernels
                seconds[precision] = min(seconds[precision], spent)
    ratio = seconds["32-true"] / seconds["bf16-mixed"]
    chosen: Precision = "bf16-mixed" if ratio > WORTH else "32-true"
    report(f"precision: {chosen} (a step with bfloat16 is {ratio:.2f} times as fast as in float32)")
    return chosen


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context that forward passes run in."""
    if precision == "32-true":
        return nullcontext()
    return torch.autocast(
        device.type, torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    )
