"""The YAML of a sweep, validated: what is asked, before anything is computed.

    file.yaml ── load_sweep ──> Sweep (frozen) ── grid.points ──> points

Every mistake is refused in one line that names the file, the key's path and the remedy: an unknown
key with the nearest known one, a wrong type or a value out of range with what was expected.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from channels.registry import nearest
from sqlink.settings import Section, load_settings, parse_settings

MATRICES = ("miou", "miou_map", "map_fidelity")
"""Metrics kept as confusion matrices: `judge` on the picture received against the labels, the map
received against the labels, and the map received against the map sent."""

FRECHET = "fd"
"""The Fréchet distance on the judge's features; its vectors are kept, 12 kB for each reception of
480x360 and as much for its original, so a sweep has it only where it is named."""

SEMANTIC = (*MATRICES, FRECHET)
"""Metrics that are no number of one picture: what adds up over pictures is kept of them."""

DEFAULT_METRICS = ("psnr", "ms_ssim", "lpips", *MATRICES)


def as_list(value: object) -> object:
    """One value stands for a list of one."""
    return value if isinstance(value, (list, tuple)) or value is None else [value]


def as_named(value: object) -> object:
    """A bare name stands for a mapping with nothing but the name."""
    return {"name": value} if isinstance(value, str) else value


class Rates(Section):
    """The budgets for one picture: lists of values by kind, at least one value in all."""

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


class SequenceOf(Section):
    """Pictures that follow each other over one link, whose state is carried on between them.

    length: pictures in a row, in the data set's order. picture_rate_hz: how often one is sent.
    """

    length: Annotated[int, Field(gt=1, le=4096)]
    picture_rate_hz: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Compare(Section):
    """What the tables compare.

    anchors: titles of the codecs that Bjøntegaard deltas are taken against; by default those that
    carry no map. differences: pairs of rows, each a codec's title and a rate, such as
    `sqgan bpp=0.02`, whose difference is given with its paired interval.
    """

    anchors: Annotated[list[str], BeforeValidator(as_list)] | None = None
    differences: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list
    )


Named = Annotated[Choice, BeforeValidator(as_named)]


class Sweep(Section):
    """One question: which pictures, codecs, rates, channels and metrics, and how often.

    channel: what `channels.config.build` takes. draws: a name that keys the channel's randomness in
    place of its description: sweeps that share it meet the same fades. sequence: runs of pictures
    that share a link; by default each picture has its own, which starts from the channel's
    stationary law. examples: how many of the first pictures are kept as received, for the figures.
    """

    data: Annotated[Data, BeforeValidator(as_named)]
    codecs: Annotated[
        list[Annotated[CodecChoice, BeforeValidator(as_named)]],
        BeforeValidator(as_list),
        Field(min_length=1),
    ]
    rates: Rates | None = None
    channel: Any
    conditions: dict[str, Annotated[list[float], BeforeValidator(as_list), Field(min_length=1)]] = (
        Field(default_factory=dict)
    )
    draws: Annotated[str, Field(min_length=1)] | None = None
    sequence: SequenceOf | None = None
    realisations: Annotated[int, Field(gt=0)] = 1
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

    @model_validator(mode="after")
    def _compared_are_there(self) -> Sweep:
        from experiments.sweep.grid import rates

        titles = [codec.title for codec in self.codecs]
        for title in self.compare.anchors or ():
            if title not in titles:
                raise ValueError(f"compare.anchors: no codec '{title}': {nearest(title, titles)}")
        rows = [
            f"{codec.title} {rate.label()}"
            for codec in self.codecs
            for rate in rates(self.rates_of(codec))
        ]
        for row in (row for pair in self.compare.differences for row in pair):
            if row not in rows:
                raise ValueError(f"compare.differences: no row '{row}': {nearest(row, rows)}")
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


def load_sweep(path: str | Path) -> Sweep:
    """Read and validate a sweep. `${NAME}` in a text is the environment variable NAME.

    Raises ConfigError, one line, if the file cannot be read or anything in it is wrong.
    """
    return load_settings(path, Sweep)


def parse_sweep(text: str, where: str = "sweep") -> Sweep:
    """Validate a sweep given as YAML text; `where` names it in errors.

    >>> parse_sweep(
    ...     "{data: streets, codecs: jpeg2000, rates: {bpp: 0.1}, channel: lossless}"
    ... ).codecs[0].title
    'jpeg2000'
    """
    return parse_settings(text, Sweep, where)
