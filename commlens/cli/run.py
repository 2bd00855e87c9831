"""`commlens run`: starts a job with recording on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.places import here
from commlens.cli.runs import RUNS
from commlens.errors import UsageError

if TYPE_CHECKING:
    from types import FrameType


def run(
    command: Annotated[list[str], typer.Argument(help="The job, after --", metavar="-- COMMAND...")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Folder that receives the run.", parser=here)
    ] = RUNS,
) -> None:
    """Run a job and record it.

    The same as COMMLENS=FOLDER in front of the command. The exit code is the job's own.

    Example: commlens run -- torchrun --nproc-per-node 2 train.py
    """
    before = run_folders(output)
    code = record_command(command, output)
    new = sorted(run_folders(output) - before)
    if new:
        print(f"commlens: recorded; next: commlens report {new[-1]}", file=sys.stderr)  # noqa: T201
    else:
        print("commlens: nothing was recorded: no process called init_process_group", file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)


def run_folders(folder: Path) -> set[Path]:
    """The runs in a folder of runs."""
    return {found.parent for found in folder.glob("*/run.json")} if folder.is_dir() else set()


def record_command(command: list[str], output: Path, stdout: int | None = None) -> int:
    """Runs `command` with recording on and returns its exit code (128 + signal when killed).

    Raises:
        UsageError: The command is not to be found.
    """
    if shutil.which(command[0]) is None:
        raise UsageError(f"cannot run {command[0]!r}: there is no such command on the PATH")
    environment = {**os.environ, "COMMLENS": str(output.absolute())}
    with subprocess.Popen(command, env=environment, stdout=stdout) as job:

        def pass_on(number: int, _: FrameType | None) -> None:
            job.send_signal(number)

        # Ctrl-C reaches the job from the terminal; we only have to outlive it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, pass_on)
        try:
            code = job.wait()
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return code if code >= 0 else 128 - code
