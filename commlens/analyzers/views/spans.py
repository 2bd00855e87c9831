"""Single collectives in a stretch of time, on the common clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class RankSpans:
    """One rank's collectives on the common clock, by start, shape (spans,) each; integers, small where they fit.

    Attributes:
        row: in the rank's table.
        start_ns: its arrival.
        need_ns: the last arrival it depended on; its end where that is not known.
        end_ns: its completion; the end of the rank's record where it never completed.
        split: 1 where wait and transfer are known, else 0.
        finished: 1 where its end is known, else 0.
        reach_ns: the latest end so far.
        communicator: place of its communicator in `Joined.matched`, MISSING where it is in none.
        place: its collective's place there.
        unplaced: rows that cannot be drawn, because they have no start, or their end is not known though they ended.
    """

    row: Ints
    start_ns: Ints
    need_ns: Ints
    end_ns: Ints
    split: Ints
    finished: Ints
    reach_ns: Ints
    communicator: Ints
    place: Ints
    unplaced: int

    def between(self, begin_ns: int, end_ns: int) -> Ints:
        """Places of the spans that overlap a stretch of time, ascending."""
        first = int(np.searchsorted(self.reach_ns, begin_ns, side="right"))
        last = int(np.searchsorted(self.start_ns, end_ns, side="left"))
        return first + np.flatnonzero(self.end_ns[first:last] > begin_ns)

    def most_between(self, begin_ns: int, end_ns: int) -> int:
        """At least as many as `between` finds, without looking at each."""
        first = int(np.searchsorted(self.reach_ns, begin_ns, side="right"))
        return max(0, int(np.searchsorted(self.start_ns, end_ns, side="left")) - first)


def rank_spans(ranks: Sequence[RankFacts], joined: Joined, position: int, last_ns: int) -> RankSpans:
    """The spans of one rank.

    Args:
        ranks: stage one.
        joined: stage two.
        position: which of them.
        last_ns: end of its record on the common clock.
    """
    facts, waits = ranks[position], joined.waits[position]
    rows = facts.columns.collectives
    started, ended = rows["started_ns"], rows["completed_ns"]
    pending = (ended == MISSING) & ~facts.columns.over
    drawn = (started != MISSING) & ((ended >= started) | pending)
    row = np.flatnonzero(drawn)
    start = joined.clocks.aligned(position, started[row])
    end = np.where(pending[row], np.maximum(last_ns, start), joined.clocks.aligned(position, ended[row]))
    known = waits.need_ns[row] != MISSING
    need = np.where(known, np.clip(joined.clocks.aligned(position, waits.need_ns[row]), start, end), end)
    order = np.argsort(start, kind="stable")
    of, place = _matched_as(joined, position, started.size)
    end_reach = np.maximum.accumulate(end[order]) if order.size else end
    return RankSpans(
        row=row[order].astype(np.int32),
        start_ns=start[order],
        need_ns=need[order],
        end_ns=end[order],
        split=(known & ~pending[row]).astype(np.int8)[order],
        finished=(~pending[row]).astype(np.int8)[order],
        reach_ns=end_reach,
        communicator=of[row[order]],
        place=place[row[order]],
        unplaced=int((~drawn).sum()),
    )


def _matched_as(joined: Joined, position: int, count: int) -> tuple[Ints, Ints]:
    """Communicator and collective of each of the rank's rows, MISSING where it is in none, shape (rows,) each."""
    of, place = np.full(count, MISSING, np.int32), np.full(count, MISSING, np.int32)
    for number, matched in enumerate(joined.matched):
        if position in matched.communicator.present:
            own = matched.rows[matched.communicator.present.index(position)]
            seen = own != MISSING
            of[own[seen]], place[own[seen]] = number, np.flatnonzero(seen)
    return cast(Ints, of), cast(Ints, place)
