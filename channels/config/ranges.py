"""Values of an axis as a user writes them: `0:20:5` (with both ends), `0,5,20` or `5`."""

from __future__ import annotations

import math
import re

from channels.errors import ConfigError

MOST_POINTS = 200

_NUMBER = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
RANGE = re.compile(rf"{_NUMBER}:{_NUMBER}:{_NUMBER}")
"""A range: three numbers, from:to:step."""


def span(text: str) -> list[float]:
    """Return the values of a range, from:to:step; integers if all three are integers.

    Raises ValueError for a step that is not above 0, an end below the start, or more than
    MOST_POINTS values.

    >>> span("0:20:5"), span("0:1:0.25")
    ([0, 5, 10, 15, 20], [0.0, 0.25, 0.5, 0.75, 1.0])
    """
    parts = text.split(":")
    start, end, step = (float(part) for part in parts)
    if not all(map(math.isfinite, (start, end, step))) or step <= 0 or end < start:
        raise ValueError("a range is from:to:step, rising, as 0:20:5")
    if (end - start) / step >= MOST_POINTS:
        raise ValueError(f"a range has at most {MOST_POINTS} points")
    count = math.floor((end - start) / step + 1e-9) + 1
    if all(re.fullmatch(r"[-+]?[0-9]+", part) for part in parts):
        return [int(parts[0]) + i * int(parts[2]) for i in range(count)]
    return [round(start + i * step, 10) for i in range(count)]


def values_of(name: str, text: str, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """Return the values that `text` names, in rising order: `0:10:1`, `1,3,9` or `5`.

    name: the option's name, for errors. low, high: its limits, for errors. Raises ConfigError.

    >>> values_of("--snr-db", "0:1:0.25")
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    wrong = f"{name} {text}: give from:to:step, as 0:10:1, or values, as 0,5,10"
    if RANGE.fullmatch(text.strip()):
        try:
            return [float(value) for value in span(text.strip())]
        except ValueError as error:
            raise ConfigError(f"{name} {text}: {error}") from error
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(wrong) from None
    if not all(map(math.isfinite, values)):
        ends = f", from {low:g} to {high:g}" if math.isfinite(high) else ""
        raise ConfigError(f"{name} {text}: every value must be finite{ends}")
    if len(values) > MOST_POINTS:
        raise ConfigError(f"{name}: at most {MOST_POINTS} points")
    return sorted(set(values))
