"""Running a job with a fix and without it, in turns, and how long its steps took."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from commlens.cli.launcher import PROGRESS, launch, sigterm_raises
from commlens.errors import CommlensError, RunNotFoundError

if TYPE_CHECKING:
    from commlens.analyzers.grouped import Floats
    from commlens.trace import Run


class Job(NamedTuple):
    """What was run, for the ledger."""

    torch: str | None
    backend: str | None
    world_size: int
    model: str | None


class Side(NamedTuple):
    """Of the rounds of one side: step times in ms, shape (steps,) each, and losses of all backwards that were kept."""

    steps: list[Floats]
    first: list[float | None]
    last: list[float | None]


class Rounds(NamedTuple):
    """Both sides, and the job they are of."""

    before: Side
    after: Side
    job: Job


class Losses(NamedTuple):
    """Mean over backwards, ranks and rounds; None where none was seen, or one was no finite number."""

    first: float | None
    last: float | None


def mean_losses(rounds: Rounds) -> dict[str, Losses]:
    """Of both sides, at the job's beginning and at its end."""
    sides = {"before": rounds.before, "after": rounds.after}
    return {name: Losses(_mean(side.first), _mean(side.last)) for name, side in sides.items()}


def _mean(losses: Sequence[float | None]) -> float | None:
    numbers = [loss for loss in losses if loss is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(losses) else None


def run_rounds(
    command: Sequence[str],
    fix: str,
    rounds: int,
    cut: int,
    see: Callable[[Run], None] = lambda _: None,
    losses: bool = False,
) -> Rounds:
    """Runs the job as it is, with the fix, as it is, with the fix, ...

    Recordings cost the same on both sides, and are gone when this ends, however it does.

    Args:
        command: that starts the job.
        fix: as COMMLENS_FIX takes it.
        rounds: of both.
        cut: steps of warm-up.
        see: shown each recording of the job as it is.
        losses: whether to keep losses.

    Raises:
        CommlensError: The job failed, had too few steps, or did not apply the fix.
    """
    from commlens.profiler.losses import VARIABLE

    before, after = Side([], [], []), Side([], [], [])
    variables = {VARIABLE: "1"} if losses else {}
    with sigterm_raises():
        for number in range(1, rounds + 1):
            for side, asked in ((before, None), (after, fix)):
                print(f"{PROGRESS}round {number} of {rounds}, {_how(asked)}", file=sys.stderr, flush=True)  # noqa: T201
                job = _round(command, variables, asked, cut, see if asked is None else _check_applied, side)
    return Rounds(before, after, job)


def _round(
    command: Sequence[str],
    variables: dict[str, str],
    fix: str | None,
    cut: int,
    see: Callable[[Run], None],
    side: Side,
) -> Job:
    """One run of the job, added to its side; `see` is shown its recording."""
    from commlens.analyzers.verification import step_times
    from commlens.trace import open_run

    with tempfile.TemporaryDirectory(prefix="commlens-verify-", ignore_cleanup_errors=True) as folder:
        try:
            launch(command, variables | {"COMMLENS": folder} | ({} if fix is None else {"COMMLENS_FIX": fix}))
            run = open_run(folder)
        except RunNotFoundError:
            raise CommlensError("nothing was recorded: no process of the job called init_process_group") from None
        except CommlensError as error:
            raise CommlensError(f"the job {_how(fix)}: {error}") from error
        see(run)
        steps = step_times(run, cut)
        _check_enough(steps.size, fix)
        side.steps.append(steps)
        for rank in run.ranks.values():
            kept = rank.info.get("losses") or {}
            side.first.extend(kept.get("first", ()))
            side.last.extend(kept.get("last", ()))
        return job_of(run)


def _how(fix: str | None) -> str:
    return "as it is" if fix is None else "with the fix"


def _check_applied(run: Run) -> None:
    """Refuse to measure a fix that a rank did not apply."""
    for number, rank in run.ranks.items():
        state = rank.info.get("fix")
        if state is None:
            raise CommlensError(f"rank {number} did not see COMMLENS_FIX; let the launcher pass the environment on")
        for name, reason in (state.get("failed") or {}).items():
            raise CommlensError(f"rank {number} did not apply {name}: {reason}")


def _check_enough(count: int, fix: str | None) -> None:
    from commlens.analyzers.numerals import counted
    from commlens.analyzers.verification import FEWEST_STEPS

    if count < FEWEST_STEPS:
        raise CommlensError(
            f"the job {_how(fix)} had {counted(count, 'step')} after its warm-up, {FEWEST_STEPS} are the fewest to"
            " compare; let it run for longer (a step ends when the optimizer's does)"
        )


def job_of(run: Run) -> Job:
    """What a run is of."""
    from commlens.trace.models import model_signature

    info = next(iter(run.ranks.values())).info
    torch, backend = (str(run.info[name]) if run.info.get(name) else None for name in ("torch", "backend"))
    return Job(torch, backend, run.world_size, model_signature(info))
