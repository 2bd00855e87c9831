"""`commlens pause` and `commlens resume`: recording off and on again while the job runs."""

from __future__ import annotations

from pathlib import Path

import typer

from commlens.cli.runs import RunParts


def pause(runs: RunParts = None) -> None:
    """Stop writing the collectives of a running job, from the same step on every rank, until commlens resume.

    Example: commlens pause
    """
    from commlens.trace.control import PAUSE

    raise typer.Exit(_ask(runs, PAUSE))


def resume(runs: RunParts = None) -> None:
    """Write the collectives of a job again, after commlens pause.

    Example: commlens resume
    """
    from commlens.trace.control import RESUME

    raise typer.Exit(_ask(runs, RESUME))


def _ask(runs: list[Path] | None, kind: str) -> int:
    from commlens.cli.requests import Asked, interruptible
    from commlens.trace.control import PAUSE

    asked = Asked(runs, kind)
    done = "paused" if kind == PAUSE else "recorded again"

    def wait() -> int:
        for rank, answer in asked.answers():
            late = ", later than asked for" if answer["late"] else ""
            typer.echo(
                f"rank {rank}: {done} from step {answer['from_step']} on (now in step {answer['in_step']}){late}"
            )
        return 0

    return interruptible(wait, "the ranks do it all the same")
