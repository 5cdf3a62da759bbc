"""A run with a budget of seconds: a network, the average of its weights, and its progress.

    while seconds are left:  step ── clock ── every so often: measure, save

What `sqlink.training.segmenters` and `sqlink.training.deepjscc` train is one of these.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from sqlink.errors import WeightsError
from sqlink.training.checkpoint import load_checkpoint, save_checkpoint
from sqlink.training.schedule import warm_cosine


class TimedRun:
    """The state of a run. seconds: of training, without measuring and saving.

    history: what was measured, a mapping for each time.
    """

    def __init__(self, network: nn.Module, average: nn.Module, optimiser: Optimizer) -> None:
        self.network, self.average, self.optimiser = network, average, optimiser
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    def learning_rate(self, budget: float, warm_up: int, floor: float) -> float:
        """Return this step's share of the highest learning rate; budget: seconds of the run."""
        return warm_cosine(min(self.seconds / budget, 1.0), self.step, warm_up, floor)

    def losses(self, budget: float, every: float, advance: Callable[[], float]) -> Iterator[float]:
        """Call `advance` until `budget` seconds are spent, and yield mean losses from time to time.

        advance: takes a step and returns its loss. Yields the mean since the last time, each
        `every` seconds and at the end; 0 at the end of a run whose budget was spent before.
        """
        losses: list[float] = []
        measured = self.seconds
        while self.seconds < budget:
            started = time.monotonic()
            losses.append(advance())
            self.seconds += time.monotonic() - started
            if self.seconds - measured >= every and self.seconds < budget:
                measured = self.seconds
                yield sum(losses) / len(losses)
                losses.clear()
        yield sum(losses) / max(1, len(losses))

    def save(self, path: Path) -> None:
        """Write everything that `resume` needs."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        save_checkpoint(path, state, step=self.step, seconds=self.seconds, history=self.history)

    def resume(self, path: Path) -> None:
        """Load a checkpoint. Raises WeightsError if it is damaged or of another network."""
        state, facts = load_checkpoint(path)
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
            self.history = list(facts["history"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise WeightsError(f"checkpoint {path} is not of this network: remove it") from error
