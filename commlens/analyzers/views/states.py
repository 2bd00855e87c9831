"""What each rank did at each moment, on the common clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from commlens.analyzers.across.exposed import standstill
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.budget import phases_of
from commlens.analyzers.intervals import Intervals, Ints, length_within, subtract
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

WAIT, TRANSFER, UNSPLIT, COMPUTE, OTHER = "wait", "transfer", "unsplit", "compute", "other"
STATES: Final = (WAIT, TRANSFER, UNSPLIT, COMPUTE, OTHER)


@dataclass(frozen=True)
class RankStates:
    """One rank's time on the common clock, in disjoint parts.

    Attributes:
        parts: when it waited for late ranks, moved bytes, stood still for either, and computed; each merged, in the
            order of `STATES` without the last. The rest between `begin_ns` and `end_ns` is other.
        begin_ns: of its record.
        end_ns: of its record.
    """

    parts: tuple[Intervals, Intervals, Intervals, Intervals]
    begin_ns: int
    end_ns: int

    def shares(self, edges: Ints) -> np.ndarray:
        """Share of each state in each bin, float32, shape (states, bins); zeros where nothing was recorded.

        Args:
            edges: of the bins, ns, ascending, shape (bins + 1,).
        """
        starts, ends = edges[:-1], edges[1:]
        width = np.maximum(ends - starts, 1)
        whole = Intervals(np.array([self.begin_ns]), np.array([self.end_ns]))
        parts = [length_within(part, starts, ends) for part in self.parts]
        rest = np.maximum(length_within(whole, starts, ends) - sum(parts), 0)
        return np.asarray(np.stack([*parts, rest]) / width, np.float32)


def rank_states(facts: RankFacts, joined: Joined, position: int) -> RankStates:
    """The states of the rank at a position of those joined."""
    waiting, moving, unsplit = standstill(facts, joined.waits[position])
    compute = facts.lanes.compute if facts.lanes is not None else phases_of(facts.columns)
    compute = subtract(compute, facts.blocked.merged)

    def aligned(times: Ints) -> Ints:
        return joined.clocks.aligned(position, times)

    begin, end = aligned(np.array(recorded_between(facts)))
    parts = [Intervals(aligned(each.starts), aligned(each.ends)) for each in (waiting, moving, unsplit, compute)]
    return RankStates((parts[0], parts[1], parts[2], parts[3]), int(begin), int(end))


def recorded_between(facts: RankFacts) -> tuple[int, int]:
    """First and last time in a rank's record, ns of its own clock; (0, 0) where there is none."""
    rows, phases, kernels = facts.columns.collectives, facts.columns.phases, facts.columns.kernels
    starts = [rows["issued_ns"], rows["started_ns"], phases["start_ns"], kernels["start_ns"]]
    ends = [*starts, rows["completed_ns"], phases["end_ns"], kernels["end_ns"]]
    begins = [int(known.min()) for times in starts if (known := times[times != MISSING]).size]
    lasts = [int(known.max()) for times in ends if (known := times[times != MISSING]).size]
    return (min(begins), max(lasts)) if begins else (0, 0)
