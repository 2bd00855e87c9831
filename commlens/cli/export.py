"""`commlens export`: a run for other tools: its tables, all ranks joined, or a trace on one clock."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.places import anywhere

if TYPE_CHECKING:
    from commlens.cli.perfetto import Written
    from commlens.trace import Run


class Kind(str, enum.Enum):
    """A format to export to."""

    parquet = "parquet"
    csv = "csv"
    perfetto = "perfetto"


def export(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Folder of the tables, or the trace's file.", parser=anywhere
        ),
    ],
    to: Annotated[Kind, typer.Option("--to", help="Tables (parquet, csv), or a trace that Perfetto opens.")],
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="Folder of a run. Default: newest in ./commlens-runs.",
            show_default=False,
            parser=anywhere,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Write a run for other tools: every table with all ranks joined, or a trace of all ranks on one clock.

    A trace opens in ui.perfetto.dev; --to parquet -o tables writes tables/collectives.parquet and so on.

    Example: commlens export commlens-runs/RUN --to perfetto -o trace.json.gz
    """
    from commlens.cli.output import check_free
    from commlens.cli.runs import open_chosen

    if to is Kind.perfetto:
        check_free(output, force)  # before minutes of work
    opened = open_chosen([run] if run is not None else None)
    _trace(opened, output, force) if to is Kind.perfetto else _tables(opened, output, to, force)


def _tables(run: Run, folder: Path, kind: Kind, force: bool) -> None:
    from commlens.cli.exported_tables import write_table
    from commlens.cli.output import check_free, make_folder, write_file
    from commlens.trace.schema import TABLES

    targets = {name: folder / f"{name}.{kind.value}" for name in TABLES}
    make_folder(folder)
    for path in targets.values():
        check_free(path, force)
    for name, path in targets.items():
        write_file(path, force, lambda part, name=name: write_table(run, name, part, kind.value))  # type: ignore[misc]
        typer.echo(path)
    _say(run.notes)


def _trace(run: Run, path: Path, force: bool) -> None:
    from commlens.analyzers.numerals import counted
    from commlens.cli.output import write_file
    from commlens.cli.perfetto import write_trace

    found: list[Written] = []
    write_file(path, force, lambda part: found.append(write_trace(run, part, path.name.endswith(".gz"))))
    written = found[0]
    typer.echo(path)
    typer.echo(
        f"{counted(written.ranks, 'rank')}, {counted(written.collectives, 'collective')} (a part on each rank),"
        f" arrows between the ranks of {written.arrows:,}"
    )
    typer.echo(f"clocks: {written.clocks}")
    typer.echo("open it in https://ui.perfetto.dev (the page reads it in the browser) or chrome://tracing")
    _say(written.notes)


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"commlens: {note}", file=sys.stderr)  # noqa: T201
