"""The summary: one line per point, with all its seeds, of estimates with 95 % intervals.

Means are over pictures and realisations, outages included; mIoU is that of the summed confusion
matrix, `fd` that of all cells of all receptions. `bpp` and `bytes` are means over the pictures that
the codec could code, so that unreachable rates do not lower them. They count what was offered to
the channel; `bpp_sent` is without what a budget or a queue cut, and `bpp_delivered` counts what was
received. `unreachable` is the share of pictures that the codec cannot code within the rate,
`outage` the share of the others that could not be decoded. A row is `saturated` if the codec makes
the same streams for higher rates. `setting` is the mean of the codec's native quality, such as a
QP, if it has one. `channel_uses` and the ledger are means over all pictures, with 0 if nothing was
sent. `delay_s`, mean and 95 % quantile, covers the pictures of which any packet was received, if
the channel has delays. Intervals are those of `sqlink.metrics.jackknife` over blocks of pictures,
which include the spread of realisations; further seeds are further realisations. Without an
interval, `NAME_interval` gives the reason.
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
"""Suffix of the judge's result on the originals: the ceiling."""


def summarise(
    cells: Sequence[Measured],
    metrics: Sequence[str],
    notes: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """Make a line for each cell, in their order.

    metrics: the columns of metrics. notes: codec's title -> column of text -> text. For each metric
    there are `NAME`, `NAME_low`, `NAME_high`, `NAME_pictures` and `NAME_blocks`, the numbers with a
    value, and `NAME_delivered`, its value over pictures without an outage.
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
        if found is None and name == "outage":  # nothing was sent
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
    """Return the mean of the finite values; NaN if there are none."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
