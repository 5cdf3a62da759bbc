"""Segmenters of Hugging Face's `transformers` (extra `hf`), from a folder or from the hub.

    judge: {name: huggingface, options: {model: nvidia/segformer-b0-finetuned-cityscapes-1024-1024}}

Class names come from the model's configuration, the normalisation from its preprocessor. Weights
are read from safetensors only, and no code of a repository is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sqlink.errors import DataError, MissingExtraError, WeightsError
from sqlink.segmentation.base import register
from sqlink.segmentation.foreign import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ForeignSegmenter,
    class_table,
    file_digest,
)


@register("huggingface")
def huggingface(
    model: str | Path,
    classes: Mapping[str, str] | None = None,
    revision: str | None = None,
    device: torch.device | str = "cpu",
) -> ForeignSegmenter:
    """Load a network for semantic segmentation by its name on the hub, or from a folder.

    classes: see `foreign.class_table`. revision: of the hub's repository. Raises MissingExtraError
    without transformers, WeightsError if the model is missing or is not for semantic segmentation,
    ConfigError for classes that do not fit.
    """
    try:
        from transformers import AutoModelForSemanticSegmentation
        from transformers.utils import cached_file
    except ImportError as error:
        raise MissingExtraError(
            "segmenter huggingface needs transformers: pip install 'sqlink[hf]'"
        ) from error
    place = str(model)
    try:
        network = AutoModelForSemanticSegmentation.from_pretrained(
            place, revision=revision, use_safetensors=True, trust_remote_code=False
        )
        found = [
            cached_file(place, name, revision=revision, _raise_exceptions_for_missing_entries=False)
            for name in ("model.safetensors", "preprocessor_config.json")
        ]
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"segmenter huggingface: '{place}' cannot be loaded for semantic segmentation: {line}"
        ) from error
    network = network.eval().to(device)
    labels = network.config.id2label
    names = [str(labels[number]).lower() for number in sorted(labels)]
    weights, preprocessor = (Path(one) if one else None for one in found)
    mean, std = _normalisation(preprocessor)

    def run(picture: Tensor) -> Tensor:
        try:
            logits: Tensor = network(pixel_values=picture.to(device)).logits
        except (RuntimeError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise DataError(
                f"segmenter huggingface: '{place}' refuses pictures of "
                f"{picture.shape[3]}x{picture.shape[2]}: {line}"
            ) from error
        return logits

    sha256 = file_digest("huggingface", [weights] if weights else [])
    table = class_table("huggingface", names, classes)
    return ForeignSegmenter("huggingface", run, table, sha256, mean, std)


def _normalisation(preprocessor: Path | None) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation from a preprocessor's configuration, by default ImageNet's."""
    if preprocessor is None:
        return IMAGENET_MEAN, IMAGENET_STD
    said = json.loads(preprocessor.read_text(encoding="utf-8"))
    if said.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return said.get("image_mean", IMAGENET_MEAN), said.get("image_std", IMAGENET_STD)
