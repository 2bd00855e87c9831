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

from commlens.cli.gates import Annotations, FailOn, JUnit, Marks, conclude_report, conditions
from commlens.cli.runs import RankRegex

if TYPE_CHECKING:
    from commlens.analyzers import Report
    from commlens.analyzers.track_record import Track


class Format(str, enum.Enum):
    """How a report is written."""

    text = "text"
    json = "json"


class ReportFormat(str, enum.Enum):
    """How `commlens report` writes: a page as well."""

    text = "text"
    json = "json"
    html = "html"


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
    format: Annotated[
        ReportFormat, typer.Option("--format", help="Text to read, JSON (schema 1), or a page that is one file.")
    ] = ReportFormat.text,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    redacted: Annotated[
        bool, typer.Option("--redact", help="Without names of hosts, users, paths, commands and networks.")
    ] = False,
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
    fail_on: FailOn = None,
    junit: JUnit = None,
    annotations: Marks = Annotations.none,
) -> None:
    """Where each step's time went: compute, communication it stood still for, and the rest.

    Example: commlens report runs --fail-on 'exposed>15%'
    """
    from commlens.cli.output import check_free, write_text

    gates = conditions(fail_on, junit, annotations)
    if output is not None:
        check_free(output, force)
    result = _analyzed(runs, calibration, rank_regex)
    if redacted:
        from commlens.analyzers.redact import redact

        result = redact(result)
    if explain is not None:
        from commlens.cli.explain import show_explanation

        show_explanation(result, explain)
    elif output is None:
        _print(result, format)
    else:
        write_text(output, force, _to_text(result, format))
        print(f"commlens: wrote {output}", file=sys.stderr)  # noqa: T201
    conclude_report(result, gates, junit, annotations)


def show(
    runs: Sequence[Path] | None,
    format: ReportFormat = ReportFormat.text,
    calibration: Path | None = None,
    rank_regex: str | None = None,
) -> None:
    """Print the report of a run (the newest where `runs` is empty) on stdout."""
    _print(_analyzed(runs, calibration, rank_regex), format)


def _print(result: Report, format: ReportFormat) -> None:
    if format is not ReportFormat.text:
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


def _to_text(result: Report, format: ReportFormat) -> str:
    """The whole report as text, for a file or a pipe."""
    if format is ReportFormat.html:
        from commlens.ui.html import to_html

        return to_html(result)
    if format is ReportFormat.json:
        import json

        return json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    import io

    from commlens.render.report import print_report
    from commlens.render.words import FILE_WIDTH, open_console

    page = io.StringIO()
    print_report(result, open_console(page, width=FILE_WIDTH))
    return "".join(f"{line.rstrip()}\n" for line in page.getvalue().splitlines())
