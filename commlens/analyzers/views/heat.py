"""Who waits and who is waited for, rank by rank and step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.waits import Waits
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
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


@dataclass(frozen=True)
class _Charged:
    """One rank's waiting in its analysed steps, by who it waited for.

    Attributes:
        waited: ns, shape (steps of the rank,).
        last: position of a rank that it waited for, shape (n,).
        step: in which of its analysed steps, shape (n,).
        ns: how long, shape (n,).
    """

    waited: Ints
    last: Ints
    step: Ints
    ns: Floats


def find_heat(ranks: Sequence[RankFacts], joined: Joined) -> Heat | None:
    """Of all ranks in their order; None where waiting cannot be told."""
    if joined.clocks.refusal or len(ranks) < 2:
        return None
    steps = each(_steps_with_budget, ranks)
    if all(own is None for _, own in steps):
        return None
    numbers = np.unique(np.concatenate([index for index, _ in steps]))
    places = {p: np.searchsorted(numbers, own) for p, (_, own) in enumerate(steps) if own is not None}
    charged = _charges(ranks, joined)
    waited = np.full((len(ranks), numbers.size), np.nan)
    for position, at in places.items():
        waited[position, at] = charged[position].waited / 1e6
    return Heat(numbers, waited, _caused(charged, places, numbers.size))


def _steps_with_budget(facts: RankFacts) -> tuple[Ints, Ints | None]:
    """A rank's analysed steps, and once more where it has a budget."""
    return facts.steps.index, facts.steps.index if facts.budget is not None else None


def caused_by_step(ranks: Sequence[RankFacts], joined: Joined, places: Mapping[int, Ints], count: int) -> Floats:
    """The others' exposed waiting while each rank was the last to come, mean over them, ms, shape (ranks, steps).

    Args:
        ranks: stage one.
        joined: stage two.
        places: of the ranks that have a budget, by position: where in the result each of their analysed steps stands.
        count: steps of the result.
    """
    return _caused(_charges(ranks, joined), places, count)


def _caused(charged: Sequence[_Charged], places: Mapping[int, Ints], count: int) -> Floats:
    caused = np.zeros(len(charged) * count)
    for position, steps in places.items():
        own = charged[position]
        np.add.at(caused, own.last * count + steps[own.step], own.ns / 1e6)
    return caused.reshape(len(charged), count) / max(len(charged) - 1, 1)


def _charges(ranks: Sequence[RankFacts], joined: Joined) -> list[_Charged]:
    """Of each rank: small, wherever its rows lie."""
    return each(_charge, ranks, joined.waits, joined.exposed, range(len(ranks)))


def _charge(facts: RankFacts, waits: Waits, exposed: Exposed, position: int) -> _Charged:
    nothing = np.zeros(0, np.int64)
    if facts.budget is None:
        return _Charged(nothing, nothing, nothing, np.zeros(0))
    last, wait, count = waits.last, exposed.row_wait, facts.steps.index.size
    rows = np.flatnonzero((wait > 0) & (last != MISSING) & (last != position))
    keys, at = np.unique(last[rows].astype(np.int64) * count + step_of(facts, rows), return_inverse=True)
    own, step = np.divmod(keys, max(count, 1))
    return _Charged(exposed.wait, own, step, np.bincount(at, weights=wait[rows]).astype(np.float64))
