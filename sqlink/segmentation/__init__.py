"""Segmentation: networks that assign a class to each pixel.

`tx` makes the transmitter's map and may be used in losses. `judge`, of another architecture, seed
and augmentation, only measures. Networks are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlink.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from sqlink.segmentation.base import Segmenter

BUILT_IN = {
    "tx": "sqlink.segmentation.builtin",
    "judge": "sqlink.segmentation.builtin",
    "huggingface": "sqlink.segmentation.huggingface",
    "onnx": "sqlink.segmentation.onnx",
    "torchscript": "sqlink.segmentation.torchscript",
}
"""Map from a name to the module that registers the segmenter."""

GROUND_TRUTH = "ground_truth"
"""Name that stands for the labels of a data set: the caller gives them as maps, no network is run.
"""


def segmenter_names() -> list[str]:
    """List the names of all segmenters, sorted: the built-in ones and those of installed
    packages.
    """
    from sqlink.segmentation.base import SEGMENTERS

    return SEGMENTERS.names()


def check_segmenter(owner: str, segmenter: object) -> None:
    """Raise ConfigError unless `segmenter` is a name or a segmenter."""
    from sqlink.segmentation.base import Segmenter

    if not isinstance(segmenter, (str, Segmenter)):
        raise ConfigError(
            f"{owner}: segmenter={segmenter!r} must be a name: {', '.join(segmenter_names())}"
        )


def load_segmenter(name: str, /, device: torch.device | str = "cpu", **options: Any) -> Segmenter:
    """Make the segmenter called `name`, on `device`, with `options` (`weights`, `chunk`, ...).

    Raises ConfigError for an unknown segmenter or option, and names the nearest known one;
    WeightsError if the weights are missing or damaged.
    """
    from sqlink.segmentation.base import SEGMENTERS

    if name == GROUND_TRUTH:
        raise ConfigError(
            f"'{GROUND_TRUTH}' is not a network: give the labels themselves as the segmentation"
        )
    return SEGMENTERS.make(name, {"device": device, **options})
