"""Exposed communication of one rank, split into waiting for late ranks and moving bytes.

A standstill is charged to what the communicator is doing at that instant: while the collective itself
is queued behind an earlier one of its group, to that one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.communicators import split_by
from commlens.analyzers.across.waits import Waits
from commlens.analyzers.columns import lean
from commlens.analyzers.held import Lengthy
from commlens.analyzers.intervals import Intervals, Ints, intersect, length_within, merge, subtract
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Exposed(Lengthy, long=("row_wait", "row_unsplit", "wait", "transfer", "unsplit")):
    """One rank's standstill in analysed steps, int64 ns.

    wait + transfer + unsplit == exposed, for each row and for each step.

    Attributes:
        row_wait: of each collective row, shape (rows,).
        row_unsplit: of each row whose collective could not be matched across the ranks; what is not waiting
            of one that a rank took part in that was not recorded, shape (rows,).
        wait: of each analysed step, shape (steps,).
        transfer: of each analysed step, shape (steps,).
        unsplit: of each analysed step, shape (steps,).
    """

    row_wait: Ints
    row_unsplit: Ints
    wait: Ints
    transfer: Ints
    unsplit: Ints


def split_exposed(facts: RankFacts, waits: Waits) -> Exposed:
    """Split the standstill of one rank."""
    waiting, pieces = _while_waiting(facts, waits), facts.blocked
    unmatched, doubtful = _unmatched(facts, waits), _doubtful(facts, waits)
    surely, unsplit = _parts(facts, waits, waiting)
    exposed = facts.budget.exposed if facts.budget is not None else np.zeros(facts.steps.index.size, np.int64)
    steps, inside = (facts.steps.start_ns, facts.steps.end_ns), facts.steps.window
    step_wait, step_unsplit = length_within(surely, *steps), length_within(unsplit, *steps)
    waited = np.where(unmatched, 0, length_within(intersect(waiting, inside), pieces.starts, pieces.ends))
    left = np.where(doubtful, length_within(intersect(unsplit, inside), pieces.starts, pieces.ends), 0)
    return Exposed(
        row_wait=pieces.per_row(waited),
        row_unsplit=lean(pieces.per_row(left)),
        wait=step_wait,
        transfer=exposed - step_wait - step_unsplit if facts.budget is not None else exposed,
        unsplit=step_unsplit,
    )


def standstill(facts: RankFacts, waits: Waits) -> tuple[Intervals, Intervals, Intervals]:
    """When a rank waited for late ranks, moved bytes, and stood still without it being known which; each merged."""
    surely, unsplit = _parts(facts, waits, _while_waiting(facts, waits))
    return surely, subtract(subtract(facts.blocked.merged, surely), unsplit), unsplit


def _parts(facts: RankFacts, waits: Waits, waiting: Intervals) -> tuple[Intervals, Intervals]:
    """When it surely waited, and when that cannot be told."""
    pieces, unmatched, doubtful = facts.blocked, _unmatched(facts, waits), _doubtful(facts, waits)
    surely = subtract(waiting, merge(pieces.starts[unmatched], pieces.ends[unmatched]))
    return surely, subtract(merge(pieces.starts[doubtful], pieces.ends[doubtful]), surely)


def _unmatched(facts: RankFacts, waits: Waits) -> NDArray[np.bool_]:
    """Pieces of standstill whose collective has no counterpart, shape (pieces,)."""
    return np.asarray(waits.need_ns[facts.blocked.row] == MISSING)


def _doubtful(facts: RankFacts, waits: Waits) -> NDArray[np.bool_]:
    """As above, or where a member was not recorded: what follows the last known arrival may be waiting for that one."""
    return np.asarray(_unmatched(facts, waits) | (waits.whole[facts.blocked.row] != 1))


def _while_waiting(facts: RankFacts, waits: Waits) -> Intervals:
    """When the rank stood still and its communicator only waited for a late rank, merged."""
    blocked = facts.blocked
    started, need = facts.columns.collectives["started_ns"][blocked.row], waits.need_ns[blocked.row]
    stalled = need != MISSING
    begin, end = np.maximum(blocked.starts, started), np.minimum(blocked.ends, need)
    pieces = [(begin[stalled], end[stalled])]
    queued = np.flatnonzero(stalled & (started > blocked.starts))
    group = facts.columns.words["group"].codes
    for code, which in split_by(group[blocked.row[queued]]):
        pieces.append(_queued_behind(facts, waits, np.flatnonzero(group == code), queued[which]))
    starts, ends = (np.concatenate([piece[side] for piece in pieces]) for side in (0, 1))
    return merge(starts, ends)


def _queued_behind(facts: RankFacts, waits: Waits, group: Ints, queued: Ints) -> Intervals:
    """Standstill (pieces `queued`) for queued collectives while every one under way in their group waited."""
    started, completed = (facts.columns.collectives[name][group] for name in ("started_ns", "completed_ns"))
    need = waits.need_ns[group]
    known: NDArray[np.bool_] = (need != MISSING) & (completed != MISSING)
    waiting = merge(started[known], np.minimum(need, completed)[known])
    moving = merge(np.maximum(need, started)[known], completed[known])
    blocked = facts.blocked
    until = np.minimum(blocked.ends[queued], facts.columns.collectives["started_ns"][blocked.row[queued]])
    return intersect(merge(blocked.starts[queued], until), subtract(waiting, moving))
