"""What the report rests on: how much was seen, and how much was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import BY_ORDER, Matched
from commlens.analyzers.device_coverage import DeviceCoverage, find_device_coverage, plugin_errors
from commlens.analyzers.endings import Raised, find_raised
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.windows import WindowLine, window_lines
from commlens.trace.schema import TABLES

if TYPE_CHECKING:
    from commlens.trace import Run


@dataclass(frozen=True)
class Clock:
    """How the ranks' clocks were aligned.

    Attributes:
        method: what the comparison rests on.
        uncertainty_us: the most that times of two ranks can be wrong against each other; None where they
            are not compared.
        refusal: why they are not, None where they are.
    """

    method: str
    uncertainty_us: float | None
    refusal: str | None


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
        collectives_matched: rows with a counterpart on every recorded member of their group.
        collectives_unmatched: the others.
        match_confidence: share of the matches that agree with one another, 0..1; None where there are none.
        ends_unknown: rows whose end is not known and for which no wait was seen.
        dropped: collectives the recorder had no room for.
        kernels_unclassified: None where no device kernels were recorded.
        match_key: what joins ranks' rows, None where there are none.
        clock: alignment of the ranks' clocks.
        truncated: damaged ends, by rank.
        damaged_ranks: ranks that could not be read.
        notes: what the reader of the run had to say.
        windows: deep windows, and what became of them.
        device_times: how far collectives of devices have the device's times; None where no device was recorded by
            commlens.
        raised: ranks that an exception ended, the first in time first; those recorded before it was noted do not tell.
    """

    collectives_seen: int
    collectives_matched: int
    collectives_unmatched: int
    match_confidence: float | None
    ends_unknown: int
    dropped: int
    kernels_unclassified: int | None
    match_key: str | None
    clock: Clock
    truncated: tuple[TruncatedRank, ...] = ()
    damaged_ranks: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    windows: tuple[WindowLine, ...] = ()
    device_times: DeviceCoverage | None = None
    raised: tuple[Raised, ...] = ()


def find_coverage(run: Run, ranks: Sequence[RankFacts], joined: Joined) -> Coverage:
    """What was seen of the run."""
    seen, clocks = sum(r.rows for r in ranks), joined.clocks
    device = find_device_coverage(run, ranks)
    unclassified = [r.lanes.unclassified_count for r in ranks if r.lanes is not None]
    return Coverage(
        collectives_seen=seen,
        collectives_matched=seen - joined.unmatched,
        collectives_unmatched=joined.unmatched,
        match_confidence=min((round(m.confidence, 4) for m in _compared(joined)), default=None),
        ends_unknown=sum(r.unknown_ends for r in ranks),
        dropped=sum(r.dropped for r in ranks),
        kernels_unclassified=sum(unclassified) if unclassified else None,
        match_key=_match_key(joined),
        clock=Clock(
            method=clocks.method,
            uncertainty_us=None if clocks.refusal else clocks.uncertainty_ns / 1e3,
            refusal=clocks.refusal,
        ),
        truncated=tuple(
            TruncatedRank(number, tuple(name for name in TABLES if name in rank.truncated))
            for number, rank in sorted(run.ranks.items())
            if rank.truncated
        ),
        damaged_ranks=tuple(run.damaged),
        notes=(
            *run.notes,
            *(note for rank in run.ranks.values() for note in rank.notes),
            *(device.notes if device is not None else ()),
            *plugin_errors(run),
        ),
        windows=window_lines({number: rank.info for number, rank in run.ranks.items()}),
        device_times=device,
        raised=find_raised({number: rank.info for number, rank in run.ranks.items()}),
    )


def _compared(joined: Joined) -> list[Matched]:
    """Communicators of which more than one member was recorded."""
    return [matched for matched in joined.matched if len(matched.communicator.present) > 1]


def _match_key(joined: Joined) -> str | None:
    ways = {matched.how for matched in _compared(joined)}
    if not ways:
        return None
    return "group, operation and order, from both ends" if BY_ORDER in ways else "group members and sequence number"
