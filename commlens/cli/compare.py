"""`commlens compare`: two runs of one job side by side."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.report import Format
from commlens.errors import CommlensError, UsageError

if TYPE_CHECKING:
    from commlens.analyzers.comparison import Comparison
    from commlens.trace import Run

TRIPPED = 3  # exit code of a gate


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A run.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another run of the same job.")],
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON (schema 1).")] = Format.text,
    max_regress: Annotated[
        str | None,
        typer.Option("--max-regress", metavar="PERCENT", help="Exit with 3 if steps became longer by more: 5%."),
    ] = None,
) -> None:
    """What became slower from one run to another, and what faster."""
    from commlens.analyzers import analyze
    from commlens.analyzers.comparison import compare as compare_reports
    from commlens.cli.runs import open_chosen

    limit = None if max_regress is None else _percent(max_regress)
    runs = [open_chosen([path]) for path in (before, after)]
    first, second = (analyze(run) for run in runs)
    result = compare_reports(first, second, (_model(runs[0]), _model(runs[1])))
    _show(result, format)
    if limit is not None:
        _judge(result, limit)


def _percent(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+) ?%?", text.strip())
    if found is None:
        raise UsageError(f"--max-regress takes a percentage such as 5%, not {text!r}")
    return float(found[1])


def _model(run: Run) -> str | None:
    from commlens.trace.models import model_signature

    return next((name for rank in run.ranks.values() if (name := model_signature(rank.info))), None)


def _show(result: Comparison, format: Format) -> None:
    if format is Format.text:
        from commlens.render.comparison import print_comparison

        print_comparison(result, sys.stdout)
        return
    import json

    typer.echo(json.dumps(result.to_dict(), indent=2, allow_nan=False))


def _judge(result: Comparison, limit: float) -> None:
    """The gate.

    Raises:
        CommlensError: A run without steps cannot be judged.
        Exit: Steps became longer by more than `limit` percent.
    """
    change = result.step.change_percent
    if change is None:
        raise CommlensError("--max-regress cannot be judged: the time of a step is not known in both runs")
    if change > limit:
        print(f"commlens: steps became longer by {change:.3g} %, more than {limit:g} %", file=sys.stderr)  # noqa: T201
        raise typer.Exit(TRIPPED)
