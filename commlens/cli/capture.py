"""`commlens capture`: a deep window of a job that runs, now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from commlens.cli.runs import RunParts

if TYPE_CHECKING:
    from commlens.cli.requests import Asked

_FINAL: Final = ("done", "cut", "discarded", "skipped")


def capture(
    runs: RunParts = None,
    steps: Annotated[int, typer.Option("--steps", min=1, max=1000, help="Whole steps that the window holds.")] = 3,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every rank has written its file.")] = True,
) -> None:
    """Record a few steps of a running job with torch.profiler, the same ones on every rank.

    Example: commlens capture --steps 3
    """
    from commlens.analyzers.numerals import counted
    from commlens.cli.requests import Asked, interruptible
    from commlens.trace.control import CAPTURE

    asked = Asked(runs, CAPTURE, steps)
    first = asked.request.step
    which = f"steps {first} to {first + steps - 1}" if steps > 1 else f"step {first}"
    typer.echo(f"deep window of {which}, {counted(len(asked.ranks), 'rank')} asked")
    code = interruptible(
        lambda: _answers(asked) or (_files(asked) if wait else 0), "the window is recorded all the same"
    )
    raise typer.Exit(code)


def _answers(asked: Asked) -> int:
    """0 where a rank will record it."""
    taken = 0
    for rank, answer in asked.answers():
        if answer["late"]:
            typer.echo(f"rank {rank}: too late, it was in step {answer['in_step']} already")
        else:
            taken += 1
    return 0 if taken else 1


def _files(asked: Asked) -> int:
    """Waits for every rank's window and says what became of it; 0 where all have it."""
    from commlens.analyzers.across.signs import end_ns

    left, failed = set(asked.ranks), 0
    while left:
        for number, rank in sorted(asked.run.read().ranks.items()):
            if number not in left:
                continue
            window = _window(rank.info, asked.request.step)
            is_over = window is not None and window["state"] in _FINAL
            if is_over or end_ns(rank.info) is not None or _was_late(rank.info, asked.request.number):
                left.discard(number)
                failed += not _told(number, rank.path, window)
        if left:
            time.sleep(0.25)
    return 1 if failed else 0


def _window(info: dict[str, Any], first_step: int) -> dict[str, Any] | None:
    from commlens.trace.windows import entries

    return next((each for each in entries(info, "windows") if each.get("first_step") == first_step), None)


def _was_late(info: dict[str, Any], number: int) -> bool:
    from commlens.trace.windows import entries

    return any(each.get("number") == number and each.get("late") for each in entries(info, "control"))


def _told(rank: int, folder: Path, window: dict[str, Any] | None) -> bool:
    """Says what became of a rank's window; whether it has a file."""
    if window is None or window.get("file") is None:
        why = "the job ended before it" if window is None else window.get("why") or window["state"]
        typer.echo(f"rank {rank}: no window: {why}")
        return False
    from commlens.render.words import milliseconds, size

    held = milliseconds((window["stop_ns"] + window["export_ns"]) / 1e6)
    cut = f", cut short: {window['why']}" if window["state"] == "cut" else ""
    typer.echo(f"rank {rank}: {folder / window['file']}, {size(window['bytes'])}; the job stood still {held} ms{cut}")
    return True
