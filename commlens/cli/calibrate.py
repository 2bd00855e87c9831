"""`commlens calibrate`: measures how long a run's messages take when nobody is waited for."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.after_dashes import launcher_of
from commlens.cli.launcher import launch
from commlens.cli.places import anywhere
from commlens.errors import CommlensError, WriteError

if TYPE_CHECKING:
    from commlens.trace import Run
    from commlens.trace.calibration import Calibration

JOB = "commlens.cli.calibrate_job"


def calibrate(
    context: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="Default: newest in ./commlens-runs.", show_default=False, parser=anywhere
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not into the run.", parser=anywhere),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier calibration.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=1.0, help="Time for all measurements.")] = 20.0,
) -> None:
    """Measure the peak to compare a run with.

    LAUNCHER is what started the run, without its script. Its ranks make the run's process groups again, \
and time each operation in them over message sizes.

    Example: commlens calibrate -- torchrun --nproc-per-node 2
    """
    from commlens.cli.output import write_file
    from commlens.cli.runs import open_chosen
    from commlens.trace.calibration import CALIBRATION_FILE, read_calibration

    launcher = launcher_of(context)
    opened = open_chosen([run] if run else None)
    target = output or opened.path / CALIBRATION_FILE
    _check_target(target, force)
    with tempfile.TemporaryDirectory(prefix="commlens-calibrate-") as folder:
        result = Path(folder) / CALIBRATION_FILE
        plan = _write_plan(opened, launcher, seconds, result)
        launch([*launcher, "-m", JOB, str(plan)])
        if not result.exists():
            _check_took_part(plan, launcher)
            print("commlens: rank 0 is on another host; the calibration is there", file=sys.stderr)  # noqa: T201
            return
        write_file(target, force, lambda part: shutil.copyfile(result, part))
        _show(read_calibration(result))
    print(f"commlens: wrote {target}", file=sys.stderr)  # noqa: T201


def _check_target(target: Path, force: bool) -> None:
    """Refuse before measuring what could not be written after it."""
    from commlens.cli.output import check_free

    check_free(target, force)
    if isinstance(target, Path) and not os.access(target.parent, os.W_OK | os.X_OK):
        raise WriteError(f"cannot write into {target.parent}; give another file with -o")


def _write_plan(run: Run, launcher: list[str], seconds: float, result: Path) -> Path:
    from commlens.cli.calibrate_plan import Plan, measurements_for

    source = f"commlens calibrate {run.path} -- {shlex.join(launcher)}"
    backend = str(run.info.get("backend") or "")
    plan = Plan(source, run.world_size, backend, seconds, str(result), measurements_for(run))
    path = result.with_name("plan.json")
    plan.write(path)
    return path


def _check_took_part(plan: Path, launcher: list[str]) -> None:
    """Refuse what ended well without a calibration, and without ranks of this host in one that another has."""
    from commlens.cli.calibrate_plan import TOOK_PART

    if not plan.with_name(TOOK_PART).exists():
        raise CommlensError(
            f"nothing was measured: {shlex.join(launcher)} ended without starting a rank; give what started the run,"
            " as in -- torchrun --nproc-per-node 2"
        )


def _show(calibration: Calibration) -> None:
    """The calibration as a table on stdout."""
    from commlens.cli.calibrate_plan import ranks_label
    from commlens.render.words import number, open_console, plain_table, size
    from commlens.trace.ops import busbw_factor

    table = plain_table(["operation", "ranks", "scope"], ["size", "time us", "busbw GB/s"])
    for entry in calibration.entries:
        factor = busbw_factor(entry.op, entry.group_size) or 0.0
        for bytes, time in zip(entry.bytes, entry.time_us, strict=True):
            rate = number(factor * bytes / time / 1e3)
            table.add_row(entry.op, ranks_label(entry.ranks), entry.scope, size(bytes), number(time), rate)
    open_console(sys.stdout).print(table)
