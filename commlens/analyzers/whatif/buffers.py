"""When DDP stands still for the buffers that rank 0 sends before each forward: a wait in C++, where no hook sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.intervals import Intervals, Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class BufferWaits:
    """Standstill of one rank for broadcasts of buffers.

    Attributes:
        rows: that such a broadcast is, shape (rows,).
        waited_ns: when the thread came to wait for each, MISSING where it did not, shape (rows,).
        still: the standstill, one piece a forward; not merged.
    """

    rows: NDArray[np.bool_]
    waited_ns: Ints
    still: Intervals


def find_buffer_waits(facts: RankFacts, reduced: NDArray[np.bool_], backward: Intervals, ends_ns: Ints) -> BufferWaits:
    """The broadcasts before each forward in groups in which DDP reduces gradients.

    It issues all (of more than two it waits for the last but one first, which is left out here), and then stands
    still until they have ended. Source: `broadcast_coalesced` in torch/csrc/distributed/c10d/comm.cpp.

    Args:
        facts: of the rank.
        reduced: rows that DDP's reducer waits for, shape (rows,).
        backward: of the rank, merged.
        ends_ns: when each collective ended for all, MISSING where not known, shape (rows,).
    """
    columns = facts.columns
    rows, group = columns.collectives, columns.words["group"].codes
    issued, ends = rows["issued_ns"], np.where(ends_ns == MISSING, rows["completed_ns"], ends_ns)
    chosen = columns.words["op"].equals("broadcast") & np.isin(group, np.unique(group[reduced]))
    chosen &= (rows["waited_ns"] == MISSING) & (ends != MISSING) & (issued != MISSING)
    ahead = np.searchsorted(backward.starts, issued, side="right")  # backwards begun before
    chosen &= (ahead == 0) | (issued >= np.append(backward.ends, 0)[ahead - 1])
    chosen &= ahead < backward.starts.size
    last, done = (np.full(backward.starts.size + 1, MISSING, np.int64) for _ in range(2))
    np.maximum.at(last, ahead[chosen], issued[chosen])
    np.maximum.at(done, ahead[chosen], ends[chosen])
    some = np.flatnonzero(last[:-1] != MISSING)
    until = np.clip(done[some], last[some], backward.starts[some])
    return BufferWaits(chosen, np.where(chosen, last[ahead], MISSING), Intervals(last[some], until))
