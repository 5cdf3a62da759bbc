"""The points of a sweep: codecs x rates x packet sizes x channel conditions x seeds.

A point's hash is of its meaning alone: what is sent, over which channel, how it is measured, and
the content of every outside file that takes part: weights, traces, tables of error rates, whatever
file an option names. It does not depend on the order or the spelling
of the YAML (5 and 5.0 are one value), nor on batch size, device, number of realisations or the
pictures, which are part of a row's key of their own. Two sweeps that share a point share its rows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.sweep.schema import CodecChoice, Rates, Sweep
from sqlink.codecs.base import Rate

FORMAT = 4
"""Raised when the meaning of a column changes, so that old rows are not mixed with new ones."""

PLACES = ("weights", "folder", "device")
"""Options that say where something lies, not what it is: not part of a point's meaning."""


@dataclass(frozen=True)
class Identities:
    """What the weights that take part are: SHA-256 (or another fingerprint) by who uses them.

    codecs: by the codec's title. metrics: by name, those that are measured. Empty text where a part
    has no weights, or does not take part at all. maps: titles of the codecs that carry a map; to
    the points of the others it is all one who makes maps. channel: hashes of the files and tables
    that the channel depends on. files: path, as an option names it -> SHA-256 of what lies there.
    """

    codecs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    segmenter: str = ""
    judge: str = ""
    maps: frozenset[str] = frozenset()
    channel: tuple[str, ...] = ()
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

    conditions: the channel's, name and value, sorted by name. hash: 16 hexadecimal digits of the
    point's meaning.
    """

    encoding: Encoding
    conditions: tuple[tuple[str, float], ...]
    seed: int
    hash: str


def rates(section: Rates) -> list[Rate]:
    """Every rate that the section names.

    >>> [rate.label() for rate in rates(Rates(bpp=[0.04, 0.1], bytes=[900]))]
    ['bpp=0.04', 'bpp=0.1', 'bytes=900']
    """
    return [
        *(Rate(bpp=value) for value in section.bpp),
        *(Rate(bytes=value) for value in section.bytes),
        *(Rate(channel_uses=value) for value in section.channel_uses),
        *(Rate(quality=value) for value in section.quality),
    ]


def points(sweep: Sweep, identities: Identities) -> list[Point]:
    """The grid, codec by codec in the file's order; what is named twice is there once."""
    names = sorted(sweep.conditions)
    cells = list(itertools.product(*(sweep.conditions[name] for name in names)))

    def meaning_of(options: Mapping[str, Any]) -> dict[str, Any]:
        return _meaning(options, identities.files)

    measures = {
        "metrics": {
            metric.name: [meaning_of(metric.options), identities.metrics[metric.name]]
            for metric in sweep.metrics
            if metric.name in identities.metrics
        },
        "judge": [sweep.judge.name, meaning_of(sweep.judge.options), identities.judge],
    }
    segmenter = [sweep.segmenter.name, meaning_of(sweep.segmenter.options), identities.segmenter]
    found: dict[str, Point] = {}
    for codec in sweep.codecs:
        for rate, packet_bytes, values, seed in itertools.product(
            rates(sweep.rates_of(codec)), sweep.packet_bytes, cells, sweep.seeds
        ):
            conditions = tuple(zip(names, values, strict=True))
            meaning = {
                "format": FORMAT,
                "title": codec.title,
                "codec": [
                    codec.name,
                    meaning_of(codec.options),
                    identities.codecs.get(codec.title, ""),
                ],
                "rate": rate.label(),
                "packet_bytes": packet_bytes,
                "channel": [_read(sweep.channel, identities.files), *identities.channel],
                "conditions": dict(conditions),
                "seed": seed,
                **({"draws": sweep.draws} if sweep.draws else {}),
                **({"sequence": dict(sweep.sequence)} if sweep.sequence else {}),
                "segmenter": segmenter if codec.title in identities.maps else None,
                **measures,
            }
            point = Point(
                Encoding(codec, rate, packet_bytes),
                conditions,
                seed,
                digest(meaning),
            )
            found.setdefault(point.hash, point)
    return list(found.values())


def canonical(value: Any) -> str:
    """One text for one meaning: keys sorted, 5.0 written as 5.

    >>> canonical({"b": 5.0, "a": [True, None, 0.5]})
    '{"a":[true,null,0.5],"b":5}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """16 hexadecimal digits of SHA-256 over the canonical text."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def _meaning(options: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """Options without the places where files lie and the device: what the files hold is hashed."""
    return {key: _read(value, files) for key, value in options.items() if key not in PLACES}


def _read(value: Any, files: Mapping[str, str]) -> Any:
    """The value, each text that names a file replaced by the SHA-256 of its content."""
    if isinstance(value, Mapping):
        return {key: _read(inner, files) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_read(inner, files) for inner in value]
    return f"sha256:{files[value]}" if isinstance(value, str) and value in files else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
