"""Commands for the results of sweeps: list, show, merge, export, prune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Results folder of a sweep.")]


def results_ls(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder that holds results folders.")
    ] = Path("results"),
) -> None:
    """List results: state, rows, pictures, codecs and channels."""
    from experiments.sweep.results import listed

    for line in listed(root):
        print(line)


def results_show(folder: Folder) -> None:
    """Print the tables of a folder; of an unfinished sweep, those of the finished pictures."""
    from experiments.sweep.results import shown

    print(shown(folder))


def results_merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Parts of a sweep.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ],
) -> None:
    """Merge the rows of several folders into one; a sweep run there then writes the tables."""
    from experiments.sweep.results import merge

    count = merge(folders, output)
    print(f"{output}: {count} rows; write the tables by: sqlink sweep CONFIG.yaml -o {output}")


def results_export(
    folder: Folder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT.csv|parquet|jsonl", help="File to write.")
    ],
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME", help="A column to write; repeatable."),
    ] = None,
) -> None:
    """Write the rows (point, picture, realisation) as CSV, Parquet or JSON lines."""
    from experiments.sweep.results import export

    print(f"{output}: {export(folder, output, column or ())} rows")


def results_prune(
    folder: Folder,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed.")
    ] = False,
) -> None:
    """Remove rows and pictures of earlier configurations, and the remains of interruptions."""
    from experiments.sweep.results import prune

    rows, size = prune(folder, dry_run)
    print(f"{folder}: {rows} rows and {size} bytes {'would be removed' if dry_run else 'removed'}")
