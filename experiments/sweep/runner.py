"""The run of a sweep, from its YAML to its tables.

    load, build, check ─> tasks ─> executor: workers write rows ─> tables, regularly and at the end
                            ^                                        │
                            └── more realisations, if needed ────────┘

A crossing of the channel is keyed by (channel, picture, realisation) and the seed: the codec, the
rate and the conditions are not in the key, so that codecs, and the points of a curve, meet the same
fading and noise. In a `sequence`, pictures cross in runs, keyed by their first picture; a task is
then one run. A row depends only on its point, its picture (and its run) and its realisation, so an
interrupted sweep resumes where it stopped and gives the same table, wherever its tasks run.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from channels.registry import nearest
from experiments.report.estimates import cells_of
from experiments.sweep.cache import LIMIT_BYTES, Cache
from experiments.sweep.components import Components
from experiments.sweep.executors import check, executor
from experiments.sweep.executors.base import Execution, Executor, Setup, grid_digest
from experiments.sweep.finishing import finish, rows_named, say
from experiments.sweep.pictures import Pictures
from experiments.sweep.progress import progress
from experiments.sweep.schema import Sweep, load_sweep
from experiments.sweep.store import Done, Store
from experiments.sweep.tasks import Outcome, cut
from experiments.sweep.timings import Timings
from experiments.sweep.worker import Worker
from sqlink.errors import ConfigError
from sqlink.metrics.jackknife import MIN_BLOCKS
from sqlink.runtime.precision import full_precision
from sqlink.settings import find_settings
from sqlink.wording import counted

COUNTED = ("outage", "unreachable", "bpp", "bpp_sent", "delivered", "channel_uses", "delay_s")
"""Columns that `until` may name in addition to metrics."""

MANY = 1_000_000
"""Number of rows above which a sweep asks for confirmation."""

FIRST_TABLES_S = 30.0
TABLES_SHARE = 20.0
"""Tables of an unfinished sweep are written first after FIRST_TABLES_S seconds, and then after
TABLES_SHARE times the duration of writing them.
"""


def run_sweep(
    config_path: str | Path,
    output: str | Path | None = None,
    *,
    batch_size: int | None = None,
    progress: bool | str = True,
    many: bool = False,
    shard: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    execution: Execution | None = None,
    cache: Path | None = None,
    cache_limit: int = LIMIT_BYTES,
) -> Path:
    """Run the sweep of a YAML file to its end, and return the folder of its results.

    output: the results folder; by default `output` in the file, or `results/` and the file's name.
    Rows of an earlier or interrupted run are not computed again. batch_size: pictures coded
    together, instead of the file's value; it changes speed and memory, not the results. progress:
    one of `progress.KINDS`, or whether to show a bar. many: allow more than MANY rows (`--yes`).
    shard: (i, n), run only the i-th of n equal parts of the pictures, in a folder of its own
    (`results merge` joins the parts). overwrite: replace the tables of another file in the folder.
    execution: where the tasks run; by default in this process. cache: a folder of encodings and
    other results that sweeps share, such as `cache_folder()`; by default none. cache_limit: its
    size in bytes. Raises SQLinkError, one line, for errors of the user.
    """
    shows = progress if isinstance(progress, str) else "bar" if progress else "none"
    path = find_settings(config_path, "experiments.configs")
    sweep = load_sweep(path)
    if batch_size is not None:
        sweep = Sweep.model_validate({**dict(sweep), "batch_size": batch_size})
    execution = execution or Execution()
    check(execution)
    folder = Path(output or sweep.output or Path("results") / path.stem)
    if not 1 <= shard[0] <= shard[1]:
        raise ConfigError(f"shard {shard[0]}/{shard[1]}: should be i/n with i from 1 to n")
    if shard[1] > 1 and output is None:
        folder = folder.with_name(f"{folder.name}.{shard[0]}-of-{shard[1]}")
    with torch.inference_mode(), full_precision():
        components = Components.of(sweep, path.name)
        if not Pictures(sweep, components, shard).count:
            raise ConfigError(
                f"{path.name}: shard {shard[0]}/{shard[1]} has no picture: make fewer shards"
            )
        with Store(folder) as store:
            runner = Runner(
                sweep,
                components,
                store,
                shows,
                shard,
                path.name,
                execution,
                Cache(cache, cache_limit, say),
            )
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
    """A running sweep: it distributes the tasks, and makes tables from their rows."""

    def __init__(
        self,
        sweep: Sweep,
        components: Components,
        store: Store,
        shows: str = "none",
        shard: tuple[int, int] = (1, 1),
        name: str = "",
        execution: Execution | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.name = name
        self.asked = sweep
        self.sweep = sweep = components.installed(sweep)
        self.components = components
        self.store = store
        self.execution = execution or Execution()
        self.cache = cache or Cache(None)
        self.worker = Worker(sweep, components, store, Done(), self.cache, say)
        self.points = self.worker.points
        self.compute = Timings.resumed(store.folder)
        self.realisations = sweep.realisations
        self._known_column = None if sweep.until is None else self._column(sweep.until.metric)
        self.pictures = Pictures(sweep, components, shard)
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self._shows = shows

    def check_folder(self, config: str) -> None:
        """Raise ConfigError if the folder holds the tables of another file than `config`.

        A file counts as another one if its name differs, or if its text differs and it shares no
        point.
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
        """Compute the missing rows, then write the tables. Returns the folder.

        config: the sweep's YAML, for the record.
        """
        for title, reason in self.components.skipped.items():
            say(f"{title}: SKIPPED, no rows of this codec: {reason}")
        for name, reason in self.components.unavailable.items():
            say(f"{name}: not measured: {reason}")
        self.worker.done = self.store.rows_there()
        first = 0
        with executor(self.execution, self._setup(), lambda: self.worker) as runs:
            while True:
                keys = self._pass(runs, first, config)
                if not self._wants_more(keys):
                    break
                first, self.realisations = self.realisations, min(2 * self.realisations, self._most)
        if self.hits or self.misses:
            say(f"cache: {_found(self.hits, self.misses)}")
        self._tables(keys, config, finished=True)
        return self.store.folder

    def _setup(self) -> Setup:
        return Setup(
            self.asked,
            self.name,
            self.store.folder,
            grid_digest(self.worker),
            self.worker.done,
            frozenset(path.name for path in self.worker.examples.folder.glob("*.png")),
            self.cache.folder,
            self.cache.limit,
        )

    @property
    def total(self) -> int:
        """Number of rows at the present number of realisations."""
        return self.pictures.count * len(self.points) * self.realisations

    @property
    def _most(self) -> int:
        """Largest number of realisations."""
        until = self.sweep.until
        return self.sweep.realisations if until is None else until.most

    def _pass(self, runs: Executor, first: int, config: str) -> list[str]:
        """Compute missing rows from realisation `first` on; return the pictures' keys in order.

        The tables of the finished pictures are written from time to time.
        """
        groups, reach = self.pictures.groups, (first, self.realisations)
        tasks = cut(groups, len(self.worker.groups), reach, self.sweep.batch_size, runs.workers)
        left = Counter(number for task in tasks for number in task.pictures)
        keys: dict[int, str] = {}
        written, took = time.monotonic(), FIRST_TABLES_S / TABLES_SHARE
        total = self.pictures.count * len(self.points) * (self.realisations - first)
        with progress(self._shows, total) as advance:
            for outcome in runs.run(tasks, advance):
                self._count(outcome)
                left.subtract(outcome.keys.keys())
                keys |= {number: key for number, key in outcome.keys.items() if not left[number]}
                if (
                    time.monotonic() - written > took * TABLES_SHARE
                    and 0 < len(keys) < self.pictures.count
                ):
                    begun = time.monotonic()
                    self._tables([keys[number] for number in sorted(keys)], config, finished=False)
                    written = time.monotonic()
                    took = max(written - begun, FIRST_TABLES_S / TABLES_SHARE)
        return [keys[number] for number in sorted(keys)]

    def _count(self, outcome: Outcome) -> None:
        self.compute.add(outcome.spent)
        self.hits.update(outcome.hits)
        self.misses.update(outcome.misses)

    def _column(self, metric: str) -> str:
        """Return the column of a metric by its name, such as `psnr_db` for psnr, or of COUNTED.

        Raises ConfigError if the sweep has no such column, or cannot measure it.
        """
        names = [one.name for one in self.sweep.metrics]
        columns = dict(zip(names, self.components.asked, strict=True))
        found = columns.get(metric, metric)
        if reason := self.components.unavailable.get(found):
            raise ConfigError(f"{self.name}: until: '{metric}' cannot be measured: {reason}")
        known = [*names, *self.components.asked, *COUNTED]
        if found not in known:
            raise ConfigError(
                f"{self.name}: until: no metric of the sweep is '{metric}': "
                f"{nearest(metric, known)}"
            )
        return found

    def _wants_more(self, pictures: Sequence[str]) -> bool:
        """Say whether the interval of a cell is too wide and more realisations are allowed."""
        until = self.sweep.until
        if until is None or self._known_column is None or self.realisations >= until.most:
            return False
        table = self.store.select(rows_named(self.points, pictures, self.realisations))
        cells = cells_of(table, self.points, self.components.measures)
        found = [one for cell in cells if (one := cell.interval(self._known_column)) is not None]
        if not found:
            raise ConfigError(
                f"until: nothing was measured as '{until.metric}': name a metric of the sweep"
            )
        if (blocks := max(one.blocks for one in found)) < MIN_BLOCKS:
            raise ConfigError(
                f"until: no interval of '{until.metric}' over {counted(blocks, 'block')}: "
                f"{MIN_BLOCKS} are needed, take more pictures"
            )
        return any(one.reason or (one.high - one.low) / 2 > until.width for one in found)

    def _tables(self, pictures: Sequence[str], config: str, finished: bool) -> None:
        finish(
            self.store,
            self.sweep,
            self.components,
            self.points,
            pictures,
            self.realisations,
            config,
            self.name,
            finished,
            self.compute.spent,
        )


def _found(hits: Counter[str], misses: Counter[str]) -> str:
    """Write the entries found by kind: `encodings 3 of 12, originals 1 of 1`."""
    kinds = sorted({*hits, *misses})
    return ", ".join(f"{kind} {hits[kind]} of {hits[kind] + misses[kind]}" for kind in kinds)
