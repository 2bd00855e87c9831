"""`commlens verify`: tries a fix, and shows what it gained beside what was predicted."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commlens.cli.after_dashes import WHOLE, launcher_of
from commlens.cli.report import Format
from commlens.errors import CommlensError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from commlens.analyzers.report import Predicted
    from commlens.analyzers.verification import Measured
    from commlens.cli.verify_rounds import Job, Losses
    from commlens.trace import Run
    from commlens.trace.changes import Change


def verify(
    context: typer.Context,
    fix: Annotated[str, typer.Option("--fix", metavar="CHANGE", help="ddp.bucket_cap_mb=50; several with commas.")],
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="Run to predict from. Default: the job's first run here.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=2, help="Runs of the job with the fix, and without.")] = 2,
    steps_cut: Annotated[
        int, typer.Option("--steps-cut", min=2, help="Steps of warm-up; of a short job a third of its steps.")
    ] = 10,
    format: Annotated[Format, typer.Option("--format", help="Text to read, or JSON.")] = Format.text,
) -> None:
    """Try a fix, and show what it gained beside what was predicted.

    The job is run as it is and with the fix in turns, without a change of its code. RUN is an earlier recording \
of it, to see what was to be expected; by default that is the first of these.

    Example: commlens verify --fix ddp.bucket_cap_mb=50 -- torchrun --nproc-per-node 2 train.py
    """
    from commlens.analyzers.verification import compare_steps
    from commlens.cli.runs import open_chosen
    from commlens.cli.verify_probe import check_applicable
    from commlens.cli.verify_rounds import mean_losses, run_rounds
    from commlens.trace.change_kinds import LOSSY
    from commlens.trace.changes import joined, parse_all

    changes = parse_all(fix)
    command = launcher_of(context, WHOLE)
    opened = open_chosen([run]) if run else None
    check_applicable(changes, opened.info.get("backend") if opened else None, command)
    expected = Expected(changes)
    if opened:
        expected.see(opened)
    lossy = any(change.risk == LOSSY for change in changes)
    found = run_rounds(command, joined(changes), rounds, steps_cut, expected.see, losses=lossy)
    measured = compare_steps(found.before.steps, found.after.steps)
    predicted = expected.of(found.job)
    _keep(changes, predicted, measured, found.job)
    _show(changes, predicted, measured, mean_losses(found) if lossy else None, format)


class Expected:
    """What the simulator expects of changes, from the first run it sees."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes
        self._answer: Predicted | str | None = None
        self._job: Job | None = None

    def see(self, run: Run) -> None:
        """Predict from a run, unless that was done."""
        from commlens.analyzers.whatif.asked import simulator_of
        from commlens.cli.verify_rounds import job_of

        if self._answer is None:
            scenario = simulator_of(run).scenario(self._changes)
            self._answer, self._job = scenario.predicted or scenario.abstention or "", job_of(run)

    def of(self, job: Job) -> Predicted | str:
        """The prediction for this job, or why there is none."""
        if self._job is not None and (self._job.model, self._job.world_size) != (job.model, job.world_size):
            return "the run given is of another model or world size"
        return self._answer or ""


def _keep(changes: Sequence[Change], predicted: Predicted | str, measured: Measured, job: Job) -> None:
    """Adds the result to the ledger; where that cannot be written the result is still worth showing."""
    from commlens.trace.changes import joined
    from commlens.trace.ledger import Entry, append, ledger_path

    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    expected = None if isinstance(predicted, str) else asdict(predicted)
    entry = Entry(date, joined(changes), measured.verdict, _contract(measured), expected, **job._asdict())
    try:
        append(entry, ledger_path())
    except CommlensError as error:
        print(f"commlens: {error}", file=sys.stderr)  # noqa: T201


def _contract(measured: Measured) -> dict[str, Any]:
    return {name: getattr(measured, name) for name in ("before_ms", "after_ms", "gain_ms", "low_ms", "high_ms")}


def _show(
    changes: Sequence[Change],
    predicted: Predicted | str,
    measured: Measured,
    losses: dict[str, Losses] | None,
    format: Format,
) -> None:
    """The result on stdout; `predicted` is the reason where nothing was."""
    from commlens.cli.render_verify import accuracy_note, print_verification
    from commlens.trace.changes import joined

    if format is Format.text:
        print_verification(changes, predicted, measured, losses, sys.stdout)
        return
    import json

    document = {
        "fix": joined(changes),
        "predicted": None if isinstance(predicted, str) else asdict(predicted),
        "measured": _contract(measured),
        "verdict": measured.verdict,
        "losses": None if losses is None else {side: each._asdict() for side, each in losses.items()},
    }
    typer.echo(json.dumps(document, indent=2, allow_nan=False))
    note = accuracy_note(changes)
    if note is not None:
        print(f"commlens: {note}", file=sys.stderr)  # noqa: T201
