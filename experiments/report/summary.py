"""One line a point, its seeds taken together: its estimates, with 95 % intervals.

Means are over pictures and realisations, outages included; mIoU is that of the summed confusion
matrix, `fd` that of all cells of all receptions. `bpp` and `bytes` are of the pictures that the
codec could code, so that unreachable rates do not lower the mean: what was offered to
the channel, beside `bpp_sent`, less what a budget or a queue cut, and `bpp_delivered`.
`unreachable` is the share of pictures that the codec cannot code as low as asked, `outage` that of
the others of which nothing could be decoded. A row of a codec that makes the same of higher rates
is `saturated`. `setting` is the mean of the codec's native quality, such as a QP, where it has one.
`channel_uses` and the ledger are of all, 0 where nothing was sent; `delay_s`, mean
and 95 % quantile, is of the pictures of which anything came, where the channel delays any.
Intervals are those of `sqlink.metrics.jackknife` over blocks of pictures, the spread of
realisations within them; another seed is as good as more realisations. Where there is none,
`NAME_interval` says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from experiments.report.estimates import Measured
from experiments.sweep.row import BITS
from experiments.sweep.store import table_of
from sqlink.data.classes import NAMES
from sqlink.metrics.jackknife import LEVEL, Floats, Interval
from sqlink.metrics.semantic import iou

CLEAN = "_clean"
"""Suffix of what the judge reaches on the pictures before anything is sent: the ceiling."""


def summarise(
    cells: Sequence[Measured],
    metrics: Sequence[str],
    notes: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """Make a line for each cell, in their order.

    metrics: the columns of metrics. notes: codec's title -> column of text -> what stands there.
    For each metric there are `NAME`, `NAME_low`, `NAME_high`, `NAME_pictures` and `NAME_blocks`,
    how many it has values of, and `NAME_delivered`, its value over what was no outage.
    """
    return table_of([_line(cell, metrics, notes) for cell in cells], keys=("codec", "rate"))


def _line(
    cell: Measured, metrics: Sequence[str], notes: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    point = cell.points[0]
    sent = cell.reached()
    delivered = sent & (cell.column("outage") == 0)
    size = cell.column("bytes")[sent]
    line: dict[str, Any] = {
        "codec": cell.title,
        "rate": cell.rate,
        "rate_kind": point.encoding.rate.kind,
        "rate_value": point.encoding.rate.value,
        "saturated": bool(cell.also_asked),
        "packet_bytes": point.encoding.packet_bytes,
        "channel": point.channel,
        **dict(point.axes),
        **dict(point.conditions),
        "pictures": cell.shape[0],
        "blocks": cell.num_blocks,
        "realisations": cell.shape[1],
        "seeds": len(cell.points),
        "bpp": _mean(cell.bpp()),
        "bytes": float(size.mean()) if sent.any() else float("nan"),
        "bpp_sent": _mean(cell.bpp("sent_bytes")),
        "bpp_delivered": _mean(cell.bpp("delivered_bytes")),
        "channel_uses": float(cell.column("channel_uses").mean()),
        "channel_uses_max": int(cell.column("channel_uses").max()),
        "channel_uses_asked": point.encoding.rate.channel_uses,
        "unreachable": float(1 - sent.mean()),
    }
    if "setting" in cell.rows.column_names:
        line["setting"] = _mean(cell.column("setting"))
    packets = cell.column("packets").sum()
    line["packet_loss"] = float(1 - cell.column("delivered").sum() / packets) if packets else None
    delay = cell.column("delay_s")
    came = ~np.isnan(delay)
    if came.any() and delay[came].any():
        line["delay_s"] = float(delay[came].mean())
        line["delay_s_p95"] = float(np.quantile(delay[came], 0.95))
    for name in ("outage", *metrics):
        found = cell.interval(name)
        if found is None and name == "outage":  # nothing was sent that could be lost
            found = Interval(np.nan, np.nan, np.nan, LEVEL, 0, "nothing sent")
        if found is None:
            continue
        line |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
        if found.reason is not None:
            line[f"{name}_interval"] = f"n/a: {found.reason}"
        if name == "outage":
            continue
        line[f"{name}_pictures"] = int(cell.measured(name).any(axis=1).sum())
        line[f"{name}_blocks"] = found.blocks
        line[f"{name}_delivered"] = cell.value(name, delivered)
        metric = cell.measures.of_maps.get(name)
        if metric is not None and metric.compares == "image":
            clean = cell.counts(f"{metric.kept}_clean", metric.shape).sum(axis=(0, 1))
            line[f"{name}{CLEAN}"] = float(metric.value(torch.from_numpy(clean)))
    if "miou" in line:
        matrix = cell.counts("confusion_image", (len(NAMES), len(NAMES))).sum(axis=(0, 1))
        each = iou(torch.from_numpy(matrix)).tolist()
        line |= {f"iou_{c}": value for c, value in zip(NAMES, each, strict=True)}
    for name in cell.rows.column_names:
        if name.startswith(BITS):
            line[name] = float(cell.column(name).mean())
    return {**line, **notes.get(cell.title, {})}


def _mean(values: Floats) -> float:
    """Return the mean of the finite values; NaN where there are none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
