"""Checks of user settings. An error is one line with the parameter, its value and its range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING

from channels.errors import ChannelError, ConfigError
from channels.registry import nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def number(owner: str, name: str, value: object, low: float, high: float) -> float:
    """Return `value` as a float in [low, high]. Raises ConfigError.

    >>> number("iid_erasure", "loss", 0.1, 0, 1)
    0.1
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{owner}: {name}={value!r} must be a number from {low:g} to {high:g}")
    if not low <= value <= high:
        ends = (f"{end:g}" if float(f"{end:g}") == end else repr(end) for end in (low, high))
        raise ConfigError(f"{owner}: {name}={value!r} must be from {' to '.join(ends)}")
    return float(value)


def integer(owner: str, name: str, value: object, low: int, high: int) -> int:
    """Return `value` (an int, or one of NumPy's) as an int in [low, high]. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
        raise ConfigError(f"{owner}: {name}={value!r} must be an integer from {low} to {high}")
    return int(value)


MOST_SECONDS = 10_000


def seconds(owner: str, name: str, value: object) -> float:
    """Return `value` as seconds in [0, MOST_SECONDS]. Raises ConfigError."""
    return number(owner, name, value, 0, MOST_SECONDS)


def flag(owner: str, name: str, value: object) -> bool:
    """Return `value` as a bool. Raises ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(f"{owner}: {name}={value!r} must be true or false")
    return value


def choice(owner: str, name: str, value: object, known: Iterable[str]) -> str:
    """Return `value` as one of the known names, in lower case.

    Raises ConfigError for another value, with the nearest known name.

    >>> choice("coded", "modulation", "QPSK", ("qpsk", "16qam"))
    'qpsk'
    """
    names = list(known)
    key = str(value).lower()
    if not isinstance(value, str) or key not in names:
        raise ConfigError(f"{owner}: unknown {name}={value!r}: {nearest(key, names)}")
    return key


def condition(
    owner: str,
    conditions: Mapping[str, Tensor],
    name: str,
    links: int,
    low: float,
    high: float,
    device: torch.device,
) -> Tensor:
    """Return the condition `name` of each link, float64 [links] on `device`, from low to high.

    Raises ChannelError if it is missing, has another shape, is not finite or is out of range.
    """
    if name not in conditions:
        raise ChannelError(
            f"{owner}: condition {name} is missing: give a value from {low:g} to {high:g}"
        )
    values = conditions[name].double().to(device)
    if values.shape != (links,):
        raise ChannelError(
            f"{owner}: {name} has shape {list(values.shape)}: give [{links}], one per link"
        )
    wrong = ~((values >= low) & (values <= high))
    if bool(wrong.any()):
        link = int(wrong.nonzero()[0])
        value = float(values[link])
        shown = "NaN" if math.isnan(value) else f"{value:g}"
        raise ChannelError(
            f"{owner}: condition {name}={shown} of link {link} must be from {low:g} to {high:g}"
        )
    return values
