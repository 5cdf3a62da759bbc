"""Measurements of every picture of a sweep: numbers, counts between maps, feature vectors.

    original ── Measures.originals ──> Original: the judge's map, its counts, its vectors; once
    received ── Measures.columns ──> columns of a row

A `Metric` has a column of numbers. A `MapMetric` has counts, `KEPT_COMPARES` such as
`confusion_image`, and `KEPT_clean` of the judge on the original. A `SetMetric` has the vectors of
its extractor, `features_NAME`, and `features_NAME_original`. Metrics that share counts or vectors
share the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from sqlink.metrics.base import AnyMetric, Extractor, MapMetric, Metric, SetMetric
from sqlink.metrics.jackknife import Floats
from sqlink.segmentation.base import Segmenter

Row = dict[str, Any]

FEATURES = "features_"
"""Prefix of the columns of vectors; those of the original end in `_original`."""


@dataclass(frozen=True)
class Original:
    """Measurements of a picture before anything is sent.

    seen: int64 [H, W], the judge's map, or None. columns: of every row of the picture, such as the
    judge's counts on the original, the upper bound for any codec.
    """

    seen: Tensor | None = None
    columns: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Measures:
    """The metrics of a sweep by column, in the order asked for, and the judge if one is needed."""

    metrics: Mapping[str, AnyMetric] = field(default_factory=dict)
    judge: Segmenter | None = None

    # Cached, because it is slow to test whether an object follows a protocol.
    @cached_property
    def of_pictures(self) -> dict[str, Metric]:
        return {k: m for k, m in self.metrics.items() if isinstance(m, Metric)}

    @cached_property
    def of_maps(self) -> dict[str, MapMetric]:
        return {k: m for k, m in self.metrics.items() if isinstance(m, MapMetric)}

    @cached_property
    def of_sets(self) -> dict[str, SetMetric]:
        return {k: m for k, m in self.metrics.items() if isinstance(m, SetMetric)}

    @property
    def extractors(self) -> dict[str, Extractor]:
        """Extractors by name, each once."""
        return {m.extractor.name: m.extractor for m in self.of_sets.values()}

    def originals(self, images: Tensor, labels: Sequence[Tensor | None]) -> list[Original]:
        """Measure N originals, float32 [N, 3, H, W], with their labels, [H, W] or None."""
        seen: Sequence[Tensor | None] = [None] * len(images)
        if self.judge is not None:
            seen = list(self.judge.segment(images).cpu())
        columns: list[Row] = [{} for _ in labels]
        for metric in self.of_maps.values():
            if metric.compares == "image":
                for row, found, truth in zip(columns, seen, labels, strict=True):
                    row[f"{metric.kept}_clean"] = _counts(metric, found, truth)
        for name, vectors in self._vectors(images).items():
            for row, data in zip(columns, vectors, strict=True):
                row[f"{name}_original"] = data
        return [Original(*both) for both in zip(seen, columns, strict=True)]

    def columns(
        self,
        images: Tensor,
        reference: Tensor,
        originals: Sequence[Original],
        labels: Sequence[Tensor | None],
        maps: Tensor | None,
        sent: Sequence[Tensor | None],
    ) -> tuple[list[Row], Tensor | None]:
        """Measure the columns of N pictures received; return them and the judge's maps, int64 [N,
        H, W].

        images, reference: float32 [N, 3, H, W], received and original. maps: int64 [N, H, W], those
        received, or None if the codec carries none; sent: those that were sent.
        """
        columns: list[Row] = [dict(one.columns) for one in originals]
        for name, metric in self.of_pictures.items():
            reason = metric.unavailable(*images.shape[2:])
            values = [None] * len(columns) if reason else metric(images, reference).tolist()
            for row, value in zip(columns, values, strict=True):
                row[name] = value
        seen = None if self.judge is None else self.judge.segment(images).cpu()
        ours = {"image": seen, "original": seen, "map": maps, "sent": maps}
        theirs = {
            "image": labels,
            "original": [one.seen for one in originals],
            "map": labels,
            "sent": sent,
        }
        for counted in self.of_maps.values():
            found = ours[counted.compares]
            column = counts_column(counted)
            if found is None or column in columns[0]:
                continue
            for row, one, truth in zip(columns, found, theirs[counted.compares], strict=True):
                row[column] = _counts(counted, one, truth)
        for name, vectors in self._vectors(images).items():
            for row, data in zip(columns, vectors, strict=True):
                row[name] = data
        return columns, seen

    def _vectors(self, images: Tensor) -> dict[str, list[bytes]]:
        """Return column -> the packed vectors of each picture, if the extractor allows its size."""
        return {
            f"{FEATURES}{name}": packed(extractor.vectors(images))
            for name, extractor in self.extractors.items()
            if extractor.unavailable(*images.shape[2:]) is None
        }


def counts_column(metric: MapMetric) -> str:
    """Return the column that keeps a metric's counts, such as `confusion_image`."""
    return f"{metric.kept}_{metric.compares}"


def packed(vectors: Tensor) -> list[bytes]:
    """Pack float32 [N, n, C] features for rows: half precision, preceded by C in 2 bytes.

    >>> import torch
    >>> [len(data) for data in packed(torch.zeros(2, 48, 128))]
    [12290, 12290]
    """
    width = np.array(vectors.shape[2], dtype="<u2").tobytes()
    return [width + one.numpy().astype("<f2").tobytes() for one in vectors]


def unpacked(data: bytes) -> Floats:
    """Unpack the vectors of one picture, float64 [n, C]."""
    width = int.from_bytes(data[:2], "little")
    return np.frombuffer(data, "<f2", offset=2).reshape(-1, width).astype(np.float64)


def _counts(metric: MapMetric, found: Tensor | None, truth: Tensor | None) -> list[int] | None:
    """Return the counts of one pair of maps in a row; None if one is missing."""
    if found is None or truth is None:
        return None
    counts: list[int] = metric.counts(found.unsqueeze(0), truth.unsqueeze(0))[0].flatten().tolist()
    return counts
