"""What a rank did with the time in which it did not wait: its own work, by kind, step by step."""

from __future__ import annotations

import numpy as np

from commlens.analyzers.intervals import Intervals, Ints, length_within, merge, shared_within, subtract
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import PHASES

INPUT, ELSEWHERE = "input", "elsewhere"


def own_time(facts: RankFacts) -> dict[str, Ints]:
    """Time of each analysed step by what the training thread did, standstill left out, ns, shape (steps,).

    Keys are the phases, INPUT (from the step's start to its first forward, where a forward was seen)
    and ELSEWHERE (the rest). Empty where the rank has no time budget.
    """
    if facts.budget is None:
        return {}
    standstill, windows = facts.blocked.merged, (facts.steps.start_ns, facts.steps.end_ns)
    parts: dict[str, Ints] = {}
    taken = merge([], [])

    def add(name: str, times: Intervals) -> Intervals:
        own = subtract(times, taken)
        parts[name] = length_within(own, *windows) - shared_within(own, standstill, *windows)
        return merge(np.concatenate([taken.starts, own.starts]), np.concatenate([taken.ends, own.ends]))

    for phase in PHASES:
        taken = add(phase, _phase(facts, phase))
    taken = add(INPUT, _before_forward(facts))
    parts[ELSEWHERE] = facts.budget.step - facts.budget.exposed - np.sum(list(parts.values()), axis=0)
    return parts


def _phase(facts: RankFacts, phase: str) -> Intervals:
    columns = facts.columns
    rows = columns.during(phase) & (columns.phases["thread"] == columns.training_thread)
    return merge(columns.phases["start_ns"][rows], columns.phases["end_ns"][rows])


def _before_forward(facts: RankFacts) -> Intervals:
    """From each step's start to the first forward in it."""
    forward, starts, ends = _phase(facts, "forward"), facts.steps.start_ns, facts.steps.end_ns
    if not forward.starts.size:
        return forward
    first = np.searchsorted(forward.starts, starts)
    until = forward.starts[np.minimum(first, forward.starts.size - 1)]
    inside = (first < forward.starts.size) & (until < ends)
    return merge(starts[inside], until[inside])
