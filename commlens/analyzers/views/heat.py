"""Who waits and who is waited for, rank by rank and step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.pooled import step_of
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
    known = [position for position, facts in enumerate(ranks) if facts.budget is not None]
    places = {position: np.searchsorted(numbers, ranks[position].steps.index) for position in known}
    waited = np.full((len(ranks), numbers.size), np.nan)
    for position, steps in places.items():
        waited[position, steps] = joined.exposed[position].wait / 1e6
    return Heat(numbers, waited, caused_by_step(ranks, joined, places, numbers.size))


def caused_by_step(ranks: Sequence[RankFacts], joined: Joined, places: Mapping[int, Ints], count: int) -> Floats:
    """The others' exposed waiting while each rank was the last to come, mean over them, ms, shape (ranks, steps).

    Args:
        ranks: stage one.
        joined: stage two.
        places: of the ranks that have a budget, by position: where in the result each of their analysed steps stands.
        count: steps of the result.
    """
    caused = np.zeros(len(ranks) * count)
    for position, steps in places.items():
        last, wait = joined.waits[position].last, joined.exposed[position].row_wait
        rows = np.flatnonzero((wait > 0) & (last != MISSING) & (last != position))
        keys = last[rows].astype(np.int64) * count + steps[step_of(ranks[position], rows)]
        caused += np.bincount(keys, weights=wait[rows] / 1e6, minlength=caused.size)
    return caused.reshape(len(ranks), count) / max(len(ranks) - 1, 1)
