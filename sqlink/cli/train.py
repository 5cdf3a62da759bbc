"""The command that trains networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[
        Path,
        typer.Argument(metavar="CONFIG.yaml|NAME", help="A training; a shipped one by its name."),
    ],
) -> None:
    """Train networks as a file says; an interrupted training goes on where it stopped."""
    from sqlink.training import train_from_config

    print(train_from_config(config))
