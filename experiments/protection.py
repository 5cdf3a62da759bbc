"""Unequal against equal protection, at equal channel uses, on real pictures.

    relevance: what each packet adds ───────┐
    options: what each delivers at the SNR ─┴─> allocate ─> a sweep with unequal protection ──┐
    each option for all packets ──────────────────────────> sweeps with equal protection ─────┤
    the best of these for each metric and SNR <── paired differences, with intervals <────────┘

    python -m experiments.protection CONFIG.yaml

The choice of the best equal protection is made on the very results that it is compared on, which
favours it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BeforeValidator, Field

from channels.allocation import Allocation, allocate, measured_options
from channels.protection import Unequal
from channels.random import Streams
from experiments.equipment import Equipment, sized
from experiments.grid import canonical, digest, points
from experiments.measured import LEVEL, Measured, cells_of
from experiments.runner import Runner
from experiments.schema import Choice, Data, Named, Sweep, as_list, as_named
from experiments.store import RESULTS, Store, read_parquet
from sqlink.codecs.base import Rate, Received, Stream
from sqlink.data.pictures import write_aside
from sqlink.errors import ConfigError, SQLinkError
from sqlink.metrics.bootstrap import percentiles
from sqlink.precision import full_precision
from sqlink.settings import Section, load_settings

STATES = 12
"""Groups of links, by their mean SNR, that say what packets of one picture have in common."""

LINKS = 3000


class Protection(Section):
    """One comparison.

    over: the channel of which `options` change parameters (keys of a class of `unequal`, as
    code_rate, modulation, copies). uses: channel uses of a picture, or, over a channel that counts
    no symbols, packets with all their copies. conditions: one condition and its values, each a
    comparison. relevance_pictures: so many of the first pictures tell what a packet adds to the
    first metric, by which packets are protected.
    """

    data: Annotated[Data, BeforeValidator(as_named)]
    codec: Named = Choice(name="sqgan")
    over: Any
    options: Annotated[list[dict[str, Any]], Field(min_length=2)]
    uses: Annotated[int, Field(gt=0)]
    conditions: Annotated[
        dict[str, Annotated[list[float], BeforeValidator(as_list), Field(min_length=1)]],
        Field(min_length=1, max_length=1),
    ]
    metrics: Annotated[list[Named], BeforeValidator(as_list), Field(min_length=1)] = Field(
        default=[Choice(name="lpips"), Choice(name="miou")]
    )
    relevance_pictures: Annotated[int, Field(gt=0)] = 6
    realisations: Annotated[int, Field(gt=0)] = 8
    packet_bytes: Annotated[int, Field(ge=8, le=65535)] = 96
    batch_size: Annotated[int, Field(gt=0)] = 8
    output: str

    @property
    def condition(self) -> tuple[str, list[float]]:
        """The condition's name and its values."""
        return next(iter(self.conditions.items()))


@dataclass(frozen=True)
class Line:
    """One metric at one value of the condition: unequal protection less the best equal one."""

    value: float
    metric: str
    unequal: float
    best: str
    equal: float
    difference: float
    low: float
    high: float
    higher_is_better: bool

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `even` where the interval holds 0."""
        if self.low <= 0 <= self.high:
            return "even"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


class Comparison:
    """One comparison under way; its sweeps go on where they stopped."""

    def __init__(self, plan: Protection, where: str, progress: bool = True) -> None:
        self.plan = plan
        self.where = where
        self.progress = progress
        self.folder = Path(plan.output)
        self.over = sized(plan.over, plan.packet_bytes)
        self._ways: dict[str, bool] = {}

    def run(self) -> str:
        """Every sweep, then the table, as Markdown; it is written to the output as well."""
        name, values = self.plan.condition
        costs = [self._cost(option) for option in self.plan.options]
        if min(costs) > self.plan.uses:
            raise ConfigError(
                f"{self.where}: uses={self.plan.uses} carry no packet: one takes {min(costs)}"
            )
        equal = {
            _title(option): self._measured([option], self.plan.uses // cost, values)
            for option, cost in zip(self.plan.options, costs, strict=True)
            if cost <= self.plan.uses
        }
        relevance = self._relevance(self.plan.uses // min(costs))
        lines, chosen = [], {}
        for i, value in enumerate(values):
            allocation = self._allocation(relevance, costs, name, value)
            sent = [number for number in allocation.choice if number >= 0]
            classes = allocation.classes()[:-1]
            chosen[f"{value:g}"] = classes
            (cell,) = self._measured(
                [*classes[:-1], {k: v for k, v in classes[-1].items() if k != "packets"}],
                len(sent),
                [value],
            )
            lines += self._compared(value, cell, {t: cells[i] for t, cells in equal.items()})
        text = self._table(lines, chosen, next(iter(equal.values()))[0])
        write_aside(text.encode(), self.folder / "protection.md")
        return text

    def _cost(self, option: Mapping[str, Any]) -> int:
        """Channel uses of a packet, or packets where no symbols are counted."""
        uses = Unequal(self.over, [option]).uses_per_packet(self.plan.packet_bytes)
        return int(option.get("copies", 1)) if uses is None else uses

    def _allocation(
        self, relevance: Sequence[float], costs: Sequence[int], name: str, value: float
    ) -> Allocation:
        """The protection that delivers the most relevance under one value of the condition."""
        streams = Streams.derive(1, [("options", n) for n in range(LINKS)])
        settings, size = self.plan.options, self.plan.packet_bytes
        options, states = measured_options(
            self.over,
            settings,
            value,
            streams,
            packets=4,
            packet_bytes=size,
            states=STATES if name == "snr_db" else 1,
            condition=name,
            uses=costs,
        )
        return allocate(options, relevance, self.plan.uses, states, "prefix")

    def _sweep(
        self, classes: Sequence[Mapping[str, Any]], packets: int, values: Sequence[float]
    ) -> Sweep:
        plan = self.plan
        return Sweep.model_validate(
            {
                "data": plan.data.model_dump(),
                "codecs": [{"name": plan.codec.name, "options": plan.codec.options}],
                "rates": {"bytes": [self._budget(packets)]},
                "channel": {"unequal": {"over": plan.over, "classes": list(classes)}},
                "draws": "protection",
                "conditions": {plan.condition[0]: list(values)},
                "realisations": plan.realisations,
                "packet_bytes": [plan.packet_bytes],
                "metrics": [metric.model_dump() for metric in plan.metrics],
                "examples": 0,
                "batch_size": plan.batch_size,
            }
        )

    def _budget(self, packets: int) -> int:
        from sqlink.codecs import load_codec

        codec = load_codec(
            self.plan.codec.name, packet_bytes=self.plan.packet_bytes, **self.plan.codec.options
        )
        return packets * self.plan.packet_bytes + int(getattr(codec, "session_bytes", 0))

    def _measured(
        self,
        classes: Sequence[Mapping[str, Any]],
        packets: int,
        values: Sequence[float],
    ) -> list[Measured]:
        """The cells of one way to protect, one a value of the condition."""
        sweep = self._sweep(classes, packets, values)
        folder = self.folder / "sweeps" / digest(canonical(sweep.model_dump(mode="json")))
        equipment = Equipment.of(sweep, self.where)
        with Store(folder) as store:
            runner = Runner(sweep, equipment, store, self.progress)
            runner.run(json.dumps(sweep.model_dump(mode="json")))
            table = read_parquet(folder / RESULTS)
        self._ways = {name: m.higher_is_better for name, m in equipment.metrics.items()}
        return cells_of(table, points(sweep, equipment.identities))

    def _relevance(self, packets: int) -> list[float]:
        """What each packet adds to the first metric, after those before it; never rising.

        The prefixes of streams of that many packets are decoded and compared with the originals.
        """
        from scipy.optimize import isotonic_regression

        sweep = self._sweep([self.plan.options[0]], packets, self.plan.condition[1])
        equipment = Equipment.of(sweep, self.where)
        codec = next(iter(equipment.codecs.values()))
        metric = next(iter(equipment.metrics.values()), None)
        if metric is None:
            raise ConfigError(
                f"{self.where}: metrics: the first must be one of pictures, such as psnr, "
                "that can be measured here"
            )
        count = min(self.plan.relevance_pictures, len(equipment.data))
        scores = torch.zeros(packets + 1, dtype=torch.float64)
        for number in range(count):
            image = equipment.data[number].image[None]
            maps = None if equipment.segmenter is None else equipment.segmenter.segment(image)
            (stream,) = codec.encode(image, Rate(bytes=self._budget(packets)), maps)
            if not isinstance(stream, Stream):
                raise ConfigError(f"{self.where}: {stream}")
            data = [packet.data for packet in stream.packets]
            for upto in range(packets + 1):
                came = tuple(p if i < upto else None for i, p in enumerate(data))
                decoded = codec.decode([Received(stream.session, came)])
                scores[upto] += float(metric(decoded.images, image)[0]) / count
        gains = scores.diff() if metric.higher_is_better else -scores.diff()
        falling = isotonic_regression(gains.numpy(), increasing=False).x
        return [float(v) for v in np.maximum(falling, 0)]

    def _compared(self, value: float, cell: Measured, equal: Mapping[str, Measured]) -> list[Line]:
        lines = []
        for metric in self._names(cell):
            ours = cell.drawn(metric)
            higher = self._ways.get(metric, True)
            sign = 1 if higher else -1
            found = {
                title: drawn
                for title, other in equal.items()
                if (drawn := other.drawn(metric)) is not None
            }
            best = max(found, key=lambda title: sign * found[title][0])
            theirs = found[best]
            assert ours is not None
            apart = percentiles(ours[0] - theirs[0], ours[1] - theirs[1], cell.num_blocks, LEVEL)
            lines.append(
                Line(
                    value,
                    metric,
                    ours[0],
                    best,
                    theirs[0],
                    apart.estimate,
                    apart.low,
                    apart.high,
                    higher,
                )
            )
        return lines

    def _names(self, cell: Measured) -> list[str]:
        known = [*self._ways, "miou", "miou_map"]
        return [name for name in known if cell.drawn(name) is not None]

    def _table(self, lines: Sequence[Line], chosen: Mapping[str, Any], cell: Measured) -> str:
        name, _ = self.plan.condition
        pictures, realisations = cell.shape
        rows = [
            f"| {name} | metric | unequal | best equal | its value | difference [95 %] | |",
            "|---|---|---|---|---|---|---|",
        ]
        for line in lines:
            scale, digits = (100, 1) if line.metric.startswith("miou") else (1, 3)
            numbers = [
                f"{scale * v:.{digits}f}"
                for v in (line.unequal, line.equal, line.difference, line.low, line.high)
            ]
            title = f"{line.metric}, %" if scale == 100 else line.metric
            rows.append(
                f"| {line.value:g} | {title} | {numbers[0]} | {line.best} | {numbers[1]} "
                f"| {numbers[2]} [{numbers[3]}, {numbers[4]}] | {line.verdict} |"
            )
        rows += [
            "",
            f"n = {pictures} pictures ({cell.num_blocks} blocks) x {realisations}; "
            f"{self.plan.uses} uses a picture. Unequal protection:",
            "",
        ]
        rows += [f"- {name}={value}: `{json.dumps(classes)}`" for value, classes in chosen.items()]
        return "\n".join(rows) + "\n"


def _title(option: Mapping[str, Any]) -> str:
    """An option in words, such as `code_rate 0.5, modulation qpsk`."""
    return ", ".join(f"{key} {value}" for key, value in option.items()) or "plain"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m experiments.protection", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        plan = load_settings(chosen.config, Protection)
        with torch.inference_mode(), full_precision():
            print(Comparison(plan, chosen.config.name).run())
    except SQLinkError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
