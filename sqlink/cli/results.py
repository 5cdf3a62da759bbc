"""Commands for the results of sweeps: list, show, merge, export, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A sweep's results.")]


def results_ls(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where results' folders lie.")
    ] = Path("results"),
) -> None:
    """List results: state, rows, pictures, codecs and channels."""
    from experiments.sweep.results import listed

    for line in listed(root):
        print(line)


def results_show(folder: Folder) -> None:
    """Print a folder's tables, of an unfinished sweep those of the pictures done so far."""
    from experiments.sweep.results import shown

    print(shown(folder))


def results_merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Parts of a sweep.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to.")],
) -> None:
    """Put the rows of several folders into one; the sweep run there writes its tables."""
    from experiments.sweep.results import merge

    count = merge(folders, output)
    print(f"{output}: {count} rows; for the tables: sqlink sweep CONFIG.yaml -o {output}")


def results_export(
    folder: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.csv|parquet|jsonl", help="Where to.")
    ],
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="A column; any number.")
    ] = None,
) -> None:
    """Write the rows, one a point, picture and realisation, as CSV, Parquet or JSON lines."""
    from experiments.sweep.results import export

    print(f"{output}: {export(folder, output, column or ())} rows")


def results_prune(
    folder: Folder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
) -> None:
    """Drop rows and pictures of earlier configurations, and what interruptions left."""
    from experiments.sweep.results import prune

    rows, size = prune(folder, dry_run)
    print(f"{folder}: {rows} rows and {size} bytes {'would go' if dry_run else 'gone'}")
