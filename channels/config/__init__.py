"""Making channels from a description, in YAML or in Python.

`load` reads a file or a name, and `build` takes the description itself. `checks` has the checks of
parameters, `yaml` the strict loader. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from channels.config.builder import build, load, names
    from channels.config.description import READY

__all__ = ["READY", "build", "load", "names"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("channels.config.builder"), name)
    raise AttributeError(f"module 'channels.config' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
