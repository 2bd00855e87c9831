"""What a rank did with the time in which it did not wait: its own work, by kind, step by step."""

from __future__ import annotations

import numpy as np

from commlens.analyzers.intervals import Intervals, Ints, length_within, merge, shared_within, subtract
from commlens.analyzers.own_work import KERNELS, own_work
from commlens.analyzers.ranks import RankFacts

BEFORE_FORWARD, ELSEWHERE = "before forward", "elsewhere"


def own_time(facts: RankFacts) -> dict[str, Ints]:
    """Time of each analysed step by what the rank did, standstill left out, ns, shape (steps,).

    Keys are the phases, BEFORE_FORWARD (from the step's start to its first forward, where a forward was seen) and
    ELSEWHERE (the rest); where devices were recorded KERNELS and those of `Lanes.parts`. Empty where the rank
    has no time budget.
    """
    if facts.budget is None:
        return {}
    if facts.budget.other_parts is not None:
        return {KERNELS: facts.budget.compute, **facts.budget.other_parts}
    standstill, windows = facts.blocked.merged, (facts.steps.start_ns, facts.steps.end_ns)
    parts: dict[str, Ints] = {}
    taken = merge([], [])

    def add(name: str, times: Intervals) -> Intervals:
        own = subtract(times, taken)
        parts[name] = length_within(own, *windows) - shared_within(own, standstill, *windows)
        return merge(np.concatenate([taken.starts, own.starts]), np.concatenate([taken.ends, own.ends]))

    work = own_work(facts)
    for name, times in work.items():
        taken = add(name, times)
    taken = add(BEFORE_FORWARD, _before_forward(facts, work["forward"]))
    parts[ELSEWHERE] = facts.budget.step - facts.budget.exposed - np.sum(list(parts.values()), axis=0)
    return parts


def _before_forward(facts: RankFacts, forward: Intervals) -> Intervals:
    """From each step's start to the first forward in it."""
    starts, ends = facts.steps.start_ns, facts.steps.end_ns
    if not forward.starts.size:
        return forward
    first = np.searchsorted(forward.starts, starts)
    until = forward.starts[np.minimum(first, forward.starts.size - 1)]
    inside = (first < forward.starts.size) & (until < ends)
    return merge(starts[inside], until[inside])
