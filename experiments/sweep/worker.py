"""The worker of a sweep's tasks: encode once, send often, decode once.

    for pictures of one size in a task:      load, the map to send, the judge's ceiling
      for encoding of the task:              encode each picture once, or take it from the cache
        points x realisations still missing: send, decode and measure each distinct reception once,
                                             add the rows to the store

All executors have workers of this kind. Their files are written completely or not at all, and
depend on the task alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.sweep.batch import Batch
from experiments.sweep.cache import (
    Cache,
    Keys,
    columns_bytes,
    columns_of,
    original_bytes,
    original_of,
    stream_bytes,
    stream_of,
)
from experiments.sweep.components import Components
from experiments.sweep.examples import Examples
from experiments.sweep.grid import Encoding, Point, canonical, contents, digest, encodings, points
from experiments.sweep.pictures import Picture, Pictures
from experiments.sweep.progress import Advance
from experiments.sweep.row import Place, Row, Transport
from experiments.sweep.schema import Sweep
from experiments.sweep.store import Done, Store
from experiments.sweep.tasks import Outcome, Task
from experiments.sweep.timings import ALL, Timings
from sqlink.analogue.symbol_link import Frame, SymbolsReceived, cross_symbols, decode_symbols
from sqlink.codecs.base import Codec, Decoded, Received, Stream, TokenFate, Unreachable
from sqlink.crossing import (
    CrossingResult,
    Draw,
    PictureSequences,
    cross,
    decode_received,
    distinct,
    send,
)
from sqlink.data.classes import NAMES, NO_LABEL
from sqlink.receiver import Receiver
from sqlink.runtime.threads import one_thread_each
from sqlink.transmitter import Transmitter

CROSSINGS = 16
"""Crossings of the channel computed together, per picture of the batch."""

OUTAGE_CLASS = NAMES.index("road")
"""Class in place of a map that was not received: CamVid's most frequent class, just as the mean
colour replaces a picture.
"""

Columns = dict[str, Any]
Came = TypeVar("Came")


@dataclass(frozen=True)
class Crossing:
    """One crossing of the channel: the picture in the batch, the point and the realisation."""

    picture: int
    point: Point
    realisation: int


class Worker:
    """Computes tasks of one sweep, one after another.

    store: where rows and examples are written. done: keys of finished rows. cache: encodings and
    other results, shared with other sweeps. say: is called with lines for the user. elsewhere:
    names of kept pictures that exist in the folder to which the store's files are copied.
    """

    def __init__(
        self,
        sweep: Sweep,
        components: Components,
        store: Store,
        done: Done,
        cache: Cache,
        say: Callable[[str], None],
        elsewhere: frozenset[str] = frozenset(),
    ) -> None:
        self.sweep = sweep = components.installed(sweep)
        self.components = components
        self.store = store
        self.done = done
        self.cache = cache
        self.points = points(sweep, components.identities)
        self.groups = encodings(self.points)
        self.examples = Examples(store.folder, sweep.examples, sweep.seeds[0], elsewhere)
        self.compute = Timings()
        self.batch = Batch(sweep.batch_size, say)
        self.keys = None if cache.folder is None else Keys(sweep, components)
        self.pictures = Pictures(sweep, components, examples=self.examples)
        files = components.identities.files
        self._draws = {
            name: sweep.draws or canonical(contents(spec, files))
            for name, spec in sweep.links().items()
        }
        self._prepared: tuple[list[str], list[Picture]] = ([], [])

    def run(self, task: Task, advance: Advance) -> Outcome:
        """Compute and write the missing rows of a task. Raises SQLinkError for errors of the user.

        advance: is called after every encoding.
        """
        self.compute = Timings()
        hits, misses = Counter(self.cache.hits), Counter(self.cache.misses)
        keys: dict[int, str] = {}
        rows, label = 0, ""
        with self.compute.measure(ALL, "load", len(task.pictures)):
            batches = list(self.pictures.batches(task.pictures))
        for batch in batches:
            keys |= {picture.number: picture.key for picture in batch}
            done, label = self._run_batch(batch, task, advance)
            rows += done
        return Outcome(
            task,
            keys,
            rows,
            self.compute.spent,
            dict(self.cache.hits - hits),
            dict(self.cache.misses - misses),
            label,
        )

    def _run_batch(self, batch: list[Picture], task: Task, advance: Advance) -> tuple[int, str]:
        """Run the task's encodings of a batch; return the number of rows and the last label."""
        first, last = task.realisations
        missing: dict[int, list[Crossing]] = {}
        there = [self.done.of(picture.key) for picture in batch]
        total, label = 0, f"{batch[0].sample.name}: reading what is there"
        for i in task.encodings:
            missing[i] = [
                Crossing(n, point, realisation)
                for n, picture in enumerate(batch)
                for point in self.groups[i]
                for realisation in range(first, last)
                if (point.hash, realisation) not in there[n]
                or self.examples.lacks(picture.number, picture.sample.name, point, realisation)
            ]
            if self.sweep.sequence is not None:
                some = {(c.point.hash, c.realisation): c for c in missing[i]}
                missing[i] = [
                    replace(one, picture=n) for one in some.values() for n in range(len(batch))
                ]
            all_ = len(batch) * len(self.groups[i]) * (last - first)
            total += all_
            advance(all_ - len(missing[i]), label)
        if not any(missing.values()):
            return total, label
        batch = self._ready(batch)
        for i in task.encodings:
            if missing[i]:
                encoding = self.groups[i][0].encoding
                label = f"{encoding.label}: {batch[0].sample.name}"
                advance(0, label)
                rows = self.rows_of(batch, encoding, missing[i])
                with self.compute.measure(encoding.codec.title, "store", len(rows)):
                    self.store.add(rows)
                advance(len(missing[i]), label)
        return total, label

    def _ready(self, batch: list[Picture]) -> list[Picture]:
        """Return the pictures prepared; those of the last batch are cached."""
        names = [picture.key for picture in batch]
        if self._prepared[0] != names:
            with self.compute.measure(ALL, "prepare", len(batch)):
                self._prepared = names, self.prepared(batch)
        return self._prepared[1]

    @one_thread_each()
    def prepared(self, batch: list[Picture]) -> list[Picture]:
        """Return the pictures with the map to send and the judge's map of the original."""
        ready: dict[str, Picture] = {}
        for picture in batch if self.keys is not None else ():
            assert self.keys is not None
            data = self.cache.get("originals", self.keys.original(picture))
            if data is not None:
                sent, original = original_of(data)
                ready[picture.key] = replace(picture, sent=sent, original=original)
        left = [picture for picture in batch if picture.key not in ready]
        for picture in self.batch.over(left, self.pictures.prepared):
            ready[picture.key] = picture
            if self.keys is not None:
                data = original_bytes(picture.sent, picture.original)
                self.cache.put(self.keys.original(picture), data)
        batch = [ready[picture.key] for picture in batch]
        self.pictures.keep(batch)
        return batch

    @one_thread_each()
    def rows_of(
        self, batch: list[Picture], encoding: Encoding, crossings: list[Crossing]
    ) -> list[Columns]:
        """Make the rows of one encoding of a batch, over all crossings asked for."""
        if encoding.codec.title in self.components.analogue:
            return self._rows_of_symbols(batch, encoding, crossings)
        components, size = self.components, encoding.packet_bytes
        names = list(dict.fromkeys(crossing.point.channel for crossing in crossings))
        codec = components.codecs[encoding.codec.title, size]
        wanted = sorted({crossing.picture for crossing in crossings})
        answers = self._answers([batch[n] for n in wanted], encoding, names[0])
        sent = dict(zip(wanted, answers, strict=True))
        of = {one: _stream_hash(answer) for one, answer in sent.items()}
        crossed: dict[str, CrossingResult] = {}
        number: list[int] = []
        for name in names:
            own = [crossing for crossing in crossings if crossing.point.channel == name]
            crossed[name] = self._cross(batch, wanted, answers, own)
        seen = dict.fromkeys(names, -1)
        for crossing in crossings:
            seen[crossing.point.channel] += 1
            number.append(seen[crossing.point.channel])

        receptions, indices = distinct(
            [
                (c.picture, crossed[c.point.channel].received[n])
                for c, n in zip(crossings, number, strict=True)
            ]
        )
        keep: dict[int, list[Crossing]] = {}
        for crossing, index in zip(crossings, indices, strict=True):
            picture = batch[crossing.picture]
            if self.examples.wants(picture.number, crossing.point, crossing.realisation):
                keep.setdefault(index, []).append(crossing)

        def tokens(number: int, came: Received | None) -> NDArray[np.uint8] | None:
            stream = sent[number]
            if came is None or not isinstance(stream, Stream):
                return None
            return _tokens(codec, batch[number], stream, came)

        def entry(number: int, came: Received | None) -> str | None:
            stream = sent[number]
            if self.keys is None or not isinstance(stream, Stream) or came is None:
                return None
            if came != Received.whole(stream):
                return None
            return self.keys.delivery(batch[number], encoding, stream)

        decode = partial(decode_received, Receiver(codec))
        title, map_comes = encoding.codec.title, codec.carries_map
        measured = self._measure(batch, title, decode, map_comes, tokens, receptions, keep, entry)
        return [
            Row(
                _place(batch[c.picture], c),
                _transport(sent[c.picture], of[c.picture], crossed[c.point.channel], n),
                measured[index],
            ).columns()
            for c, n, index in zip(crossings, number, indices, strict=True)
        ]

    def _answers(
        self, pictures: Sequence[Picture], encoding: Encoding, channel: str
    ) -> list[Stream | Unreachable]:
        """Encode each picture; channel: name of the channel, for rates in channel uses."""
        components, size = self.components, encoding.packet_bytes
        codec = components.codecs[encoding.codec.title, size]
        of = self.keys
        keys = [None if of is None else of.encoding(one, encoding, channel) for one in pictures]
        kept = [self.cache.get("encodings", key) if key else None for key in keys]

        def encoded(few: Sequence[Picture]) -> list[Stream | Unreachable]:
            images = torch.stack([one.sample.image for one in few]).to(components.device)
            maps = [one.sent for one in few if one.sent is not None]
            labels = torch.stack(maps).to(components.device) if maps else None
            with self.compute.measure(encoding.codec.title, "encode", len(few)):
                return send(
                    Transmitter(codec),
                    images,
                    encoding.rate,
                    components.channels[channel, size],
                    size,
                    labels,
                )

        left = [one for one, data in zip(pictures, kept, strict=True) if data is None]
        fresh = iter(self.batch.over(left, encoded))
        answers = [next(fresh) if data is None else stream_of(data) for data in kept]
        for key, data, answer in zip(keys, kept, answers, strict=True):
            if key and data is None:
                self.cache.put(key, stream_bytes(answer))
        return answers

    def _rows_of_symbols(
        self, batch: list[Picture], encoding: Encoding, crossings: list[Crossing]
    ) -> list[Columns]:
        """Make the rows of an encoding into symbols, where every crossing is a distinct
        reception.
        """
        size, title = encoding.packet_bytes, encoding.codec.title
        codec = self.components.analogue[title]
        wanted = sorted({crossing.picture for crossing in crossings})
        place = {picture: n for n, picture in enumerate(wanted)}
        images = torch.stack([batch[n].sample.image for n in wanted]).to(self.components.device)
        height, width = images.shape[2:]
        receptions: list[tuple[int, SymbolsReceived]] = [
            (c.picture, SymbolsReceived(torch.empty(0), torch.empty(0), 0.0)) for c in crossings
        ]
        frames: dict[str, Frame] = {}
        for name in dict.fromkeys(crossing.point.channel for crossing in crossings):
            link = self.components.symbol_links[name, size]
            own = [n for n, c in enumerate(crossings) if c.point.channel == name]
            uses = link.uses(encoding.rate, height, width)
            frames[name] = link.frame(uses, codec.most_symbols(height, width))
            with self.compute.measure(title, "encode", len(wanted)):
                received = cross_symbols(
                    codec,
                    link,
                    images,
                    frames[name],
                    [
                        Draw(
                            place[c.picture],
                            batch[c.picture].sample.name,
                            c.realisation,
                            c.point.seed,
                        )
                        for c in (crossings[n] for n in own)
                    ],
                    torch.tensor(
                        [dict(crossings[n].point.conditions)["snr_db"] for n in own],
                        dtype=torch.float64,
                    ),
                    self._draws[name],
                )
            for n, came in zip(own, received, strict=True):
                receptions[n] = crossings[n].picture, came
        keep: dict[int, list[Crossing]] = {}
        for n, c in enumerate(crossings):
            if self.examples.wants(batch[c.picture].number, c.point, c.realisation):
                keep[n] = [c]
        decode = partial(decode_symbols, codec)
        measured = self._measure(
            batch, title, decode, codec.carries_map, _nothing, receptions, keep, _nothing
        )
        return [
            Row(
                _place(batch[c.picture], c),
                Transport.symbols(
                    digest([title, frames[c.point.channel].total]),
                    frames[c.point.channel].packets,
                    frames[c.point.channel].channel_uses,
                ),
                columns,
            ).columns()
            for c, columns in zip(crossings, measured, strict=True)
        ]

    def _cross(
        self,
        batch: list[Picture],
        wanted: Sequence[int],
        answers: Sequence[Stream | Unreachable],
        crossings: Sequence[Crossing],
    ) -> CrossingResult:
        """Send streams over the channel; answers: of the pictures `wanted`.

        In a sequence, the pictures of the whole batch cross one link, one after another.
        """
        point = crossings[0].point
        size = point.encoding.packet_bytes
        place = {picture: n for n, picture in enumerate(wanted)}
        sequence = self.sweep.sequence
        draws = [
            Draw(
                place[c.picture],
                batch[c.picture].sample.name,
                c.realisation,
                c.point.seed,
            )
            for c in crossings
        ]
        conditions = {
            name: torch.tensor(
                [dict(c.point.conditions)[name] for c in crossings], dtype=torch.float64
            )
            for name, _ in point.conditions
        }
        with self.compute.measure(point.encoding.codec.title, "cross", len(crossings)):
            return self.batch.attempt(
                lambda at_once: cross(
                    self.components.channels[point.channel, size],
                    answers,
                    draws,
                    conditions,
                    point=self._draws[point.channel],
                    packet_bytes=size,
                    device=self.components.device,
                    sequences=(
                        None
                        if sequence is None
                        else PictureSequences(len(batch), sequence.picture_rate_hz)
                    ),
                    together=CROSSINGS * at_once,
                )
            )

    def _measure(
        self,
        batch: list[Picture],
        title: str,
        decode: Callable[[Sequence[Came], int, int], Decoded],
        map_comes: bool,
        tokens_of: Callable[[int, Came], NDArray[np.uint8] | None],
        receptions: Sequence[tuple[int, Came]],
        keep: Mapping[int, Sequence[Crossing]],
        entry_of: Callable[[int, Came], str | None],
    ) -> list[Columns]:
        """Decode and measure each distinct reception, in batches.

        title: of the codec. decode: function of receptions, height and width that returns pictures.
        map_comes: whether maps are decoded. tokens_of: function of a picture's number and its
        reception that returns the fate of its tokens. keep: number in `receptions` -> crossings
        whose received picture is an example. entry_of: function of a picture's number and its
        reception that returns the cache key of its measurements, None if they are not cached.
        """
        measured: dict[int, Columns] = {}
        entries = [None if n in keep else entry_of(*one) for n, one in enumerate(receptions)]
        for n, entry in enumerate(entries):
            data = self.cache.get("deliveries", entry) if entry else None
            if data is not None:
                measured[n] = columns_of(data)

        def columns_of_some(numbers: Sequence[int]) -> list[Columns]:
            return self._measured(
                batch, title, decode, map_comes, tokens_of, receptions, keep, numbers
            )

        left = [n for n in range(len(receptions)) if n not in measured]
        for n, columns in zip(left, self.batch.over(left, columns_of_some), strict=True):
            measured[n] = columns
            if entry := entries[n]:
                self.cache.put(entry, columns_bytes(columns))
        return [measured[n] for n in range(len(receptions))]

    def _measured(
        self,
        batch: list[Picture],
        title: str,
        decode: Callable[[Sequence[Came], int, int], Decoded],
        map_comes: bool,
        tokens_of: Callable[[int, Came], NDArray[np.uint8] | None],
        receptions: Sequence[tuple[int, Came]],
        keep: Mapping[int, Sequence[Crossing]],
        numbers: Sequence[int],
    ) -> list[Columns]:
        """Decode and measure some of the receptions, in one batch; see `_measure`."""
        part = [receptions[n] for n in numbers]
        pictures = [batch[n] for n, _ in part]
        height, width = pictures[0].sample.image.shape[1:]
        with self.compute.measure(title, "decode", len(part)):
            decoded = decode([came for _, came in part], height, width)
        device = self.components.device
        maps = _maps(decoded).cpu() if map_comes else None
        with self.compute.measure(title, "measure", len(part)):
            columns, seen = self.components.measures.columns(
                decoded.images.to(device),
                torch.stack([p.sample.image for p in pictures]).to(device),
                [p.original for p in pictures],
                [p.sample.segmentation for p in pictures],
                maps,
                [p.sent for p in pictures],
            )
        for i, (n, picture, (number, came)) in enumerate(zip(numbers, pictures, part, strict=True)):
            kept = keep.get(n, ())
            tokens = tokens_of(number, came) if kept else None
            for crossing in kept:
                self.examples.keep(
                    picture.sample.name,
                    crossing.point,
                    crossing.realisation,
                    decoded.images[i].cpu(),
                    None if maps is None else maps[i],
                    None if seen is None else seen[i],
                    tokens,
                )
        lost = decoded.outage.cpu().tolist()
        return [{"outage": o, **row} for o, row in zip(lost, columns, strict=True)]


def _nothing(_number: int, _came: SymbolsReceived) -> None:
    """Return None: symbols have no tokens, and all their receptions differ."""


def _place(picture: Picture, crossing: Crossing) -> Place:
    """Return the columns that identify a row."""
    encoding, sample = crossing.point.encoding, picture.sample
    height, width = sample.image.shape[1:]
    kind, value = encoding.rate.kind, encoding.rate.value
    asked = {"bpp": value, "bytes": 8 * value / (height * width)}.get(kind)
    return Place(
        point=crossing.point.hash,
        picture_key=picture.key,
        realisation=crossing.realisation,
        codec=encoding.codec.title,
        rate=encoding.rate.label(),
        rate_kind=kind,
        rate_value=value,
        bpp_asked=asked,
        uses_asked=encoding.rate.channel_uses,
        packet_bytes=encoding.packet_bytes,
        channel=crossing.point.channel,
        axes=dict(crossing.point.axes),
        seed=crossing.point.seed,
        conditions=dict(crossing.point.conditions),
        picture=sample.name,
        block=picture.block,
        height=height,
        width=width,
    )


def _stream_hash(answer: Stream | Unreachable) -> str:
    """Hash the stored bytes and their division into packets: 16 hexadecimal digits, or empty."""
    if isinstance(answer, Unreachable):
        return ""
    total = hashlib.sha256(answer.session.header)
    for packet in answer.packets:
        total.update(len(packet.data).to_bytes(4, "big") + packet.data)
    return total.hexdigest()[:16]


def _transport(
    answer: Stream | Unreachable, stream: str, crossed: CrossingResult, number: int
) -> Transport:
    """Describe the crossing of one answer in draw `number`; stream: the answer's hash."""
    if isinstance(answer, Unreachable):
        return Transport.nothing(answer.lowest_bytes)
    delivered, correct = crossed.delivered[number], crossed.correct[number]
    times = crossed.delay_s[number][delivered]
    return Transport(
        stream=stream,
        unreachable=False,
        lowest_bytes=None,
        bytes=answer.size,
        sent_bytes=int(crossed.sent_bytes[number]),
        delivered_bytes=int(crossed.delivered_bytes[number]),
        packets=len(answer.packets),
        delivered=int(delivered.sum()),
        correct=int(correct.sum()),
        undetected=int((delivered & ~correct).sum()),
        channel_uses=int(crossed.channel_uses[number]),
        delay_s=float(times.max()) if len(times) else None,
        ledger={name: int(bits[number]) for name, bits in crossed.ledger.items()},
        setting=answer.setting,
    )


def _maps(decoded: Decoded) -> Tensor:
    """Return the maps received, int64 [N, H, W]; OUTAGE_CLASS everywhere in an outage."""
    if decoded.segmentation is None:
        shape = (len(decoded.outage), *decoded.images.shape[2:])
        return torch.full(shape, OUTAGE_CLASS, dtype=torch.int64)
    return decoded.segmentation.masked_fill(decoded.segmentation == NO_LABEL, OUTAGE_CLASS)


def _tokens(
    codec: Codec, picture: Picture, stream: Stream, came: Received
) -> NDArray[np.uint8] | None:
    """Return the fate of a picture's tokens, uint8 [h, w, 3]; None for a codec without tokens."""
    if not isinstance(codec, TokenFate):
        return None
    return codec.token_fate(picture.sample.image, picture.sent, stream, came)
