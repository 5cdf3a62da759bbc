"""Registries by name; third parties join through entry points."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from channels.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """Half a sentence for an error: the known names, the nearest first where one is near.

    >>> nearest("awng", ["awgn", "rayleigh"])
    "did you mean 'awgn'? known: awgn, rayleigh"
    """
    listing = "known: " + ", ".join(sorted(known))
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'? {listing}" if close else listing


class Registry(Generic[T]):
    """Factories by name, with duplicates refused.

    `group` is the entry-point group (`sqlink.codecs`, `sqlink.channels`, `sqlink.segmenters`,
    `sqlink.metrics`) in which installed packages offer more factories, loaded when asked for.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind = kind
        self.group = group
        self._factories: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Decorator that files a factory under `name`. Raises ValueError on a duplicate."""

        def file(factory: Callable[..., T]) -> Callable[..., T]:
            if name in self._factories:
                raise ValueError(f"{self.kind} '{name}' is registered already")
            self._factories[name] = factory
            return factory

        return file

    def names(self) -> list[str]:
        """Every known name, sorted, those of entry points among them."""
        return sorted({*self._factories, *(e.name for e in entry_points(group=self.group))})

    def get(self, name: str) -> Callable[..., T]:
        """The factory called `name`. Raises ConfigError, naming the nearest, if there is none."""
        if name not in self._factories:
            for entry in entry_points(group=self.group):
                if entry.name == name:
                    self._factories[name] = entry.load()
                    break
            else:
                raise ConfigError(f"unknown {self.kind} '{name}': {nearest(name, self.names())}")
        return self._factories[name]
