"""Metrics by name: of pictures, of maps of classes, and of sets of pictures.

The module of a metric is imported when the metric is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlink.metrics.base import METRICS, AnyMetric, MapMetric, Metric, SetMetric

BUILT_IN = {
    "psnr": "sqlink.metrics.psnr",
    "ws_psnr": "sqlink.metrics.ws_psnr",
    "ssim": "sqlink.metrics.ssim",
    "ms_ssim": "sqlink.metrics.ms_ssim",
    "lpips": "sqlink.metrics.lpips",
    "lpips_alex": "sqlink.metrics.lpips",
    "lpips_vgg": "sqlink.metrics.lpips",
    "dists": "sqlink.metrics.dists",
    "miou": "sqlink.metrics.miou",
    "miou_map": "sqlink.metrics.miou",
    "map_fidelity": "sqlink.metrics.miou",
    "consistency": "sqlink.metrics.miou",
    "pixel_accuracy": "sqlink.metrics.pixel_accuracy",
    "task_miou": "sqlink.metrics.task_miou",
    "relevant_miou": "sqlink.metrics.task_miou",
    "boundary_f1": "sqlink.metrics.boundary_f1",
    "fid": "sqlink.metrics.frechet",
    "fid_patch": "sqlink.metrics.frechet",
    "fd": "sqlink.metrics.frechet",
    "fd_judge": "sqlink.metrics.frechet",
    "kid": "sqlink.metrics.kernel_distance",
    "kid_patch": "sqlink.metrics.kernel_distance",
    "kd": "sqlink.metrics.kernel_distance",
}
"""Map from a name to the module that registers the metric."""


__all__ = ["METRICS", "AnyMetric", "MapMetric", "Metric", "SetMetric", "load_metric"]


def load_metric(name: str, /, **options: Any) -> AnyMetric:
    """Make the metric called `name`: a `Metric` of pictures, a `MapMetric` or a `SetMetric`.

    Raises ConfigError for an unknown metric or option, and names the nearest known one;
    WeightsError if its weights are missing.

    >>> load_metric("psnr").unit
    'dB'
    """
    from sqlink.metrics.base import METRICS

    return METRICS.make(name, options)


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("sqlink.metrics.base"), name)
    raise AttributeError(f"module 'sqlink.metrics' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
