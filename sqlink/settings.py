"""Files of settings: YAML read strictly and validated by a pydantic model.

    file.yaml ── load_settings ──> the model's values, or one line that says what is wrong and where

Every error message names the file, the path of the key and the remedy: an unknown key with the
nearest known one, a wrong type or a value out of range with what was expected. `${NAME}` in a text
stands for the environment variable NAME.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from channels.config.paths import beside
from channels.config.yaml import read_yaml
from channels.registry import nearest
from sqlink.errors import ConfigError, one_line


class Section(BaseModel):
    """Base of every section of a file: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")


def _as_tuple(value: object) -> object:
    """Convert YAML's lists to tuples."""
    return tuple(value) if isinstance(value, list) else value


Pair = Annotated[tuple[T, T], BeforeValidator(_as_tuple)]
"""Two values of one type, written as a list."""


Prepare = Callable[[Mapping[str, Any], str], Mapping[str, Any]]
"""Function that prepares the keys of a file before validation, given the file's name for errors."""


def load_settings(path: str | Path, model: type[S], prepare: Prepare | None = None) -> S:
    """Read and validate a file. Raises ConfigError, one line, for anything wrong in it.

    Files named in it are relative to its folder; see `channels.config.paths`.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{place}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {one_line(error)}") from error
    return parse_settings(text, model, place.name, prepare, place.parent)


def parse_settings(
    text: str,
    model: type[S],
    where: str,
    prepare: Prepare | None = None,
    folder: Path | None = None,
) -> S:
    """Validate settings given as YAML text; `where` names it in errors.

    folder: folder of the file; files named in it are relative to this folder.
    """
    raw = read_yaml(text, where)
    if folder is not None:
        raw = beside(raw, folder)
    if not isinstance(raw, Mapping):
        keys = ", ".join(list(model.model_fields)[:3])
        raise ConfigError(f"{where}: should be a mapping of keys such as {keys}")
    if prepare is not None:
        raw = prepare(raw, where)
    try:
        return model.model_validate(_expand(raw, where, ()))
    except ValidationError as error:
        raise ConfigError(_sentence(error, where, model)) from error


def find_settings(path: str | Path, package: str) -> Path:
    """Return the file `path`, or the shipped configuration of that name, such as `quickstart`.

    package: package that holds the shipped configurations. A file of that name takes precedence.
    Raises ConfigError if there is neither, and names the nearest configuration.

    >>> find_settings("quickstart", "experiments.configs").name
    'quickstart.yaml'
    """
    place, name = Path(path), str(path)
    if os.path.isfile(place) or place.suffix or place.name != name:
        return place
    home = Path(str(files(package)))
    shipped = sorted(found.stem for found in home.glob("*.yaml"))
    if name not in shipped:
        raise ConfigError(
            f"no file '{name[:60]}', and no shipped configuration of that name: "
            f"{nearest(name, shipped)}"
        )
    return home / f"{name}.yaml"


def settings_kind(path: str | Path) -> str | None:
    """Return the file's `kind`; None if it has none or cannot be read, which the loader reports."""
    try:
        raw = read_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, ConfigError):
        return None
    return raw.get("kind") if isinstance(raw, Mapping) else None


def _expand(value: Any, where: str, path: tuple[str | int, ...]) -> Any:
    """Replace `${NAME}` by environment variables in all texts, at any depth."""
    if isinstance(value, Mapping):
        return {key: _expand(inner, where, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, where, (*path, i)) for i, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match[1]
        if not os.environ.get(name):
            raise ConfigError(
                f"{where}: {_dotted(path)}: the environment variable {name} is not set: "
                "set it, or write the value in the file"
            )
        return os.environ[name]

    return re.sub(r"\$\{(\w+)\}", variable, value)


def _dotted(path: Sequence[str | int]) -> str:
    """Join ("codecs", 1, "options") to `codecs[1].options`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _sentence(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Describe the first error in one line, with the number of further ones."""
    mistakes = error.errors(include_url=False)
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    path, kind = first["loc"], first["type"]
    if kind == "extra_forbidden":
        what = f"unknown key '{path[-1]}': {nearest(str(path[-1]), _known(model, path[:-1]))}"
        path = path[:-1]
    elif kind == "missing" and isinstance(path[-1], int):
        what = f"needs more values than {_shown(first['input'])}"
        path = path[:-1]
    elif kind == "missing":
        what = f"key '{path[-1]}' is missing"
        path = path[:-1]
    elif kind == "value_error":
        what = str(first["ctx"]["error"])
    elif kind in ("dict_type", "model_type"):
        what = f"should be a mapping of keys, got {_shown(first['input'])}"
    elif kind == "invalid_key":
        what = f"a key must be a word, not {path[-1]!r}"
        path = path[:-1]
    elif kind == "too_short":
        what = "needs at least one value"
    elif kind == "too_long":
        what = f"takes {first['ctx']['max_length']} values at most, got {_shown(first['input'])}"
    elif kind == "tuple_type":
        what = f"should be a list of values, got {_shown(first['input'])}"
    else:
        expected = first["msg"].removeprefix("Input should be ")
        what = f"should be {expected}, got {_shown(first['input'])}"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    middle = f" {_dotted(path)}:" if path else ""
    return one_line(ValueError(f"{where}:{middle} {what}{more}"))


def _shown(value: object) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _known(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """List the keys that the section at `path` takes."""
    section: Any = model
    for step in path:
        if isinstance(step, str):
            section = section.model_fields[step].annotation
        section = _section_inside(section)
    return list(section.model_fields)


def _section_inside(annotation: Any) -> Any:
    """Return the Section class that an annotation such as `list[Annotated[Section, ...]]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _section_inside(inner)
        if found is not None:
            return found
    return None
