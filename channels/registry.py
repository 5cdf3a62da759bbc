"""Registries of factories by name, with a check of options; other packages add entry points."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from inspect import Parameter, signature
from typing import Generic, TypeVar

from channels.errors import ConfigError

T = TypeVar("T")


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the hint of an error about an unknown name: the nearest known name, and all names.

    >>> nearest("awng", ["awgn", "rayleigh"])
    "did you mean 'awgn'? known: awgn, rayleigh"
    """
    listing = "known: " + ", ".join(sorted(known))
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'? {listing}" if close else listing


def check_options(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise ConfigError if `owner` lacks one of the given options, with the nearest known option.

    >>> check_options("codec 'jpeg2000'", ["layer"], ["layers"])
    Traceback (most recent call last):
    channels.errors.ConfigError: codec 'jpeg2000' has no option 'layer': did you mean 'layers'? \
known: layers
    """
    for option in given:
        if option not in known:
            hint = nearest(option, known) if known else "it takes none"
            raise ConfigError(f"{owner} has no option '{option}': {hint}")


class Registry(Generic[T]):
    """A table of factories by name; duplicate names are refused.

    kind: what the factories make, for errors. group: the entry-point group (`sqlink.codecs`,
    `sqlink.channels`, `sqlink.segmenters`, `sqlink.metrics`) in which installed packages offer more
    factories. built_in: name -> the module of this program that registers it. Both are loaded when
    they are first used.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self.group = group
        self._built_in = dict(built_in or {})
        self._factories: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Register the decorated factory under `name`. Raises ValueError for a duplicate name."""

        def file(factory: Callable[..., T]) -> Callable[..., T]:
            home = self._built_in.get(name, factory.__module__)
            if name in self._factories or factory.__module__ != home:
                raise ValueError(f"{self.kind} '{name}' is registered already")
            self._factories[name] = factory
            return factory

        return file

    def names(self) -> list[str]:
        """Return all known names, sorted, with those of entry points."""
        offered = (entry.name for entry in entry_points(group=self.group))
        return sorted({*self._built_in, *self._factories, *offered})

    def get(self, name: str) -> Callable[..., T]:
        """Return the factory called `name`. Raises ConfigError, with the nearest, if none is."""
        if name not in self._factories and name in self._built_in:
            import_module(self._built_in[name])
        if name not in self._factories:
            for entry in entry_points(group=self.group):
                if entry.name == name:
                    self._factories[name] = entry.load()
                    break
            else:
                raise ConfigError(f"unknown {self.kind} '{name}': {nearest(name, self.names())}")
        return self._factories[name]

    def options(self, name: str) -> list[str] | None:
        """Return the options that `name` takes; None if it takes any. Raises ConfigError."""
        parameters = signature(self.get(name)).parameters.values()
        if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
            return None
        return [parameter.name for parameter in parameters]

    def make(self, name: str, options: Mapping[str, object]) -> T:
        """Make the object `name` with its options.

        Raises ConfigError for an unknown name or option, with the nearest known one, and for a
        missing option.
        """
        factory, known = self.get(name), self.options(name)
        owner = f"{self.kind} '{name}'"
        if known is not None:
            check_options(owner, options, known)
        for key, parameter in signature(factory).parameters.items():
            varies = parameter.kind in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL)
            if parameter.default is Parameter.empty and not varies and key not in options:
                raise ConfigError(f"{owner}: option '{key}' is missing")
        return factory(**options)
