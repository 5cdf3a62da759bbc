"""Commands that run sweeps and draw their results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sweep(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml|NAME", help="A sweep: a file or a shipped name.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Results folder.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the points, and estimate time and size."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")] = False,
    json_lines: Annotated[
        bool,
        typer.Option("--json-lines", help="Write the progress as JSON lines to standard error."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow more than a million rows.")] = False,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Run part I of N of the pictures.")
    ] = "1/1",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the tables of another sweep.")
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            "-e",
            metavar="NAME",
            help="Executor by name: in-process, processes or ray.",
        ),
    ] = "in-process",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Number of workers; by default one per core or GPU."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="Address of the executor's cluster; or auto, local.",
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            "--cache", metavar="FOLDER|none", help="Cache of encodings, shared by sweeps."
        ),
    ] = None,
    cache_gb: Annotated[
        float,
        typer.Option(
            "--cache-gb", min=0, help="Largest size of the cache; the oldest entries are removed."
        ),
    ] = 2.0,
) -> None:
    """Run a sweep of codecs, rates and channels; finished rows are not computed again."""
    if dry_run:
        from experiments.sweep.dry_run import forecast

        print(forecast(config, output))
        return
    from experiments.report.tables import read_tables
    from experiments.sweep.cache import cache_folder
    from experiments.sweep.executors.base import Execution
    from experiments.sweep.runner import run_sweep

    shows = "json" if json_lines else "none" if quiet else "bar"
    folder = run_sweep(
        config,
        output,
        progress=shows,
        many=yes,
        shard=_shard(shard),
        overwrite=overwrite,
        execution=Execution(executor, workers, address),
        cache=None if cache == "none" else cache_folder() if cache is None else Path(cache),
        cache_limit=int(cache_gb * 1e9),
    )
    print(read_tables(folder))
    print(folder)


def _shard(text: str) -> tuple[int, int]:
    """Read `2/8` as (2, 8). Raises ConfigError."""
    from sqlink.errors import ConfigError

    part, slash, parts = text.partition("/")
    if not (slash and part.isascii() and part.isdigit() and parts.isascii() and parts.isdigit()):
        raise ConfigError(f"--shard {text}: give I/N, such as 2/8")
    return int(part), int(parts)


def schema() -> None:
    """Print the JSON Schema of a sweep's YAML, for editors that complete and check it."""
    import json

    from experiments.sweep.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Results folders; or a gallery's YAML or name; or a folder of pictures.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ] = None,
    bpp: Annotated[
        list[float] | None, typer.Option("--bpp", help="Rate in bits per pixel; repeatable.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="CODEC", help="For sweeps: an anchor; repeatable."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar="NAME", help="For sweeps: a metric, such as miou; repeatable."
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="For sweeps: draw sheets of the kept pictures, too.")
    ] = False,
) -> None:
    """Compare codecs: sweeps by BD-rates and differences with intervals, pictures on sheets.

    For results folders, write compare.md and its tables as CSV and LaTeX, and with --pictures a
    sheet of every kept picture at equal bytes. For a gallery or a folder of pictures, draw each
    picture as received by SQ-GAN, and by BPG and JPEG2000 in the same number of bytes.
    """
    from sqlink.errors import ConfigError

    results = [source for source in sources if _holds_results(source)]
    if not results:
        if against or metric or pictures:
            raise ConfigError(
                f"{sources[0]}: no results here: --against, --metric and --pictures need "
                "results folders"
            )
        if len(sources) > 1:
            raise ConfigError(f"{sources[1]}: name one gallery or folder of pictures at a time")
        from experiments.gallery import draw_gallery, load_gallery, of_folder

        gallery = of_folder(sources[0]) if sources[0].is_dir() else load_gallery(sources[0])
        if bpp:
            gallery = gallery.at(bpp)
        for path in draw_gallery(gallery, output):
            print(path)
        return
    for source in sources:
        if source not in results:
            raise ConfigError(
                f"{source}: no results here: name results folders only, or one gallery"
            )
    from experiments.report.compare import FOLDER, compare
    from experiments.report.comparison_tables import write_comparison
    from experiments.report.picture_sheets_equal_bytes import draw_like_bytes
    from experiments.report.results import Results

    folder = output or results[0] / FOLDER
    found = compare(results, against or (), bpp or (), metric or ())
    drawn = []
    for source in results if pictures else []:
        place = folder if len(results) == 1 else folder / source.name
        drawn += draw_like_bytes(Results.read(source), place, bpp or ())
    text, written = write_comparison(found, folder)
    print(text)
    for path in [*written, *drawn]:
        print(path)


def _holds_results(folder: Path) -> bool:
    """Say whether a path is a results folder, and not pictures or a gallery's YAML."""
    return any((folder / name).exists() for name in ("results.parquet", "manifest.json", "parts"))


def plot(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Results folders.")],
    x: Annotated[
        str | None,
        typer.Option(
            "--x", metavar="NAME", help="Horizontal axis: bpp, channel_uses, cbr or a condition."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="A metric, such as miou; repeatable."),
    ] = None,
    by: Annotated[
        str,
        typer.Option("--by", metavar="NAME", help="What distinguishes curves: codec, rate, ..."),
    ] = "codec",
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="NAME=VALUE", help="Value of a condition, such as snr_db=5."),
    ] = None,
    made_for: Annotated[
        str, typer.Option("--for", metavar="SIZE", help="Size: ieee-column, ieee-page or slide.")
    ] = "ieee-page",
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Formats: some of pdf,svg,png.")
    ] = "pdf,svg,png",
    style: Annotated[
        Path | None,
        typer.Option("--style", metavar="FILE.mplstyle", help="A matplotlib style of your own."),
    ] = None,
    envelope: Annotated[
        bool, typer.Option("--envelope", help="Draw the best of the folders that share a codec.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder to write to.")
    ] = None,
) -> None:
    """Draw the figures of one or several sweeps, for a paper or for slides."""
    from experiments.report.figures import plot_results
    from sqlink.errors import ConfigError

    held = {}
    for text in at or ():
        name, _, value = text.partition("=")
        try:
            held[name] = float(value)
        except ValueError:
            raise ConfigError(f"--at {text}: give NAME=VALUE, such as snr_db=5") from None
    for figure in plot_results(
        results,
        x=x,
        metrics=metric or (),
        by=by,
        at=held,
        made_for=made_for,
        formats=[part.strip() for part in formats.split(",") if part.strip()],
        style=style,
        envelope=envelope,
        output=output,
    ):
        print(figure)


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Results folders.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.html",
            help="File to write; by default in the first folder.",
        ),
    ] = None,
) -> None:
    """Write an HTML file with the curves, the pictures and the tables; it opens offline."""
    from experiments.report.page import write_page

    print(write_page(results, output))


def play(
    picture: Annotated[
        Path | None,
        typer.Argument(metavar="PICTURE", help="A picture file; by default a rendered street."),
    ] = None,
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=65535, help="Port on this machine; 0 for any free port."),
    ] = 0,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Open a page that sends a picture over a link, with sliders for rate, SNR, loss and
    protection.
    """
    import webbrowser

    from experiments.play.server import Server
    from experiments.play.stage import Stage, street
    from sqlink.cli.errors import leave_at_once
    from sqlink.data.pictures import load_picture

    stage = Stage(*street(11)) if picture is None else Stage(load_picture(picture), picture.name)
    with Server(stage, port) as server:
        try:
            print(f"{server.url}\nCtrl-C ends it", flush=True)
            server.warm()
            if open_:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            leave_at_once("play")


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Results folder.")
    ] = Path("results/quickstart"),
) -> None:
    """Run the quickstart: a sweep of streets over a fading channel, its figures and its page."""
    from importlib.resources import as_file, files

    from experiments.report.figures import plot_results
    from experiments.report.headline import ending
    from experiments.report.page import write_page
    from experiments.sweep.runner import run_sweep

    with as_file(files("experiments.configs") / "quickstart.yaml") as config:
        folder = run_sweep(config, output)
    figures = plot_results(folder)
    print(ending(folder, figures, write_page([folder])))
