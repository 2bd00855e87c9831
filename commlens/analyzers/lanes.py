"""What a rank's devices did at each moment: its lanes, all streams and devices together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from commlens.analyzers.columns import Columns
from commlens.analyzers.intervals import Intervals, Ints, length_within, merge, subtract
from commlens.analyzers.windows import Window
from commlens.trace.schema import COMMUNICATION, COMPUTE, COPY, MISSING, UNCLASSIFIED


@dataclass(frozen=True)
class Lanes:
    """When kernels of each kind ran on a rank's devices, merged over their streams.

    At every moment one of these is true: compute runs; communication runs without compute (exposed); copies
    run without either; something unclassified does; nothing runs though something was launched (`gaps`:
    it waits for another stream, or for its launch to reach the device); nothing was launched (`host_bound`).

    Attributes:
        compute, communication, copies, unclassified: merged intervals.
        pending: when at least one kernel was launched and had not begun, merged.
        unclassified_count: kernels with a name like communication's that no table knows.
        span: from the first kernel's start to the last one's end, of each deep window where there are any, merged.
    """

    compute: Intervals
    communication: Intervals
    copies: Intervals
    unclassified: Intervals
    pending: Intervals
    unclassified_count: int
    span: Intervals

    @cached_property
    def exposed(self) -> Intervals:
        """Communication without compute."""
        return subtract(self.communication, self.compute)

    @cached_property
    def alone(self) -> dict[str, Intervals]:
        """Device time that is neither compute nor communication, by kind, disjoint."""
        taken = _union(self.compute, self.communication)
        copies = subtract(self.copies, taken)
        return {"copies": copies, UNCLASSIFIED: subtract(self.unclassified, _union(taken, copies))}

    @cached_property
    def busy(self) -> Intervals:
        """When anything ran."""
        return _union(_union(self.compute, self.communication), _union(self.copies, self.unclassified))

    @cached_property
    def gaps(self) -> Intervals:
        """When nothing ran though something was launched."""
        return subtract(self.pending, self.busy)

    def host_bound(self, window: Intervals) -> Intervals:
        """When nothing ran and nothing was launched, within merged windows."""
        return subtract(window, _union(self.busy, self.pending))

    def parts(self, starts: Ints, ends: Ints) -> dict[str, Ints]:
        """Time of each window in which there was neither compute nor communication, by what there was, ns.

        Keys: copies, unclassified, gaps, host-bound. With compute and exposed communication they make up the
        window, to the nanosecond.
        """
        own = {name: length_within(times, starts, ends) for name, times in self.alone.items()}
        own["gaps"] = length_within(self.gaps, starts, ends)
        taken = length_within(self.compute, starts, ends) + length_within(self.exposed, starts, ends)
        own["host-bound"] = ends - starts - taken - np.sum(list(own.values()), axis=0)
        return own


def find_lanes(columns: Columns, windows: Sequence[Window] = ()) -> Lanes | None:
    """The lanes of a rank, None where nothing that ran on a device was recorded.

    Args:
        columns: of one rank.
        windows: deep windows that it recorded; between them nothing is known of its devices.
    """
    rows, kind = columns.kernels, columns.kernel_words["kind"]
    if not rows["start_ns"].size:
        return None

    def of(word: str) -> Intervals:
        chosen = kind.equals(word)
        return merge(rows["start_ns"][chosen], rows["end_ns"][chosen])

    launched = rows["launched_ns"] != MISSING
    return Lanes(
        compute=of(COMPUTE),
        communication=of(COMMUNICATION),
        copies=of(COPY),
        unclassified=of(UNCLASSIFIED),
        pending=merge(rows["launched_ns"][launched], rows["start_ns"][launched]),
        unclassified_count=int(np.count_nonzero(kind.equals(UNCLASSIFIED))),
        span=_span(rows["start_ns"], rows["end_ns"], windows),
    )


def _span(starts: Ints, ends: Ints, windows: Sequence[Window]) -> Intervals:
    begins = np.array(sorted(each.start_ns for each in windows if each.start_ns is not None)[1:], np.int64)
    which = np.searchsorted(begins, starts, side="right")
    seen = np.unique(which)
    return merge(
        np.array([starts[which == each].min() for each in seen]), np.array([ends[which == each].max() for each in seen])
    )


def _union(a: Intervals, b: Intervals) -> Intervals:
    return merge(np.concatenate([a.starts, b.starts]), np.concatenate([a.ends, b.ends]))
