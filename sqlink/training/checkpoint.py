"""Checkpoints of a training run as safetensors: networks, optimisers and where the run stands.

A state is a nest of dicts with tensors and plain values at its leaves; tensors go into the file by
their path, everything else into its JSON header. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from channels.atomic_write import whole_file
from sqlink.errors import WeightsError

State = dict[str, Any]


def save_checkpoint(path: Path, state: State, **facts: object) -> None:
    """Write `state` and `facts` (plain values) beside `path`, then put it in place."""
    tensors: dict[str, Tensor] = {}
    plain = _split(state, "", tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"state": json.dumps(plain), "facts": json.dumps(facts)}
    whole = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with whole_file(path) as aside:
        save_file(whole, aside, header)


def load_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """Read what `save_checkpoint` wrote. Raises WeightsError in one line if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _join(json.loads(header["state"]), tensors), json.loads(header["facts"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise WeightsError(
            f"checkpoint {path} cannot be read ({error}): remove it to start the run anew"
        ) from None


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"__tensor__": path}
    if isinstance(value, dict):
        # Optimisers key their state by integers, which JSON would turn into strings.
        items = [[k, _split(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"__dict__": items}
    if isinstance(value, (list, tuple)):
        return [_split(v, f"{path}/{i}", tensors) for i, v in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(v, tensors) for v in value]
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {k: _join(v, tensors) for k, v in value["__dict__"]}
    return value


@torch.no_grad()
def follow(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move `average` towards `network`: parameters by the decay, buffers copied."""
    torch._foreach_lerp_(
        [p.data for p in average.parameters()], [p.data for p in network.parameters()], 1 - decay
    )
    for ours, theirs in zip(average.buffers(), network.buffers(), strict=True):
        ours.copy_(theirs)
