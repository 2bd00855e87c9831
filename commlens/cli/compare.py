"""`commlens compare`: two runs of one job side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.gates import Annotations, JUnit, Marks, check_junit, conclude
from commlens.cli.places import anywhere
from commlens.cli.report import Format
from commlens.cli.workers import ClusterAt, Scratch, Workers, engine
from commlens.errors import CommlensError, UsageError

if TYPE_CHECKING:
    from commlens.analyzers.comparison import Comparison, Side
    from commlens.analyzers.gating import Regress
    from commlens.analyzers.held import Engine


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A run.", parser=anywhere)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Another run of the same job.", parser=anywhere)],
    alike: Annotated[
        list[Path] | None,
        typer.Option(
            "--noise",
            metavar="RUN",
            help="A further run of BEFORE's job: what such runs differ by counts as noise; repeatable.",
            parser=anywhere,
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON (schema 1).")] = Format.text,
    force: Annotated[bool, typer.Option("--force", help="Compare, and judge, what should not be compared.")] = False,
    max_regress: Annotated[
        list[str] | None,
        typer.Option(
            "--max-regress",
            metavar="LIMIT",
            help="Exit with 3 if the step became longer by more: 5%, 3ms; or a part of it: exposed=10%; repeatable.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A limit must be kept beyond doubt: trip where noise hides whether it was.")
    ] = False,
    junit: JUnit = None,
    annotations: Marks = Annotations.none,
    workers: Workers = None,
    cluster: ClusterAt = None,
    scratch: Scratch = None,
) -> None:
    """What became longer from one run to another, and what shorter, beyond noise.

    Every change has an interval from the steps of both runs, and counts as one only where that is on one side of \
zero. Runs that are not alike are refused (exit code 1).

    Example: commlens compare baseline runs --max-regress 5%
    """
    from commlens.analyzers.comparison import compare as compare_sides
    from commlens.analyzers.gating import judge_comparison, parse_regress

    limits = tuple(parse_regress(text) for text in max_regress or ())
    _check(limits, strict, junit, annotations)
    with engine(workers, cluster, scratch) as chosen:
        sides = [_side(path, chosen) for path in (before, after, *(alike or ()))]
    _check_several(sides)
    result = compare_sides(sides[0], sides[1], sides[2:])
    refused = bool(result.refusals) and not force
    if not refused:
        _show(result, format)
    outcomes = judge_comparison(limits, result, strict, force)
    if limits:
        conclude(outcomes, f"comparison of {result.before.path} with {result.after.path}", junit, annotations)
    if refused:
        raise CommlensError(f"not comparable: {'; '.join(result.refusals)} (--force compares them all the same)")


def _check(limits: Sequence[Regress], strict: bool, junit: Path | None, annotations: Annotations) -> None:
    if not limits and (strict or junit is not None or annotations is not Annotations.none):
        raise UsageError("--strict, --junit and --annotations are about gates: give --max-regress as well")
    check_junit(junit)


def _check_several(sides: Sequence[Side]) -> None:
    """A run that is given twice would seem to have no noise.

    Raises:
        UsageError: One is.
    """
    paths = [anywhere(each.report.run.path) for each in sides]
    paths = [path.resolve() if isinstance(path, Path) else path for path in paths]
    twice = next((path for place, path in enumerate(paths) if path in paths[:place]), None)
    if twice is not None:
        raise UsageError(f"{twice} is given twice; BEFORE, AFTER and each --noise are runs of their own")


def _side(path: Path, engine: Engine) -> Side:
    """What is compared of a run, whose rows are let go of."""
    from commlens.analyzers.comparison import side
    from commlens.analyzers.stages import examine
    from commlens.cli.runs import open_chosen

    return side(examine(open_chosen([path]), engine))


def _show(result: Comparison, format: Format) -> None:
    if format is Format.text:
        from commlens.render.comparison import print_comparison

        print_comparison(result, sys.stdout)
        return
    import json

    typer.echo(json.dumps(result.to_dict(), indent=2, allow_nan=False))
