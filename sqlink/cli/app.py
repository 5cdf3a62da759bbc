"""The command line: sqlink encode, decode, transmit, channel, segment, train, sweep, plot, ...

Heavy modules are imported only by the commands that need them. In `sqlink`, only this package may
import `experiments`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from sqlink.cli.channel import channel_, plan
from sqlink.cli.codec import decode, encode, segment, transmit
from sqlink.cli.errors import OneLine
from sqlink.cli.results import (
    results_export,
    results_ls,
    results_merge,
    results_prune,
    results_show,
)
from sqlink.cli.sweep import compare, demo, play, plot, report, schema, sweep
from sqlink.cli.train import train
from sqlink.runtime.malloc import keep_freed_memory


def _version(asked: bool) -> None:
    """Print the version and exit, if `asked`."""
    if asked:
        from sqlink.doctor import version

        print(f"sqlink {version('sqlink') or 'not installed, run from its folder'}")
        raise typer.Exit


def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Send pictures and their meaning over a simulated channel, with real bits."""


def doctor() -> None:
    """Show what is installed, missing or wrong; exit with status 2 if something is wrong."""
    from sqlink.doctor import examine

    findings = examine()
    for finding in findings:
        print(finding)
    if any(finding.wrong for finding in findings):
        raise typer.Exit(2)


app = typer.Typer(
    cls=OneLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,  # Rich's Markdown alone takes half of the time of --help
)
results = typer.Typer(
    no_args_is_help=True,
    help="List, show, merge, export and prune results.",
    rich_markup_mode=None,
)
app.callback()(common)
app.command()(encode)
app.command()(decode)
app.command()(transmit)
app.command("channel")(channel_)
app.command()(plan)
app.command()(segment)
app.command()(train)
app.command()(sweep)
app.command()(schema)
app.command()(compare)
app.command()(plot)
app.command()(report)
app.command()(play)
app.command()(demo)
app.command()(doctor)
app.add_typer(results, name="results")
results.command("ls")(results_ls)
results.command("show")(results_show)
results.command("merge")(results_merge)
results.command("export")(results_export)
results.command("prune")(results_prune)


def main() -> None:
    """Run the entry point `sqlink`."""
    keep_freed_memory()
    app(prog_name="sqlink")
