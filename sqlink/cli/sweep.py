"""Commands that run sweeps and draw what they found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml|NAME", help="A sweep; a shipped one by its name.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Results' folder.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List points and what they would take."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="Progress as lines of JSON on standard error.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Run more than a million rows.")] = False,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Part I of N of the pictures.")
    ] = "1/1",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Put the tables in place of another sweep's.")
    ] = False,
) -> None:
    """Run a sweep of codecs, rates and channels; what is there already is not computed again."""
    if dry_run:
        from experiments.sweep.dry_run import forecast

        print(forecast(config, output))
        return
    from experiments.report.tables import read_tables
    from experiments.sweep.runner import run_sweep

    shows = "json" if json_lines else "none" if quiet else "bar"
    folder = run_sweep(
        config, output, progress=shows, many=yes, shard=_shard(shard), overwrite=overwrite
    )
    print(read_tables(folder))
    print(folder)


def _shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8). Raises ConfigError."""
    from sqlink.errors import ConfigError

    part, slash, parts = text.partition("/")
    if not (slash and part.isascii() and part.isdigit() and parts.isascii() and parts.isdigit()):
        raise ConfigError(f"--shard {text}: give I/N, as 2/8")
    return int(part), int(parts)


def schema() -> None:
    """Print the JSON Schema of a sweep's YAML, for editors that complete and check it."""
    import json

    from experiments.sweep.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def compare(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml|NAME|FOLDER", help="A gallery, or pictures.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")
    ] = None,
    bpp: Annotated[
        list[float] | None, typer.Option("--bpp", help="Bits a pixel; once a rate.")
    ] = None,
) -> None:
    """Draw pictures as SQ-GAN sends them, beside BPG and JPEG2000 in the same bytes."""
    from experiments.gallery import draw_gallery, load_gallery, of_folder

    gallery = of_folder(source) if source.is_dir() else load_gallery(source)
    if bpp:
        gallery = gallery.at(bpp)
    for path in draw_gallery(gallery, output):
        print(path)


def plot(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A sweep's folder.")],
) -> None:
    """Draw the figures of a sweep."""
    from experiments.report.figures import plot_results

    for figure in plot_results(results):
        print(figure)


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Results' folder.")
    ] = Path("results/quickstart"),
) -> None:
    """The quickstart: a sweep of streets over a fading channel, and its figures."""
    from importlib.resources import as_file, files

    from experiments.report.figures import plot_results
    from experiments.sweep.runner import run_sweep

    with as_file(files("experiments.configs") / "quickstart.yaml") as config:
        folder = run_sweep(config, output)
    for figure in plot_results(folder):
        print(figure)
