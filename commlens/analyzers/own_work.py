"""What a rank did by itself, by kind: phases of its training thread, or lanes of its devices."""

from __future__ import annotations

from commlens.analyzers.intervals import Intervals, merge
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import PHASES

KERNELS, COPIES, HOST_BOUND, GAPS = "kernels", "copies", "host-bound", "gaps"
# A device did not compute: it copied, its host was late to launch, or a launched kernel could not begin.
IDLE = (COPIES, HOST_BOUND, GAPS)


def own_work(facts: RankFacts) -> dict[str, Intervals]:
    """When a rank did what, each merged, without communication; kinds may overlap each other.

    Keys are the phases of the training thread; where devices were recorded KERNELS and those of IDLE.
    """
    if facts.lanes is None:
        return {phase: _phase(facts, phase) for phase in PHASES}
    lanes = facts.lanes
    return {
        KERNELS: lanes.compute,
        COPIES: lanes.alone["copies"],
        HOST_BOUND: lanes.host_bound(facts.steps.window),
        GAPS: lanes.gaps,
    }


def _phase(facts: RankFacts, phase: str) -> Intervals:
    columns = facts.columns
    rows = columns.during(phase) & (columns.phases["thread"] == columns.training_thread)
    return merge(columns.phases["start_ns"][rows], columns.phases["end_ns"][rows])
