"""What a step is, for one rank: from one end of the primary optimizer's step to the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from commlens.analyzers.columns import Columns
from commlens.analyzers.grouped import group_keys
from commlens.analyzers.intervals import Intervals, Ints, merge
from commlens.analyzers.signature import repetition_starts
from commlens.trace.schema import MISSING

WARM_UP = 2  # a job's first steps allocate, compile and open connections: never analysed

FROM_OPTIMIZER = "from one end of the optimizer's step to the next"
INFERRED = "inferred from the repeating signature"
NONE = "none"


@dataclass(frozen=True)
class Steps:
    """The analysed steps of one rank.

    Attributes:
        how: how steps were told apart.
        count: whole steps seen, the warm-up among them.
        index: number of each analysed step in the job, shape (steps,); 0 is the job's first.
        start_ns: shape (steps,).
        end_ns: shape (steps,); the next step starts there.
    """

    how: str
    count: int
    index: Ints
    start_ns: Ints
    end_ns: Ints

    @property
    def window(self) -> Intervals:
        """The analysed time, merged."""
        return merge(self.start_ns, self.end_ns)


def find_steps(columns: Columns) -> Steps:
    """Steps of a rank: from its optimizer, else from the repeating signature, else none.

    The unfinished step at the end of the trace is dropped.
    """
    ends = _optimizer_ends(columns)
    if ends.size:
        return _between(ends, FROM_OPTIMIZER, before=1)
    if 2 * np.count_nonzero(columns.collectives["bytes"] == MISSING) > columns.collectives["bytes"].size:
        # Rows without a size look more alike than they are.
        return _between(ends, NONE, before=0)
    tokens = signature_tokens(columns)
    starts = columns.collectives["issued_ns"][repetition_starts(tokens)]
    return _between(starts, INFERRED if starts.size else NONE, before=0)


def signature_tokens(columns: Columns) -> Ints:
    """One small integer per collective: rows with equal (group, op, message bytes) share it."""
    words = columns.words
    return group_keys([words["group"].codes, words["op"].codes, columns.collectives["bytes"]])[0]


def _optimizer_ends(columns: Columns) -> Ints:
    """Ends of the optimizer that stepped first, ns, ascending."""
    rows = np.flatnonzero(columns.during("optimizer"))
    ends, names = columns.phases["end_ns"][rows], columns.phase_words["name"].codes[rows]
    if not rows.size:
        return ends
    return np.unique(ends[names == names[np.argmin(ends)]])


def _between(bounds: Ints, how: str, before: int) -> Steps:
    """Steps between consecutive bounds; `before` whole steps ended at the first bound."""
    index = np.arange(bounds.size - 1, dtype=np.int64) + before
    keep = index >= WARM_UP
    count = int(bounds.size - 1 + before) if bounds.size else 0
    return Steps(how, count, index[keep], bounds[:-1][keep], bounds[1:][keep])
