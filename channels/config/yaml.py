"""Strict YAML for files of channels, sweeps and trainings, and for options.

Numbers follow YAML 1.2's core schema, decimal unless they begin with 0x or 0o: 010 is 10, and 1e-3
is a number. A range from:to:step stands for its values, alone or in a list, as on the command line.
Any other text that looks like a number (1_000, 1:30, 0b101, 1.2.3) is refused, because YAML 1.1
would read it as another number than the user meant. Duplicate keys are refused.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from channels.config.ranges import RANGE, span
from channels.errors import ConfigError

MOST_VALUES = 100_000
"""Most values that a text may hold, with aliases expanded."""

_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_RANGE, _DOUBTFUL = "!range", "!doubtful"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"

_NUMBERS = (
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"),
    (_FLOAT, r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    (_RANGE, RANGE.pattern),
    (_DOUBTFUL, r"[-+]*\.?[0-9][0-9_,.:+-]*(?:[eE][-+]?[0-9]*)?"),
    (_DOUBTFUL, r"[-+]?0[bBoOxX][0-9a-fA-F_]*"),
)
"""Types of plain words: the first pattern that matches decides."""


class StrictLoader(yaml.SafeLoader):
    """A safe YAML loader with the numbers of YAML 1.2, ranges, and no duplicate keys."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, (str, int, float)):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key must be a word, not {key!r}", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' is given twice", key_node.start_mark
            )
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _sequence(loader: StrictLoader, node: yaml.SequenceNode) -> list[Any]:
    """Build a list, with ranges replaced by their values."""
    values: list[Any] = []
    for item in node.value:
        value = loader.construct_object(item, deep=True)
        values += value if item.tag == _RANGE else [value]
    return values


def _integer(loader: StrictLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _decimal(loader: StrictLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(value) and "inf" not in text:
        raise yaml.constructor.ConstructorError(
            None, None, f"{text} is too large for a number", node.start_mark
        )
    return value


def _values(loader: StrictLoader, node: yaml.ScalarNode) -> list[float]:
    try:
        return span(loader.construct_scalar(node))
    except ValueError as error:
        raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error


def _doubtful(loader: StrictLoader, node: yaml.ScalarNode) -> str:
    text = loader.construct_scalar(node)
    mend = "write [0, 5, 10] or 0:10:5" if "," in text else "a range is from:to:step, as 0:20:5"
    mend = mend if {",", ":"} & set(text) else "write it in plain digits"
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"{text} looks like a number but is not one: {mend}, or put quotes around a text",
        node.start_mark,
    )


StrictLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in (_INT, _FLOAT, _TIMESTAMP)]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS:
    StrictLoader.add_implicit_resolver(
        _tag, re.compile(rf"(?:{_pattern})\Z"), list("-+.0123456789")
    )
StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_SEQUENCE_TAG, _sequence)
StrictLoader.add_constructor(_INT, _integer)
StrictLoader.add_constructor(_FLOAT, _decimal)
StrictLoader.add_constructor(_RANGE, _values)
StrictLoader.add_constructor(_DOUBTFUL, _doubtful)


def read_yaml(text: str, where: str) -> Any:
    """Read YAML strictly. Raises ConfigError, one line that names `where` and the line of the text.

    >>> read_yaml("{snr_db: 0:20:5, bytes: [010, 1e2]}", "example")
    {'snr_db': [0, 5, 10, 15, 20], 'bytes': [10, 100.0]}
    """
    try:
        value = yaml.load(text, Loader=StrictLoader)
        if _count(value, {}) <= MOST_VALUES:
            return value
        raise ConfigError(f"{where}: its aliases stand for over {MOST_VALUES} values: write fewer")
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deeply: write it flatter") from error
    except yaml.constructor.ConstructorError as error:
        problem = f"line {_line(error)}: {error.problem}"
        if error.problem == "found unconstructable recursive node":
            problem = f"line {_line(error)}: a value contains itself: write out its content"
    except yaml.MarkedYAMLError as error:
        problem = f"line {_line(error)}: not valid YAML: {error.problem}"
    # PyYAML also passes on the errors that its constructors raise.
    except (yaml.YAMLError, ValueError, TypeError) as error:
        problem = f"not valid YAML: {error}"
    raise ConfigError(f"{where}: {' '.join(problem.split())}")


def _count(value: Any, known: dict[int, int]) -> int:
    """Count the values in `value` with aliases expanded. known: values counted before."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(one, known) for one in inner)
    return known[id(value)]


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return 1 if mark is None else mark.line + 1
