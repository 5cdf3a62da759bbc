"""The command that trains networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG.yaml|NAME",
            help="Configuration of a training: a file or a shipped name.",
        ),
    ],
) -> None:
    """Train networks by a configuration; an interrupted training resumes where it stopped."""
    from sqlink.training import train_from_config

    print(train_from_config(config))
