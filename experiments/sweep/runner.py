"""Runs a sweep: encode once, send often, decode once.

    for pictures in chunks of batch_size:             load, the map to send, the judge's ceiling
      for encoding in codecs x rates x packet sizes:  encode each picture once
        all points x realisations still missing:      send, decode and measure each distinct
                                                      reception once, add the rows to the store

A crossing of the channel is keyed by (channel, picture, realisation) and the seed: neither the
codec nor the rate nor the conditions are in the key, so that codecs, and the points of a curve,
meet the same fading and noise. In a `sequence` a run of pictures crosses together, keyed by the
first of them; a chunk is then one run. Rows depend on nothing but their point, their picture (and
its run) and their number, so an interrupted sweep goes on where it stopped and comes to the same
table.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.report.estimates import cells_of
from experiments.sweep.components import Equipment
from experiments.sweep.compute import Compute
from experiments.sweep.examples import Examples
from experiments.sweep.finishing import finish, rows_named, say
from experiments.sweep.grid import Encoding, Point, canonical, contents, digest, points
from experiments.sweep.pictures import Picture, Pictures
from experiments.sweep.progress import Advance, progress
from experiments.sweep.row import Place, Row, Transport
from experiments.sweep.schema import Sweep, load_sweep
from experiments.sweep.store import Key, Store
from sqlink.analogue.crossing import Frame, SymbolsReceived, cross_symbols, decode_symbols
from sqlink.codecs.base import Codec, Decoded, Received, Stream, TokenFate, Unreachable
from sqlink.crossing import Crossed, Draw, Sequences, cross, distinct, receive, send
from sqlink.data.classes import NAMES, NO_LABEL
from sqlink.errors import ConfigError
from sqlink.metrics.jackknife import MIN_BLOCKS
from sqlink.receiver import Receiver
from sqlink.runtime.precision import full_precision
from sqlink.settings import find_settings
from sqlink.transmitter import Transmitter

CROSSINGS = 16
"""Crossings of the channel sent together, a picture of the batch."""

MANY = 1_000_000
"""Rows beyond which a sweep asks whether so many are meant."""

FIRST_TABLES_S = 30.0
TABLES_SHARE = 20.0
"""Tables of an unfinished sweep are written once so many seconds have passed, and so many times
what writing them took the last time."""

OUTAGE_CLASS = NAMES.index("road")
"""What a map that did not come is taken for: CamVid's most frequent class, as a picture that did
not come is taken for the mean colour."""

Columns = dict[str, Any]
Came = TypeVar("Came")


@dataclass(frozen=True)
class Crossing:
    """One way over the channel: of which picture of the chunk, at which point, which draw."""

    picture: int
    point: Point
    realisation: int


def run_sweep(
    config_path: str | Path,
    output: str | Path | None = None,
    *,
    batch_size: int | None = None,
    progress: bool | str = True,
    many: bool = False,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
) -> Path:
    """Run the sweep of a YAML file to its end, and return the folder of its results.

    output: the results' folder; by default the file's own `output`, or else `results/` and the
    file's name. Rows that are there already, from an earlier or an interrupted run, are not
    computed again. batch_size: pictures coded together, in place of the file's; it changes the
    speed and the memory taken, not the results. progress: one of `progress.KINDS`, or whether there
    is a bar. many: whether more than MANY rows are meant. shard: (i, n), the i-th of n equal parts
    of the pictures alone, into a folder of its own (`results merge` puts parts together).
    overwrite: put the tables in place of those of another file, which are otherwise left alone.
    Raises SQLinkError, one line, for what a user can mend.
    """
    shows = progress if isinstance(progress, str) else "bar" if progress else "none"
    path = find_settings(config_path, "experiments.configs")
    sweep = load_sweep(path)
    if batch_size is not None:
        sweep = Sweep.model_validate({**dict(sweep), "batch_size": batch_size})
    folder = Path(output or sweep.output or Path("results") / path.stem)
    if not 1 <= shard[0] <= shard[1]:
        raise ConfigError(f"shard {shard[0]}/{shard[1]}: should be i/n with i from 1 to n")
    if shard[1] > 1 and output is None:
        folder = folder.with_name(f"{folder.name}.{shard[0]}-of-{shard[1]}")
    with torch.inference_mode(), full_precision():
        equipment = Equipment.of(sweep, path.name)
        if not Pictures(sweep, equipment, shard).count:
            raise ConfigError(
                f"{path.name}: shard {shard[0]}/{shard[1]} has no picture: make fewer shards"
            )
        with Store(folder) as store:
            runner = Runner(sweep, equipment, store, shows, shard, path.name)
            if runner.total > MANY and not many:
                raise ConfigError(
                    f"{path.name}: {runner.total} rows are more than {MANY}: see how long they "
                    "take with --dry-run, and confirm with --yes"
                )
            text = path.read_text(encoding="utf-8")
            if not overwrite:
                runner.check_folder(text)
            return runner.run(text)


class Runner:
    """One sweep under way, in this process."""

    def __init__(
        self,
        sweep: Sweep,
        equipment: Equipment,
        store: Store,
        shows: str = "none",
        shard: tuple[int, int] = (1, 1),
        name: str = "",
    ) -> None:
        self.name = name
        self.sweep = sweep = equipment.installed(sweep)
        self.equipment = equipment
        self.store = store
        self.points = points(sweep, equipment.identities)
        self.examples = Examples(store.folder, sweep.examples, sweep.seeds[0])
        self.compute = Compute.resumed(store.folder)
        self.realisations = sweep.realisations
        files = equipment.identities.files
        self._keys = {
            name: sweep.draws or canonical(contents(spec, files))
            for name, spec in sweep.links().items()
        }
        self._shows = shows
        self.pictures = Pictures(sweep, equipment, shard, self.examples)

    def check_folder(self, config: str) -> None:
        """Raise ConfigError if the folder holds the tables of another file than `config`.

        Another file has another name, or another text and not one point in common.
        """
        path = self.store.folder / "manifest.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            name, text = held.get("config_name"), held.get("config")
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError):
            name, text = "a manifest.json that cannot be read", None
        ours = {point.hash for point in self.points}
        rows = {point for point, _, _ in self.store.done()}
        if name in (None, self.name) and (text == config or not rows or rows & ours):
            return
        raise ConfigError(
            f"{self.store.folder} holds the results of {name or 'another sweep'}: name another "
            f"folder with -o, or give --overwrite to put those of {self.name} in their place"
        )

    def run(self, config: str) -> Path:
        """Compute what is missing, then write the tables. Returns the folder.

        config: the sweep's YAML, for the record.
        """
        for title, reason in self.equipment.skipped.items():
            say(f"{title}: SKIPPED, no rows of this codec: {reason}")
        for name, reason in self.equipment.unavailable.items():
            say(f"{name}: not measured: {reason}")
        while True:
            keys = self._pass(config)
            if not self._wants_more(keys):
                break
            self.realisations = min(2 * self.realisations, self._most)
        self._tables(keys, config, finished=True)
        return self.store.folder

    @property
    def total(self) -> int:
        """Rows at the present number of realisations."""
        return self.pictures.count * len(self.points) * self.realisations

    @property
    def _most(self) -> int:
        """Realisations at most."""
        until = self.sweep.until
        return self.sweep.realisations if until is None else until.most

    def _pass(self, config: str) -> list[str]:
        """Compute what is missing at the present number of realisations; the pictures' keys.

        Now and then, the tables are written of the pictures that are done.
        """
        done = self.store.done()
        keys: list[str] = []
        written, took = time.monotonic(), FIRST_TABLES_S / TABLES_SHARE
        with progress(self._shows, self.total) as advance:
            for chunk in self.pictures.chunks():
                self._chunk(chunk, done, advance)
                keys += [picture.key for picture in chunk]
                if (
                    time.monotonic() - written > took * TABLES_SHARE
                    and len(keys) < self.pictures.count
                ):
                    begun = time.monotonic()
                    self._tables(keys, config, finished=False)
                    written = time.monotonic()
                    took = max(written - begun, FIRST_TABLES_S / TABLES_SHARE)
        return keys

    def _wants_more(self, pictures: Sequence[str]) -> bool:
        """Whether a cell is not known well enough yet, and more realisations are allowed."""
        until = self.sweep.until
        if until is None or self.realisations >= until.most:
            return False
        table = self.store.select(rows_named(self.points, pictures, self.realisations))
        cells = cells_of(table, self.points, self.equipment.measures)
        found = [one for cell in cells if (one := cell.interval(until.metric)) is not None]
        if not found:
            raise ConfigError(
                f"until: nothing was measured as '{until.metric}': name a metric of the sweep"
            )
        if (blocks := max(one.blocks for one in found)) < MIN_BLOCKS:
            raise ConfigError(
                f"until: no interval of '{until.metric}' over {blocks} "
                f"block{'' if blocks == 1 else 's'}: {MIN_BLOCKS} are needed, take more pictures"
            )
        return any(one.reason or (one.high - one.low) / 2 > until.width for one in found)

    def _tables(self, pictures: Sequence[str], config: str, finished: bool) -> None:
        finish(
            self.store,
            self.sweep,
            self.equipment,
            self.points,
            pictures,
            self.realisations,
            config,
            self.name,
            finished,
            self.compute.spent,
        )

    def _chunk(self, chunk: list[Picture], done: set[Key], advance: Advance) -> None:
        """Every encoding of a few pictures of one size."""
        missing: dict[int, list[Crossing]] = {}
        by_encoding = encodings(self.points)
        for i, group in enumerate(by_encoding):
            missing[i] = [
                Crossing(n, point, realisation)
                for n, picture in enumerate(chunk)
                for point in group
                for realisation in range(self.realisations)
                if (point.hash, picture.key, realisation) not in done
                or self.examples.lacks(picture.number, picture.sample.name, point, realisation)
            ]
            if self.sweep.sequence is not None:
                ways = {(c.point.hash, c.realisation): c for c in missing[i]}
                missing[i] = [
                    replace(way, picture=n) for way in ways.values() for n in range(len(chunk))
                ]
            there = len(chunk) * len(group) * self.realisations - len(missing[i])
            advance(there, "reading what is there")
        if not any(missing.values()):
            return
        size = self.sweep.batch_size
        chunk = [
            picture
            for start in range(0, len(chunk), size)
            for picture in self.pictures.prepared(chunk[start : start + size])
        ]
        for i, group in enumerate(by_encoding):
            if missing[i]:
                label = f"{group[0].encoding.label}: {chunk[0].sample.name}"
                advance(0, label)
                self.store.add(self.rows_of(chunk, group[0].encoding, missing[i]))
                advance(len(missing[i]), label)

    def rows_of(
        self, chunk: list[Picture], encoding: Encoding, crossings: list[Crossing]
    ) -> list[Columns]:
        """The rows of one encoding of a few pictures, over every crossing asked for."""
        if encoding.codec.title in self.equipment.analogue:
            return self._rows_of_symbols(chunk, encoding, crossings)
        equipment, size = self.equipment, encoding.packet_bytes
        names = list(dict.fromkeys(crossing.point.channel for crossing in crossings))
        codec = equipment.codecs[encoding.codec.title, size]
        wanted = sorted({crossing.picture for crossing in crossings})
        answers: list[Stream | Unreachable] = []
        for start in range(0, len(wanted), self.sweep.batch_size):
            few = wanted[start : start + self.sweep.batch_size]
            images = torch.stack([chunk[n].sample.image for n in few]).to(equipment.device)
            maps = [map_ for n in few if (map_ := chunk[n].sent) is not None]
            labels = torch.stack(maps).to(equipment.device) if maps else None
            with self.compute.measure(encoding.codec.title, "encode", len(few)):
                answers += send(
                    Transmitter(codec),
                    images,
                    encoding.rate,
                    equipment.channels[names[0], size],
                    size,
                    labels,
                )
        sent = dict(zip(wanted, answers, strict=True))
        of = {one: _stream_hash(answer) for one, answer in sent.items()}
        crossed: dict[str, Crossed] = {}
        number: list[int] = []
        for name in names:
            own = [crossing for crossing in crossings if crossing.point.channel == name]
            crossed[name] = self._cross(chunk, wanted, answers, own)
        seen = dict.fromkeys(names, -1)
        for crossing in crossings:
            seen[crossing.point.channel] += 1
            number.append(seen[crossing.point.channel])

        looks, which = distinct(
            [
                (c.picture, crossed[c.point.channel].received[n])
                for c, n in zip(crossings, number, strict=True)
            ]
        )
        keep: dict[int, list[Crossing]] = {}
        for crossing, look in zip(crossings, which, strict=True):
            picture = chunk[crossing.picture]
            if self.examples.wants(picture.number, crossing.point, crossing.realisation):
                keep.setdefault(look, []).append(crossing)

        def tokens(number: int, came: Received | None) -> NDArray[np.uint8] | None:
            stream = sent[number]
            if came is None or not isinstance(stream, Stream):
                return None
            return _tokens(codec, chunk[number], stream, came)

        decode = partial(receive, Receiver(codec))
        title, map_comes = encoding.codec.title, codec.carries_map
        measured = self._measure(chunk, title, decode, map_comes, tokens, looks, keep)
        return [
            Row(
                _place(chunk[c.picture], c),
                _transport(sent[c.picture], of[c.picture], crossed[c.point.channel], n),
                measured[look],
            ).columns()
            for c, n, look in zip(crossings, number, which, strict=True)
        ]

    def _rows_of_symbols(
        self, chunk: list[Picture], encoding: Encoding, crossings: list[Crossing]
    ) -> list[Columns]:
        """The rows of an encoding that makes symbols; every crossing is a reception of its own."""
        size, title = encoding.packet_bytes, encoding.codec.title
        codec = self.equipment.analogue[title]
        wanted = sorted({crossing.picture for crossing in crossings})
        place = {picture: n for n, picture in enumerate(wanted)}
        images = torch.stack([chunk[n].sample.image for n in wanted]).to(self.equipment.device)
        height, width = images.shape[2:]
        looks: list[tuple[int, SymbolsReceived]] = [
            (c.picture, SymbolsReceived(torch.empty(0), torch.empty(0), 0.0)) for c in crossings
        ]
        frames: dict[str, Frame] = {}
        for name in dict.fromkeys(crossing.point.channel for crossing in crossings):
            link = self.equipment.symbol_links[name, size]
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
                            chunk[c.picture].sample.name,
                            c.realisation,
                            c.point.seed,
                        )
                        for c in (crossings[n] for n in own)
                    ],
                    torch.tensor(
                        [dict(crossings[n].point.conditions)["snr_db"] for n in own],
                        dtype=torch.float64,
                    ),
                    self._keys[name],
                )
            for n, came in zip(own, received, strict=True):
                looks[n] = crossings[n].picture, came
        keep: dict[int, list[Crossing]] = {}
        for n, c in enumerate(crossings):
            if self.examples.wants(chunk[c.picture].number, c.point, c.realisation):
                keep[n] = [c]
        decode = partial(decode_symbols, codec)
        measured = self._measure(
            chunk, title, decode, codec.carries_map, lambda _number, _came: None, looks, keep
        )
        return [
            Row(
                _place(chunk[c.picture], c),
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
        chunk: list[Picture],
        wanted: Sequence[int],
        answers: Sequence[Stream | Unreachable],
        crossings: Sequence[Crossing],
    ) -> Crossed:
        """Streams over the channel; answers: of the pictures `wanted`.

        In a sequence the crossings are runs of the whole chunk, one after another.
        """
        point = crossings[0].point
        size = point.encoding.packet_bytes
        place = {picture: n for n, picture in enumerate(wanted)}
        sequence = self.sweep.sequence
        return cross(
            self.equipment.channels[point.channel, size],
            answers,
            [
                Draw(
                    place[c.picture],
                    chunk[c.picture].sample.name,
                    c.realisation,
                    c.point.seed,
                )
                for c in crossings
            ],
            {
                name: torch.tensor(
                    [dict(c.point.conditions)[name] for c in crossings], dtype=torch.float64
                )
                for name, _ in point.conditions
            },
            point=self._keys[point.channel],
            packet_bytes=size,
            device=self.equipment.device,
            runs=None if sequence is None else Sequences(len(chunk), sequence.picture_rate_hz),
            together=CROSSINGS * self.sweep.batch_size,
        )

    def _measure(
        self,
        chunk: list[Picture],
        title: str,
        decode: Callable[[Sequence[Came], int, int], Decoded],
        map_comes: bool,
        tokens_of: Callable[[int, Came], NDArray[np.uint8] | None],
        looks: Sequence[tuple[int, Came]],
        keep: Mapping[int, Sequence[Crossing]],
    ) -> list[Columns]:
        """Decode and measure each distinct reception, in batches.

        title: of the codec. decode: what came of pictures of one size, height, width -> pictures.
        map_comes: whether maps are decoded. tokens_of: number of a picture, what came of it -> the
        fate of its tokens. keep: number in `looks` -> the crossings of which the picture received
        is an example.
        """
        measured: list[Columns] = []
        batch = self.sweep.batch_size
        for start in range(0, len(looks), batch):
            part = looks[start : start + batch]
            pictures = [chunk[n] for n, _ in part]
            height, width = pictures[0].sample.image.shape[1:]
            with self.compute.measure(title, "decode", len(part)):
                decoded = decode([came for _, came in part], height, width)
            device = self.equipment.device
            maps = _maps(decoded).cpu() if map_comes else None
            columns, seen = self.equipment.measures.columns(
                decoded.images.to(device),
                torch.stack([p.sample.image for p in pictures]).to(device),
                [p.original for p in pictures],
                [p.sample.segmentation for p in pictures],
                maps,
                [p.sent for p in pictures],
            )
            lost = decoded.outage.cpu().tolist()
            measured += [{"outage": o, **row} for o, row in zip(lost, columns, strict=True)]
            for i, (picture, (number, came)) in enumerate(zip(pictures, part, strict=True)):
                kept = keep.get(start + i, ())
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
        return measured


def _place(picture: Picture, crossing: Crossing) -> Place:
    """Which row it is."""
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
    """16 hexadecimal digits of what is stored and how it is cut into packets; empty without any."""
    if isinstance(answer, Unreachable):
        return ""
    total = hashlib.sha256(answer.session.header)
    for packet in answer.packets:
        total.update(len(packet.data).to_bytes(4, "big") + packet.data)
    return total.hexdigest()[:16]


def _transport(
    answer: Stream | Unreachable, stream: str, crossed: Crossed, number: int
) -> Transport:
    """What crossed of one answer, as draw `number`; stream: the answer's hash."""
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
    """int64 [N, H, W], the maps received; where none came, OUTAGE_CLASS everywhere."""
    if decoded.segmentation is None:
        shape = (len(decoded.outage), *decoded.images.shape[2:])
        return torch.full(shape, OUTAGE_CLASS, dtype=torch.int64)
    return decoded.segmentation.masked_fill(decoded.segmentation == NO_LABEL, OUTAGE_CLASS)


def _tokens(
    codec: Codec, picture: Picture, stream: Stream, came: Received
) -> NDArray[np.uint8] | None:
    """The fate of a picture's tokens, uint8 [h, w, 3]; None where the codec sends none."""
    if not isinstance(codec, TokenFate):
        return None
    return codec.token_fate(picture.sample.image, picture.sent, stream, came)


def encodings(grid: Sequence[Point]) -> list[list[Point]]:
    """The points in their order, in groups that share an encoding."""
    return [list(group) for _, group in itertools.groupby(grid, _encoding_key)]


def _encoding_key(point: Point) -> tuple[str, str, int, str]:
    """What points share that share an encoding: channel uses are bytes on one channel alone."""
    encoding = point.encoding
    channel = point.channel if encoding.rate.channel_uses is not None else ""
    return encoding.codec.title, encoding.rate.label(), encoding.packet_bytes, channel
