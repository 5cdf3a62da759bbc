"""The command line: sqlink encode, decode, transmit, channel, segment, train, sweep, plot, ...

Nothing heavy is imported before a command needs it. What a user can mend is one line on standard
error and exit 2; Ctrl-C is exit 130. This module alone, of all in `sqlink`, may import
`experiments`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from sqlink.runtime.malloc import keep_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

    from channels.base import Channel
    from channels.planning.operating_points import OperatingPoint
    from sqlink.codecs.base import Codec, Rate, Stream
    from sqlink.link import LinkResult

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Of what Typer is built on, in every version: click, or a copy of it."""

DEFAULT_BPP = 0.04
DEFAULT_PLAN_SNR = "0:30:5"
LOW_TABLE = "qam64-low"
LOW_GAIN_DB = 6.0
"""The lowest code of that table decodes at so much less SNR than those of the others (-12.3 against
-6.3 dB for 10 % of packets of 96 bytes)."""

OWN_CHANNELS = Path(__file__).resolve().parents[1] / "channels" / "__init__.py"
"""Both packages are installed side by side."""

RESUMED = "run the same command again to go on from there"
AFTER_INTERRUPT = {
    "train": f"interrupted: the last checkpoint is kept; {RESUMED}",
    "sweep": f"interrupted: finished rows are kept; {RESUMED}",
    "demo": f"interrupted: finished rows are kept; {RESUMED}",
    "plan": f"interrupted: tables measured so far are kept; {RESUMED}",
    "channel": "interrupted: nothing was written",
}


class OneLine(TyperGroup):
    """Commands whose errors, where a user can mend them, are one line and exit 2."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        with self._usage_in_one_line():
            return super().make_context(info_name, args, *more, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            from channels.registry import nearest

            _fail(f"no command '{args[0]}': {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        found = find_spec("channels")
        origin = None if found is None else found.origin
        if origin is None or Path(origin).resolve() != OWN_CHANNELS:
            _fail(
                f"the package 'channels' in {origin} is not SQLink's (Django Channels has that "
                "name too): install SQLink in an environment of its own"
            )
        from sqlink.errors import SQLinkError

        try:
            with self._usage_in_one_line(ctx):
                return super().invoke(ctx)
        except SQLinkError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            line = "interrupted: files that were named are whole; run the same command again"
            print(AFTER_INTERRUPT.get(ctx.invoked_subcommand or "", line), file=sys.stderr)
            raise typer.Exit(130) from None

    @contextmanager
    def _usage_in_one_line(self, ctx: Any = None) -> Iterator[None]:
        """What the parser of the command line refuses, said as any other error."""
        try:
            yield
        except UsageError as error:
            # Without any arguments the help is shown, which is such an error, too.
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            name = None if ctx is None else ctx.invoked_subcommand
            command = self if name is None else self.get_command(ctx, name)
            _fail(_usage(error, command, name))


def _usage(error: Any, command: Any, name: str | None) -> str:
    """What is wrong in a command line, where, and how to mend it."""
    called, where = ("sqlink", "") if name is None else (f"sqlink {name}", f"{name}: ")
    option, param = getattr(error, "option_name", None), getattr(error, "param", None)
    if option is not None:
        options = [of for of in command.params if of.param_type_name == "option"]
        known = {opt: of for of in options for opt in of.opts}
        if option in known and not known[option].is_flag:
            return f"{where}{option} needs a value: {known[option].help}"
        if option in (*known, "--help"):
            return f"{where}{option} takes no value: leave out what follows '='"
        from channels.registry import nearest

        return f"{where}no option {option}: {nearest(option, [*known, '--help'])}"
    if param is None:
        message = error.format_message().rstrip(".")
        usage = f"see {called} --help" if error.ctx is None else error.ctx.get_usage()
        return f"{where}{message[:1].lower()}{message[1:]}: {usage[:1].lower()}{usage[1:]}"
    shown = param.metavar or param.name
    if param.param_type_name == "option":
        shown = max(param.opts, key=len)
    if hasattr(error, "param_type"):
        give = f"{shown} {param.metavar}" if shown in param.opts else shown
        return f"{where}{shown} is missing: give it, as in {called} {give}"
    errors = getattr(error.__cause__, "errors", None)
    if errors is None:  # click's own message, under an older Typer, names value and range
        return f"{where}{shown}: {error.message}"
    return f"{where}{shown} {errors()[0]['input']} must be {_wanted(param)}"


def _wanted(param: Any) -> str:
    """What a number may be: `an integer from 1 to 65535`."""
    kind = "an integer" if param.type_descriptor.annotation is int else "a number"
    if param.min is None:
        return kind
    if param.max is None:
        return f"{kind}, {param.min} or more"
    return f"{kind} from {param.min} to {param.max}"


def _fail(line: str) -> NoReturn:
    print(f"sqlink: error: {' '.join(line.split())}", file=sys.stderr)
    raise typer.Exit(2)


app = typer.Typer(
    cls=OneLine,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pictures and their meaning over a simulated channel, with every bit real.",
)

Pictures = Annotated[list[Path], typer.Argument(metavar="PICTURE", help="Picture files.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")]
CodecName = Annotated[str, typer.Option("--codec", help="sqgan, jpeg2000, bpg, ...")]
CodecOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--codec-option", metavar="NAME=VALUE", help="Of the codec, as packing=single; any number."
    ),
]
Bpp = Annotated[
    float | None, typer.Option("--bpp", help=f"Bits a pixel at most; {DEFAULT_BPP} if none.")
]
Bytes = Annotated[int | None, typer.Option("--bytes", help="Bytes a picture at most.")]
Quality = Annotated[float | None, typer.Option("--quality", help="The codec's own quality.")]
Maps = Annotated[
    list[Path] | None,
    typer.Option(
        "--segmentation",
        metavar="MAP.png",
        help="Map to send in place of the transmitter's own; once a picture, in their order.",
    ),
]
PacketBytes = Annotated[int | None, typer.Option("--packet-bytes", min=1, help="Packet size.")]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="FILE", help="Weights, a name or a file.")
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N.")]
MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=1, help="The most pixels of a picture to open.")
]


@app.command()
def encode(
    pictures: Pictures,
    output: Output,
    codec: CodecName = "sqgan",
    codec_option: CodecOptions = None,
    bpp: Bpp = None,
    bytes_: Bytes = None,
    quality: Quality = None,
    segmentation: Maps = None,
    packet_bytes: PacketBytes = None,
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Encode pictures, one file each, and print its bytes and bits a pixel."""
    from sqlink.codecs.base import Stream
    from sqlink.data.pictures import pixel_limit, write_aside
    from sqlink.errors import DataError
    from sqlink.transmitter import Transmitter

    rate = _rate(bpp, bytes_, quality)
    coder = _codec(codec, packet_bytes, weights, device, codec_option)
    with pixel_limit(max_pixels):
        targets = _targets(pictures, output, coder.suffix)
        transmitter = Transmitter(coder)
        for path, target, image, labels in _inputs(pictures, targets, segmentation, coder):
            (answer,) = transmitter.send(image, rate, labels)
            if not isinstance(answer, Stream):
                raise DataError(f"{path}: {answer}")
            write_aside(answer.to_bytes(), target)
            print(f"{target} {answer.size} bytes {answer.bpp:.4f} bpp", flush=True)


@app.command()
def decode(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Encoded files.")],
    output: Output,
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Decode files to NAME.png, and NAME.map.png where the stream carries a map."""
    from sqlink.codecs import codec_for_suffix
    from sqlink.codecs.base import Received
    from sqlink.data.pictures import pixel_limit
    from sqlink.errors import DataError

    with pixel_limit(max_pixels):
        targets = _targets(files, output, ".png")
        names = []
        for path in files:
            with _naming(path):
                names.append(codec_for_suffix(path.suffix))
        coders: dict[str, Codec] = {}
        for path, name, target in zip(files, names, targets, strict=True):
            if name not in coders:
                coders[name] = _codec(name, None, weights, device)
            with _naming(path):
                stream = coders[name].parse(_read(path))
            decoded = coders[name].decode([Received.whole(stream)])
            if bool(decoded.outage[0]):
                raise DataError(f"{path}: nothing can be decoded; the file is damaged")
            maps = decoded.segmentation
            _write(target, decoded.images[0], None if maps is None else maps[0], coders[name])
            size = f"{stream.session.width}x{stream.session.height}"
            print(f"{target} {size} from {stream.size} bytes {stream.bpp:.4f} bpp", flush=True)


@app.command()
def transmit(
    pictures: Pictures,
    output: Output,
    channel: Annotated[
        str, typer.Option("--channel", metavar="CHANNEL.yaml|NAME", help="A channel.")
    ],
    snr_db: Annotated[float | None, typer.Option("--snr-db", help="Mean Es/N0 in dB.")] = None,
    loss: Annotated[float | None, typer.Option("--loss", help="Packet loss, 0..1.")] = None,
    codec: CodecName = "sqgan",
    codec_option: CodecOptions = None,
    bpp: Bpp = None,
    bytes_: Bytes = None,
    quality: Quality = None,
    channel_uses: Annotated[
        int | None, typer.Option("--channel-uses", help="Channel uses a picture at most.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the channel's randomness.")] = 0,
    segmentation: Maps = None,
    packet_bytes: PacketBytes = None,
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Send pictures over a channel, write what is received, print the ledger of every bit."""
    from channels.config.builder import load
    from sqlink.codecs.base import Unreachable
    from sqlink.crossing import packet_size
    from sqlink.data.pictures import pixel_limit
    from sqlink.errors import DataError
    from sqlink.link import Link
    from sqlink.receiver import Receiver
    from sqlink.transmitter import Transmitter

    rate = _rate(bpp, bytes_, quality, channel_uses)
    coder = _codec(codec, packet_bytes, weights, device, codec_option)
    carrier = load(channel, packet_size(coder, packet_bytes))
    conditions = _conditions(carrier, {"snr_db": snr_db, "loss": loss})
    link = Link(
        Transmitter(coder),
        carrier,
        Receiver(coder),
        packet_bytes,
        _device(device),
    )
    with pixel_limit(max_pixels):
        targets = _targets(pictures, output, ".png", segmentation)
        for path, target, image, labels in _inputs(pictures, targets, segmentation, coder):
            result = link.run(
                image, rate, conditions, seed=seed, names=[target.stem], segmentation=labels
            )
            (sent,) = result.sent
            if isinstance(sent, Unreachable):
                raise DataError(f"{path}: {sent}")
            _write(target, result.image(0), result.segmentation(0), coder)
            _print_ledger(target, sent, result, channel_uses)


@app.command("channel")
def channel_(
    config: Annotated[str, typer.Argument(metavar="CHANNEL.yaml|NAME", help="A channel.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="OUT.png|pdf|svg", help="Draw its curves.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT.csv", help="Write every count.")
    ] = None,
    snr: Annotated[
        list[str] | None,
        typer.Option("--snr-db", metavar="VALUES", help="Mean Es/N0 in dB: 0:10:1, or 0,5,10."),
    ] = None,
    loss: Annotated[
        list[str] | None,
        typer.Option("--loss", metavar="VALUES", help="Packet loss: 0:0.3:0.05."),
    ] = None,
    condition: Annotated[
        list[str] | None,
        typer.Option("--condition", metavar="NAME=VALUES", help="Another: crossover=0:0.1:0.02."),
    ] = None,
    packets: Annotated[
        int | None, typer.Option("--packets", min=1, help="In all, at a point.")
    ] = None,
    per_link: Annotated[
        int | None, typer.Option("--per-link", min=1, help="Packets of a link; links are many.")
    ] = None,
    packet_bytes: Annotated[
        int | None, typer.Option("--packet-bytes", min=1, max=65535, help="Packet size.")
    ] = None,
    packet_rate: Annotated[
        float | None, typer.Option("--packet-rate", help="Packets offered a second; all at once.")
    ] = None,
    poisson: Annotated[
        bool, typer.Option("--poisson", help="Offer them at random times of that rate.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of all randomness.")] = 0,
) -> None:
    """Measure a channel alone: losses, bit errors and delays, beside the law or bound they have."""
    from channels.config.builder import load
    from channels.config.ranges import values_of
    from experiments.channel_study.curves import RANGES
    from experiments.channel_study.draw import check_target, draw
    from experiments.channel_study.measure import measure, summary, write_csv
    from sqlink.errors import ConfigError

    given = [("snr_db", "--snr-db", text) for text in snr or ()]
    given += [("loss", "--loss", text) for text in loss or ()]
    for text in condition or ():
        name, equals, values = text.partition("=")
        if not equals:
            raise ConfigError(f"--condition {text}: give NAME=VALUES, as crossover=0.01,0.1")
        given.append((name.strip(), "--condition", values))
    conditions: dict[str, list[float]] = {}
    for name, option, text in given:
        if name in conditions:
            options = " and ".join(dict.fromkeys(o for n, o, _ in given if n == name))
            raise ConfigError(f"{name} is given twice, by {options}: give it once, as {text},...")
        conditions[name] = values_of(option, text, *RANGES.get(option, ()))
    carrier = load(config, packet_bytes)
    if plot is not None:
        check_target(plot)
    if out is not None:
        if not out.parent.is_dir():
            raise ConfigError(f"{out}: the folder {out.parent} does not exist: make it first")
        if out.is_dir():
            raise ConfigError(f"{out} is a folder: name a file, as {out / 'counts.csv'}")
        if not os.access(out if out.exists() else out.parent, os.W_OK):
            raise ConfigError(f"{out} cannot be written: name a file elsewhere")
        if plot is not None and out.resolve() == plot.resolve():
            raise ConfigError(f"--out and --plot both name {out}: give each a file of its own")
    curves = measure(
        carrier,
        Path(config).stem if Path(config).suffix else config,
        conditions,
        packets=packets,
        per_link=per_link,
        packet_bytes=packet_bytes,
        packet_rate_hz=packet_rate,
        poisson=poisson,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    print(summary(curves))
    if out is not None:
        write_csv(curves, out)
        print(out)
    if plot is not None:
        draw(curves, plot)
        print(plot)


@app.command()
def plan(
    snr: Annotated[
        str | None,
        typer.Option(
            "--snr-db", help=f"Mean Es/N0 in dB: 0:30:5, or 0,5,10; {DEFAULT_PLAN_SNR} if none."
        ),
    ] = None,
    over: Annotated[
        str,
        typer.Option("--over", metavar="YAML", help="awgn, rayleigh, '{rician: {k_db: 6}}' ..."),
    ] = "rayleigh",
    packets: Annotated[int, typer.Option("--packets", help="Packets of a picture.")] = 8,
    loss: Annotated[
        float, typer.Option("--loss", help="Share of packets that may be missing, 0.001..0.5.")
    ] = 0.01,
    table: Annotated[
        str, typer.Option("--table", help=f"Of MCS: qam64, qam256 or {LOW_TABLE}.")
    ] = "qam64",
    packet_bytes: Annotated[int, typer.Option("--packet-bytes", help="Packet size.")] = 96,
    at: Annotated[
        float | None,
        typer.Option("--at", help="Print the channel for this SNR as YAML, in place of a table."),
    ] = None,
) -> None:
    """Which modulation, code rate and protection for a link? A table over SNR."""
    import yaml

    from channels.config.ranges import values_of
    from channels.planning.operating_points import operating_points
    from channels.planning.operating_points import table as as_table
    from sqlink.errors import ConfigError

    if at is not None and snr is not None:
        raise ConfigError("--at and --snr-db exclude each other: --at prints one channel, give one")
    fading = _yaml("--over", over)
    values = values_of("--snr-db", DEFAULT_PLAN_SNR if snr is None else snr) if at is None else [at]

    def points_at(snr_db: list[float], loss: float) -> list[OperatingPoint | None]:
        return operating_points(snr_db, fading, packets, loss, table, packet_bytes)

    points = points_at(values, loss)
    unmet = [value for value, point in zip(values, points, strict=True) if point is None]
    remedy = ""
    if unmet:
        nearest = max(unmet)
        ways = [f"raise --loss ({loss:g} now, at most 0.5)"] if points_at([nearest], 0.5)[0] else []
        if table.lower() != LOW_TABLE and points_at([min(nearest + LOW_GAIN_DB, 100)], loss)[0]:
            ways.append(f"use the lower code rates of --table {LOW_TABLE}")
        remedy = ", or ".join([*ways, "raise the SNR"])
    if at is None:
        shown = yaml.safe_dump(fading, default_flow_style=True, width=1_000_000).split("\n")[0]
        print(
            f"Over {shown}: {packets} packets of {packet_bytes} bytes a picture, no more than "
            f"{loss:g} of them missing after protection, MCS table {table.lower()}\n"
        )
        print(as_table(points, values, loss))
        if unmet:
            print(f"note: where none keeps the loss: {remedy}", file=sys.stderr)
        return
    (point,) = points
    if point is None:
        raise ConfigError(f"--at {at:g}: no MCS of {table} keeps a loss of {loss:g}: {remedy}")
    print(yaml.safe_dump(point.spec(fading, packet_bytes), sort_keys=False).rstrip())


@app.command()
def segment(
    pictures: Pictures,
    output: Output,
    segmenter: Annotated[str, typer.Option("--segmenter", help="tx, judge, ...")] = "tx",
    weights: Weights = None,
    device: Device = None,
    max_pixels: MaxPixels = None,
) -> None:
    """Write the map of what each pixel shows, NAME.map.png, class ids under a palette."""
    from sqlink.data.classes import NAMES, NO_LABEL
    from sqlink.data.pictures import pixel_limit, save_map
    from sqlink.segmentation import load_segmenter

    options = {} if weights is None else {"weights": weights}
    network = load_segmenter(segmenter, device=_device(device), **options)
    with pixel_limit(max_pixels):
        targets = _targets(pictures, output, ".map.png")
        for _, target, image, _ in _inputs(pictures, targets, None, None):
            labels = network.segment(image)[0]
            save_map(labels, target)
            counts = labels[labels != NO_LABEL].bincount(minlength=len(NAMES)).tolist()
            shares = sorted(zip(counts, NAMES, strict=True), reverse=True)
            seen = ", ".join(f"{name} {n / labels.numel():.1%}" for n, name in shares[:4] if n)
            print(f"{target} {seen}", flush=True)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A training.")],
) -> None:
    """Train networks as a file says; an interrupted training goes on where it stopped."""
    from sqlink.training.train import train_from_config

    print(train_from_config(config))


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A sweep.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Results' folder.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List points and what they would take."),
    ] = False,
) -> None:
    """Run a sweep of codecs, rates and channels; what is there already is not computed again."""
    if dry_run:
        from experiments.sweep.dry_run import forecast

        print(forecast(config, output))
        return
    from experiments.report.tables import read_tables
    from experiments.sweep.runner import run_sweep

    folder = run_sweep(config, output)
    print(read_tables(folder))
    print(folder)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a sweep's YAML, for editors that complete and check it."""
    import json

    from experiments.sweep.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


results = typer.Typer(no_args_is_help=True, help="List, show, merge, export and prune results.")
app.add_typer(results, name="results")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A sweep's results.")]


@results.command("ls")
def results_ls(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where results' folders lie.")
    ] = Path("results"),
) -> None:
    """List results: state, rows, pictures, codecs and channels."""
    from experiments.sweep.results import listed

    for line in listed(root):
        print(line)


@results.command("show")
def results_show(folder: Folder) -> None:
    """Print a folder's tables, of an unfinished sweep those of the pictures done so far."""
    from experiments.sweep.results import shown

    print(shown(folder))


@results.command("merge")
def results_merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Parts of a sweep.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to.")],
) -> None:
    """Put the rows of several folders into one; the sweep run there writes its tables."""
    from experiments.sweep.results import merge

    count = merge(folders, output)
    print(f"{output}: {count} rows; for the tables: sqlink sweep CONFIG.yaml -o {output}")


@results.command("export")
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


@results.command("prune")
def results_prune(
    folder: Folder,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
) -> None:
    """Drop rows and pictures of earlier configurations, and what interruptions left."""
    from experiments.sweep.results import prune

    rows, size = prune(folder, dry_run)
    print(f"{folder}: {rows} rows and {size} bytes {'would go' if dry_run else 'gone'}")


@app.command()
def compare(
    source: Annotated[
        Path, typer.Argument(metavar="CONFIG.yaml|FOLDER", help="A gallery, or pictures.")
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


@app.command()
def plot(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A sweep's folder.")],
) -> None:
    """Draw the figures of a sweep."""
    from experiments.report.figures import plot_results

    for figure in plot_results(results):
        print(figure)


@app.command()
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


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing and what is wrong; exit 2 where something is."""
    from sqlink.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    if any(finding.wrong for finding in findings):
        raise typer.Exit(2)


def _yaml(option: str, text: str) -> object:
    """What an option's YAML says. Raises ConfigError."""
    from channels.config.yaml import read_yaml

    start = text if len(text) <= 60 else f"{text[:60]}..."
    return read_yaml(text, f"{option} {start}")


def _rate(
    bpp: float | None,
    size: int | None,
    quality: float | None,
    channel_uses: int | None = None,
) -> Rate:
    from sqlink.codecs.base import Rate
    from sqlink.errors import ConfigError

    given = {
        "--bpp": bpp,
        "--bytes": size,
        "--quality": quality,
        "--channel-uses": channel_uses,
    }
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} exclude each other: give one")
    if not named:
        bpp = DEFAULT_BPP
    return Rate(bpp=bpp, bytes=size, quality=quality, channel_uses=channel_uses)


def _device(name: str | None) -> str:
    """A device that is there. Raises ConfigError."""
    from sqlink.runtime.device import select_device

    return str(select_device(name or "cpu", "--device"))


def _codec(
    name: str,
    packet_bytes: int | None,
    weights: str | None,
    device: str | None,
    given: list[str] | None = None,
) -> Codec:
    """A codec with those options that were given; one without networks has no use for a device."""
    from sqlink.codecs import load_codec, takes_option
    from sqlink.errors import ConfigError

    own: dict[str, Any] = {"packet_bytes": packet_bytes, "weights": weights}
    if takes_option(name, "device"):
        own["device"] = _device(device)
    options = {k: v for k, v in own.items() if v is not None}
    for text in given or ():
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"--codec-option {text}: give NAME=VALUE, as packing=single")
        if key in ("packet_bytes", "weights", "device") and takes_option(name, key):
            raise ConfigError(f"--codec-option {text}: give it as --{key.replace('_', '-')}")
        if key in options:
            raise ConfigError(f"--codec-option {key} is given twice: give it once")
        options[key] = _yaml(f"--codec-option {key}", value)
    return load_codec(name, **options)


def _conditions(channel: Channel, given: dict[str, float | None]) -> dict[str, float]:
    """The conditions that a channel needs, and no others. Raises ConfigError."""
    from sqlink.errors import ConfigError

    conditions = {name: value for name, value in given.items() if value is not None}
    for name in channel.needs:
        if name not in conditions:
            hint = f"give --{name.replace('_', '-')}" if name in given else "set it in its YAML"
            raise ConfigError(f"channel '{channel.name}' needs {name}: {hint}")
    for name in conditions:
        if name not in channel.needs:
            needs = ", ".join(channel.needs) or "none"
            raise ConfigError(
                f"channel '{channel.name}' does not take --{name.replace('_', '-')}: "
                f"the conditions it takes are {needs}"
            )
    return conditions


def _targets(
    sources: Sequence[Path], folder: Path, suffix: str, maps: Sequence[Path] | None = None
) -> list[Path]:
    """The files to write, one a source, checked before anything is written.

    Raises DataError if two sources have one name, if a source or one of the `maps` given with them
    would be overwritten, if a picture that this program did not write would be, or if a source is
    missing.
    """
    from sqlink.data.pictures import is_ours
    from sqlink.errors import DataError

    targets = [folder / f"{source.stem}{suffix}" for source in sources]
    seen: dict[Path, Path] = {}
    inputs = {source.resolve() for source in (*sources, *(maps or ()))}
    for source, target in zip(sources, targets, strict=True):
        if not source.exists():
            raise DataError(f"{source} does not exist")
        written = [target]
        if suffix == ".png":
            written.append(target.with_name(f"{source.stem}.map.png"))
        for file in written:
            if file in seen:
                raise DataError(
                    f"{seen[file]} and {source} would both be written to {file}: "
                    "rename one, or take them apart"
                )
            seen[file] = source
            if file.resolve() in inputs:
                raise DataError(f"{file} is an input and would be overwritten: name another folder")
            if file.is_dir():
                raise DataError(f"{file} is a folder: name another folder to write to")
            if file.suffix == ".png" and file.exists() and not is_ours(file):
                raise DataError(
                    f"{file} is there already and is not of this program's making: "
                    "name another folder, or move it away"
                )
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file: -o names a folder")
    return targets


def _inputs(
    pictures: Sequence[Path],
    targets: Sequence[Path],
    maps: Sequence[Path] | None,
    codec: Codec | None,
) -> Iterator[tuple[Path, Path, Tensor, Tensor | None]]:
    """Path, target, float32 [1, 3, H, W] and given map, int64 [1, H, W], of each picture.

    Every file is opened and its size checked before the first one is handed out.
    """
    from sqlink.data.classes import CAMVID
    from sqlink.data.pictures import check_picture, load_map, load_picture
    from sqlink.errors import ConfigError, DataError

    if maps and len(maps) != len(pictures):
        raise ConfigError(
            f"{len(maps)} maps for {len(pictures)} pictures: give --segmentation once a picture"
        )
    sizes = [check_picture(path) for path in pictures]
    classes = getattr(codec, "classes", CAMVID)
    labels = [load_map(path, classes=classes) for path in maps or []]
    for path, label, size in zip(maps or [], labels, sizes, strict=False):
        if tuple(label.shape) != size:
            raise DataError(
                f"{path} is {label.shape[1]}x{label.shape[0]}, its picture {size[1]}x{size[0]}: "
                "a map must have the size of its picture"
            )
    if maps and not getattr(codec, "carries_map", True):
        print(f"note: {getattr(codec, 'name', '')} carries no map", file=sys.stderr)
    for n, path in enumerate(pictures):
        yield path, targets[n], load_picture(path)[None], labels[n][None] if labels else None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the name of a file before what is said of it."""
    from sqlink.errors import SQLinkError

    try:
        yield
    except SQLinkError as error:
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    from sqlink.errors import DataError

    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error


def _write(target: Path, image: Tensor, segmentation: Tensor | None, codec: Codec | None) -> None:
    from sqlink.data.classes import CAMVID
    from sqlink.data.pictures import save_map, save_picture

    save_picture(image, target)
    if segmentation is not None:
        classes = getattr(codec, "classes", CAMVID)
        save_map(segmentation, target.with_name(f"{target.stem}.map.png"), classes=classes)


def _print_ledger(target: Path, sent: Stream, result: LinkResult, asked: int | None) -> None:
    """What came of a crossing, and where each bit went; the entries add up to the total.

    asked: channel uses, where the rate was given in them.
    """
    present = result.delivered.shape[-1]
    delivered = int(result.delivered[0, 0].sum())
    wrong = delivered - int((result.delivered & result.correct)[0, 0].sum())
    uses = int(result.channel_uses[0, 0])
    entries = {name: int(bits[0, 0]) for name, bits in result.ledger.items()}
    total = sum(entries.values())
    print(
        f"{target} {sent.size} bytes {sent.bpp:.4f} bpp, packets {delivered} delivered "
        f"{present - delivered} lost" + (f" {wrong} wrong" if wrong else ""),
        end="",
    )
    on_air = int(result.sent_bytes[0, 0])
    if on_air != sent.size:
        came = int(result.delivered_bytes[0, 0])
        print(f", {sent.size} bytes offered {on_air} sent {came} delivered", end="")
    if uses:
        print(f", {uses} channel uses" + (f" of {asked} asked" if asked else ""), end="")
    print(", nothing could be decoded" if bool(result.outage[0, 0]) else "")
    if not sys.stdout.isatty():
        for name, bits in [*entries.items(), ("total", total)]:
            print(f"  {name:<8} {bits:>10} bits {bits / total:7.2%}")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("entry", show_footer=True)
    table.columns[0].footer = "total"
    table.add_column("bits", footer=str(total), justify="right")
    table.add_column("share", footer="100 %", justify="right")
    for name, bits in entries.items():
        table.add_row(name, str(bits), f"{bits / total:.2%}")
    Console().print(table)


def main() -> None:
    """The entry point `sqlink`."""
    keep_freed_memory()
    app(prog_name="sqlink")


if __name__ == "__main__":
    main()
