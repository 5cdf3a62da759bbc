"""Cache of expensive results between sweeps, keyed by the content they were computed from.

    content of picture, options, weights, versions ── Keys ──> key ── Cache ──> FOLDER/ab/cdef...

There are three kinds of entries: `encodings`, the packets of a picture; `originals`, the map to
send and the judge's map of a picture; `deliveries`, the measurements of a picture whose packets
were all delivered. If packets are lost, almost every draw gives a different reception, so these are
not cached.

An entry is written completely or not at all and begins with the SHA-256 of the rest. A damaged
entry is removed and computed again. Any number of sweeps may share a folder.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import channels
import experiments.sweep
import sqlink
from channels.atomic_write import SUFFIX, whole_file
from experiments.sweep.components import Components
from experiments.sweep.grid import Encoding, Identities, contents, digest, meaning
from experiments.sweep.manifest import versions
from experiments.sweep.measuring import Original
from experiments.sweep.pictures import Picture
from experiments.sweep.schema import Sweep
from sqlink.codecs.base import Described, Packet, Session, Stream, Unreachable
from sqlink.errors import ConfigError

CACHE = "SQLINK_CACHE"
LIMIT_BYTES = 2_000_000_000
"""Largest size of all entries together; beyond it, the least recently used entries are removed."""

_KEPT = 0.8
"""Share of the limit that remains after entries are removed."""

_SHA = 32


def cache_folder() -> Path:
    """Return the folder of entries: $SQLINK_CACHE/sweeps, or sqlink/sweeps in the user's cache."""
    named = os.environ.get(CACHE)
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sqlink"
    return (Path(named) if named else user) / "sweeps"


class Cache:
    """Entries of bytes by key.

    folder: None for no cache. limit: bytes of all entries together. say: is called with one line if
    the folder can no longer be written; the sweep then goes on without a cache. hits, misses:
    numbers of entries found and not found, by kind.

    Raises ConfigError if the folder cannot be created.
    """

    def __init__(
        self,
        folder: Path | None,
        limit: int = LIMIT_BYTES,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self.limit = limit
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self._say = say
        self._writes = folder is not None
        self._new = 0
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(
                    f"{folder}: no cache can be kept here: {error.strerror or error}: name another "
                    "folder with --cache, or --cache none"
                ) from error

    def get(self, kind: str, key: str) -> bytes | None:
        """Return the entry; None if there is none. A damaged entry is removed."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            self.misses[kind] += 1
            return None
        if hashlib.sha256(data[_SHA:]).digest() != data[:_SHA]:
            with suppress(OSError):
                path.unlink()
            self.misses[kind] += 1
            return None
        with suppress(OSError):
            os.utime(path)  # time of the last use
        self.hits[kind] += 1
        return data[_SHA:]

    def put(self, key: str, data: bytes) -> None:
        """Store an entry, completely or not at all."""
        if self.folder is None or not self._writes:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            with whole_file(path) as aside:
                aside.write_bytes(hashlib.sha256(data).digest() + data)
        except OSError as error:
            self._writes = False
            reason = error.strerror or error
            self._say(f"{self.folder}: nothing more is cached: {reason}: the sweep goes on")
            return
        self._new += _SHA + len(data)
        if self._new > self.limit * (1 - _KEPT):
            self.trim()

    def trim(self) -> None:
        """Remove the least recently used entries until the others are within the limit."""
        if self.folder is None or not self._new:
            return
        self._new = 0
        found = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        if total <= self.limit:
            return
        for _, size, path in sorted(found):
            if total <= self.limit * _KEPT:
                break
            if path.name.endswith(SUFFIX):  # another sweep may be writing it
                continue
            with suppress(OSError):
                path.unlink()
            total -= size

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / key[2:]


class Keys:
    """Keys of a sweep's entries: SHA-256 over everything that an entry depends on.

    These are the content of the picture, of its map and labels; names, options and weights of the
    components; the versions of libraries, the source of the packages, and the type of device.
    """

    def __init__(self, sweep: Sweep, components: Components) -> None:
        identities = components.identities
        self._of_picture: dict[str, tuple[str, str]] = {}
        place = [_source(), versions(), components.device.type]
        self._place = place
        self._files = identities.files
        self._codecs = {
            (title, size): digest(
                [
                    identities.codecs.get(title, ""),
                    dict(codec.describe()) if isinstance(codec, Described) else {},
                    _source_of(type(codec)),
                ]
            )
            for (title, size), codec in components.codecs.items()
        }
        self._links = {
            name: [contents(spec, identities.files), *identities.channels.get(name, ())]
            for name, spec in sweep.links().items()
        }
        self._segmenter = (
            [
                sweep.segmenter.name,
                meaning(sweep.segmenter.options, identities.files),
                identities.segmenter,
            ]
            if components.segmenter is not None
            else []
        )
        self._measures = _measures(sweep, components, identities)

    def original(self, picture: Picture) -> str:
        """Return the key of the map to send and of the judge's map of the original."""
        pixels, labels = self._content(picture)
        return self._key("originals", pixels, labels, self._segmenter, self._measures)

    def encoding(self, picture: Picture, encoding: Encoding, channel: str) -> str:
        """Return the key of a picture's packets; channel: name of the channel, for a rate in
        uses.
        """
        pixels, _ = self._content(picture)
        uses = encoding.rate.channel_uses is not None
        return self._key(
            "encodings",
            pixels,
            _hash(picture.sent),
            self._codec(encoding),
            encoding.rate.label(),
            self._links[channel] if uses else "",
        )

    def delivery(self, picture: Picture, encoding: Encoding, stream: Stream) -> str:
        """Return the key of the measurements of a picture whose stream was delivered completely."""
        pixels, labels = self._content(picture)
        sent = hashlib.sha256(stream.session.header)
        for packet in stream.packets:
            sent.update(len(packet.data).to_bytes(4, "big") + packet.data)
        seen = [_hash(picture.sent), labels]
        codec = self._codec(encoding)
        return self._key("deliveries", pixels, seen, codec, sent.hexdigest(), self._measures)

    def _codec(self, encoding: Encoding) -> list[Any]:
        choice, size = encoding.codec, encoding.packet_bytes
        options = meaning(choice.options, self._files)
        return [choice.name, options, size, self._codecs[choice.title, size]]

    def _key(self, *parts: Any) -> str:
        text = json.dumps([*parts, self._place], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _content(self, picture: Picture) -> tuple[str, str]:
        """Hash a picture's pixels, and its labels."""
        found = self._of_picture.get(picture.key)
        if found is None:
            if len(self._of_picture) > 256:
                self._of_picture.clear()
            found = _hash(picture.sample.image), _hash(picture.sample.segmentation)
            self._of_picture[picture.key] = found
        return found


def stream_bytes(answer: Stream | Unreachable) -> bytes:
    """Write a codec's answer as an entry: a line of JSON, then the bytes of its packets.

    >>> answer = Stream(Session("c", 16, 32, b"s"), (Packet(b"ab", 0, {"payload": 16}),))
    >>> stream_of(stream_bytes(answer)) == answer
    True
    >>> stream_of(stream_bytes(Stream(answer.session, answer.packets, 30.0))).setting
    30.0
    """
    if isinstance(answer, Unreachable):
        return json.dumps({"unreachable": answer.__dict__}).encode() + b"\n"
    session = answer.session
    head = {
        "session": [session.codec, session.height, session.width, len(session.header)],
        "setting": answer.setting,
        "packets": [[len(p.data), p.priority, dict(p.bits)] for p in answer.packets],
    }
    return json.dumps(head).encode() + b"\n" + answer.to_bytes()


def stream_of(data: bytes) -> Stream | Unreachable:
    """Read the answer that `stream_bytes` wrote."""
    line, _, body = data.partition(b"\n")
    head = json.loads(line)
    if "unreachable" in head:
        return Unreachable(**head["unreachable"])
    codec, height, width, start = head["session"]
    packets = []
    at = start
    for length, priority, bits in head["packets"]:
        packets.append(Packet(body[at : at + length], priority, bits))
        at += length
    session = Session(codec, height, width, body[:start])
    return Stream(session, tuple(packets), head["setting"])


def columns_bytes(columns: Mapping[str, Any]) -> bytes:
    """Write columns of a row as an entry.

    >>> columns_of(columns_bytes({"psnr_db": 31.5, "counts": [1, 2], "features": b"x", "n": None}))
    {'psnr_db': 31.5, 'counts': [1, 2], 'features': b'x', 'n': None}
    """
    return zlib.compress(json.dumps(columns, default=_bytes_as_text).encode(), 1)


def columns_of(data: bytes) -> dict[str, Any]:
    """Read the columns that `columns_bytes` wrote."""
    found = json.loads(zlib.decompress(data))
    return {
        name: base64.b64decode(value["base64"]) if isinstance(value, dict) else value
        for name, value in found.items()
    }


def original_bytes(sent: Tensor | None, original: Original) -> bytes:
    """Write what is known of a picture before sending as an entry; maps are int64 [H, W]."""
    flat = {
        "columns": base64.b64encode(columns_bytes(original.columns)).decode(),
        "sent": _packed(sent),
        "seen": _packed(original.seen),
    }
    return zlib.compress(json.dumps(flat).encode(), 1)


def original_of(data: bytes) -> tuple[Tensor | None, Original]:
    """Read what `original_bytes` wrote: the map to send, and the rest."""
    found = json.loads(zlib.decompress(data))

    def map_of(name: str) -> Tensor | None:
        if found[name] is None:
            return None
        shape, text = found[name]
        pixels = bytearray(base64.b64decode(text))
        return torch.frombuffer(pixels, dtype=torch.uint8).to(torch.int64).reshape(shape)

    columns = columns_of(base64.b64decode(found["columns"]))
    return map_of("sent"), Original(map_of("seen"), columns)


def _measures(sweep: Sweep, components: Components, identities: Identities) -> list[Any]:
    """Return what a measurement depends on besides the picture."""
    return [
        [
            [
                choice.name,
                meaning(choice.options, identities.files),
                identities.metrics.get(choice.name, ""),
            ]
            for choice in sweep.metrics
        ],
        sorted(components.measures.metrics),
        [sweep.judge.name, meaning(sweep.judge.options, identities.files), identities.judge],
        [_source_of(type(metric)) for metric in components.measures.metrics.values()],
    ]


def _packed(labels: Tensor | None) -> list[Any] | None:
    """Write a map int64 [H, W] as its shape and its classes."""
    if labels is None:
        return None
    classes = labels.to(torch.uint8).numpy().tobytes()
    return [list(labels.shape), base64.b64encode(classes).decode()]


def _bytes_as_text(value: object) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is not a value of a column")


def _hash(tensor: Tensor | None) -> str:
    """Hash the content of a tensor with SHA-256; empty for None."""
    if tensor is None:
        return ""
    total = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    total.update(tensor.contiguous().numpy().tobytes())
    return total.hexdigest()


@lru_cache(maxsize=1)
def _source() -> str:
    """Hash the packages' code, so that results of other code are not taken from the cache."""
    total = hashlib.sha256()
    for package in (channels, sqlink, experiments.sweep):
        folder = Path(str(files(package.__name__)))
        for path in sorted(folder.rglob("*.py")):
            total.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return total.hexdigest()


def _source_of(kind: type) -> str:
    """Hash the file that a codec or metric of another package is written in."""
    try:
        path = inspect.getsourcefile(kind)
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except (OSError, TypeError):
        return ""
