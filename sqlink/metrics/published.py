"""Published weights of metrics: their search, their reading and their verification.

They are third-party files, so the user names a folder that holds them. A `.pth` file is read with
`weights_only`, so that nothing in it is executed. Any other file than the published one is refused,
because other weights would be another metric under the same name.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sqlink.errors import WeightsError

FOLDER_VARIABLES = ("SQLINK_METRICS", "SQLINK_LPIPS")
"""Environment variables with folders of such files, in order of precedence."""

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, types, shapes and values with SHA-256, independent of the file's layout."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def find(owner: str, names: Iterable[str], place: Path | str | None = None) -> Path:
    """Find the first of `names` that exists.

    place: the folder to search, or the file itself; by default the folders that FOLDER_VARIABLES
    name and the cache of `torch.hub`. Raises WeightsError, naming the metric, if none exists.
    """
    wanted = tuple(names)
    if place is not None and Path(place).is_file():
        return Path(place)
    folders = [Path(place)] if place is not None else _folders()
    for folder in folders:
        for name in wanted:
            if (folder / name).is_file():
                return folder / name
    where = (
        f"in {place}" if place is not None else f"in the folder that {FOLDER_VARIABLES[0]} names"
    )
    raise WeightsError(
        f"{owner} has no weights: {' or '.join(wanted)} not found {where}; "
        "docs/guide/metrics.md says where they come from"
    )


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file or a `.pth` file, on the CPU.

    Raises WeightsError if it cannot be read, holds more than tensors, or does not have the hash in
    its name: a name such as `vgg16-397923af.pth` ends in the first digits of the file's SHA-256.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        expected = _HASH_IN_NAME.search(path.name)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if expected and not found.startswith(expected[1]):
            raise WeightsError(
                f"{path} is not the published file: its SHA-256 begins with "
                f"{found[: len(expected[1])]}; fetch it again"
            )
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path} not found; docs/guide/metrics.md says where it comes from"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        line = (str(error).strip().splitlines() or ["empty"])[0]
        raise WeightsError(f"{path} cannot be read as weights: {line}") from error
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, Tensor) for value in loaded.values()
    ):
        raise WeightsError(f"{path} holds more than tensors: name a file of weights alone")
    return {str(name): value.detach() for name, value in loaded.items()}


def checked(
    owner: str,
    path: Path,
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    sha256: str | None = None,
) -> dict[str, Tensor]:
    """Return the tensors that `expected` names, in its order, without other tensors of the file.

    sha256: the `digest` that they must have. Raises WeightsError if one is missing or has another
    shape, or if they are not the published ones.
    """
    found = {name: tensors[name] for name in expected if name in tensors}
    if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in expected.items()}:
        raise WeightsError(
            f"{path} holds other tensors than {owner} has; docs/guide/metrics.md says "
            "how to make the file"
        )
    if sha256 is not None and digest(found) != sha256:
        raise WeightsError(
            f"{path} holds not the published ones (digest {digest(found)[:12]}, expected "
            f"{sha256[:12]}): figures made with them would not be {owner}; "
            "docs/guide/metrics.md says how to make the file"
        )
    return found


def _folders() -> list[Path]:
    named = [Path(value) for name in FOLDER_VARIABLES if (value := os.environ.get(name))]
    return [*named, Path(torch.hub.get_dir()) / "checkpoints"]
