"""Measure how fast a training configuration runs here, and how much of the device it uses.

    python -m sqlink.training.speed sqlink/training/configs/streets.yaml --steps 20

Steps of the file's last stage are timed with every loss in play, and their floating-point
operations counted (PyTorch's own count: convolutions and matrix products, a multiplication and an
addition as two). The device's own rate is that of a large matrix product in the same precision.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from sqlink.errors import SQLinkError
from sqlink.runtime.malloc import keep_freed_memory
from sqlink.training.config import TrainConfig, load_train_config
from sqlink.training.trainer import Trainer

WARM_UP = 3
"""Steps before the clock starts: allocation, choice of kernels, compilation."""


@dataclass(frozen=True)
class Speed:
    """crops_per_s of training; flops_per_crop, forward and backward of all networks; matmul_flops:
    the device's rate on a matrix product, operations/s; seconds: of each step, in order.
    """

    device: str
    crops_per_s: float
    flops_per_crop: float
    matmul_flops: float
    seconds: tuple[float, ...]

    @property
    def share(self) -> float:
        """Speed as a share of the matrix-product rate, 0 to 1."""
        return self.crops_per_s * self.flops_per_crop / self.matmul_flops


def training_speed(config: TrainConfig, steps: int = 20) -> Speed:
    """Time `steps` steps of the last stage; writes nothing outside a temporary folder.

    Raises what a training run raises where it cannot begin.
    """
    with tempfile.TemporaryDirectory() as folder:
        quiet = config.model_copy(update={"output": folder, "validation": None})
        trainer = Trainer(quiet, lambda line: None)
        last = list(trainer.plan)[-1]
        # So that the discriminator plays too.
        trainer.plan[last] = trainer.plan[last].model_copy(update={"adversarial_start": 0.0})
        trainer.begin(last)
        for _ in range(WARM_UP):
            trainer.advance()
        with FlopCounterMode(display=False) as counter:
            trainer.advance()
        seconds = []
        for _ in range(steps):
            _wait(trainer.device)
            start = time.perf_counter()
            trainer.advance()
            _wait(trainer.device)
            seconds.append(time.perf_counter() - start)
        batch = trainer.stage.batch_size
        with trainer.fabric.autocast():
            product = torch.ones(2, 2, device=trainer.device) @ torch.ones(2, 2).to(trainer.device)
        return Speed(
            str(trainer.device),
            batch * steps / sum(seconds),
            counter.get_total_flops() / batch,
            matmul_rate(trainer.device, product.dtype),
            tuple(seconds),
        )


def matmul_rate(device: torch.device, dtype: torch.dtype, repeats: int = 10) -> float:
    """Measure operations/s of a product of square matrices, 8192 a side on CUDA and 2048 on
    a CPU.
    """
    side = 8192 if device.type == "cuda" else 2048
    a = torch.ones(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; prints one line. Returns 2 if the run cannot begin."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.training.speed")
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(arguments)
    keep_freed_memory()
    try:
        if options.steps < 1:
            raise SQLinkError(f"--steps {options.steps}: time at least 1 step")
        speed = training_speed(load_train_config(options.config), options.steps)
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    ordered = sorted(speed.seconds)
    reached = speed.crops_per_s * speed.flops_per_crop
    print(
        f"{speed.device}: {speed.crops_per_s:.2f} crops/s (steps {ordered[0]:.3f} to "
        f"{ordered[-1]:.3f} s, n = {len(ordered)}), {speed.flops_per_crop / 1e9:.1f} GFLOP a crop, "
        f"{reached / 1e12:.3f} TFLOP/s = {100 * speed.share:.0f} % "
        f"of the matrix product's {speed.matmul_flops / 1e12:.3f} TFLOP/s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
