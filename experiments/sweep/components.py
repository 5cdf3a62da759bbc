"""Components of a sweep, built and tested before the first picture is coded.

    Sweep ── Components.of ──> data set, codecs, channel, segmenter, judge, metrics, identities

A wrong name, option, condition or weights file is reported here, in one line that names the file
and the key, and not an hour later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from channels.base import Channel, Packets, content_hashes
from channels.config.builder import build
from channels.config.packet_size import with_packet_size
from channels.random import Randomness
from channels.registry import nearest
from experiments.sweep.grid import Identities
from experiments.sweep.measuring import Measures
from experiments.sweep.schema import Choice, CodecChoice, Sweep
from sqlink.analogue import load_symbol_codec, symbol_codec_names
from sqlink.analogue.base import SYMBOL_CODECS, SymbolCodec
from sqlink.analogue.symbol_link import SymbolLink
from sqlink.codecs import load_codec, takes_option
from sqlink.codecs.base import (
    Codec,
    trained_on,
)
from sqlink.crossing import check_packet_size, resolve_rate
from sqlink.data import open_dataset
from sqlink.data.base import DataSet, Thinned
from sqlink.errors import ConfigError, MissingExtraError, SQLinkError, WeightsError, one_line
from sqlink.metrics import METRICS, AnyMetric, MapMetric, SetMetric
from sqlink.metrics.features import Patches
from sqlink.runtime.device import select_device
from sqlink.segmentation import GROUND_TRUTH, load_segmenter
from sqlink.segmentation.base import Segmenter
from sqlink.weights import FromWeights

Part = TypeVar("Part")


@dataclass(frozen=True)
class Components:
    """The parts of one sweep.

    codecs: by title and packet size. channels: by name and packet size. analogue: codecs of
    symbols, by title. symbol_links: links for these, by name of the channel and packet size.
    segmenter: None if the labels or no maps are sent (`sends_map`). measures: the metrics that can
    be measured, and the judge. asked: columns of all metrics asked for, in order. unavailable:
    column -> reason, of metrics that cannot be measured. trained_on: codec's title -> columns of
    metrics that were also its training losses. skipped: codec's title -> reason, of codecs whose
    library is not installed.
    """

    data: DataSet
    codecs: Mapping[tuple[str, int], Codec]
    channels: Mapping[tuple[str, int], Channel]
    analogue: Mapping[str, SymbolCodec]
    symbol_links: Mapping[tuple[str, int], SymbolLink]
    segmenter: Segmenter | None
    sends_map: bool
    measures: Measures
    asked: tuple[str, ...]
    unavailable: Mapping[str, str]
    trained_on: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, str]
    identities: Identities
    device: torch.device

    @classmethod
    def of(cls, sweep: Sweep, where: str) -> Components:
        """Build every part; `where` names the file in errors.

        Raises SQLinkError, one line, if a part cannot be built or does not fit the others.
        """
        device = select_device(sweep.device, f"{where}: device")
        data = _built(f"{where}: data", lambda: open_dataset(sweep.data.name, **sweep.data.options))
        if len(data) == 0:
            raise ConfigError(f"{where}: data: the data set '{sweep.data.name}' is empty")
        data = Thinned(data, sweep.data.every) if sweep.data.every > 1 else data
        channels = _channels(sweep, where)
        codecs, skipped = _codecs(sweep, where, device)
        analogue, symbol_links = _analogue(sweep, channels, device, where)
        _check_qualities(sweep, codecs, device, where)
        sends_map = any(codec.carries_map for codec in codecs.values())
        for rate in (rate for choice in sweep.codecs for rate in sweep.rates_of(choice).all()):
            for (_, packet_bytes), channel in channels.items():
                _built(f"{where}: rates", partial(resolve_rate, rate, channel, packet_bytes))
        segmenter = None
        if sends_map and sweep.segmenter.name != GROUND_TRUTH:
            segmenter = _segmenter(sweep.segmenter, f"{where}: segmenter", device)
        measures, asked, unavailable = _measures(sweep, where, device)
        return cls(
            data=data,
            codecs=codecs,
            skipped=skipped,
            channels=channels,
            analogue=analogue,
            symbol_links=symbol_links,
            segmenter=segmenter,
            sends_map=sends_map,
            measures=measures,
            asked=asked,
            unavailable=unavailable,
            trained_on={
                title: trained_on(codec)
                for title, codec in (*((t, c) for (t, _), c in codecs.items()), *analogue.items())
            },
            identities=Identities(
                codecs={
                    **{title: fingerprint(codec) for (title, _), codec in codecs.items()},
                    **{title: fingerprint(codec) for title, codec in analogue.items()},
                },
                metrics={metric.name: _weights_of(metric) for metric in measures.metrics.values()},
                segmenter=fingerprint(segmenter),
                judge=fingerprint(measures.judge),
                maps=frozenset(title for (title, _), codec in codecs.items() if codec.carries_map),
                channels={
                    name: tuple(content_hashes(channels[name, sweep.packet_bytes[0]]))
                    for name in sweep.links()
                },
                needs={name: channel.needs for (name, _), channel in channels.items()},
                files=files_named(
                    [
                        sweep.links(),
                        *(choice.options for choice in sweep.codecs),
                        *(choice.options for choice in sweep.metrics),
                        sweep.segmenter.options,
                        sweep.judge.options,
                    ]
                ),
            ),
            device=device,
        )

    def installed(self, sweep: Sweep) -> Sweep:
        """Return the sweep without skipped codecs and the comparisons with them."""
        if not self.skipped:
            return sweep
        kept = [choice for choice in sweep.codecs if choice.title not in self.skipped]
        compare = sweep.compare
        anchors = compare.anchors and [a for a in compare.anchors if a not in self.skipped]
        differences = [
            pair
            for pair in compare.differences
            if not any(row.startswith(f"{title} ") for row in pair for title in self.skipped)
        ]
        narrowed = compare.model_copy(update={"anchors": anchors, "differences": differences})
        return sweep.model_copy(update={"codecs": kept, "compare": narrowed})


def column(metric: AnyMetric) -> str:
    """Return a metric's column: its name and its unit, such as `psnr_db`."""
    return f"{metric.name}_{metric.unit.lower()}" if metric.unit else metric.name


def fingerprint(part: object) -> str:
    """Hash the networks of a codec, segmenter or metric with SHA-256; empty if it has none.

    A part that was read from a weights file has the file's hash as `weights_sha256`. Codecs and
    segmenters inside a part are included.
    """
    inside = {} if part is None else vars(part)
    nested = [
        (name, found)
        for name, value in sorted(inside.items())
        if isinstance(value, (Codec, Segmenter)) and (found := fingerprint(value))
    ]
    own = part.weights_sha256 if isinstance(part, FromWeights) else None
    if own is not None and not nested:
        return own
    total = hashlib.sha256()
    modules = {name: value for name, value in inside.items() if isinstance(value, nn.Module)}
    if own is not None:
        total.update(own.encode())
        modules = {}
    for name, module in sorted(modules.items()):
        for key, value in sorted(module.state_dict().items()):
            total.update(f"{name}.{key} {value.dtype} {tuple(value.shape)}\n".encode())
            total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    for name, found in nested:
        total.update(f"{name} {found}\n".encode())
    return total.hexdigest() if modules or nested else ""


def files_named(value: object) -> dict[str, str]:
    """Hash every file that a text in `value` names, at any depth: path -> SHA-256."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return {path: sha for inner in value for path, sha in files_named(inner).items()}
    if not isinstance(value, str) or not value or "\0" in value:
        return {}
    path = Path(value)
    if not (path.suffix or os.sep in value) or not os.path.isfile(path):
        return {}
    try:
        with path.open("rb") as file:
            return {value: hashlib.file_digest(file, "sha256").hexdigest()}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def _weights_of(metric: AnyMetric) -> str:
    """Return the fingerprint of a metric's networks; empty without one."""
    part: object = metric.extractor if isinstance(metric, SetMetric) else metric
    return fingerprint(part.extractor if isinstance(part, Patches) else part)


def _built(where: str, build: Callable[[], Part]) -> Part:
    """Call `build`; put the place in the sweep's file before a user error."""
    try:
        return build()
    except SQLinkError as error:
        raise type(error)(f"{where}: {error}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{where}: an option has a wrong type or value: {one_line(error)}"
        ) from error


def _codecs(
    sweep: Sweep, where: str, device: torch.device
) -> tuple[dict[tuple[str, int], Codec], dict[str, str]]:
    """Build the codecs, by title and packet size; and title -> reason, of those not installed.

    Raises SQLinkError if a codec cannot be built, or if none is installed.
    """
    built: dict[tuple[str, int], Codec] = {}
    skipped: dict[str, str] = {}
    for i, choice in enumerate(sweep.codecs):
        if choice.name in symbol_codec_names():
            continue
        try:
            for size in sweep.packet_bytes:
                make = partial(_codec, choice, size, device)
                built[choice.title, size] = _built(f"{where}: codecs[{i}]", make)
        except MissingExtraError as error:
            if len(skipped) + 1 == len(sweep.codecs):
                raise
            skipped[choice.title] = str(error)
    return built, skipped


def _check_qualities(
    sweep: Sweep, codecs: Mapping[tuple[str, int], Codec], device: torch.device, where: str
) -> None:
    """Raise ConfigError for a native quality that a codec does not have.

    Each is tried on a small grey picture, so that an error does not occur hours later.
    """
    picture = torch.full((1, 3, 16, 16), 0.5, device=device)
    for i, choice in enumerate(sweep.codecs):
        codec = codecs.get((choice.title, sweep.packet_bytes[0]))
        place = f"{where}: rates" if choice.rates is None else f"{where}: codecs[{i}].rates"
        if codec is None:
            continue
        for rate in sweep.rates_of(choice).all():
            if rate.quality is not None:
                carried = torch.zeros((1, 16, 16), dtype=torch.int64, device=device)
                labels = carried if codec.carries_map else None
                _built(place, partial(codec.encode, picture, rate, labels))


def _codec(choice: CodecChoice, packet_bytes: int, device: torch.device) -> Codec:
    """Make a codec for one packet size, on the device if it takes one."""
    if "packet_bytes" in choice.options:
        raise ConfigError("packet_bytes is the sweep's own: name it there, not among the options")
    placed = {"device": device} if takes_option(choice.name, "device") else {}
    return load_codec(choice.name, packet_bytes=packet_bytes, **{**placed, **choice.options})


def _analogue(
    sweep: Sweep, channels: Mapping[tuple[str, int], Channel], device: torch.device, where: str
) -> tuple[dict[str, SymbolCodec], dict[tuple[str, int], SymbolLink]]:
    """Return the codecs of symbols, by title, and the links for them, if any."""
    codecs: dict[str, SymbolCodec] = {}
    for i, choice in enumerate(sweep.codecs):
        if choice.name not in symbol_codec_names():
            continue
        known = SYMBOL_CODECS.options(choice.name)
        placed = {"device": device} if known is None or "device" in known else {}
        codecs[choice.title] = _built(
            f"{where}: codecs[{i}]",
            partial(load_symbol_codec, choice.name, **{**placed, **choice.options}),
        )
    if not codecs:
        return {}, {}
    if sweep.sequence is not None:
        raise ConfigError(
            f"{where}: sequence: '{next(iter(codecs))}' sends single pictures as symbols: leave it "
            "or the sequence out"
        )
    links = {
        (name, size): _built(f"{where}: channel", partial(SymbolLink, channel, size))
        for (name, size), channel in channels.items()
    }
    return codecs, links


def _segmenter(choice: Choice, where: str, device: torch.device) -> Segmenter:
    return _built(
        where, lambda: load_segmenter(choice.name, **{"device": device, **choice.options})
    )


def _measures(
    sweep: Sweep, where: str, device: torch.device
) -> tuple[Measures, tuple[str, ...], dict[str, str]]:
    """Return the metrics with the judge, the columns asked for, and reasons for missing ones."""
    metrics: dict[str, AnyMetric] = {}
    asked: list[str] = []
    unavailable: dict[str, str] = {}
    judge: Segmenter | None = None
    for i, choice in enumerate(sweep.metrics):
        place = f"{where}: metrics[{i}]"
        options = dict(choice.options)
        if "judge" in (_built(place, partial(METRICS.options, choice.name)) or ()):
            judge = judge or _segmenter(sweep.judge, f"{where}: judge", device)
            options["judge"] = judge
        try:
            metric = _built(place, partial(METRICS.make, choice.name, options))
        except WeightsError as error:
            if choice.options:
                raise
            unavailable[choice.name] = str(error).removeprefix(f"{place}: ")
            asked.append(choice.name)
            continue
        name = column(metric)
        metrics[name] = metric
        asked.append(name)
        judged = isinstance(metric, MapMetric) and metric.compares in ("image", "original")
        if judged and judge is None:
            judge = _segmenter(sweep.judge, f"{where}: judge", device)
    return Measures(metrics, judge), tuple(asked), unavailable


def _channels(sweep: Sweep, where: str) -> dict[tuple[str, int], Channel]:
    """Return the channels by name and packet size, each tested; each condition must be used by
    one.
    """
    channels: dict[tuple[str, int], Channel] = {}
    for name, spec in sweep.links().items():
        place = f"{where}: channels.{name}" if sweep.channels else f"{where}: channel"
        for size in sweep.packet_bytes:
            channels[name, size] = _channel(sweep, spec, size, where, place)
    read = {need for channel in channels.values() for need in channel.needs}
    for name in sweep.conditions:
        if name not in read:
            whose = "channels" if len(sweep.links()) > 1 else "channel"
            titles = ", ".join(f"'{channel.name}'" for channel in channels.values())
            known = nearest(name, sorted(read)) if read else "it takes none"
            have = "have" if len(sweep.links()) > 1 else "has"
            raise ConfigError(f"{where}: conditions: {whose} {titles} {have} no '{name}': {known}")
    return channels


def _channel(sweep: Sweep, spec: object, packet_bytes: int, where: str, place: str) -> Channel:
    """Make a channel, and test it with one packet under every value of every condition."""
    channel = _built(place, lambda: build(with_packet_size(spec, packet_bytes)))
    _built(place, lambda: check_packet_size(channel, packet_bytes))
    for name in channel.needs:
        if name not in sweep.conditions:
            raise ConfigError(
                f"{where}: channel '{channel.name}' needs the condition '{name}': "
                f"add it, conditions: {{{name}: [...]}}"
            )
    met = {name: values for name, values in sweep.conditions.items() if name in channel.needs}
    longest = max((len(values) for values in met.values()), default=1)
    conditions = {
        name: torch.tensor((values * longest)[:longest], dtype=torch.float64)
        for name, values in met.items()
    }
    packets = Packets.from_bytes([[bytes(packet_bytes)]] * longest)
    keys = Randomness.derive(0, [("trial", i) for i in range(longest)])
    _built(place, lambda: channel.transmit(packets, conditions, keys))
    return channel
