"""Devices that a user names: `cpu`, `cuda` or `cuda:N`, checked before use."""

from __future__ import annotations

import torch

from sqlink.errors import ConfigError


def select_device(name: str, where: str) -> torch.device:
    """Return the device called `name`. Raises ConfigError, naming `where`, if it does not exist.

    >>> select_device("cpu", "--device")
    device(type='cpu')
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{where}: '{name}' is not a device: use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"{where}: '{name}' is not supported: use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"{where}: there are {torch.cuda.device_count()} CUDA devices here: use cpu"
        )
    return device
