"""Expansion of a sweep's YAML: bases, variables, files and swept values.

    extends: base.yaml          keys of the base apply unless the file gives them
    variables: {snrs: [0, 5]}   ${snrs} anywhere is that value; within a longer text, its text,
                                as in the range "0:${most}:5"
    channel: link.yaml          a description in another file
    {sweep: [0.25, 0.5]}        anywhere in a channel's or a codec's options: one per value

Relative paths are relative to the file that names them.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from channels.config.paths import beside
from channels.config.ranges import RANGE, span
from channels.config.yaml import read_yaml
from channels.errors import ConfigError

SWEEP = "sweep"
"""The only key of a mapping that stands for several values in turn."""

EXCLUSIVE = ("channel", "channels")
RANGED = ("conditions", "rates")
"""Keys whose values are lists of numbers."""

_NAME = re.compile(r"\$\{(\w+)\}")


def expand(raw: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """Expand the description; `where` names the file, which lies in `folder`.

    Raises ConfigError, one line.

    >>> expand(
    ...     {"variables": {"most": 3}, "realisations": "${most}",
    ...      "channel": {"coded": {"code_rate": {"sweep": [0.25, 0.5]}}}}, "a.yaml", Path())
    ... # doctest: +NORMALIZE_WHITESPACE
    {'realisations': 3, 'channels': {'coded code_rate=0.25': {'coded': {'code_rate': 0.25}},
    'coded code_rate=0.5': {'coded': {'code_rate': 0.5}}},
    'channel_axes': {'coded code_rate=0.25': {'code_rate': 0.25},
    'coded code_rate=0.5': {'code_rate': 0.5}}}
    """
    whole = _extended(raw, where, folder, ())
    variables = whole.pop("variables", None) or {}
    if not isinstance(variables, Mapping):
        raise ConfigError(f"{where}: variables: should be a mapping of names, as {{snrs: [0, 5]}}")
    whole = _ranges(_substituted(whole, variables), where)
    whole = _channels(whole, where, folder)
    return _codecs(whole)


def _extended(
    raw: Mapping[str, Any], where: str, folder: Path, seen: tuple[Path, ...]
) -> dict[str, Any]:
    """Merge the file's keys with those of the files that it extends; its own take precedence."""
    own = dict(raw)
    bases = own.pop("extends", None)
    if bases is None:
        return own
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise ConfigError(f"{where}: extends: should be the name of a file, got {base!r}")
        path = (folder / base).resolve()
        if path in seen:
            raise ConfigError(f"{where}: extends: {base} extends itself: leave one `extends` out")
        found = read(path, f"{where}: extends")
        if not isinstance(found, Mapping):
            raise ConfigError(f"{where}: extends: {base} should be a mapping of keys")
        merged |= _extended(found, path.name, path.parent, (*seen, path))
    if any(key in own for key in EXCLUSIVE):
        merged = {key: value for key, value in merged.items() if key not in EXCLUSIVE}
    base, ours = merged.get("variables"), own.get("variables")
    if isinstance(base, Mapping) and isinstance(ours, Mapping):
        own["variables"] = {**base, **ours}
    return {**merged, **own}


def read(path: Path, where: str) -> Any:
    """Read a YAML file. Raises ConfigError, naming `where` it was asked for."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{where}: {path}: {reason}") from error
    return beside(read_yaml(text, f"{where}: {path}"), path.parent)


def _substituted(value: Any, variables: Mapping[str, Any]) -> Any:
    """Replace `${NAME}` by variables; other names are left for the environment."""
    if isinstance(value, Mapping):
        return {key: _substituted(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substituted(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value
    alone = _NAME.fullmatch(value)
    if alone and alone[1] in variables:
        return variables[alone[1]]
    return _NAME.sub(
        lambda match: str(variables[match[1]]) if match[1] in variables else match[0], value
    )


def _ranges(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Replace ranges written as text, such as those with variables, by their values."""
    found = dict(raw)
    for key in RANGED:
        if isinstance(raw.get(key), Mapping):
            found[key] = {
                name: _spanned(value, f"{where}: {key}.{name}") for name, value in raw[key].items()
            }
    return found


def _spanned(value: Any, where: str) -> Any:
    """Return the values of ranges written as text, alone or in a list. Raises ConfigError."""
    if isinstance(value, list):
        found: list[Any] = []
        for one in value:
            part = _spanned(one, where)
            found += part if isinstance(part, list) else [part]
        return found
    if not isinstance(value, str) or not RANGE.fullmatch(value.strip()):
        return value
    try:
        return span(value.strip())
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _channels(raw: dict[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """Read channel files; expand channels with swept values to several named ones."""
    if "channel" in raw:
        spec = _from_file(raw["channel"], f"{where}: channel", folder)
        found = list(swept(spec))
        if len(found) == 1:
            return {**raw, "channel": spec}
        whole = {key: value for key, value in raw.items() if key != "channel"}
        named = {label(spec): spec}
    else:
        whole, given = dict(raw), raw.get("channels")
        if not isinstance(given, Mapping):
            return raw
        named = {
            name: _from_file(spec, f"{where}: channels.{name}", folder)
            for name, spec in given.items()
        }
    channels: dict[str, Any] = {}
    axes: dict[str, dict[str, Any]] = {}
    for name, spec in named.items():
        for one, values in swept(spec):
            title = " ".join([str(name), *(f"{k}={v}" for k, v in values.items())])
            channels[title] = one
            if values:
                axes[title] = values
    return {**whole, "channels": channels, **({"channel_axes": axes} if axes else {})}


def _from_file(spec: Any, where: str, folder: Path) -> Any:
    """Read the description in a file if `spec` is a file's name, else return `spec`."""
    if isinstance(spec, str) and Path(spec).suffix.lower() in (".yaml", ".yml"):
        return read(folder / spec, where)
    return spec


def label(spec: Any) -> str:
    """Return the name in tables of a channel without a name.

    >>> label("rayleigh"), label({"interleave": {"depth": 2}}), label(["iid", {"awgn": {}}])
    ('rayleigh', 'interleave', 'iid+awgn')
    """
    if isinstance(spec, list):
        return "+".join(label(one) for one in spec)
    if isinstance(spec, Mapping) and len(spec) == 1:
        return str(next(iter(spec)))
    return str(spec)


def _codecs(raw: dict[str, Any]) -> dict[str, Any]:
    """Expand codecs with swept options to several, each with its own label."""
    codecs = raw.get("codecs")
    if not isinstance(codecs, list):
        codecs = [codecs]
    found: list[Any] = []
    for codec in codecs:
        if not isinstance(codec, Mapping) or not isinstance(codec.get("options"), Mapping):
            found.append(codec)
            continue
        for options, values in swept(codec["options"]):
            if not values:
                found.append(codec)
                continue
            title = codec.get("label") or codec.get("name")
            named = " ".join([str(title), *(f"{k}={v}" for k, v in values.items())])
            found.append({**codec, "options": options, "label": named, "axes": values})
    return {**raw, "codecs": found} if any(found) else raw


def swept(value: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each description that `value` stands for, with the swept values by key.

    A key is the last word of its path, or the whole path if two are equal.

    >>> list(swept({"a": {"b": {"sweep": [1, 2]}}}))
    [({'a': {'b': 1}}, {'b': 1}), ({'a': {'b': 2}}, {'b': 2})]
    """
    places = list(_places(value, ()))
    last = [str(path[-1]) for path, _ in places]
    names = [
        key if last.count(key) == 1 else ".".join(map(str, path))
        for key, (path, _) in zip(last, places, strict=True)
    ]
    for chosen in itertools.product(*(values for _, values in places)):
        one = value
        for (path, _), picked in zip(places, chosen, strict=True):
            one = _put(one, path, picked)
        yield one, dict(zip(names, chosen, strict=True))


def _places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    """Yield the places of {sweep: [...]}, and their values."""
    if isinstance(value, Mapping):
        if set(value) == {SWEEP} and isinstance(value[SWEEP], list) and path:
            if not value[SWEEP] or any(isinstance(v, (Mapping, list)) for v in value[SWEEP]):
                place = ".".join(map(str, path))
                raise ConfigError(f"{place}: sweep: should be a list of numbers or words")
            yield path, value[SWEEP]
            return
        for key, inner in value.items():
            yield from _places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _places(inner, (*path, i))


def _put(value: Any, path: tuple[Any, ...], picked: Any) -> Any:
    """Return a copy of the value with `picked` at `path`."""
    if not path:
        return picked
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [_put(v, rest, picked) if i == step else v for i, v in enumerate(value)]
    return {k: _put(v, rest, picked) if k == step else v for k, v in value.items()}
