"""Which run a command is about."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.places import anywhere
from commlens.errors import RunNotFoundError

if TYPE_CHECKING:
    from commlens.trace import Run

RUNS = Path("commlens-runs")  # where the recorder writes unless told otherwise


def _checked(rank_regex: str) -> str:
    """A pattern that finds ranks, refused before anything is read."""
    from commlens.trace.importers.rank_pattern import rank_pattern

    return rank_pattern(rank_regex).pattern


RunParts = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RUN]...",
        help="Folder of a run; every part of it where ranks write apart. Default: newest in ./commlens-runs.",
        show_default=False,
        parser=anywhere,
    ),
]
RankRegex = Annotated[
    str | None,
    typer.Option(
        "--rank-regex",
        metavar="REGEX",
        parser=_checked,
        help="Finds the rank in names of imported files that do not say it: 'rank(\\d+)'.",
    ),
]


def open_chosen(
    paths: Sequence[Path] | None, rank_regex: str | None = None, meanwhile: Callable[[], object] | None = None
) -> Run:
    """Open the run in `paths`, or the newest one where none is given.

    Args:
        paths: a run's folder, or several that hold parts of the same run; or files of other profilers.
        rank_regex: as in `open_run`.
        meanwhile: called while other processes read files, if they do.

    Raises:
        CommlensError: there is no such run, or it cannot be read.
    """
    from commlens.trace import open_run

    if paths:
        with reading(meanwhile) as progress:
            return open_run(list(paths), rank_regex=rank_regex, progress=progress)
    return open_run(newest())


def newest() -> Path:
    """The folder whose newest run is meant where none is given.

    Raises:
        RunNotFoundError: there is none.
    """
    if not RUNS.is_dir():
        raise RunNotFoundError(f"no run given, and there is no ./{RUNS}; record one with: commlens run -- torchrun ...")
    return RUNS


@contextmanager
def reading(meanwhile: Callable[[], object] | None = None) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr while files are read, from the first one on; nothing elsewhere.

    Args:
        meanwhile: called once, when the first file is read and others are not.
    """

    def first(done: int, total: int) -> None:
        if meanwhile is not None and done == 1 < total:
            meanwhile()

    if not sys.stderr.isatty():
        yield first
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TextColumn("files")
    # Without a thread of its own, which a process that is forked could not take along.
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=None, visible=False)

        def shown(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True, refresh=True)
            first(done, total)

        yield shown
