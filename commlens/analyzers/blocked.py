"""When the training thread stood still for a collective."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import Columns
from commlens.analyzers.intervals import Intervals, Ints, merge
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Blocked:
    """Standstill of one rank's training thread.

    Attributes:
        starts: of each collective row, ns, shape (rows,).
        ends: of each collective row, ns, shape (rows,); equal to the start where it did not block.
        known: rows whose standstill is known, shape (rows,).
    """

    starts: Ints
    ends: Ints
    known: NDArray[np.bool_]

    @property
    def merged(self) -> Intervals:
        """All standstill, each instant once."""
        return merge(self.starts, self.ends)


def find_blocked(columns: Columns, ddp_groups: Collection[str]) -> Blocked:
    """Standstill of the training thread, charged to collectives.

    Args:
        columns: of one rank.
        ddp_groups: names of the groups that a DDP model reduces its gradients in. DDP's reducer
            waits in C++, where no hook sees it; `_reducer_waits` derives those waits.
    """
    rows = columns.collectives
    seen = (rows["waited_ns"] != MISSING) & (rows["blocked_ns"] != MISSING)
    own = seen & (rows["thread"] == columns.training_thread)
    starts = np.where(own, rows["waited_ns"], 0)
    ends = np.where(own, rows["waited_ns"] + rows["blocked_ns"], 0)
    reduced = _in_backward(columns, ddp_groups)
    starts[reduced.rows], ends[reduced.rows] = _reducer_waits(columns, reduced)
    derived = np.zeros(seen.shape, bool)
    derived[reduced.rows] = True
    return Blocked(starts, ends, seen | derived)


@dataclass(frozen=True)
class _Reduced:
    """Rows a DDP reducer waits for, by issue, and the end of the backward each lies in, ns."""

    rows: NDArray[np.intp]
    backward: NDArray[np.intp]
    backward_end: Ints


def _in_backward(columns: Columns, ddp_groups: Collection[str]) -> _Reduced:
    rows, group = columns.collectives, columns.words["group"]
    inside = columns.during("backward")
    backward = merge(columns.phases["start_ns"][inside], columns.phases["end_ns"][inside])
    reducer = np.isin(group.codes, [code for code, name in enumerate(group.words) if name in ddp_groups])
    open_ended = reducer & (rows["waited_ns"] == MISSING) & (rows["completed_ns"] != MISSING)
    which = np.searchsorted(backward.starts, rows["issued_ns"], side="right") - 1
    if backward.ends.size:
        open_ended &= (which >= 0) & (rows["issued_ns"] < backward.ends[which])
    else:
        open_ended[:] = False
    chosen = np.flatnonzero(open_ended)
    return _Reduced(chosen, which[chosen], backward.ends[which[chosen]])


def _reducer_waits(columns: Columns, reduced: _Reduced) -> tuple[Ints, Ints]:
    """Waits of DDP's reducer: after the backward's last collective, for each one in order.

    Wait k starts where wait k-1 ended, lasts until collective k is complete, and never passes the
    backward's end (the reducer's waits are its last act). Source: torch's `Reducer::finalize_backward`.
    """
    if not reduced.rows.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    issued = columns.collectives["issued_ns"][reduced.rows]
    completed = columns.collectives["completed_ns"][reduced.rows]
    first = np.ones(issued.size, bool)
    first[1:] = reduced.backward[1:] != reduced.backward[:-1]
    last = np.append(np.flatnonzero(first)[1:], issued.size) - 1
    begin = issued[last][np.cumsum(first) - 1]
    # Backwards are disjoint, so a running maximum of clipped ends never leaks into the next one.
    ends = np.maximum.accumulate(np.clip(completed, begin, np.maximum(begin, reduced.backward_end)))
    starts = np.where(first, begin, np.concatenate([begin[:1], ends[:-1]]))
    return starts, ends
