"""Unequal against equal protection, at equal channel uses, on real pictures.

    protection plans ── estimated ── the best few ── scored on tuning pictures ──┐
      unequal: classes of options, with those of `allocate`                      │
      equal: every option and codec                                              │
    the best unequal plan and the few best equal plans <── sweeps on pictures ───┘
      paired differences, with intervals, to the best equal plan

    python -m experiments.uep.comparison CONFIG.yaml

For each metric and value of the condition, the plan with the best score is measured, which may be
one that another metric's estimates suggested. If this is an equal plan, it takes the place of the
unequal one, and the difference is 0 if it is also the best equal plan. The best equal plan is
chosen by the results that are shown, among those with the best estimates.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from channels.config.packet_size import with_packet_size
from channels.packet.unequal import Unequal
from channels.planning.allocation import allocate, measured_options
from channels.random import Randomness
from experiments.report.estimates import Measured, cells_of
from experiments.sweep.components import Components
from experiments.sweep.grid import canonical, digest, points
from experiments.sweep.runner import Runner
from experiments.sweep.schema import Choice, Data, Named, Sweep, as_list, as_named
from experiments.sweep.store import RESULTS, Store, read_parquet
from experiments.uep.search import (
    MIOU,
    ProtectionPlan,
    Tuner,
    best,
    each,
    equal_plans,
    unequal_plans,
)
from sqlink.data.pictures import write_aside
from sqlink.errors import ConfigError, SQLinkError
from sqlink.runtime.precision import full_precision
from sqlink.settings import Section, load_settings

STATES = 12
"""Number of groups of links by mean SNR, the common states of the packets of a picture."""

LINKS = 3000


class Protection(Section):
    """One comparison.

    codec: the protected codec. equal_codecs: further codecs for equal protection. over: the channel
    whose parameters `options` change (keys of a class of `unequal`, such as code_rate, modulation,
    copies). uses: most channel uses of a picture, or, if the channel counts no symbols, most
    packets with all their copies. most_packets: of a picture. conditions: one condition and its
    values; each value is a comparison. tuning: the data set on which plans are chosen; `data` if it
    is not given. tuning_pictures: number of its pictures; tuning_draws: realisations of each.
    finalists: number of plans, of each codec, with the best estimates by each metric; every metric
    chooses among all of them.
    """

    data: Annotated[Data, BeforeValidator(as_named)]
    codec: Annotated[Named, BeforeValidator(as_named)] = Choice(name="sqgan")
    equal_codecs: Annotated[list[Named], BeforeValidator(as_list)] = Field(default=[])
    over: Any
    options: Annotated[list[dict[str, Any]], Field(min_length=2)]
    uses: Annotated[int, Field(gt=0)]
    most_packets: Annotated[int, Field(gt=0, le=40)] = 18
    conditions: Annotated[
        dict[str, Annotated[list[float], BeforeValidator(as_list), Field(min_length=1)]],
        Field(min_length=1, max_length=1),
    ]
    metrics: Annotated[list[Named], BeforeValidator(as_list), Field(min_length=1)] = Field(
        default=[Choice(name="lpips"), Choice(name=MIOU)]
    )
    tuning: Annotated[Data | None, BeforeValidator(as_named)] = None
    tuning_pictures: Annotated[int, Field(gt=0)] = 12
    tuning_draws: Annotated[int, Field(gt=0)] = 16
    finalists: Annotated[int, Field(gt=0)] = 3
    realisations: Annotated[int, Field(gt=0)] = 8
    packet_bytes: Annotated[int, Field(ge=8, le=65535)] = 96
    batch_size: Annotated[int, Field(gt=0)] = 8
    output: str

    @property
    def condition(self) -> tuple[str, list[float]]:
        """Return the condition's name and its values."""
        return next(iter(self.conditions.items()))


@dataclass(frozen=True)
class Line:
    """The difference of unequal and best equal protection in one metric at one value."""

    value: float
    metric: str
    unequal: float
    best: str
    equal: float
    difference: float
    low: float
    high: float
    higher_is_better: bool
    no_interval: str | None = None
    """Why there is no interval."""

    @property
    def verdict(self) -> str:
        """Return `better`, `worse`, or `no difference` if the interval contains 0."""
        if math.isnan(self.low):
            return "n/a"
        if not (self.low > 0 or self.high < 0):
            return "no difference"
        return "better" if (self.difference > 0) == self.higher_is_better else "worse"


class Comparison:
    """A comparison in progress; its sweeps resume where they stopped."""

    def __init__(self, plan: Protection, where: str, progress: bool = True) -> None:
        self.plan = plan
        self.where = where
        self.progress = progress
        self.folder = Path(plan.output)
        self.over = with_packet_size(plan.over, plan.packet_bytes)
        self.codecs = [plan.codec, *plan.equal_codecs]

    def run(self) -> str:
        """Run all sweeps, write the table to the output, and return it as Markdown."""
        name, values = self.plan.condition
        costs = [self._cost(option) for option in self.plan.options]
        if min(costs) > self.plan.uses:
            raise ConfigError(
                f"{self.where}: uses={self.plan.uses} carry no packet: give at least {min(costs)}"
            )
        tuner = self._tuner()
        lines: list[Line] = []
        chosen: list[str] = []
        for value in values:
            ours, equal = self._chosen(tuner, costs, name, value)
            cells = {
                candidate: self._measured(candidate, value)
                for candidate in each([equal, [*ours.values()]])
            }
            for metric, candidate in ours.items():
                higher = tuner.higher_is_better(metric)
                others = {self._title(one): cells[one] for one in equal}
                lines += self._compared(value, metric, higher, cells[candidate], others)
                classes = json.dumps(candidate.classes(self.plan.options))
                chosen.append(
                    f"- {name}={value:g}, {metric}: {candidate.packets} packets, `{classes}`"
                )
        text = self._table(lines, chosen, next(iter(cells.values())))
        write_aside(text.encode(), self.folder / "protection.md")
        return text

    def _say(self, what: str) -> None:
        if self.progress:
            print(what, file=sys.stderr, flush=True)

    def _cost(self, option: Mapping[str, Any]) -> int:
        """Return the channel uses of a packet, or packets if no symbols are counted."""
        uses = Unequal(self.over, [option]).uses_per_packet(self.plan.packet_bytes)
        return int(option.get("copies", 1)) if uses is None else uses

    def _tuner(self) -> Tuner:
        plan = self.plan
        name, values = plan.condition
        data, where = plan.data, self.where
        if plan.tuning is not None:
            data, where = plan.tuning, f"{self.where}: tuning"
        sweeps = [
            self._sweep(ProtectionPlan(n, ((0, 1),)), values, data) for n in range(len(self.codecs))
        ]
        components = [Components.of(sweep, where) for sweep in sweeps]
        first = components[0]
        metrics = list(first.measures.of_pictures)
        if MIOU in first.measures.of_maps:
            metrics.append(MIOU)
        if not metrics:
            raise ConfigError(
                f"{self.where}: metrics: give miou or a metric of pictures, such as psnr, "
                "that can be measured here"
            )
        return Tuner(
            over=self.over,
            options=plan.options,
            codecs=[next(iter(one.codecs.values())) for one in components],
            components=first,
            pictures=plan.tuning_pictures,
            draws=plan.tuning_draws,
            packet_bytes=plan.packet_bytes,
            condition=name,
            metrics=metrics,
            where=self.where,
        )

    def _chosen(
        self, tuner: Tuner, costs: Sequence[int], name: str, value: float
    ) -> tuple[dict[str, ProtectionPlan], list[ProtectionPlan]]:
        """Return the plan for each metric, and the equal plans to compare it with."""
        plan = self.plan
        uses, most = plan.uses, plan.most_packets
        numbers = range(len(self.codecs))
        equal = [
            candidate
            for n in numbers
            for candidate in equal_plans(n, costs, uses, most)
            if tuner.reaches(candidate)
        ]
        unequal = [
            candidate
            for candidate in unequal_plans(0, costs, uses, most)
            if tuner.reaches(candidate)
        ]
        if not equal:
            raise ConfigError(
                f"{self.where}: uses={uses}: no codec can code the tuning pictures in so few "
                "packets: raise uses"
            )
        self._say(
            f"{name}={value:g}: guessing {len(equal)} equal, {len(unequal)} unequal candidates"
        )
        guesses = {candidate: tuner.guess(candidate, value) for candidate in [*equal, *unequal]}
        few: list[list[ProtectionPlan]] = []
        for metric in tuner.metrics:
            higher = tuner.higher_is_better(metric)
            guessed = {candidate: found[metric] for candidate, found in guesses.items()}
            few += [
                best(candidates, guessed.__getitem__, higher, plan.finalists)
                for candidates in (unequal, *([w for w in equal if w.codec == n] for n in numbers))
            ]
            few.append(self._allocated(tuner, metric, costs, name, value))
        finalists = list(each(few))
        self._say(f"{name}={value:g}: scoring {len(finalists)} candidates")
        scores = {candidate: tuner.score(candidate, value) for candidate in finalists}
        ours: dict[str, ProtectionPlan] = {}
        for metric in tuner.metrics:
            of_metric = {candidate: found[metric] for candidate, found in scores.items()}
            higher = tuner.higher_is_better(metric)
            (ours[metric],) = best(finalists, of_metric.__getitem__, higher, 1)
        return ours, [w for w in finalists if len(w.counts) == 1]

    def _allocated(
        self, tuner: Tuner, metric: str, costs: Sequence[int], name: str, value: float
    ) -> list[ProtectionPlan]:
        """Return the plan of most relevance for packets that are useful only in order.

        None if it sends no packet, or fewer than the codec needs.
        """
        most = min(self.plan.uses // min(costs), self.plan.most_packets)
        if not tuner.reaches(ProtectionPlan(0, ((0, most),))):
            return []
        streams = Randomness.derive(1, [("options", n) for n in range(LINKS)])
        options, states = measured_options(
            self.over,
            self.plan.options,
            value,
            streams,
            packets=4,
            packet_bytes=self.plan.packet_bytes,
            states=STATES if name == "snr_db" else 1,
            condition=name,
            uses=costs,
        )
        gains = tuner.gains(0, metric, most)
        found = allocate(options, gains, self.plan.uses, states, "prefix")
        sent = [option for option in found.choice if option >= 0]
        candidate = ProtectionPlan(
            0, tuple((option, sent.count(option)) for option in dict.fromkeys(sent))
        )
        return [candidate] if sent and tuner.reaches(candidate) else []

    def _sweep(self, candidate: ProtectionPlan, values: Sequence[float], data: Data) -> Sweep:
        plan = self.plan
        codec = self.codecs[candidate.codec]
        budget = self._budget(codec, candidate.packets)
        return Sweep.model_validate(
            {
                "data": data.model_dump(),
                "codecs": [{"name": codec.name, "options": codec.options}],
                "rates": {"bytes": [budget]},
                "channel": {
                    "unequal": {"over": plan.over, "classes": candidate.classes(plan.options)}
                },
                "draws": "protection",
                "conditions": {plan.condition[0]: list(values)},
                "realisations": plan.realisations,
                "packet_bytes": [plan.packet_bytes],
                "metrics": [metric.model_dump() for metric in plan.metrics],
                "examples": 0,
                "batch_size": plan.batch_size,
            }
        )

    def _budget(self, codec: Named, packets: int) -> int:
        from sqlink.codecs import load_codec
        from sqlink.codecs.base import session_bytes

        loaded = load_codec(codec.name, packet_bytes=self.plan.packet_bytes, **codec.options)
        return packets * self.plan.packet_bytes + session_bytes(loaded)

    def _measured(self, candidate: ProtectionPlan, value: float) -> Measured:
        """Run the sweep of one plan and return its results."""
        sweep = self._sweep(candidate, [value], self.plan.data)
        folder = self.folder / "sweeps" / digest(canonical(sweep.model_dump(mode="json")))
        components = Components.of(sweep, self.where)
        with Store(folder) as store:
            runner = Runner(sweep, components, store, "bar" if self.progress else "none")
            runner.run(json.dumps(sweep.model_dump(mode="json")))
            table = read_parquet(folder / RESULTS)
        (cell,) = cells_of(table, points(sweep, components.identities), components.measures)
        return cell

    def _compared(
        self,
        value: float,
        metric: str,
        higher: bool,
        cell: Measured,
        equal: Mapping[str, Measured],
    ) -> list[Line]:
        ours = cell.result(metric)
        if ours is None:
            return []
        found = {
            title: drawn
            for title, other in equal.items()
            if (drawn := other.result(metric)) is not None
        }
        (title,) = sorted(found, key=lambda one: (-1 if higher else 1) * found[one].estimate)[:1]
        theirs = found[title]
        apart = (ours - theirs).interval()
        line = Line(
            value=value,
            metric=metric,
            unequal=ours.estimate,
            best=title,
            equal=theirs.estimate,
            difference=apart.estimate,
            low=apart.low,
            high=apart.high,
            higher_is_better=higher,
            no_interval=apart.reason,
        )
        return [line]

    def _table(self, lines: Sequence[Line], chosen: Sequence[str], cell: Measured) -> str:
        name, _ = self.plan.condition
        pictures, realisations = cell.shape
        rows = [
            f"| {name} | metric | unequal | best equal | its value | difference [95 %] | |",
            "|---|---|---|---|---|---|---|",
        ]
        for line in lines:
            scale, digits = (100, 1) if line.metric == MIOU else (1, 3)
            numbers = [
                f"{scale * v:.{digits}f}"
                for v in (line.unequal, line.equal, line.difference, line.low, line.high)
            ]
            ends = f"{numbers[3]}, {numbers[4]}"
            if line.no_interval is not None:
                ends = f"n/a: {line.no_interval}"
            title = f"{line.metric}, %" if scale == 100 else line.metric
            rows.append(
                f"| {line.value:g} | {title} | {numbers[0]} | {line.best} | {numbers[1]} "
                f"| {numbers[2]} [{ends}] | {line.verdict} |"
            )
        rows += [
            "",
            f"n = {pictures} pictures ({cell.num_blocks} blocks) x {realisations}; "
            f"at most {self.plan.uses} uses per picture. Unequal protection:",
            "",
            *chosen,
        ]
        return "\n".join(rows) + "\n"

    def _title(self, candidate: ProtectionPlan) -> str:
        """Return an equal plan in words, such as `code_rate 0.5, modulation qpsk`."""
        option = self.plan.options[candidate.counts[0][0]]
        words = [f"{key} {value}" for key, value in option.items()] or ["plain"]
        codec = self.codecs[candidate.codec]
        if len(self.codecs) > 1:
            words += [codec.name, *(f"{key} {value}" for key, value in codec.options.items())]
        return f"{', '.join(words)}: {candidate.packets} packet{'s' * (candidate.packets > 1)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.uep.comparison", description=__doc__
    )
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
