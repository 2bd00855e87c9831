"""`commlens report`: where each step's time went."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from commlens.cli.drill import By
from commlens.cli.gates import Annotations, FailOn, JUnit, Marks, conclude_report, conditions
from commlens.cli.places import anywhere
from commlens.cli.runs import RankRegex
from commlens.cli.workers import ClusterAt, Scratch, Workers, engine
from commlens.errors import UsageError

if TYPE_CHECKING:
    from commlens.analyzers import Report
    from commlens.analyzers.held import Engine
    from commlens.analyzers.track_record import Track


_BLOCK: Final = 1 << 14  # pieces of a report that are written at once


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
            parser=anywhere,
        ),
    ] = None,
    format: Annotated[
        ReportFormat, typer.Option("--format", help="Text to read, JSON (schema 1), or a page that is one file.")
    ] = ReportFormat.text,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not stdout.", parser=anywhere),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    redacted: Annotated[
        bool, typer.Option("--redact", help="Without names of hosts, users, paths, commands and networks.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Peaks to compare with: of commlens calibrate, or an nccl-tests log.",
            parser=anywhere,
        ),
    ] = None,
    rank_regex: RankRegex = None,
    workers: Workers = None,
    cluster: ClusterAt = None,
    scratch: Scratch = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="ID", help="All there is to say of one finding, or of one technique."),
    ] = None,
    by: Annotated[
        By | None,
        typer.Option("--by", help="Only its ranks, together by host, process group or quantile, worst first."),
    ] = None,
    ranks: Annotated[
        str | None,
        typer.Option("--ranks", metavar="RANKS", help="Only these: 17,512-519, 0:4096:64, a host, or group=NAME."),
    ] = None,
    fail_on: FailOn = None,
    junit: JUnit = None,
    annotations: Marks = Annotations.none,
) -> None:
    """Where each step's time went: compute, communication it stood still for, and the rest.

    Example: commlens report runs --fail-on 'exposed>15%'
    """
    from commlens.cli.output import check_free, write_pieces

    drill = by is not None or ranks is not None
    if drill and (format is not ReportFormat.text or output is not None or explain is not None):
        raise UsageError("--by and --ranks print tables: leave out --format, --output and --explain")
    gates = conditions(fail_on, junit, annotations)
    if output is not None:
        check_free(output, force)
    with engine(workers, cluster, scratch) as chosen:
        result = _analyzed(runs, calibration, rank_regex, chosen)
    if redacted:
        from commlens.analyzers.redact import redact

        result = redact(result)
    if drill:
        from commlens.cli.drill import show_ranks

        show_ranks(result, ranks, by)
    elif explain is not None:
        from commlens.cli.explain import show_explanation

        show_explanation(result, explain)
    elif output is None:
        _print(result, format)
    else:
        write_pieces(output, force, _to_text(result, format))
        print(f"commlens: wrote {output}", file=sys.stderr)  # noqa: T201
    conclude_report(result, gates, junit, annotations)


def show(
    runs: Sequence[Path] | None,
    format: ReportFormat = ReportFormat.text,
    calibration: Path | None = None,
    rank_regex: str | None = None,
) -> None:
    """Print the report of a run (the newest where `runs` is empty) on stdout."""
    with engine(None, None, None) as here:
        result = _analyzed(runs, calibration, rank_regex, here)
    _print(result, format)


def _print(result: Report, format: ReportFormat) -> None:
    if format is not ReportFormat.text:
        pieces = iter(_to_text(result, format))
        while block := "".join(islice(pieces, _BLOCK)):
            typer.echo(block, nl=False)
        return
    from commlens.render.report import print_report
    from commlens.render.words import open_console

    print_report(result, open_console(sys.stdout))


def _analyzed(runs: Sequence[Path] | None, calibration: Path | None, rank_regex: str | None, engine: Engine) -> Report:
    from commlens.cli.runs import open_chosen

    opened = open_chosen(runs, rank_regex, meanwhile=lambda: import_module("commlens.analyzers.stages"))
    from commlens.analyzers import analyze

    if calibration is not None:
        from commlens.trace.calibration import read_calibration

        opened.calibration = read_calibration(calibration)
    return replace(analyze(opened, engine), track_record=_track_record())


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


def _to_text(result: Report, format: ReportFormat) -> Iterable[str]:
    """The whole report as text, in pieces, for a file or a pipe."""
    if format is ReportFormat.html:
        from commlens.ui.html import to_html

        return [to_html(result)]
    if format is ReportFormat.json:
        return result.to_json()
    import io

    from commlens.render.report import print_report
    from commlens.render.words import FILE_WIDTH, open_console

    page = io.StringIO()
    print_report(result, open_console(page, width=FILE_WIDTH))
    return [f"{line.rstrip()}\n" for line in page.getvalue().splitlines()]
