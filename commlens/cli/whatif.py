"""`commlens whatif`: what a change would gain, before it is tried."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commlens.cli.report import Format
from commlens.cli.runs import RankRegex

if TYPE_CHECKING:
    from commlens.analyzers.whatif.answers import WhatIf
    from commlens.analyzers.whatif.asked import Simulator
    from commlens.trace.changes import Change


def whatif(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Default: newest in ./commlens-runs.", show_default=False),
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
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON.")] = Format.text,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not stdout.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    rank_regex: RankRegex = None,
) -> None:
    """What a change would gain, simulated on a recorded run: commlens whatif RUN --set ddp.bucket_cap_mb=50"""
    from commlens.analyzers.whatif.asked import simulator_of, what_if
    from commlens.cli.output import check_free, write_text
    from commlens.cli.runs import open_chosen
    from commlens.trace.changes import parse_all

    changes = [change for text in set or [] for change in parse_all(text)]
    _check_once(changes)
    swept = _swept(sweep) if sweep is not None else []
    if output is not None:
        check_free(output, force)
    simulator = simulator_of(open_chosen([run] if run else None, rank_regex))
    result = what_if(simulator, _sets(simulator, changes, swept))
    if output is None:
        _show(result, format)
        return
    write_text(output, force, _to_text(result, format))
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
    from commlens.errors import UsageError
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
    whole = name in ("ddp.no_sync_every", "world_size")
    written = [f"{value:.0f}" if whole else f"{value:.3g}" for value in values]
    return [parse(f"{name}={factor}{each}") for each in dict.fromkeys(written)]


_COUNT, _MOST = 12, 200


def _to_text(result: WhatIf, format: Format) -> str:
    """The answer as text, for a file or a pipe."""
    if format is Format.json:
        import json

        return json.dumps(result.to_dict(), indent=2, allow_nan=False) + "\n"
    import io

    from commlens.cli.render import FILE_WIDTH, open_console
    from commlens.cli.render_whatif import print_what_if

    page = io.StringIO()
    print_what_if(result, open_console(page, width=FILE_WIDTH))
    return page.getvalue()


def _show(result: WhatIf, format: Format) -> None:
    if format is Format.json:
        typer.echo(_to_text(result, format), nl=False)
        return
    from commlens.cli.render import open_console
    from commlens.cli.render_whatif import print_what_if

    print_what_if(result, open_console(sys.stdout))
