"""Tables, summary and manifest of a sweep, made from its rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from experiments.report.estimates import cells_of
from experiments.report.saturation import merged
from experiments.report.summary import summarise
from experiments.report.tables import write_tables
from experiments.report.unmeasured import Unmeasured, unmeasured
from experiments.sweep.components import Components
from experiments.sweep.grid import Point
from experiments.sweep.manifest import manifest
from experiments.sweep.schema import Sweep
from experiments.sweep.store import Key, Store
from experiments.sweep.timings import Spent


def finish(
    store: Store,
    sweep: Sweep,
    components: Components,
    points: Sequence[Point],
    pictures: Sequence[str],
    realisations: int,
    config: str,
    name: str,
    finished: bool = True,
    compute: Spent | None = None,
) -> None:
    """Write the tables of the rows of these points and pictures.

    pictures: their keys. config, name: the sweep's YAML and its file's name, for the record.
    finished: whether these are all pictures. compute: time spent, by codec.
    """
    rows = rows_named(points, pictures, realisations)
    store.compact()
    table = store.select(rows)
    measures = components.measures
    cells = merged(cells_of(table, points, measures))
    missing = {
        name: Unmeasured(0, len(pictures), reason)
        for name, reason in components.unavailable.items()
    }
    missing |= unmeasured(cells, measures.metrics)
    unavailable = {name: lack.reason for name, lack in missing.items() if not lack.pictures}
    for metric, lack in missing.items() if finished else ():
        if metric not in components.unavailable:
            say(f"{metric}: n = {lack.pictures} of {lack.of}: {lack.reason}")
    notes = {
        choice.title: {
            **{f"{name}_note": f"unavailable: {why}" for name, why in unavailable.items()},
            **{
                f"{name}_note": "also a training loss of this codec"
                for name in components.trained_on.get(choice.title, ())
                if name not in unavailable
            },
        }
        for choice in sweep.codecs
    }
    store.write_table("results", table)
    summary = summarise(cells, list(measures.metrics), notes)
    store.write_table("summary", summary)
    counts = {
        "points": len(points),
        "pictures": len(pictures),
        "realisations": realisations,
        "rows": table.num_rows,
    }
    content = manifest(sweep, components, unavailable, config, counts, finished)
    content["config_name"] = name
    content["compute"] = dict(compute or {})
    store.write_text("manifest.json", json.dumps(content, indent=2, ensure_ascii=False))
    carry = components.identities.maps
    anchors = sweep.compare.anchors
    if anchors is None:
        anchors = [choice.title for choice in sweep.codecs if choice.title not in carry]
    write_tables(
        store,
        cells,
        summary.to_pylist(),
        components.asked,
        measures.metrics,
        missing,
        components.trained_on,
        anchors,
        [(first, second) for first, second in sweep.compare.differences],
    )


def rows_named(points: Sequence[Point], pictures: Sequence[str], realisations: int) -> list[Key]:
    """Return the keys of a table's rows, in its order."""
    return [
        (point.hash, key, realisation)
        for point in points
        for key in pictures
        for realisation in range(realisations)
    ]


def say(what: str) -> None:
    """Print a line to standard error."""
    print(what, file=sys.stderr, flush=True)
