"""Training of networks from YAML files: SQ-GAN, its refinement, the segmenters, DeepJSCC.

train_from_config ── kind of the file ── trainer | refinement | segmenters | deepjscc
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlink.settings import find_settings, settings_kind


def train_from_config(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train as a file says, or resume from the checkpoint in its output. Returns the weights' path.

    path: a file, or the name of a shipped configuration. Its `kind` is `refinement` (the
    refinement layers on weights that exist), `segmenters` (which returns the folder of both
    networks) or `deepjscc` (the analogue baseline); SQ-GAN has none. Raises ConfigError, DataError
    or WeightsError in one line if the run cannot begin.
    """
    path = find_settings(path, "sqlink.training.configs")
    kind = settings_kind(path)
    if kind == "deepjscc":
        from sqlink.training.deepjscc import train_deepjscc

        return train_deepjscc(path, report)
    if kind == "segmenters":
        from sqlink.training.segmenters import train_segmenters

        return train_segmenters(path, report)
    if kind == "refinement":
        from sqlink.training.refinement import train_refinement

        return train_refinement(path, report)
    from sqlink.training.trainer import train_sqgan

    return train_sqgan(path, report)
