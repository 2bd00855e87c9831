"""`commlens whatif`: what a change would gain, before it is tried."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.places import anywhere
from commlens.cli.report import Format
from commlens.cli.runs import RankRegex
from commlens.cli.workers import ClusterAt, Scratch, Workers, engine

if TYPE_CHECKING:
    from rich.console import Console

    from commlens.analyzers import Report
    from commlens.analyzers.whatif.answers import WhatIf
    from commlens.analyzers.whatif.asked import Simulator
    from commlens.trace.changes import Change


def whatif(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="Default: newest in ./commlens-runs.", show_default=False, parser=anywhere
        ),
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A change, as ddp.bucket_cap_mb=50 or link.bandwidth=x2; several are predicted together,"
            " then each by itself. Default: what usually matters.",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            metavar="NAME=LOW:HIGH[:COUNT]",
            help="One change with many values, with those of --set: ddp.bucket_cap_mb=1:200.",
        ),
    ] = None,
    all: Annotated[
        bool,
        typer.Option("--all", help="Every technique of the field's surveys, judged and priced for this job."),
    ] = False,
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON.")] = Format.text,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not stdout.", parser=anywhere),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    rank_regex: RankRegex = None,
    workers: Workers = None,
    cluster: ClusterAt = None,
    scratch: Scratch = None,
) -> None:
    """What a change would gain, simulated on a recorded run.

    Example: commlens whatif --set ddp.bucket_cap_mb=50
    """
    from commlens.analyzers import analyze
    from commlens.analyzers.whatif.asked import simulator_of, what_if
    from commlens.cli.output import check_free, write_text
    from commlens.cli.runs import open_chosen
    from commlens.errors import UsageError
    from commlens.trace.changes import parse_all

    changes = [change for text in set or [] for change in parse_all(text)]
    _check_once(changes)
    if all and (changes or sweep is not None):
        raise UsageError("--all judges every technique by itself; leave out --set and --sweep, or leave out --all")
    swept = _swept(sweep) if sweep is not None else []
    if output is not None:
        check_free(output, force)
    opened = open_chosen([run] if run else None, rank_regex)
    with engine(workers, cluster, scratch) as chosen:
        simulator = simulator_of(opened, chosen)
        result = what_if(simulator, _curves() if all else _sets(simulator, changes, swept))
        report = analyze(opened, chosen) if all else None
    if output is None:
        _show(result, report, format)
        return
    write_text(output, force, _to_text(result, report, format))
    print(f"commlens: wrote {output}", file=sys.stderr)  # noqa: T201


def _sets(simulator: Simulator, changes: list[Change], swept: list[Change]) -> list[list[Change]]:
    """The sets of changes to predict."""
    from commlens.analyzers.whatif.usual import best_buckets, usual_sets

    if swept:
        best = best_buckets(simulator) if swept[0].name == "ddp.bucket_cap_mb" and not changes else []
        return [[*changes, each] for each in [*swept, *best]]
    if not changes:
        return usual_sets(simulator)
    return [changes, *([[each] for each in changes] if len(changes) > 1 else [])]


def _check_once(changes: list[Change]) -> None:
    from commlens.errors import UsageError

    names = [change.name for change in changes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice} is changed twice; say it once, or --sweep it")


def _swept(text: str) -> list[Change]:
    """Changes with evenly spaced values, in equal factors.

    Raises:
        UsageError: It is no sweep.
    """
    from commlens.analyzers.numerals import plain
    from commlens.errors import UsageError
    from commlens.trace.change_kinds import BY_NAME
    from commlens.trace.change_values import count as count_of
    from commlens.trace.change_values import count_or_none
    from commlens.trace.changes import parse

    name, _, bounds = text.partition("=")
    parts = bounds.split(":")
    factor = "x" if parts[0].startswith("x") else ""
    try:
        low, high = (float(part.removeprefix("x")) for part in parts[:2])
        count = int(parts[2]) if len(parts) > 2 else _COUNT
        if len(parts) > 3 or not 0 < low < high or not 2 <= count <= _MOST:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--sweep takes NAME=LOW:HIGH or NAME=LOW:HIGH:COUNT with up to {_MOST} values, not {text!r}"
        ) from None
    values = [low * (high / low) ** (step / (count - 1)) for step in range(count)]
    kind = BY_NAME.get(name)
    whole = kind is not None and kind.read in (count_of, count_or_none)
    written = [f"{value:.0f}" if whole else plain(value) for value in values]
    return [parse(f"{name}={factor}{each}") for each in dict.fromkeys(written)]


_COUNT, _MOST = 12, 200
_CURVES = ("ddp.bucket_cap_mb=0.1:200", "link.bandwidth=x0.25:x8", "link.latency=x0.125:x4", "world_size=2:1024:10")


def _curves() -> list[list[Change]]:
    """What --all adds to its table in JSON: how the step depends on what is most often changed."""
    return [[change] for text in _CURVES for change in _swept(text)]


def _to_text(result: WhatIf, report: Report | None, format: Format) -> str:
    """The answer as text, for a file or a pipe."""
    if format is Format.json:
        import json

        considered = {"considered": report.to_dict()["considered"]} if report is not None else {}
        return json.dumps(result.to_dict() | considered, indent=2, allow_nan=False) + "\n"
    import io

    from commlens.render.words import FILE_WIDTH, open_console

    page = io.StringIO()
    _print(result, report, open_console(page, width=FILE_WIDTH))
    return page.getvalue()


def _show(result: WhatIf, report: Report | None, format: Format) -> None:
    if format is Format.json:
        typer.echo(_to_text(result, report, format), nl=False)
        return
    from commlens.render.words import open_console

    _print(result, report, open_console(sys.stdout))


def _print(result: WhatIf, report: Report | None, console: Console) -> None:
    if report is not None:
        from commlens.render.considered import print_considered

        print_considered(report, console)
        return
    from commlens.render.whatif import print_what_if

    print_what_if(result, console)
