"""Where a command's analysis runs: in this process, in some of this machine's, or on a cluster."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.errors import UsageError

if TYPE_CHECKING:
    from types import FrameType

    from commlens.analyzers.held import Engine
    from commlens.cluster.engine import Progress

Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Analyse in N processes of this machine: for large runs."),
]
ClusterAt = Annotated[
    str | None,
    typer.Option("--cluster", metavar="ADDRESS", help="Analyse on a Dask cluster: tcp://SCHEDULER:8786."),
]
Scratch = Annotated[
    Path | None,
    typer.Option(
        "--scratch",
        metavar="DIR",
        help="Folder for what is worked on, which this machine and the workers share. Default: the temporary folder.",
    ),
]


@contextmanager
def engine(workers: int | None, cluster: str | None, scratch: Path | None) -> Iterator[Engine]:
    """What runs the analysis, for as long as its results are looked at.

    Raises:
        UsageError: two places are asked for, or a folder for none.
        ClusterError: see `connected`.
    """
    if workers is not None and cluster is not None:
        raise UsageError("--workers starts workers here and --cluster says where they are: give one of the two")
    if workers is None and cluster is None:
        if scratch is not None:
            raise UsageError("--scratch is for --workers and --cluster: give one of these as well")
        from commlens.analyzers.held import HERE

        yield HERE
        return
    from commlens.cluster.connect import connected

    with ExitStack() as stack:
        stack.enter_context(_ended_in_order())
        progress = stack.enter_context(_bar())
        yield stack.enter_context(connected(workers, cluster, scratch, progress))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM, which batch systems send, ends workers and removes the scratch folder, as Ctrl-C does."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _bar() -> Iterator[Progress | None]:
    """A bar on a terminal's stderr: the part of the analysis that is worked on, and how far it is."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda part, done, total: bar.update(
            task, description=f"analysing: {part}", completed=done, total=total, visible=True
        )
