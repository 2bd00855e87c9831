"""How much is recorded: COMMLENS_RANKS, COMMLENS_STEPS and COMMLENS_QUOTA."""

from __future__ import annotations

import os
import re
from typing import Final

from commlens.profiler import live
from commlens.trace.sampling import Choice, is_chosen, parse_choice

RANKS: Final = "COMMLENS_RANKS"
QUOTA: Final = "COMMLENS_QUOTA"
DEFAULT_QUOTA: Final = 200_000_000  # where what is asked for cannot be read
_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,3})?)\s*(|b|kb|mb|gb)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def sampled_ranks() -> str | None:
    """What COMMLENS_RANKS says, None where it says nothing."""
    return os.environ.get(RANKS, "").strip() or None


def is_recorded(rank: int, world_size: int) -> bool:
    """Whether this rank is one of those to be recorded.

    A list that cannot be read records nobody: who asks for a few of thousands of ranks does not want all of them.
    Rank 0 says so, in one line for the whole job.
    """
    said = sampled_ranks()
    if said is None:
        return True
    try:
        choice = parse_choice(said)
    except ValueError as error:
        if rank == 0:
            live.warn(f"{RANKS}={said[:60]}: {error}; nothing is recorded")
        return False
    if rank == 0 and not _any(choice, world_size):
        live.warn(f"{RANKS}={said[:60]} names none of the ranks 0 to {world_size - 1}: nothing is recorded")
    return is_chosen(choice, rank)


def _any(choice: Choice, world_size: int) -> bool:
    return any(part.start < min(part.stop, world_size) for part in choice)


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
