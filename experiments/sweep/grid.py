"""The points of a sweep: codecs x rates x packet sizes x channels x conditions x seeds.

A point's hash is of its meaning alone: what is sent, over which channel, how it is measured, and
the content of every outside file that takes part: weights, traces, tables of error rates, whatever
file an option names. It does not depend on the order or the spelling of the YAML (5 and 5.0 are one
value), nor on batch size, device, number of realisations or the pictures, which have their own part
in a row's key. Two sweeps that share a point share its rows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from channels.errors import ConfigError
from experiments.sweep.schema import AXES, Axis, CodecChoice, Sweep
from sqlink.codecs.base import Rate

FORMAT = 4
"""Raised when the meaning of a column changes, so that old rows are not mixed with new ones."""

PLACES = ("weights", "folder", "device")
"""Options that name a place, not a meaning; they are not part of a point's hash."""


@dataclass(frozen=True)
class Identities:
    """What the weights that take part are: SHA-256 (or another fingerprint) by who uses them.

    codecs: by the codec's title. metrics: by name, those that are measured. Empty text where a part
    has no weights, or does not take part at all. maps: titles of the codecs that carry a map; to
    the points of the others it is all one who makes maps. channels: by name, hashes of the files
    and tables that it depends on. needs: by channel, the conditions that it reads; all where it is
    not named. files: path, as an option names it -> SHA-256 of what lies there.
    """

    codecs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    segmenter: str = ""
    judge: str = ""
    maps: frozenset[str] = frozenset()
    channels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    needs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoding:
    """What is done to a picture before the channel: one encoding for all points that share it."""

    codec: CodecChoice
    rate: Rate
    packet_bytes: int

    @property
    def label(self) -> str:
        """Short text for progress and file names, such as `bpg bpp=0.05, 96-byte packets`."""
        return f"{self.codec.title} {self.rate.label()}, {self.packet_bytes}-byte packets"


@dataclass(frozen=True)
class Point:
    """One cell of the grid.

    channel: its name. conditions: the channel's, name and value, sorted by name. hash: 16
    hexadecimal digits of the point's meaning. axes: columns of swept options, and their values.
    """

    encoding: Encoding
    channel: str
    conditions: tuple[tuple[str, float], ...]
    seed: int
    hash: str
    axes: tuple[tuple[str, Axis], ...] = ()


def points(sweep: Sweep, identities: Identities) -> list[Point]:
    """Return the grid, codec by codec in the file's order, without duplicates.

    Each channel is crossed with the conditions that it needs. Raises ConfigError if rules leave
    nothing.
    """

    def meaning_of(options: Mapping[str, Any]) -> dict[str, Any]:
        return meaning(options, identities.files)

    measures = {
        "metrics": {
            metric.name: [meaning_of(metric.options), identities.metrics[metric.name]]
            for metric in sweep.metrics
            if metric.name in identities.metrics
        },
        "judge": [sweep.judge.name, meaning_of(sweep.judge.options), identities.judge],
    }
    segmenter = [sweep.segmenter.name, meaning_of(sweep.segmenter.options), identities.segmenter]
    links = {
        name: [contents(spec, identities.files), *identities.channels.get(name, ())]
        for name, spec in sweep.links().items()
    }
    found: dict[str, Point] = {}
    for cell in _cells(sweep, identities):
        codec, rate, packet_bytes, channel, seed = (cell[axis] for axis in AXES)
        conditions = tuple((name, value) for name, value in cell.items() if name not in AXES)
        content = {
            "format": FORMAT,
            "title": codec.title,
            "codec": [
                codec.name,
                meaning_of(codec.options),
                identities.codecs.get(codec.title, ""),
            ],
            "rate": rate.label(),
            "packet_bytes": packet_bytes,
            "channel": links[channel],
            "conditions": dict(conditions),
            "seed": seed,
            **({"name": channel} if sweep.channels else {}),
            **({"draws": sweep.draws} if sweep.draws else {}),
            **({"sequence": dict(sweep.sequence)} if sweep.sequence else {}),
            "segmenter": segmenter if codec.title in identities.maps else None,
            **measures,
        }
        axes = {f"codec_{name}": value for name, value in codec.axes.items()}
        for name, value in sweep.channel_axes.get(channel, {}).items():
            axes[f"channel_{name}"] = value
        encoding = Encoding(codec, rate, packet_bytes)
        point = Point(
            encoding, channel, conditions, seed, digest(content), tuple(sorted(axes.items()))
        )
        found.setdefault(point.hash, point)
    if not found:
        raise ConfigError("only and skip leave no point of the grid: loosen them")
    return list(found.values())


def _cells(sweep: Sweep, identities: Identities) -> Iterator[dict[str, Any]]:
    """Yield axis -> value of every cell that zips and rules allow, codec by codec."""
    names = sorted(sweep.conditions)
    place: dict[str, dict[Any, int]] = {
        "codec": {codec.title: n for n, codec in enumerate(sweep.codecs)},
        "packet_bytes": {size: n for n, size in enumerate(sweep.packet_bytes)},
        "channel": {name: n for n, name in enumerate(sweep.links())},
        "seed": {seed: n for n, seed in enumerate(sweep.seeds)},
        **{name: {v: n for n, v in enumerate(sweep.conditions[name])} for name in names},
    }
    for codec in sweep.codecs:
        rates = sweep.rates_of(codec).all()
        place["rate"] = {rate.label(): n for n, rate in enumerate(rates)}
        for rate, size, channel in itertools.product(rates, sweep.packet_bytes, sweep.links()):
            needs = [name for name in names if name in identities.needs.get(channel, names)]
            values = itertools.product(*(sweep.conditions[name] for name in needs))
            for met, seed in itertools.product(values, sweep.seeds):
                said: dict[str, Any] = {
                    "codec": codec.title,
                    "rate": rate.label(),
                    "packet_bytes": size,
                    "channel": channel,
                    "seed": seed,
                    **dict(zip(needs, met, strict=True)),
                }
                aligned = all(
                    len({place[name][said[name]] for name in group if name in said}) <= 1
                    for group in sweep.zip
                )
                chosen = not sweep.only or any(_keeps(said, rule) for rule in sweep.only)
                if aligned and chosen and not any(_keeps(said, rule) for rule in sweep.skip):
                    yield {**said, "codec": codec, "rate": rate}


def _keeps(said: Mapping[str, Any], rule: Mapping[str, Sequence[Any]]) -> bool:
    """Say whether a cell satisfies a rule: each axis that it names has one of the values."""
    return all(name in said and said[name] in values for name, values in rule.items())


def encodings(grid: Sequence[Point]) -> list[list[Point]]:
    """Return the points in their order, in groups that share an encoding."""
    return [list(group) for _, group in itertools.groupby(grid, _encoding_key)]


def _encoding_key(point: Point) -> tuple[str, str, int, str]:
    """Return what the points of one encoding share: channel uses are bytes on one channel alone."""
    encoding = point.encoding
    channel = point.channel if encoding.rate.channel_uses is not None else ""
    return encoding.codec.title, encoding.rate.label(), encoding.packet_bytes, channel


def canonical(value: Any) -> str:
    """Return one text for one meaning: keys sorted, 5.0 written as 5.

    >>> canonical({"b": 5.0, "a": [True, None, 0.5]})
    '{"a":[true,null,0.5],"b":5}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Hash the canonical text: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def meaning(options: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """Return the options without file places and device: the content of files is hashed."""
    return {key: contents(value, files) for key, value in options.items() if key not in PLACES}


def contents(value: Any, files: Mapping[str, str]) -> Any:
    """Replace each text that names a file by the SHA-256 of its content."""
    if isinstance(value, Mapping):
        return {key: contents(inner, files) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [contents(inner, files) for inner in value]
    return f"sha256:{files[value]}" if isinstance(value, str) and value in files else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
