"""The manifest of a results folder: versions, weights and settings."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from experiments.sweep.components import Components
from experiments.sweep.grid import FORMAT
from experiments.sweep.schema import Sweep
from sqlink.codecs.base import Described
from sqlink.metrics.base import bounds

PACKAGES = (
    "sqlink",
    "torch",
    "numpy",
    "scipy",
    "sionna-no-rt",
    "sionna",
    "pillow",
    "av",
    "pillow-heif",
    "imagecodecs",
    "imageio-ffmpeg",
    "constriction",
    "torchmetrics",
    "pyarrow",
)


def manifest(
    sweep: Sweep,
    components: Components,
    unavailable: Mapping[str, str],
    config: str,
    counts: Mapping[str, int],
    finished: bool = True,
) -> dict[str, Any]:
    """Return the content of `manifest.json`.

    unavailable: column -> why it could not be measured. config: the YAML as it was read. counts: of
    points, pictures, realisations and rows. finished: False while pictures are still to come.
    """
    device = components.device
    return {
        "format": FORMAT,
        "finished": finished,
        **counts,
        "channels": list(sweep.links()),
        "conditions": sorted(sweep.conditions),
        "metrics": {
            name: {
                "unit": metric.unit,
                "higher_is_better": metric.higher_is_better,
                # JSON has no infinity
                "bounds": [one if math.isfinite(one) else None for one in bounds(metric)],
            }
            for name, metric in components.measures.metrics.items()
        },
        "asked": list(components.asked),
        "unavailable": dict(unavailable),
        "codecs": {
            title: dict(codec.describe()) if isinstance(codec, Described) else {}
            for (title, _), codec in components.codecs.items()
        },
        "skipped": dict(components.skipped),
        "trained_on": components.trained_on,
        "weights_sha256": {
            "codecs": dict(components.identities.codecs),
            "metrics": dict(components.identities.metrics),
            "segmenter": components.identities.segmenter,
            "judge": components.identities.judge,
        },
        "content_sha256": {
            "channels": {name: list(one) for name, one in components.identities.channels.items()},
            "files": dict(components.identities.files),
        },
        "versions": versions(),
        "machine": {
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        },
        "sweep": sweep.model_dump(mode="json"),
        "config": config,
    }


def versions() -> dict[str, str]:
    """Return the versions of the installed packages that a result can depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
