"""One line a point, its seeds taken together: what its rows come to, with 95 % intervals.

Means are over pictures and realisations, outages included; mIoU is that of the summed confusion
matrix, `fd` that of all cells of all receptions. `bpp` and `bytes` are of the pictures that the
codec could code, so that a rate it cannot reach does not make it look cheap: what was offered to
the channel, beside `bpp_sent`, less what a budget or a queue cut, and `bpp_delivered`.
`unreachable` is the share of pictures that the codec cannot code as low as asked, `outage` that of
the others of which nothing could be decoded. A row of a codec that makes the same of higher rates
is `saturated`. `channel_uses` and the ledger are of all, 0 where nothing was sent; `delay_s`, mean
and 95 % quantile, is of the pictures of which anything came, where the channel delays any.
Intervals are by the two-level bootstrap of `sqlink.metrics.bootstrap`: blocks of pictures,
realisations inside; another seed is as good as more realisations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from experiments.report.estimates import SOURCES, Floats, Measured
from experiments.sweep.row import BITS
from experiments.sweep.schema import FRECHET
from experiments.sweep.store import table_of
from sqlink.data.classes import NAMES
from sqlink.metrics.bootstrap import Interval
from sqlink.metrics.semantic import iou, miou

CEILING = "miou_clean"
"""mIoU of the judge on the pictures before anything is sent: what no codec can be blamed for."""


def summarise(
    cells: Sequence[Measured],
    metrics: Sequence[str],
    notes: Mapping[str, Mapping[str, str]],
) -> pa.Table:
    """A line a cell, in their order.

    metrics: the columns of float metrics. notes: codec's title -> column of text -> what stands
    there. For each metric there are `NAME`, `NAME_low`, `NAME_high`, and `NAME_delivered`, the mean
    over what was no outage.
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
    packets = cell.column("packets").sum()
    line["packet_loss"] = float(1 - cell.column("delivered").sum() / packets) if packets else None
    delay = cell.column("delay_s")
    came = ~np.isnan(delay)
    if came.any() and delay[came].any():
        line["delay_s"] = float(delay[came].mean())
        line["delay_s_p95"] = float(np.quantile(delay[came], 0.95))
    for name in ("outage", *metrics, FRECHET, *SOURCES):
        found, quantity = cell.interval(name), cell.quantity(name)
        if found is None or quantity is None:
            continue
        line |= _named(name, found)
        if name != "outage":
            line[f"{name}_delivered"] = quantity.of(delivered)
    if "miou" in line:
        each = iou(torch.from_numpy(cell.matrices(SOURCES["miou"]).sum(axis=(0, 1)))).tolist()
        line |= {f"iou_{c}": value for c, value in zip(NAMES, each, strict=True)}
        clean = cell.matrices("confusion_clean").sum(axis=(0, 1))
        line[CEILING] = float(miou(torch.from_numpy(clean)))
    for name in cell.rows.column_names:
        if name.startswith(BITS):
            line[name] = float(cell.column(name).mean())
    return {**line, **notes.get(cell.title, {})}


def _named(name: str, found: Interval) -> dict[str, float]:
    return {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def _mean(values: Floats) -> float:
    """Of what is there; NaN where nothing is."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
