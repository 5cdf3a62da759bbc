"""Segmenters in ONNX files, run by onnxruntime (extra `onnx`).

    judge: {name: onnx, options: {model: net.onnx, outputs: cityscapes}}

The file has one input, float32 [N, 3, H, W], and its first output is [N, K, h, w].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sqlink.errors import DataError, MissingExtraError, WeightsError
from sqlink.segmentation.base import register
from sqlink.segmentation.foreign import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ForeignSegmenter,
    class_table,
    file_digest,
    output_names,
)


@register("onnx")
def onnx(
    model: str | Path,
    outputs: str | Sequence[str] = "cityscapes",
    classes: Mapping[str, str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    resize: bool = False,
    device: torch.device | str = "cpu",
) -> ForeignSegmenter:
    """Load the network of an ONNX file, on the CPU.

    outputs: the names of its outputs. classes: see `foreign.class_table`. mean, std: normalisation
    of pictures in [0, 1]. resize: scale pictures to the size of the file's input, if that is fixed;
    without it, pictures of another size are refused. Raises MissingExtraError without onnxruntime,
    WeightsError for a file that is not ONNX or has another input, ConfigError for classes that do
    not fit.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            "segmenter onnx needs onnxruntime: pip install 'sqlink[onnx]'"
        ) from error
    path = Path(model)
    sha256 = file_digest("onnx", [path])
    failures = onnxruntime.capi.onnxruntime_pybind11_state
    table = class_table("onnx", output_names("onnx", outputs), classes)
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except (
        failures.Fail,
        failures.InvalidProtobuf,
        failures.InvalidGraph,
        failures.NotImplemented,
        failures.InvalidArgument,
        failures.NoModel,
    ) as error:
        line = str(error).strip().splitlines()[0]
        raise WeightsError(f"segmenter onnx: {path} cannot be read as ONNX: {line}") from error
    given = session.get_inputs()
    shape = list(given[0].shape) if given else []
    if (
        len(given) != 1
        or len(shape) != 4
        or shape[1] not in (3, "3")
        or (given[0].type != "tensor(float)")
    ):
        said = ", ".join(f"{one.type} {list(one.shape)}" for one in given)
        raise WeightsError(
            f"segmenter onnx: {path} must have one input tensor(float) [N, 3, H, W]; it has {said}"
        )
    wanted = [side if isinstance(side, int) else None for side in shape[2:]]

    def run(picture: Tensor) -> Tensor:
        size = [
            own if own is not None else side
            for own, side in zip(wanted, picture.shape[2:], strict=True)
        ]
        if size != list(picture.shape[2:]):
            if not resize:
                raise DataError(
                    f"segmenter onnx: {path} takes pictures of {size[1]}x{size[0]}, got "
                    f"{picture.shape[3]}x{picture.shape[2]}: export it with dynamic axes, or add "
                    "the option resize: true"
                )
            picture = F.interpolate(
                picture, size, mode="bilinear", align_corners=False, antialias=True
            )
        try:
            found = session.run(None, {given[0].name: picture.contiguous().numpy()})[0]
        except (failures.Fail, failures.InvalidArgument, failures.RuntimeException) as error:
            line = str(error).strip().splitlines()[0]
            raise DataError(
                f"segmenter onnx: {path} refuses pictures of {size[1]}x{size[0]}: {line}"
            ) from error
        return torch.from_numpy(found)

    return ForeignSegmenter("onnx", run, table, sha256, mean, std)
