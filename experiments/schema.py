"""The YAML of a sweep, validated: what is asked, before anything is computed.

    file.yaml ── load_sweep ──> Sweep (frozen) ── grid.points ──> points

Every mistake is refused in one line that names the file, the key's path and the remedy: an unknown
key with the nearest known one, a wrong type or a value out of range with what was expected.
"""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from channels.errors import ConfigError
from channels.registry import nearest

SEMANTIC = ("miou", "miou_map", "map_fidelity")
"""Metrics kept as confusion matrices: `judge` on the picture received against the labels, the map
received against the labels, and the map received against the map sent."""

DEFAULT_METRICS = ("psnr", "ms_ssim", "lpips", *SEMANTIC)


def _as_list(value: object) -> object:
    """One value stands for a list of one."""
    return value if isinstance(value, (list, tuple)) or value is None else [value]


def _as_named(value: object) -> object:
    """A bare name stands for a mapping with nothing but the name."""
    return {"name": value} if isinstance(value, str) else value


class Section(BaseModel):
    """Base of every part of the file: unknown keys and loose types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Rates(Section):
    """The budgets for one picture: lists of values by kind, at least one value in all."""

    bpp: Annotated[
        list[Annotated[float, Field(gt=0)]], BeforeValidator(_as_list), Field(default_factory=list)
    ]
    bytes: Annotated[
        list[Annotated[int, Field(gt=0)]], BeforeValidator(_as_list), Field(default_factory=list)
    ]
    channel_uses: Annotated[
        list[Annotated[int, Field(gt=0)]], BeforeValidator(_as_list), Field(default_factory=list)
    ]
    quality: Annotated[list[float], BeforeValidator(_as_list), Field(default_factory=list)]

    @model_validator(mode="after")
    def _not_empty(self) -> Rates:
        if not any((self.bpp, self.bytes, self.channel_uses, self.quality)):
            raise ValueError("name at least one rate: bpp, bytes, channel_uses or quality")
        return self


class Data(Section):
    """The pictures: a data set by name, its options, and how many of its pictures to take."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    limit: Annotated[int, Field(gt=0)] | None = None


class CodecChoice(Section):
    """A codec by name, its options, and the rates it runs at where they are not the sweep's."""

    name: str
    label: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    rates: Rates | None = None

    @property
    def title(self) -> str:
        """What tables and legends call it."""
        return self.label or self.name


class Choice(Section):
    """A segmenter or a metric by name, and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


Named = Annotated[Choice, BeforeValidator(_as_named)]


class Sweep(Section):
    """One question: which pictures, codecs, rates, channels and metrics, and how often.

    channel: what `channels.config.build` takes. examples: how many of the first pictures are kept
    as received, for the figures.
    """

    data: Annotated[Data, BeforeValidator(_as_named)]
    codecs: Annotated[
        list[Annotated[CodecChoice, BeforeValidator(_as_named)]],
        BeforeValidator(_as_list),
        Field(min_length=1),
    ]
    rates: Rates | None = None
    channel: Any
    conditions: dict[
        str, Annotated[list[float], BeforeValidator(_as_list), Field(min_length=1)]
    ] = Field(default_factory=dict)
    realisations: Annotated[int, Field(gt=0)] = 1
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**63)]],
        BeforeValidator(_as_list),
        Field(min_length=1),
    ] = [0]
    packet_bytes: Annotated[
        list[Annotated[int, Field(ge=8, le=65535)]],
        BeforeValidator(_as_list),
        Field(min_length=1),
    ] = [96]
    segmenter: Named = Choice(name="tx")
    judge: Named = Choice(name="judge")
    metrics: Annotated[list[Named], BeforeValidator(_as_list), Field(min_length=1)] = [
        Choice(name=name) for name in DEFAULT_METRICS
    ]
    examples: Annotated[int, Field(ge=0)] = 1
    batch_size: Annotated[int, Field(gt=0)] = 8
    device: str = "cpu"
    output: str | None = None

    @field_validator("codecs")
    @classmethod
    def _titles_differ(cls, codecs: list[CodecChoice]) -> list[CodecChoice]:
        titles = [codec.title for codec in codecs]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"two codecs are called '{twice[0]}': give each its own `label`")
        return codecs

    @model_validator(mode="after")
    def _rates_for_all(self) -> Sweep:
        if self.rates is None:
            for codec in self.codecs:
                if codec.rates is None:
                    raise ValueError(f"no rates: name `rates`, or those of codec '{codec.title}'")
        return self

    def rates_of(self, codec: CodecChoice) -> Rates:
        """The codec's own rates, or else the sweep's."""
        found = codec.rates or self.rates
        assert found is not None
        return found

    @field_validator("metrics")
    @classmethod
    def _metrics_known(cls, metrics: list[Choice]) -> list[Choice]:
        from sqlink.metrics import METRICS

        names = [metric.name for metric in metrics]
        known = [*METRICS.names(), *SEMANTIC]
        for name in names:
            if name not in known:
                raise ValueError(f"unknown metric '{name}': {nearest(name, known)}")
            if names.count(name) > 1:
                raise ValueError(f"metric '{name}' is given twice")
        return metrics

    @field_validator("device")
    @classmethod
    def _device_form(cls, device: str) -> str:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
            raise ValueError(f"'{device}' is no device: use cpu, cuda or cuda:N")
        return device


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice and reads 1e-3 as a number (as YAML 1.2 does)."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
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


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_sweep(path: str | Path) -> Sweep:
    """Read and validate a sweep. `${NAME}` in a text is the environment variable NAME.

    Raises ConfigError, one line, if the file cannot be read or anything in it is wrong.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{place}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: cannot be read: {one_line(error)}") from error
    return parse_sweep(text, place.name)


def parse_sweep(text: str, where: str = "sweep") -> Sweep:
    """Validate a sweep given as YAML text; `where` names it in errors.

    >>> parse_sweep(
    ...     "{data: streets, codecs: jpeg2000, rates: {bpp: 0.1}, channel: lossless}"
    ... ).codecs[0].title
    'jpeg2000'
    """
    try:
        raw = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark is not None else ""
        problem = getattr(error, "problem", None) or one_line(error)
        raise ConfigError(f"{where}:{line} {problem}") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: a sweep is a mapping of keys such as data, codecs, rates")
    try:
        return Sweep.model_validate(_expand(raw, where, ()))
    except ValidationError as error:
        raise ConfigError(_sentence(error, where)) from error


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _expand(value: Any, where: str, path: tuple[str | int, ...]) -> Any:
    """Put environment variables in place of `${NAME}`, in texts however deep."""
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
    """`codecs[1].options` for ("codecs", 1, "options")."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _sentence(error: ValidationError, where: str) -> str:
    """The first of the mistakes as one line, and how many more there are."""
    mistakes = error.errors(include_url=False)
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    path, kind = first["loc"], first["type"]
    if kind == "extra_forbidden":
        what = f"unknown key '{path[-1]}': {nearest(str(path[-1]), _known(path[:-1]))}"
        path = path[:-1]
    elif kind == "missing":
        what = f"key '{path[-1]}' is missing"
        path = path[:-1]
    elif kind == "value_error":
        what = str(first["ctx"]["error"])
    elif kind in ("dict_type", "model_type"):
        what = f"should be a mapping of keys, got {_shown(first['input'])}"
    elif kind == "too_short":
        what = "needs at least one value"
    else:
        expected = first["msg"].removeprefix("Input should be ")
        what = f"should be {expected}, got {_shown(first['input'])}"
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    middle = f" {_dotted(path)}:" if path else ""
    return one_line(ValueError(f"{where}:{middle} {what}{more}"))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _known(path: Sequence[str | int]) -> list[str]:
    """The keys that the section at `path` takes."""
    section: Any = Sweep
    for step in path:
        if isinstance(step, str):
            section = section.model_fields[step].annotation
        section = _section_inside(section)
    return list(section.model_fields)


def _section_inside(annotation: Any) -> Any:
    """The Section class that an annotation such as `list[Annotated[Section, ...]]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        found = _section_inside(inner)
        if found is not None:
            return found
    return None
