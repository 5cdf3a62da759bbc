"""What is measured: pictures, what is still understood of them, and sets of them."""

from __future__ import annotations

from typing import Any

from sqlink.metrics.base import METRICS, AnyMetric, MapMetric, Metric, SetMetric


def load_metric(name: str, /, **options: Any) -> AnyMetric:
    """Make the metric called `name`: a `Metric` of pictures, a `MapMetric` or a `SetMetric`.

    Raises ConfigError, naming the nearest one, if there is no such metric or it has no such option;
    WeightsError where weights that it needs are not there.

    >>> load_metric("psnr").unit
    'dB'
    """
    return METRICS.make(name, options)


__all__ = ["METRICS", "AnyMetric", "MapMetric", "Metric", "SetMetric", "load_metric"]
