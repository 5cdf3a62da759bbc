"""User errors as one line on standard error with exit status 2; Ctrl-C gives status 130."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The usage error of Typer's parser: that of click, or of Typer's own copy of click."""


OWN_CHANNELS = Path(__file__).resolve().parents[2] / "channels" / "__init__.py"
"""The package `channels` that is installed beside this one."""


RESUMED = "run the same command again to resume"


INTERRUPTED = 130
"""Exit status after Ctrl-C."""
AFTER_INTERRUPT = {
    "train": f"interrupted: the last checkpoint is kept; {RESUMED}",
    "sweep": f"interrupted: finished rows are kept; {RESUMED}",
    "demo": f"interrupted: finished rows are kept; {RESUMED}",
    "plan": f"interrupted: tables measured so far are kept; {RESUMED}",
    "channel": "interrupted: nothing was written",
    "play": "stopped",
}


class OneLine(TyperGroup):
    """A group of commands whose user errors are one line with exit status 2."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        with self._usage_in_one_line():
            return super().make_context(info_name, args, *more, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            from channels.registry import nearest

            fail(f"no command '{args[0]}': {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        found = find_spec("channels")
        origin = None if found is None else found.origin
        if origin is None or Path(origin).resolve() != OWN_CHANNELS:
            fail(
                f"the package 'channels' in {origin} is not SQLink's (Django Channels has the "
                "same name): install SQLink in an environment of its own"
            )
        from sqlink.errors import SQLinkError

        try:
            with self._usage_in_one_line(ctx):
                return super().invoke(ctx)
        except SQLinkError as error:
            fail(str(error))
        except OSError as error:  # a name that is too long, a full disk, a folder without rights
            if error.filename is None or error.errno == errno.EPIPE:
                raise
            name = str(error.filename)
            shown = name if len(name) <= 80 else f"{name[:80]}..."
            fail(f"{shown}: {(error.strerror or 'cannot be used').lower()}: name another file")
        except KeyboardInterrupt:
            line = "interrupted: the files printed above are complete; run the same command again"
            print(AFTER_INTERRUPT.get(ctx.invoked_subcommand or "", line), file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None

    @contextmanager
    def _usage_in_one_line(self, ctx: Any = None) -> Iterator[None]:
        """Report errors of the command-line parser like any other user error."""
        try:
            yield
        except UsageError as error:
            # A call without arguments shows the help, which is such an error, too.
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            name = None if ctx is None else ctx.invoked_subcommand
            command = self if name is None else self.get_command(ctx, name)
            fail(_usage(error, command, name))


def leave_at_once(command: str) -> NoReturn:
    """End the process after Ctrl-C without waiting for its threads: one that is inside PyTorch and
    comes back while the interpreter ends would abort the process.
    """
    print(AFTER_INTERRUPT[command], file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _usage(error: Any, command: Any, name: str | None) -> str:
    """Describe an error in a command line: what, where, and how to correct it."""
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
    """Describe the numbers allowed: `an integer from 1 to 65535`."""
    kind = "an integer" if param.type_descriptor.annotation is int else "a number"
    if param.min is None:
        return kind
    if param.max is None:
        return f"{kind}, {param.min} or more"
    return f"{kind} from {param.min} to {param.max}"


def fail(line: str) -> NoReturn:
    print(f"sqlink: error: {' '.join(line.split())}", file=sys.stderr)
    raise typer.Exit(2)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file before an error."""
    from sqlink.errors import SQLinkError

    try:
        yield
    except SQLinkError as error:
        raise type(error)(f"{path}: {error}") from error
