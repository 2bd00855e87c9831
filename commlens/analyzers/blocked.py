"""When a rank stood still for a collective: its training thread, or its device's compute where that was recorded."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns, small
from commlens.analyzers.intervals import Intervals, Ints, cut, merge, subtract
from commlens.analyzers.lanes import Lanes
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Blocked:
    """Standstill of one rank, in pieces none of which is empty.

    Attributes:
        row: the collective row that each piece is charged to, shape (pieces,).
        starts: of each piece, ns, shape (pieces,).
        ends: of each piece, ns, shape (pieces,).
        known: rows whose standstill is known, shape (rows,).
    """

    row: Ints
    starts: Ints
    ends: Ints
    known: NDArray[np.bool_]

    def per_row(self, values: Ints) -> Ints:
        """Sums of a value of each piece, by row, ns, shape (rows,)."""
        total = np.bincount(self.row, weights=values, minlength=self.known.size)
        return np.asarray(total.astype(np.int64))

    @property
    def merged(self) -> Intervals:
        """All standstill, each instant once."""
        return merge(self.starts, self.ends)


def find_blocked(columns: Columns, lanes: Lanes | None, ddp_groups: Collection[str]) -> Blocked:
    """Standstill of a rank, charged to collectives.

    Args:
        columns: of one rank.
        lanes: what its devices did; None where that was not recorded, then its training thread counts.
        ddp_groups: names of the groups that a DDP model reduces its gradients and sends its buffers in. It waits
            for them in C++, where no hook sees it; `_unseen_waits` derives those waits.
    """
    return _on_host(columns, ddp_groups) if lanes is None else _on_device(columns, lanes)


def _on_device(columns: Columns, lanes: Lanes) -> Blocked:
    """When a collective's kernel ran and no compute did; where several ran, charged to the one that began first."""
    rows = columns.collectives
    known = (rows["started_ns"] != MISSING) & (rows["completed_ns"] > rows["started_ns"])
    chosen = np.flatnonzero(known & columns.words["timing"].equals("device"))
    chosen = chosen[np.argsort(rows["started_ns"][chosen], kind="stable")]
    starts, ends = rows["started_ns"][chosen], rows["completed_ns"][chosen]
    reach = np.maximum.accumulate(ends)
    longer = np.ones(chosen.size, bool)
    longer[1:] = reach[1:] > reach[:-1]
    chosen, begins = chosen[longer], np.maximum(starts, np.append(starts[:1], reach[:-1]))[longer]
    pieces = cut(subtract(merge(starts, ends), lanes.compute), begins)
    which = np.searchsorted(begins, pieces.starts, side="right") - 1
    return Blocked(small(chosen[which]), pieces.starts, pieces.ends, known)


def _on_host(columns: Columns, ddp_groups: Collection[str]) -> Blocked:
    rows = columns.collectives
    seen = (rows["waited_ns"] != MISSING) & (rows["blocked_ns"] != MISSING)
    own = seen & (rows["thread"] == columns.training_thread)
    starts = np.where(own, rows["waited_ns"], 0)
    ends = np.where(own, rows["waited_ns"] + rows["blocked_ns"], 0)
    derived = np.zeros(seen.shape, bool)
    for unseen in (_unseen(columns, ddp_groups, "backward"), _unseen(columns, ddp_groups, "forward", "broadcast")):
        starts[unseen.rows], ends[unseen.rows] = _unseen_waits(columns, unseen)
        derived[unseen.rows] = True
    still = np.flatnonzero(ends > starts)
    return Blocked(small(still), starts[still], ends[still], seen | derived)


@dataclass(frozen=True)
class _Unseen:
    """Rows that DDP waits for, by issue, with the backward or forward that each lies in and its end, ns."""

    rows: NDArray[np.intp]
    phase: NDArray[np.intp]
    phase_end: Ints


def _unseen(columns: Columns, ddp_groups: Collection[str], phase: str, op: str | None = None) -> _Unseen:
    """Rows of DDP's groups that were issued in a phase and that nobody was seen to wait for; of one operation."""
    rows, group = columns.collectives, columns.words["group"]
    inside = columns.during(phase)
    phases = merge(columns.phases["start_ns"][inside], columns.phases["end_ns"][inside])
    own = np.isin(group.codes, [code for code, name in enumerate(group.words) if name in ddp_groups])
    open_ended = own & (rows["waited_ns"] == MISSING) & (rows["completed_ns"] != MISSING)
    if op is not None:
        open_ended &= columns.words["op"].equals(op)
    which = np.searchsorted(phases.starts, rows["issued_ns"], side="right") - 1
    if phases.ends.size:
        open_ended &= (which >= 0) & (rows["issued_ns"] < phases.ends[which])
    else:
        open_ended[:] = False
    chosen = np.flatnonzero(open_ended)
    return _Unseen(chosen, which[chosen], phases.ends[which[chosen]])


def _unseen_waits(columns: Columns, unseen: _Unseen) -> tuple[Ints, Ints]:
    """Waits of DDP: after the phase's last such collective, for each one in order.

    Wait k starts where wait k-1 ended, lasts until collective k is complete, and never passes the
    phase's end. Sources: torch's `Reducer::finalize_backward`, whose last act they are, and
    `broadcast_coalesced` (which of more than two broadcasts waits for some earlier: that is missed).
    """
    if not unseen.rows.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    issued = columns.collectives["issued_ns"][unseen.rows]
    completed = columns.collectives["completed_ns"][unseen.rows]
    first = np.ones(issued.size, bool)
    first[1:] = unseen.phase[1:] != unseen.phase[:-1]
    last = np.append(np.flatnonzero(first)[1:], issued.size) - 1
    begin = issued[last][np.cumsum(first) - 1]
    # Phases are disjoint, so a running maximum of clipped ends never leaks into the next one.
    ends = np.maximum.accumulate(np.clip(completed, begin, np.maximum(begin, unseen.phase_end)))
    starts = np.where(first, begin, np.concatenate([begin[:1], ends[:-1]]))
    return starts, ends
