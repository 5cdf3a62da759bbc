"""One line a point, its seeds taken together: what its rows come to, with 95 % intervals.

Means are over pictures and realisations, outages included; mIoU is that of the summed confusion
matrix. `bpp` and `bytes` are of the pictures that the codec could code, so that a rate it cannot
reach does not make it look cheap; `channel_uses` and the ledger are of all, 0 where nothing was
sent. Intervals are by the two-level bootstrap of `sqlink.metrics.bootstrap`: blocks of pictures,
realisations inside; another seed is as good as more realisations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import torch

from experiments.grid import Point, canonical
from experiments.store import BITS, table_of
from sqlink.data.classes import NAMES, NUM_CLASSES
from sqlink.metrics.bootstrap import Interval, interval, mean_iou, mean_sums
from sqlink.metrics.semantic import iou, miou

MATRICES = {
    "miou": "confusion_image",
    "miou_map": "confusion_map",
    "map_fidelity": "confusion_sent",
}
"""Column of the summary -> the confusion matrices it is made of."""

CEILING = "miou_clean"
"""mIoU of the judge on the pictures before anything is sent: what no codec can be blamed for."""

LEVEL = 0.95

Floats = npt.NDArray[np.float64]


def summarise(
    table: pa.Table,
    points: Sequence[Point],
    metrics: Sequence[str],
    notes: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """The lines of `points`, in their order, those that differ by the seed alone as one.

    table: the sweep's rows. metrics: the columns of float metrics. notes: codec's title -> column
    of text -> what stands there. For each metric there are `NAME`, `NAME_low`, `NAME_high`, and
    `NAME_delivered`, the mean over what was no outage.
    """
    where: dict[str, list[int]] = {}
    for i, name in enumerate(table["point"].to_pylist()):
        where.setdefault(name, []).append(i)
    cells: dict[str, list[Point]] = {}
    for point in points:
        cell = [point.encoding.codec.title, point.encoding.rate.label(), point.conditions]
        cells.setdefault(canonical([*cell, point.encoding.packet_bytes]), []).append(point)
    lines = []
    for group in cells.values():
        rows = [i for point in group for i in where[point.hash]]
        lines.append(_line(group, table.take(pa.array(rows, pa.int64())), metrics, notes))
    return table_of(lines, keys=("codec", "rate"))


def _line(
    points: Sequence[Point],
    rows: pa.Table,
    metrics: Sequence[str],
    notes: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    point = points[0]
    pictures = rows["picture_key"].to_pylist()
    order = {key: n for n, key in enumerate(dict.fromkeys(pictures))}
    shape = (len(order), len(pictures) // len(order))
    cells = np.lexsort(
        (
            rows["realisation"].to_numpy(),
            rows["seed"].to_numpy(),
            [order[key] for key in pictures],
        )
    )
    blocks = np.asarray(rows["block"].to_pylist())[cells].reshape(shape)[:, 0]
    seed = int.from_bytes(hashlib.sha256(point.hash.encode()).digest()[:8], "little")

    def column(name: str) -> Floats:
        values = rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float64)[cells].reshape(shape)

    def spread(values: Floats) -> Interval:
        return interval(mean_sums(values), seed=seed, blocks=blocks, level=LEVEL)

    bpp = 8 * column("bytes") / (column("height") * column("width"))
    sent = column("unreachable") == 0
    lost = column("outage")
    line: dict[str, Any] = {
        "codec": point.encoding.codec.title,
        "rate": point.encoding.rate.label(),
        "packet_bytes": point.encoding.packet_bytes,
        **dict(point.conditions),
        "pictures": shape[0],
        "blocks": len(set(blocks.tolist())),
        "realisations": shape[1],
        "seeds": len(points),
        "bpp": float(bpp[sent].mean()) if sent.any() else float("nan"),
        "bytes": float(column("bytes")[sent].mean()) if sent.any() else float("nan"),
        "channel_uses": float(column("channel_uses").mean()),
        "unreachable": float(1 - sent.mean()),
    }
    packets = column("packets").sum()
    line["packet_loss"] = float(1 - column("delivered").sum() / packets) if packets else None
    line |= _named("outage", spread(lost))
    for name in metrics:
        values = column(name)
        line |= _named(name, spread(values))
        there = values[lost == 0]
        line[f"{name}_delivered"] = float(np.nanmean(there)) if np.isfinite(there).any() else None
    for name, source in MATRICES.items():
        if source in rows.column_names and rows[source].null_count < rows.num_rows:
            matrices = _matrices(rows[source])[cells].reshape(*shape, NUM_CLASSES, NUM_CLASSES)
            found = interval(matrices, mean_iou, seed=seed, blocks=blocks, level=LEVEL)
            line |= _named(name, found)
            given = torch.from_numpy(matrices[lost == 0].sum(axis=0))
            line[f"{name}_delivered"] = float(miou(given)) if (lost == 0).any() else None
            if name == "miou":
                each = iou(torch.from_numpy(matrices.sum(axis=(0, 1)))).tolist()
                line |= {f"iou_{c}": value for c, value in zip(NAMES, each, strict=True)}
                clean = _matrices(rows["confusion_clean"])[cells].sum(axis=0)
                clean = clean.reshape(NUM_CLASSES, NUM_CLASSES)
                line[CEILING] = float(miou(torch.from_numpy(clean)))
    for name in rows.column_names:
        if name.startswith(BITS):
            line[name] = float(column(name).mean())
    return {**line, **notes.get(point.encoding.codec.title, {})}


def _named(name: str, found: Interval) -> dict[str, float]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _matrices(column: pa.ChunkedArray) -> Floats:
    """[rows, 121] of a column of lists; a row without labels counts nothing."""
    filled = pyarrow.compute.if_else(
        pyarrow.compute.is_valid(column), column, pa.scalar([0] * NUM_CLASSES**2, column.type)
    )
    flat = pyarrow.compute.list_flatten(filled).to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float64).reshape(len(column), -1)
