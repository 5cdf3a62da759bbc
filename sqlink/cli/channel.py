"""Commands for a channel alone: channel and plan."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sqlink.cli.options import yaml_value

DEFAULT_PLAN_SNR = "0:30:5"


def channel_(
    config: Annotated[
        str, typer.Argument(metavar="CHANNEL.yaml|NAME", help="A channel: a file or a name.")
    ],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="OUT.png|pdf|svg", help="Draw the curves.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="OUT.csv", help="Write all counts.")
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
        typer.Option(
            "--condition", metavar="NAME=VALUES", help="Another condition: crossover=0:0.1:0.02."
        ),
    ] = None,
    packets: Annotated[
        int | None, typer.Option("--packets", min=1, help="Packets per point.")
    ] = None,
    per_link: Annotated[
        int | None,
        typer.Option("--per-link", min=1, help="Packets per link; there are many links."),
    ] = None,
    packet_bytes: Annotated[
        int | None, typer.Option("--packet-bytes", min=1, max=65535, help="Packet size in bytes.")
    ] = None,
    packet_rate: Annotated[
        float | None,
        typer.Option("--packet-rate", help="Packets per second; by default all at once."),
    ] = None,
    poisson: Annotated[
        bool, typer.Option("--poisson", help="Offer packets at random times (Poisson).")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of all random numbers.")] = 0,
) -> None:
    """Measure a channel alone: losses, bit errors and delays, beside a reference or a bound."""
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
            raise ConfigError(f"--condition {text}: give NAME=VALUES, such as crossover=0.01,0.1")
        given.append((name.strip(), "--condition", values))
    conditions: dict[str, list[float]] = {}
    for name, option, text in given:
        if name in conditions:
            options = " and ".join(dict.fromkeys(o for n, o, _ in given if n == name))
            raise ConfigError(
                f"{name} is given twice, by {options}: give it once, such as {text},..."
            )
        conditions[name] = values_of(option, text, *RANGES.get(option, ()))
    carrier = load(config, packet_bytes)
    if plot is not None:
        check_target(plot)
    if out is not None:
        if not out.parent.is_dir():
            raise ConfigError(f"{out}: the folder {out.parent} does not exist: make it first")
        if out.is_dir():
            raise ConfigError(f"{out} is a folder: name a file, such as {out / 'counts.csv'}")
        if not os.access(out if out.exists() else out.parent, os.W_OK):
            raise ConfigError(f"{out} cannot be written: name a file in another folder")
        if plot is not None and out.resolve() == plot.resolve():
            raise ConfigError(f"--out and --plot both name {out}: name two different files")
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


def plan(
    snr: Annotated[
        str | None,
        typer.Option(
            "--snr-db", help=f"Mean Es/N0 in dB: 0:30:5, or 0,5,10; by default {DEFAULT_PLAN_SNR}."
        ),
    ] = None,
    over: Annotated[
        str,
        typer.Option("--over", metavar="YAML", help="awgn, rayleigh, '{rician: {k_db: 6}}' ..."),
    ] = "rayleigh",
    packets: Annotated[int, typer.Option("--packets", help="Packets per picture.")] = 8,
    loss: Annotated[
        float, typer.Option("--loss", help="Share of packets that may be lost, 0.001..0.5.")
    ] = 0.01,
    table: Annotated[
        str, typer.Option("--table", help="MCS table: qam64, qam256 or qam64-low.")
    ] = "qam64",
    packet_bytes: Annotated[int, typer.Option("--packet-bytes", help="Packet size in bytes.")] = 96,
    at: Annotated[
        float | None,
        typer.Option("--at", help="Print the channel for this SNR as YAML instead of a table."),
    ] = None,
) -> None:
    """Show which modulation, code rate and protection a link needs, in a table over SNR."""
    import yaml

    from channels.config.ranges import values_of
    from channels.planning.operating_points import operating_points, remedies
    from channels.planning.operating_points import table as as_table
    from sqlink.errors import ConfigError

    if at is not None and snr is not None:
        raise ConfigError(
            "--at and --snr-db exclude each other: --at prints one channel; give one of them"
        )
    fading = yaml_value("--over", over)
    values = values_of("--snr-db", DEFAULT_PLAN_SNR if snr is None else snr) if at is None else [at]

    asked = (fading, packets, loss, table, packet_bytes)
    points = operating_points(values, *asked)
    unmet = [value for value, point in zip(values, points, strict=True) if point is None]
    remedy = ", or ".join(remedies(max(unmet), *asked)) if unmet else ""
    if at is None:
        shown = yaml.safe_dump(fading, default_flow_style=True, width=1_000_000).split("\n")[0]
        print(
            f"Over {shown}: {packets} packets of {packet_bytes} bytes per picture, at most "
            f"{loss:g} of them lost after protection, MCS table {table.lower()}\n"
        )
        print(as_table(points, values, loss))
        if unmet:
            print(f"note: where no MCS keeps the loss: {remedy}", file=sys.stderr)
        return
    (point,) = points
    if point is None:
        raise ConfigError(f"--at {at:g}: no MCS of {table} keeps a loss of {loss:g}: {remedy}")
    print(yaml.safe_dump(point.spec(fading, packet_bytes), sort_keys=False).rstrip())
