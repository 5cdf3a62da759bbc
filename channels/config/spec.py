"""From what stands in a YAML file to an object of a registry.

awgn                                  a name
{rayleigh: {coherence: picture}}      a name and its parameters
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TypeVar

from channels.errors import ConfigError
from channels.registry import Registry, nearest

T = TypeVar("T")


def name_and_parameters(kind: str, spec: object) -> tuple[str, dict[str, object]]:
    """Read a name, or a mapping of one name to its parameters. Raises ConfigError on anything else.

    >>> name_and_parameters("channel", {"iid_erasure": {"loss": 0.1}})
    ('iid_erasure', {'loss': 0.1})
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        name, parameters = next(iter(spec.items()))
        if isinstance(name, str) and (parameters is None or isinstance(parameters, Mapping)):
            return name, {str(key): value for key, value in (parameters or {}).items()}
    raise ConfigError(
        f"a {kind} is a name or one name with its parameters, as {{name: {{key: value}}}}; "
        f"got {spec!r}"
    )


def construct(registry: Registry[T], name: str, parameters: Mapping[str, object]) -> T:
    """Make the registry's object `name`. Raises ConfigError on a wrong name, key or value."""
    factory = registry.get(name)
    known = inspect.signature(factory).parameters
    for key in parameters:
        if key not in known:
            hint = nearest(key, list(known)) if known else "it takes none"
            raise ConfigError(f"{registry.kind} {name}: unknown parameter '{key}': {hint}")
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in parameters:
            raise ConfigError(f"{registry.kind} {name}: parameter '{key}' is missing")
    return factory(**parameters)


def from_spec(registry: Registry[T], spec: object) -> T:
    """Make what `spec` names: a name, or {name: parameters}. Raises ConfigError."""
    return construct(registry, *name_and_parameters(registry.kind, spec))
