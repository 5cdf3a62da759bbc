"""Segmenters in TorchScript files: `torch.jit.save` of a scripted or traced network.

    judge: {name: torchscript, options: {model: net.pt, outputs: camvid}}

The network takes float32 [1, 3, H, W] and returns logits [1, K, h, w], alone, as the first of a
tuple, or as `out` in a dictionary. TorchScript has its own interpreter: loading a file runs no
Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sqlink.errors import DataError, WeightsError
from sqlink.segmentation.base import register
from sqlink.segmentation.foreign import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ForeignSegmenter,
    class_table,
    file_digest,
    output_names,
)


@register("torchscript")
def torchscript(
    model: str | Path,
    outputs: str | Sequence[str] = "cityscapes",
    classes: Mapping[str, str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    device: torch.device | str = "cpu",
) -> ForeignSegmenter:
    """Load the network of a TorchScript file.

    outputs, classes, mean, std: as for `onnx`. Raises WeightsError for a file of another format,
    ConfigError for classes that do not fit.
    """
    path = Path(model)
    sha256 = file_digest("torchscript", [path])
    table = class_table("torchscript", output_names("torchscript", outputs), classes)
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"segmenter torchscript: {path} cannot be read as TorchScript: {line}"
        ) from error

    def run(picture: Tensor) -> Tensor:
        try:
            found = network(picture.to(device))
        except RuntimeError as error:
            line = str(error).strip().splitlines()[-1]
            raise DataError(
                f"segmenter torchscript: {path} refuses pictures of "
                f"{picture.shape[3]}x{picture.shape[2]}: {line}"
            ) from error
        if isinstance(found, dict):
            found = found.get("out")
        elif isinstance(found, (tuple, list)):
            found = found[0] if found else None
        if not isinstance(found, Tensor):
            raise DataError(
                f"segmenter torchscript: {path} returns no tensor: export a network that returns "
                "logits [N, K, h, w]"
            )
        return found

    return ForeignSegmenter("torchscript", run, table, sha256, mean, std)
