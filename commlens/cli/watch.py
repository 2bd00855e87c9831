"""`commlens watch`: what a job does while it runs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from commlens.cli.runs import RunParts

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from commlens.trace.recent import RecentRun

EVERY_S: Final = 2.0


def watch(
    runs: RunParts = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as into a pipe.")] = False,
) -> None:
    """Show what each rank of a running job does: steps, standstill, waits. Ctrl-C leaves.

    Example: commlens watch --once
    """
    from commlens.cli.requests import follow, interruptible
    from commlens.render.words import open_console

    run = follow(runs)
    console = open_console(sys.stdout)
    if once or not sys.stdout.isatty():
        console.print(_frame(run, console)[0])
        return
    raise typer.Exit(interruptible(lambda: _follow(run, console), "the job goes on"))


def _follow(run: RecentRun, console: Console) -> int:
    from rich.live import Live

    page, ended = _frame(run, console)
    with Live(page, console=console, auto_refresh=False) as live:
        while not ended:
            time.sleep(EVERY_S)
            page, ended = _frame(run, console)
            live.update(page, refresh=True)
    return 0


def _frame(run: RecentRun, console: Console) -> tuple[RenderableType, bool]:
    """What is shown now, and whether it will not change any more."""
    from commlens.analyzers.recent import recent
    from commlens.render.watch import page

    read = run.read()
    found = recent(read, time.time_ns())
    return page(read, found, console), found.ended
