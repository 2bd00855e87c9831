"""Who waits and who is waited for, rank by rank and step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Heat:
    """Exposed waiting in each analysed step, ms.

    Attributes:
        steps: their numbers, ascending, shape (steps,).
        waited: of each rank, NaN where it has no such step, shape (ranks, steps).
        caused: the others' waiting while it was the last to come, mean over them, shape (ranks, steps).
    """

    steps: Ints
    waited: Floats
    caused: Floats


def find_heat(ranks: Sequence[RankFacts], joined: Joined) -> Heat | None:
    """Of all ranks in their order; None where waiting cannot be told."""
    if joined.clocks.refusal or len(ranks) < 2 or not any(facts.budget is not None for facts in ranks):
        return None
    numbers = np.unique(np.concatenate([facts.steps.index for facts in ranks]))
    waited = np.full((len(ranks), numbers.size), np.nan)
    caused = np.zeros_like(waited)
    for position, (facts, own) in enumerate(zip(ranks, joined.exposed, strict=True)):
        if facts.budget is not None:
            waited[position, np.searchsorted(numbers, facts.steps.index)] = own.wait / 1e6
            _charge(caused, numbers, facts, own.row_wait, joined.waits[position].last, position)
    return Heat(numbers, waited, caused / (len(ranks) - 1) / 1e6)


def _charge(caused: Floats, numbers: Ints, facts: RankFacts, wait_ns: Ints, last: Ints, position: int) -> None:
    """Add what a rank waited in each step to those that it waited for."""
    rows = np.flatnonzero((wait_ns > 0) & (last != MISSING) & (last != position))
    slot = np.searchsorted(facts.steps.start_ns, facts.columns.collectives["issued_ns"][rows], side="right") - 1
    rows, slot = rows[slot >= 0], slot[slot >= 0]
    np.add.at(caused, (last[rows], np.searchsorted(numbers, facts.steps.index[slot])), wait_ns[rows])
