"""`commlens import`: files of other profilers, made into a run that is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from commlens.cli.places import anywhere
from commlens.cli.runs import RankRegex, reading
from commlens.cli.workers import ClusterAt, Scratch, Workers, engine


def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Files, folders of them, or patterns.", show_default=False, parser=anywhere
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="RUN", help="Folder of the run, new or empty.", parser=anywhere),
    ],
    rank_regex: RankRegex = None,
    workers: Workers = None,
    cluster: ClusterAt = None,
    scratch: Scratch = None,
) -> None:
    """Make a run of other profilers' files: torch.profiler, Flight Recorder, NCCL Inspector, Nsight Systems.

    The other commands read such files as they are; a run of its own can be moved and shared without them.

    Example: commlens import traces/ -o run
    """
    from commlens.trace.importers.cache import import_run

    with engine(workers, cluster, scratch) as chosen, reading() as progress:
        spread = chosen.each if workers is not None or cluster is not None else None
        run = import_run(paths, output, rank_regex, progress, spread)
    for note in run.notes:
        print(f"commlens: {note}", file=sys.stderr)  # noqa: T201
    typer.echo(run.path)
