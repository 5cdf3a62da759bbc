"""Coverage of 95 % intervals: simulated samples of few blocks.

    python -m sqlink.metrics.coverage [TRIALS]

draws samples with a known true value, computes the interval of each, and prints the share of
intervals that hold the true value: for `sqlink.metrics.jackknife` and, for comparison, for a
percentile bootstrap over blocks.

The populations are: means of values with components of block, picture and realisation; mIoUs of
confusion matrices with the class shares and IoUs of street scenes, where blocks differ in content
and in recognition, and where rare classes are missing from half of the blocks; differences of two
correlated results.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from sqlink.metrics.jackknife import (
    LEVEL,
    Floats,
    Integers,
    Interval,
    Statistic,
    block_numbers,
    interval,
    mean,
    mean_iou,
    mean_sums,
    paired_difference,
)

BLOCKS = (3, 4, 5, 8, 12, 24)
TRIALS = 4000
RESAMPLES = 400
_POPULATION = 40_000
"""Blocks from which the true mIoU is computed."""
_PIXELS = 100_000

_SHARES = np.array([0.16, 0.24, 0.012, 0.29, 0.06, 0.11, 0.012, 0.02, 0.06, 0.01, 0.026])
_RECALLS = np.array([0.92, 0.76, 0.28, 0.94, 0.80, 0.66, 0.31, 0.19, 0.74, 0.40, 0.57])
_PRESENT = np.array([1, 1, 1, 1, 1, 1, 0.9, 0.5, 0.95, 0.8, 0.4])

Draw = Callable[[np.random.Generator, int], tuple[list[Floats], Integers]]
"""Function from a number of blocks to the sums of one or two results and the block of each picture.
"""


@dataclass(frozen=True)
class Population:
    """A distribution of samples. truth: true value of the statistic, or of the difference
    of two.
    """

    name: str
    draw: Draw
    statistic: Statistic
    truth: float


def populations() -> list[Population]:
    """Return all populations; the true mIoU is computed from a large sample."""
    found = [
        Population("mean, blocks of 4 pictures", partial(_values, smallest=4), mean, 0.0),
        Population("mean, blocks of 3 to 6", partial(_values, smallest=3, largest=6), mean, 0.0),
        Population("mean, skewed", partial(_values, smallest=4, skewed=True), mean, 0.0),
        Population("difference of means", partial(_values, smallest=4, pair=True), mean, 0.0),
    ]
    for name, rare in (("mIoU", False), ("mIoU, rare classes", True)):
        for pair in (False, True):
            draw = partial(_matrices, rare=rare, pair=pair)
            many, _ = draw(np.random.default_rng(1), _POPULATION)
            truths = [float(mean_iou(one.sum(axis=(0, 1))[None])[0]) for one in many]
            truth = truths[0] - truths[1] if pair else truths[0]
            title = f"difference of {name}" if pair else name
            found.append(Population(title, draw, mean_iou, truth))
    return found


def covered(
    population: Population, blocks: int, trials: int, seed: int, bootstrap: bool = False
) -> float:
    """Return the share of `trials` samples of `blocks` blocks whose 95 % interval holds the truth.

    bootstrap: measure the percentile bootstrap instead.
    """
    randomness = np.random.default_rng(seed)
    hits = 0
    for _ in range(trials):
        results, numbers = population.draw(randomness, blocks)
        if bootstrap:
            found = percentile_bootstrap(results, population.statistic, numbers, randomness)
        elif len(results) == 1:
            found = interval(results[0], population.statistic, blocks=numbers)
        else:
            ours, theirs = results
            found = paired_difference(ours, theirs, population.statistic, blocks=numbers)
        hits += found.low <= population.truth <= found.high
    return hits / trials


def percentile_bootstrap(
    results: list[Floats], statistic: Statistic, blocks: Integers, randomness: np.random.Generator
) -> Interval:
    """Return the interval between the percentiles of resampled whole blocks, for comparison.

    results: sums [pictures, realisations, ...] of one result, or of two to be subtracted.
    """
    groups = block_numbers(blocks, len(results[0]))
    count = int(groups.max()) + 1
    weights = randomness.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    draws = np.zeros(RESAMPLES)
    estimate = 0.0
    for sign, sums in zip((1, -1), results, strict=False):
        flat = sums.sum(axis=1).reshape(len(sums), -1)
        drawn = weights[:, groups].astype(np.float64) @ flat
        draws += sign * statistic(drawn.reshape(RESAMPLES, *sums.shape[2:]))
        estimate += sign * float(statistic(sums.sum(axis=(0, 1))[None])[0])
    low, high = np.nanquantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(estimate, float(low), float(high), LEVEL, count)


def _values(
    randomness: np.random.Generator,
    blocks: int,
    smallest: int,
    largest: int | None = None,
    skewed: bool = False,
    pair: bool = False,
) -> tuple[list[Floats], Integers]:
    """Draw values of mean 0: blocks of `smallest` to `largest` pictures, 3 realisations each."""
    sizes = randomness.integers(smallest, (largest or smallest) + 1, size=blocks)
    numbers = np.repeat(np.arange(blocks), sizes)
    if skewed:
        shared = randomness.exponential(1.0, size=blocks) - 1
    else:
        shared = randomness.normal(size=blocks)
    pictures = shared[numbers] + 0.7 * randomness.normal(size=len(numbers))
    values = pictures[:, None] + 0.5 * randomness.normal(size=(len(numbers), 3))
    if not pair:
        return [mean_sums(values)], numbers
    other = values + 0.2 * randomness.normal(size=blocks)[numbers, None]
    other += 0.1 * randomness.normal(size=values.shape)
    return [mean_sums(values), mean_sums(other)], numbers


def _matrices(
    randomness: np.random.Generator, blocks: int, rare: bool, pair: bool
) -> tuple[list[Floats], Integers]:
    """Draw a confusion matrix for each block, of one result or of two similar ones."""
    shares = randomness.gamma(30 * _SHARES, size=(blocks, 11))
    if rare:
        shares = shares * (randomness.random((blocks, 11)) < _PRESENT)
    shares = shares / shares.sum(axis=1, keepdims=True)
    recalls = randomness.beta(12 * _RECALLS, 12 * (1 - _RECALLS), size=(blocks, 11))
    wrong = randomness.dirichlet(8 * _SHARES / _SHARES.sum(), size=(blocks, 11))

    def matrix(right: npt.NDArray[np.float64]) -> Floats:
        pixels = right[:, :, None] * np.eye(11) + (1 - right)[:, :, None] * wrong
        counts = np.round(_PIXELS * shares[:, :, None] * pixels)
        return np.asarray(counts[:, None], dtype=np.float64)

    results = [matrix(recalls)]
    if pair:
        results.append(matrix(recalls * randomness.beta(20, 2, size=(blocks, 11))))
    return results, np.arange(blocks)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of coverages as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.metrics.coverage")
    parser.add_argument("trials", type=int, nargs="?", default=TRIALS, help="samples of a cell")
    trials: int = parser.parse_args(arguments).trials
    if trials < 1:
        parser.error(f"trials {trials} must be at least 1")
    print(f"Coverage of 95 % intervals, %, {trials} samples each; in brackets the bootstrap.\n")
    print("| population | " + " | ".join(f"{count} blocks" for count in BLOCKS) + " |")
    print("|" + " --- |" * (len(BLOCKS) + 1))
    for population in populations():
        shares = [
            [100 * covered(population, count, trials, 7, bootstrap) for bootstrap in (False, True)]
            for count in BLOCKS
        ]
        cells = " | ".join(f"{ours:.1f} ({theirs:.0f})" for ours, theirs in shares)
        print(f"| {population.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
