"""The points of a sweep: codecs x rates x packet sizes x channels x conditions x seeds.

The hash of a point covers its meaning only: what is sent, over which channel, how it is measured,
and the content of every outside file: weights, traces, tables of error rates, and any file that an
option names. It does not depend on the order or spelling of the YAML (5 and 5.0 are one value), on
batch size, device or number of realisations, or on the pictures, which have their own part in the
key of a row. Two sweeps that share a point share its rows.
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
"""Version of the rows, increased when the meaning of a column changes, so that old and new rows are
not mixed.
"""

PLACES = ("weights", "folder", "device")
"""Options that name a place and do not change the meaning; they are not in a point's hash."""


@dataclass(frozen=True)
class Identities:
    """Identities of the weights in use: SHA-256 (or another fingerprint) by user.

    codecs: by the codec's title. metrics: by name, those that are measured. A text is empty if a
    part has no weights or is not used. maps: titles of the codecs that carry a map; points of the
    others do not depend on the segmenter. channels: by name, hashes of the files and tables that
    the channel depends on. needs: by channel, the conditions that it reads; all conditions if it is
    not named. files: path, as in an option -> SHA-256 of the file.
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
    """Coding of a picture before the channel; points that share it need one encoding."""

    codec: CodecChoice
    rate: Rate
    packet_bytes: int

    @property
    def label(self) -> str:
        """Short text for progress and files, such as `bpg bpp=0.05, 96-byte packets`."""
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

    Each channel is crossed with the conditions that it needs. Raises ConfigError if the rules leave
    no point.
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
    """Yield a mapping axis -> value for every cell that zips and rules allow, codec by codec."""
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
    """Return what the points of one encoding share; a rate in channel uses depends on the
    channel.
    """
    encoding = point.encoding
    channel = point.channel if encoding.rate.channel_uses is not None else ""
    return encoding.codec.title, encoding.rate.label(), encoding.packet_bytes, channel


def canonical(value: Any) -> str:
    """Return a canonical text: keys sorted, 5.0 written as 5.

    >>> canonical({"b": 5.0, "a": [True, None, 0.5]})
    '{"a":[true,null,0.5],"b":5}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """Hash the canonical text: 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def meaning(options: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """Return the options without paths and device, with the hashes of files in their place."""
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
