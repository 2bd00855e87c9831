"""Options of gates, and how a command ends that has some: 3 where one tripped, 1 where one could not be judged."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.errors import CommlensError, UsageError, WriteError

if TYPE_CHECKING:
    from commlens.analyzers import Report
    from commlens.analyzers.gating import Condition, Outcome

TRIPPED_CODE = 3
_OURS = '<testsuite name="commlens"'


class Annotations(str, enum.Enum):
    """Whose marks in its log."""

    none = "none"
    github = "github"


FailOn = Annotated[
    list[str] | None,
    typer.Option(
        "--fail-on",
        metavar="CONDITION",
        help="Exit with 3 where it holds: 'exposed>15%', 'step>120ms', finding:straggler-rank, abstention:any;"
        " repeatable.",
    ),
]
JUnit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML; replaces an older one.")
]
Marks = Annotated[Annotations, typer.Option("--annotations", help="Mark gates that did not pass in the log of CI.")]


def conditions(texts: Sequence[str] | None, path: Path | None, marks: Annotations) -> tuple[Condition, ...]:
    """Read `--fail-on`, before a long analysis.

    Raises:
        UsageError: One is no condition; or the other options are given without one.
        WriteError: The JUnit XML would replace a file that is none.
    """
    from commlens.analyzers.gating import parse_condition

    if not texts and (path is not None or marks is not Annotations.none):
        raise UsageError("--junit and --annotations are about gates: give --fail-on as well")
    check_junit(path)
    return tuple(parse_condition(text) for text in texts or ())


def check_junit(path: Path | None) -> None:
    """Refuse a file that is not one of ours.

    Raises:
        WriteError: It is another one, a folder, or cannot be read.
    """
    if path is None or not path.exists():
        return
    if path.is_dir():
        raise WriteError(f"{path} is a folder; give a file")
    try:
        head = path.read_bytes()[:200].decode("utf-8", "replace")
    except OSError as error:
        raise WriteError(f"cannot read {path}: {error.strerror or error}") from error
    if _OURS not in head:
        raise WriteError(f"{path} exists and is not JUnit XML of commlens; give another name")


def conclude_report(result: Report, gates: Sequence[Condition], path: Path | None, marks: Annotations) -> None:
    """Judge a report and end with its gates, if there are any; see `conclude`."""
    from commlens.analyzers.gating import judge_report

    if gates:
        conclude(judge_report(gates, result), f"report of {result.run.path}", path, marks)


def conclude(outcomes: Sequence[Outcome], about: str, path: Path | None, marks: Annotations) -> None:
    """Say what became of each gate on stderr, and exit accordingly.

    Args:
        outcomes: of all gates of the command.
        about: what was judged.
        path: of the JUnit XML; None for none.
        marks: whether to annotate.

    Raises:
        Exit: A gate tripped.
        CommlensError: None did, but one could not be judged.
        WriteError: The JUnit XML cannot be written.
    """
    from commlens.analyzers.gating import TRIPPED, UNJUDGED
    from commlens.render.gates import gate_lines, github_commands, junit

    for line in gate_lines(outcomes):
        print(f"commlens: {line}", file=sys.stderr)  # noqa: T201
    if marks is Annotations.github:
        for line in github_commands(outcomes):
            print(line, file=sys.stderr)  # noqa: T201
    if path is not None:
        from commlens.cli.output import write_text

        check_junit(path)
        write_text(path, True, junit(outcomes, about, datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")))
    states = {each.state for each in outcomes}
    if TRIPPED in states:
        raise typer.Exit(TRIPPED_CODE)
    if UNJUDGED in states:
        raise CommlensError("not every gate could be judged, so this is no pass (see above)")
