"""How much is recorded: COMMLENS_RANKS, COMMLENS_STEPS and COMMLENS_QUOTA."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Final

from commlens.profiler import live
from commlens.trace.sampling import EVERY, Choice, is_chosen, next_chosen, parse_choice

RANKS: Final = "COMMLENS_RANKS"
STEPS: Final = "COMMLENS_STEPS"
QUOTA: Final = "COMMLENS_QUOTA"
DEFAULT_QUOTA: Final = 200_000_000  # where what is asked for cannot be read
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(|b|kb|mb|gb)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def sampled_ranks() -> str | None:
    """What COMMLENS_RANKS says, None where it says nothing."""
    return _said(RANKS)


def sampled_steps() -> str | None:
    """What COMMLENS_STEPS says, None where it says nothing."""
    return _said(STEPS)


def chosen_steps() -> Choice | None:
    """The steps that COMMLENS_STEPS names, None for all; none of them where it cannot be read."""
    said = sampled_steps()
    try:
        return None if said is None else parse_choice(said)
    except ValueError:
        return ()


def gradient_steps(choice: Choice | None, usual: Iterable[int]) -> frozenset[int]:
    """The steps to sample gradients in: the usual ones, or of the chosen steps the next ones."""
    if choice is None:
        return frozenset(usual)
    return frozenset(step for each in usual if (step := next_chosen(choice, each)) is not None)


def is_recorded(rank: int, world_size: int) -> bool:
    """Whether this rank is one of those to be recorded.

    A list of ranks or of steps that cannot be read records nobody: who asks for a few of thousands does not want all
    of them. Rank 0 says so, in one line for the whole job.
    """
    steps, ranks = _steps_refused(), _ranks_refused(world_size)
    if rank == 0 and (why := ranks or steps):
        live.warn(f"{why}; nothing is recorded")
    said = sampled_ranks()
    return not (steps or ranks) and (said is None or is_chosen(parse_choice(said), rank))


def _ranks_refused(world_size: int) -> str | None:
    """Why COMMLENS_RANKS records nobody, None where it records some rank."""
    return _refused(RANKS, world_size, f"names none of the ranks 0 to {world_size - 1}")


def _steps_refused() -> str | None:
    """Why COMMLENS_STEPS records nothing, None where it records some step."""
    return _refused(STEPS, EVERY, "names no step")


def _refused(variable: str, end: int, nothing: str) -> str | None:
    said = _said(variable)
    if said is None:
        return None
    try:
        choice = parse_choice(said)
    except ValueError as error:
        return f"{variable}={said[:60]}: {error}"
    return None if any(part[:1] and part.start < end for part in choice) else f"{variable}={said[:60]} {nothing}"


def _said(variable: str) -> str | None:
    return os.environ.get(variable, "").strip() or None


def quota_bytes() -> int | None:
    """After how many bytes a rank keeps only aggregates; None: never. What cannot be read costs one line."""
    said = os.environ.get(QUOTA, "").strip()
    if not said:
        return None
    found = _SIZE.fullmatch(said)
    if found:
        return int(float(found[1]) * _UNITS[found[2].lower()])
    live.warn(f"{QUOTA}={said[:40]} is no size such as 200MB (B, kB, MB, GB): a rank keeps aggregates after 200 MB")
    return DEFAULT_QUOTA
