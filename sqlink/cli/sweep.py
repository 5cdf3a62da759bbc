"""Commands that run sweeps and draw their results."""

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
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            "-e",
            metavar="NAME",
            help="An executor by name, such as processes or ray.",
        ),
    ] = "in-process",
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="By default one a core, or one a GPU."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", metavar="HOST:PORT", help="Of the executor's cluster; auto or local."
        ),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option("--cache", metavar="FOLDER|none", help="Of encodings, shared by sweeps."),
    ] = None,
    cache_gb: Annotated[
        float, typer.Option("--cache-gb", min=0, help="Size of the cache; the oldest entries go.")
    ] = 2.0,
) -> None:
    """Run a sweep of codecs, rates and channels; what is there already is not computed again."""
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
        raise ConfigError(f"--shard {text}: give I/N, as 2/8")
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
            metavar="SOURCE", help="Sweeps' folders; or a gallery's YAML or name, or pictures."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")
    ] = None,
    bpp: Annotated[
        list[float] | None, typer.Option("--bpp", help="Bits a pixel; once a rate.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="CODEC", help="Of sweeps, an anchor; any number."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Of sweeps, as miou; any number."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Of sweeps, sheets of the kept pictures, too.")
    ] = False,
) -> None:
    """Compare codecs: of sweeps in numbers, with BD-rates and intervals; of pictures on sheets.

    Results' folders give compare.md and its tables as CSV and LaTeX, and with --pictures a sheet of
    every kept picture at equal bytes. A gallery or a folder of pictures is drawn as SQ-GAN sends
    them, beside BPG and JPEG2000 in the same bytes.
    """
    from sqlink.errors import ConfigError

    results = [source for source in sources if _holds_results(source)]
    if not results:
        if against or metric or pictures:
            raise ConfigError(
                f"{sources[0]}: no results here: --against, --metric and --pictures are of sweeps"
            )
        if len(sources) > 1:
            raise ConfigError(f"{sources[1]}: one gallery or folder of pictures at a time")
        from experiments.gallery import draw_gallery, load_gallery, of_folder

        gallery = of_folder(sources[0]) if sources[0].is_dir() else load_gallery(sources[0])
        if bpp:
            gallery = gallery.at(bpp)
        for path in draw_gallery(gallery, output):
            print(path)
        return
    for source in sources:
        if source not in results:
            raise ConfigError(f"{source}: no results here: name sweeps' folders, or one gallery")
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
    """Whether a path is a sweep's folder, and not pictures or a gallery's YAML."""
    return any((folder / name).exists() for name in ("results.parquet", "manifest.json", "parts"))


def plot(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Sweeps' folders.")],
    x: Annotated[
        str | None,
        typer.Option("--x", metavar="NAME", help="bpp, channel_uses, cbr, or a condition."),
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="As miou; any number.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="NAME", help="What tells curves apart: codec, rate, ...")
    ] = "codec",
    at: Annotated[
        list[str] | None,
        typer.Option("--at", metavar="NAME=VALUE", help="Of a condition, as snr_db=5."),
    ] = None,
    made_for: Annotated[
        str, typer.Option("--for", metavar="SIZE", help="ieee-column, ieee-page or slide.")
    ] = "ieee-page",
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Some of pdf,svg,png.")
    ] = "pdf,svg,png",
    style: Annotated[
        Path | None, typer.Option("--style", metavar="FILE.mplstyle", help="A style of your own.")
    ] = None,
    envelope: Annotated[
        bool, typer.Option("--envelope", help="Of folders that share a codec, the best at each x.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")
    ] = None,
) -> None:
    """Draw the figures of sweeps, several folders together, for a paper or for slides."""
    from experiments.report.figures import plot_results
    from sqlink.errors import ConfigError

    held = {}
    for text in at or ():
        name, _, value = text.partition("=")
        try:
            held[name] = float(value)
        except ValueError:
            raise ConfigError(f"--at {text}: give NAME=VALUE, as snr_db=5") from None
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
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="Sweeps' folders.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="By default in the first folder."),
    ] = None,
) -> None:
    """Write one HTML file with the curves, the pictures and the tables; it opens offline."""
    from experiments.report.page import write_page

    print(write_page(results, output))


def play(
    picture: Annotated[
        Path | None, typer.Argument(metavar="PICTURE", help="A rendered street if none.")
    ] = None,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="On this machine; any free one if 0.")
    ] = 0,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Open a page whose sliders send a picture over a link: rate, noise, loss, protection."""
    import webbrowser

    from experiments.play.server import Server
    from experiments.play.stage import Stage, street
    from sqlink.data.pictures import load_picture

    stage = Stage(*street(11)) if picture is None else Stage(load_picture(picture), picture.name)
    with Server(stage, port) as server:
        print(f"{server.url}\nCtrl-C ends it", flush=True)
        server.warm()
        if open_:
            webbrowser.open(server.url)
        server.serve_forever()


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Results' folder.")
    ] = Path("results/quickstart"),
) -> None:
    """The quickstart: a sweep of streets over a fading channel, its figures and its page."""
    from importlib.resources import as_file, files

    from experiments.report.figures import plot_results
    from experiments.report.headline import ending
    from experiments.report.page import write_page
    from experiments.sweep.runner import run_sweep

    with as_file(files("experiments.configs") / "quickstart.yaml") as config:
        folder = run_sweep(config, output)
    figures = plot_results(folder)
    print(ending(folder, figures, write_page([folder])))
