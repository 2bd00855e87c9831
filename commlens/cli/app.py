"""The `commlens` command: its list of commands, and the one place where errors end.

A command's module may import typer and the standard library only; what it needs to work it imports
when it is called, so that no command pays for another.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from commlens._version import __version__
from commlens.cli.after_dashes import WithLauncher
from commlens.cli.build import build
from commlens.cli.calibrate import calibrate
from commlens.cli.capture import capture
from commlens.cli.compare import compare
from commlens.cli.dashboard import dashboard
from commlens.cli.demo import demo
from commlens.cli.doctor import doctor
from commlens.cli.export import export
from commlens.cli.import_ import import_
from commlens.cli.pack import pack
from commlens.cli.pause import pause, resume
from commlens.cli.report import report
from commlens.cli.run import run
from commlens.cli.verify import verify
from commlens.cli.watch import watch
from commlens.cli.whatif import whatif
from commlens.errors import CommlensError


class _StoppedError(CommlensError):
    """Ctrl-C."""

    exit_code = 130


class _Commands(TyperGroup):
    """All commands; typer alone would end without a word at Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for.

        Raises:
            CommlensError: It cannot do so, or was interrupted.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _StoppedError("interrupted; run it again for the whole result") from None


app = typer.Typer(
    cls=_Commands,
    name="commlens",
    help="Find out why a distributed training job waits on communication, and what fixing it gains.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(context_settings={"allow_interspersed_args": False})(run)
app.command()(report)
app.command()(compare)
app.command()(whatif)
app.command()(dashboard)
app.command()(export)
app.command(name="import")(import_)
app.command()(pack)
app.command()(watch)
app.command()(capture)
app.command()(pause)
app.command()(resume)
app.command(cls=WithLauncher)(calibrate)
app.command(cls=WithLauncher)(verify)
app.command()(build)
app.command()(doctor)
app.command()(demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"commlens {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; every error becomes one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except CommlensError as error:
        _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has gone: nothing left to say, and the interpreter must not try to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # the boundary: a bug, too, is reported in one line
        if os.environ.get("COMMLENS_DEBUG"):
            raise
        hint = "set COMMLENS_DEBUG=1 for the traceback; please report it"
        _fail(f"internal error: {type(error).__name__}: {error} ({hint})", 1)


def _fail(message: str, code: int) -> None:
    print("commlens: " + " ".join(message.split()), file=sys.stderr)  # noqa: T201
    sys.exit(code)
