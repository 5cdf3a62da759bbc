"""Metrics with values for only some pictures of a sweep, or for none, and the reasons.

A mean over fewer pictures is another quantity. Therefore every n that differs is shown, and a
metric that was asked for but is unavailable is listed with its reason in the table, under the
figures and in the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.report.estimates import Measured
from experiments.sweep.measuring import counts_column
from sqlink.metrics.base import AnyMetric, MapMetric, SetMetric
from sqlink.wording import counted


@dataclass(frozen=True)
class Unmeasured:
    """Number of pictures with a value of a metric, the number of all pictures, and the reason."""

    pictures: int
    of: int
    reason: str


def unmeasured(
    cells: Sequence[Measured], metrics: Mapping[str, AnyMetric]
) -> dict[str, Unmeasured]:
    """Return column -> missing pictures, for metrics that lack some picture in every cell.

    A metric of maps lacks nothing in the cells of codecs that carry no map.
    """
    found = {}
    for name, metric in metrics.items():
        masks = [np.asarray(cell.measured(name).any(axis=1), dtype=np.bool_) for cell in cells]
        best = max(range(len(cells)), key=lambda i: int(masks[i].sum()))
        mask, cell = masks[best], cells[best]
        if mask.all():
            continue
        found[name] = Unmeasured(int(mask.sum()), len(mask), _reason(metric, cell, mask))
    return found


def _reason(metric: AnyMetric, cell: Measured, there: npt.NDArray[np.bool_]) -> str:
    if isinstance(metric, MapMetric):
        if metric.compares in ("map", "sent") and not there.any() and not _carried(cell, metric):
            return "no codec of this sweep carries a map"
        lacking = int((~there).sum())
        return f"{lacking} of {counted(len(there), 'picture')} without labels"
    source = metric.extractor if isinstance(metric, SetMetric) else metric
    sizes = zip(cell.column("height")[~there, 0], cell.column("width")[~there, 0], strict=True)
    refusals = [source.unavailable(int(height), int(width)) for height, width in sizes]
    reasons = [reason for reason in refusals if reason is not None]
    return reasons[0] if reasons else "no value was found"


def _carried(cell: Measured, metric: MapMetric) -> bool:
    """Say whether the cell's codec carries a map: its rows have a column of counts."""
    return counts_column(metric) in cell.rows.column_names
