"""`commlens report`: where each step's time went."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.runs import RankRegex

if TYPE_CHECKING:
    from commlens.analyzers import Report
    from commlens.analyzers.track_record import Track


class Format(str, enum.Enum):
    """How a report is written."""

    text = "text"
    json = "json"


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Folder of a run; several when its parts lie apart; or files of another profiler."
            " Default: newest in ./commlens-runs.",
            show_default=False,
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON (schema 1).")] = Format.text,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", metavar="FILE", help="Peaks to compare with: of commlens calibrate, or an nccl-tests log."
        ),
    ] = None,
    rank_regex: RankRegex = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="ID", help="All there is to say of one finding, or of one technique."),
    ] = None,
) -> None:
    """Where each step's time went: compute, communication it stood still for, and the rest."""
    from commlens.cli.output import check_free, write_text

    if explain is not None:
        from commlens.cli.explain import show_explanation

        show_explanation(_analyzed(runs, calibration, rank_regex), explain)
        return
    if output is None:
        show(runs, format, calibration, rank_regex)
        return
    check_free(output, force)
    write_text(output, force, _to_text(_analyzed(runs, calibration, rank_regex), format))
    print(f"commlens: wrote {output}", file=sys.stderr)  # noqa: T201


def show(
    runs: Sequence[Path] | None,
    format: Format = Format.text,
    calibration: Path | None = None,
    rank_regex: str | None = None,
) -> None:
    """Print the report of a run (the newest where `runs` is empty) on stdout."""
    result = _analyzed(runs, calibration, rank_regex)
    if format is Format.json:
        typer.echo(_to_text(result, format), nl=False)
        return
    from commlens.render.report import print_report
    from commlens.render.words import open_console

    print_report(result, open_console(sys.stdout))


def _analyzed(runs: Sequence[Path] | None, calibration: Path | None, rank_regex: str | None) -> Report:
    from commlens.cli.runs import open_chosen

    opened = open_chosen(runs, rank_regex, meanwhile=lambda: import_module("commlens.analyzers.stages"))
    from commlens.analyzers import analyze

    if calibration is not None:
        from commlens.trace.calibration import read_calibration

        opened.calibration = read_calibration(calibration)
    return replace(analyze(opened), track_record=_track_record())


def _track_record() -> tuple[Track, ...]:
    """Of this user; a ledger that cannot be read is no reason not to report."""
    from commlens.analyzers.track_record import track_record
    from commlens.errors import TraceError
    from commlens.trace.ledger import ledger_path, read

    try:
        return track_record(read(ledger_path())[0])
    except TraceError as error:
        print(f"commlens: {error}", file=sys.stderr)  # noqa: T201
        return ()


def _to_text(result: Report, format: Format) -> str:
    """The whole report as text, for a file or a pipe."""
    if format is Format.json:
        import json

        return json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    import io

    from commlens.render.report import print_report
    from commlens.render.words import FILE_WIDTH, open_console

    page = io.StringIO()
    print_report(result, open_console(page, width=FILE_WIDTH))
    return "".join(f"{line.rstrip()}\n" for line in page.getvalue().splitlines())
