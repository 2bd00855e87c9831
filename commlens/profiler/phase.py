"""When in an interval each rank has its turn, so that thousands of ranks do not write in the same instant."""

from __future__ import annotations

from typing import Final

CREATED_AT_ONCE: Final = 2000  # ranks that make their files within one interval
LONGEST: Final = 5.0  # intervals; what happens until then is kept in slots
_GOLDEN: Final = 0.6180339887498949  # its multiples spread evenly, also those of every eighth rank


def phase(rank: int) -> float:
    """From 0 up to, not including, 1: the same in every run, 0 of rank 0."""
    return rank * _GOLDEN % 1.0


def first_flush(rank: int, world_size: int) -> float:
    """When a rank writes for the first time, which makes its files, in intervals between flushes since its beginning.

    Later ones follow at the same phase. The more ranks, the longer the time over which the first ones spread.
    """
    return (1.0 - phase(rank)) * min(max(1.0, world_size / CREATED_AT_ONCE), LONGEST)
