"""The schema of a sweep's YAML, which is validated before anything is computed.

    file.yaml ── load_sweep ──> Sweep (frozen) ── grid.points ──> points

Every error is reported in one line that names the file, the path of the key and the remedy: an
unknown key with the nearest known one, a wrong type or a value out of range with what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from channels.registry import nearest
from experiments.sweep.expand import expand, label
from sqlink.codecs import lossless_options
from sqlink.codecs.base import Rate
from sqlink.settings import Section, load_settings, parse_settings

DEFAULT_METRICS = ("psnr", "ms_ssim", "lpips", "miou", "miou_map", "map_fidelity")


def as_list(value: object) -> object:
    """Put one value into a list."""
    return value if isinstance(value, (list, tuple)) or value is None else [value]


def as_named(value: object) -> object:
    """Replace a bare name by a mapping with only the name."""
    return {"name": value} if isinstance(value, str) else value


Axis = float | int | str
"""A value on an axis of the grid."""


class Rates(Section):
    """Budgets for one picture: lists of values by kind, with at least one value in total."""

    bpp: Annotated[
        list[Annotated[float, Field(gt=0)]], BeforeValidator(as_list), Field(default_factory=list)
    ]
    bytes: Annotated[
        list[Annotated[int, Field(gt=0)]], BeforeValidator(as_list), Field(default_factory=list)
    ]
    channel_uses: Annotated[
        list[Annotated[int, Field(gt=0)]], BeforeValidator(as_list), Field(default_factory=list)
    ]
    quality: Annotated[list[float], BeforeValidator(as_list), Field(default_factory=list)]

    @model_validator(mode="after")
    def _not_empty(self) -> Rates:
        if not any((self.bpp, self.bytes, self.channel_uses, self.quality)):
            raise ValueError("name at least one rate: bpp, bytes, channel_uses or quality")
        return self

    def all(self) -> list[Rate]:
        """List every rate that the section names.

        >>> [rate.label() for rate in Rates(bpp=[0.04, 0.1], bytes=[900]).all()]
        ['bpp=0.04', 'bpp=0.1', 'bytes=900']
        """
        return [
            *(Rate(bpp=value) for value in self.bpp),
            *(Rate(bytes=value) for value in self.bytes),
            *(Rate(channel_uses=value) for value in self.channel_uses),
            *(Rate(quality=value) for value in self.quality),
        ]


class Data(Section):
    """The pictures: a data set by name, its options, and which of its pictures to take.

    every: take every n-th picture, from the first. limit: largest number of pictures.
    """

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    every: Annotated[int, Field(gt=0)] = 1
    limit: Annotated[int, Field(gt=0)] | None = None


class CodecChoice(Section):
    """A codec by name, its options, and its rates if they differ from those of the sweep.

    axes: values that distinguish it from others, in columns `codec_NAME` of the results; values of
    swept options are added automatically.
    """

    name: str
    label: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    rates: Rates | None = None
    axes: dict[str, Axis] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name in tables and legends."""
        return self.label or self.name


class Choice(Section):
    """A segmenter or a metric by name, and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class SequenceOf(Section):
    """Pictures in sequence over one link, whose state carries over from picture to picture.

    length: pictures per run, in the order of the data set. picture_rate_hz: pictures sent per
    second.
    """

    length: Annotated[int, Field(gt=1, le=4096)]
    picture_rate_hz: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Compare(Section):
    """Comparisons in the tables.

    anchors: titles of the codecs that Bjøntegaard deltas refer to; by default those that carry no
    map. differences: pairs of rows, each a codec's title and a rate, such as `sqgan bpp=0.02`,
    whose difference is given with its paired interval.
    """

    anchors: Annotated[list[str], BeforeValidator(as_list)] | None = None
    differences: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list
    )


class Until(Section):
    """Stopping rule: the number of realisations is doubled until every interval is narrow enough.

    metric: a metric, or a column of the summary, such as `miou`. width: largest half-width of its
    95 % interval, in the unit of the metric. most: largest number of realisations.
    """

    metric: str
    width: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    most: Annotated[int, Field(gt=0)]


Rule = dict[str, Annotated[list[Axis], BeforeValidator(as_list), Field(min_length=1)]]

NAMED = ("Data", "CodecChoice", "Choice")
"""Sections that may be written as a bare name."""

AXES = ("codec", "rate", "packet_bytes", "channel", "seed")
"""Axes of every grid, besides the conditions."""


class Kept(Section):
    """Pictures kept as received: the first ones, in their first realisations of the channel."""

    pictures: Annotated[int, Field(ge=0)] = 1
    realisations: Annotated[int, Field(gt=0)] = 1


def as_kept(value: object) -> object:
    """Read a number as the number of pictures to keep."""
    return value if isinstance(value, (dict, Kept)) else {"pictures": value}


Named = Annotated[Choice, BeforeValidator(as_named)]


class Sweep(Section):
    """One question: which pictures, codecs, rates, channels and metrics, and how often.

    channel: a description as for `channels.config.build`, or a file with one; or channels: several
    by name, each crossed with the conditions that it needs. zip: lists of axes (`codec`, `rate`,
    `packet_bytes`, `channel`, `seed` or a condition) that vary together instead of being crossed.
    only: rules, axis -> values; a point must satisfy at least one of them. skip: rules of which a
    point must satisfy none. Rules write a rate as `bpp=0.04`. draws: a name that keys the channel's
    random numbers instead of its description: sweeps with the same name meet the same fades.
    sequence: runs of pictures that share a link; by default each picture has its own link, which
    starts from the channel's stationary distribution. until: see `Until`. examples: number of first
    pictures, and of their realisations, that are kept as received for the figures and the page.
    """

    data: Annotated[Data, BeforeValidator(as_named)]
    codecs: Annotated[
        list[Annotated[CodecChoice, BeforeValidator(as_named)]],
        BeforeValidator(as_list),
        Field(min_length=1),
    ]
    rates: Rates | None = None
    channel: Any = None
    channels: dict[str, Any] = Field(default_factory=dict)
    channel_axes: dict[str, dict[str, Axis]] = Field(default_factory=dict)
    conditions: dict[str, Annotated[list[float], BeforeValidator(as_list), Field(min_length=1)]] = (
        Field(default_factory=dict)
    )
    zip: list[Annotated[list[str], Field(min_length=2)]] = Field(default_factory=list)
    only: Annotated[list[Rule], BeforeValidator(as_list)] = Field(default_factory=list)
    skip: Annotated[list[Rule], BeforeValidator(as_list)] = Field(default_factory=list)
    draws: Annotated[str, Field(min_length=1)] | None = None
    sequence: SequenceOf | None = None
    realisations: Annotated[int, Field(gt=0)] = 1
    until: Until | None = None
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**63)]],
        BeforeValidator(as_list),
        Field(min_length=1),
    ] = Field(default=[0])
    packet_bytes: Annotated[
        list[Annotated[int, Field(ge=8, le=65535)]],
        BeforeValidator(as_list),
        Field(min_length=1),
    ] = Field(default=[96])
    segmenter: Named = Choice(name="tx")
    judge: Named = Choice(name="judge")
    metrics: Annotated[list[Named], BeforeValidator(as_list), Field(min_length=1)] = Field(
        default=[Choice(name=name) for name in DEFAULT_METRICS]
    )
    compare: Compare = Compare()
    examples: Annotated[Kept, BeforeValidator(as_kept)] = Kept()
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

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_lost(cls, raw: Any) -> Any:
        """Give codecs their best options for lossless channels if all channels are `lossless`."""
        if not isinstance(raw, Mapping):
            return raw
        links = raw.get("channels") or {"": raw.get("channel")}
        kinds = list(links.values()) if isinstance(links, Mapping) else [None]
        if not all(kind in ("lossless", {"lossless": {}}, {"lossless": None}) for kind in kinds):
            return raw
        given_codecs = raw.get("codecs")
        codecs = []
        for one in given_codecs if isinstance(given_codecs, list) else [given_codecs]:
            named = as_named(one)
            if isinstance(named, Mapping) and isinstance(named.get("name"), str):
                best = lossless_options(named["name"])
                given = named.get("options") or {}
                if best and isinstance(given, Mapping):
                    one = {**named, "options": {**best, **given}}
            codecs.append(one)
        return {**raw, "codecs": codecs} if given_codecs else raw

    @model_validator(mode="after")
    def _one_channel_or_several(self) -> Sweep:
        if (self.channel is None) == (not self.channels):
            raise ValueError("give `channel`, or `channels`, several by name: one of both")
        for name in self.channel_axes:
            if name not in self.channels:
                hint = nearest(name, list(self.channels)) if self.channels else "give `channels`"
                raise ValueError(f"channel_axes: no channel '{name}': {hint}")
        return self

    @model_validator(mode="after")
    def _runs_are_of_neighbours(self) -> Sweep:
        if self.sequence is not None and self.data.every > 1:
            raise ValueError(
                f"data.every={self.data.every}: a `sequence` is of pictures in a row: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _cap_is_no_less(self) -> Sweep:
        if self.until is not None and self.until.most < self.realisations:
            raise ValueError(
                f"until: most={self.until.most} is less than realisations={self.realisations}: "
                "raise it"
            )
        return self

    @model_validator(mode="after")
    def _axes_are_there(self) -> Sweep:
        known = [*AXES, *self.conditions]
        named = [("zip", name) for names in self.zip for name in names]
        named += [("only", name) for rule in self.only for name in rule]
        named += [("skip", name) for rule in self.skip for name in rule]
        for key, name in named:
            if name not in known:
                raise ValueError(f"{key}: no axis '{name}': {nearest(name, known)}")
        for names in self.zip:
            lengths = {name: self._values(name) for name in names}
            if len(set(lengths.values())) > 1:
                said = ", ".join(f"{name} {count}" for name, count in lengths.items())
                raise ValueError(f"zip: axes side by side need as many values each: {said}")
        return self

    def _values(self, axis: str) -> int:
        """Return the number of values on an axis; for rates, the largest number of any codec."""
        if axis == "rate":
            return max(len(self.rates_of(codec).all()) for codec in self.codecs)
        counts = {
            "codec": len(self.codecs),
            "packet_bytes": len(self.packet_bytes),
            "channel": len(self.links()),
            "seed": len(self.seeds),
        }
        return counts[axis] if axis in counts else len(self.conditions[axis])

    def links(self) -> dict[str, Any]:
        """Return the channels by name; a channel without a name is named after its description."""
        return self.channels or {label(self.channel): self.channel}

    @model_validator(mode="after")
    def _rates_for_all(self) -> Sweep:
        if self.rates is None:
            for codec in self.codecs:
                if codec.rates is None:
                    raise ValueError(f"no rates: name `rates`, or those of codec '{codec.title}'")
        return self

    @model_validator(mode="after")
    def _compared_are_there(self) -> Sweep:
        titles = [codec.title for codec in self.codecs]
        for title in self.compare.anchors or ():
            if title not in titles:
                raise ValueError(f"compare.anchors: no codec '{title}': {nearest(title, titles)}")
        rows = [
            f"{codec.title} {rate.label()}"
            for codec in self.codecs
            for rate in self.rates_of(codec).all()
        ]
        for row in (row for pair in self.compare.differences for row in pair):
            if row not in rows:
                raise ValueError(f"compare.differences: no row '{row}': {nearest(row, rows)}")
        return self

    def rates_of(self, codec: CodecChoice) -> Rates:
        """Return the codec's own rates, or else the sweep's."""
        found = codec.rates or self.rates
        assert found is not None
        return found

    @field_validator("metrics")
    @classmethod
    def _metrics_known(cls, metrics: list[Choice]) -> list[Choice]:
        from sqlink.metrics import METRICS

        names = [metric.name for metric in metrics]
        known = METRICS.names()
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
            raise ValueError(f"'{device}' is not a device: use cpu, cuda or cuda:N")
        return device


def load_sweep(path: str | Path) -> Sweep:
    """Read and validate a sweep. `${NAME}` in a text is the environment variable NAME.

    Raises ConfigError, one line, if the file cannot be read or anything in it is wrong.
    """
    folder = Path(path).parent
    return load_settings(path, Sweep, lambda raw, where: expand(raw, where, folder))


def parse_sweep(text: str, where: str = "sweep") -> Sweep:
    """Validate a sweep given as YAML text; `where` names it in errors.

    >>> parse_sweep(
    ...     "{data: streets, codecs: jpeg2000, rates: {bpp: 0.1}, channel: lossless}"
    ... ).codecs[0].title
    'jpeg2000'
    """
    return parse_settings(text, Sweep, where, lambda raw, name: expand(raw, name, Path()))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a sweep's YAML, with the keys that expansion removes."""
    found = Sweep.model_json_schema()
    found["title"] = "SQLink sweep"
    found["properties"] |= {
        "extends": _either({"type": "string"}),
        "variables": {"type": "object"},
    }
    for key in ("channel_axes",):
        found["properties"].pop(key)
    found["required"] = [key for key in found.get("required", ()) if key not in ("data", "codecs")]
    for section in (found, *found.get("$defs", {}).values()):
        for name, value in section.get("properties", {}).items():
            section["properties"][name] = _loose(value)
    found["$defs"]["CodecChoice"]["properties"].pop("axes")
    return found


def _loose(value: dict[str, Any]) -> dict[str, Any]:
    """Allow a single value or a range for a list, a name for a section, and a variable for both."""
    if "anyOf" in value:
        return {**value, "anyOf": [_loose(one) for one in value["anyOf"]]}
    text = {"type": "string"}
    if value.get("type") == "array":
        items = _loose(value.get("items", {}))
        plain: dict[str, Any] = {k: value[k] for k in ("description", "default") if k in value}
        return {**plain, "anyOf": [{**value, "items": items}, items, text]}
    if "$ref" in value:
        named = {"type": "string"} if value["$ref"].rsplit("/", 1)[-1] in NAMED else text
        return {"anyOf": [{"$ref": value["$ref"]}, named]}
    return value


def _either(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [item, {"type": "array", "items": item}]}
