"""What the report rests on: how much was seen, and how much was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import TABLES

if TYPE_CHECKING:
    from commlens.trace import Run


@dataclass(frozen=True)
class Clock:
    """How the ranks' clocks were aligned.

    Attributes:
        method: "none": no result compares times of two ranks.
        uncertainty_us: None where nothing was aligned.
    """

    method: str = "none"
    uncertainty_us: float | None = None


@dataclass(frozen=True)
class TruncatedRank:
    """Tables of a rank whose end is missing; the rows before it were used."""

    rank: int
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """What was seen.

    Attributes:
        collectives_seen: rows of all ranks: a collective of 8 ranks counts 8 times.
        collectives_matched: None until ranks are matched.
        collectives_unmatched: None until ranks are matched.
        ends_unknown: rows whose end is not known and for which no wait was seen.
        dropped: collectives the recorder had no room for.
        kernels_unclassified: None where no device kernels were recorded.
        match_key: what joins ranks' rows; None until ranks are matched.
        clock: alignment of the ranks' clocks.
        truncated: damaged ends, by rank.
        damaged_ranks: ranks that could not be read.
        notes: what the reader of the run had to say.
    """

    collectives_seen: int
    collectives_matched: int | None
    collectives_unmatched: int | None
    ends_unknown: int
    dropped: int
    kernels_unclassified: int | None
    match_key: str | None
    clock: Clock = field(default_factory=Clock)
    truncated: tuple[TruncatedRank, ...] = ()
    damaged_ranks: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def find_coverage(run: Run, ranks: Sequence[RankFacts]) -> Coverage:
    """What was seen of the run."""
    return Coverage(
        collectives_seen=sum(r.analysed.size for r in ranks),
        collectives_matched=None,
        collectives_unmatched=None,
        ends_unknown=sum(r.unknown_ends for r in ranks),
        dropped=sum(int(r.columns.overhead["dropped"].clip(0).sum()) for r in ranks),
        kernels_unclassified=None,
        match_key=None,
        truncated=tuple(
            TruncatedRank(number, tuple(name for name in TABLES if name in rank.truncated))
            for number, rank in sorted(run.ranks.items())
            if rank.truncated
        ),
        damaged_ranks=tuple(run.damaged),
        notes=tuple(run.notes),
    )
