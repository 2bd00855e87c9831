"""One line a rank: how often it is last, what it waits, what the others wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import EVERYONE
from commlens.analyzers.across.waits import Timed, Waits
from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class RankLine:
    """A rank beside the others.

    Attributes:
        rank: global rank.
        host: name of its host.
        arrives_last: collectives that need every rank, in which it came last.
        arrives_last_share: the same over those it took part in, 0..1; None where there are none.
        wait_ms_per_step: its exposed waiting, mean over steps; all its waiting where steps' budgets are not known.
        caused_wait_ms_per_step: the others' waiting while it was the last to come, mean over them.
        imbalance_ms_per_step: its own time (compute and other) less the mean of all ranks; None where not known.
    """

    rank: int
    host: str | None
    arrives_last: int | None
    arrives_last_share: float | None
    wait_ms_per_step: float | None
    caused_wait_ms_per_step: float | None
    imbalance_ms_per_step: float | None


def rank_lines(ranks: Sequence[RankFacts], joined: Joined) -> tuple[RankLine, ...]:
    """A line for every rank; per step, or per trace where no rank has steps."""
    count = len(ranks)
    caused, waited = np.zeros(count), np.zeros(count)
    found = each(_waited, range(count), ranks, joined.waits, joined.exposed)
    for position, one in enumerate(found):
        waited[position] = one.ns
        caused[one.last] += one.charged_ns
    steps = [max(facts.steps.index.size, 1) * 1e6 for facts in ranks]
    last, all_of = _last(joined, count)
    extra = _imbalance(ranks)
    known = any(one.timed for one in found) and joined.clocks.refusal is None and count > 1
    return tuple(
        RankLine(
            rank=facts.rank,
            host=facts.who.host,
            arrives_last=int(last[p]) if known else None,
            arrives_last_share=round(float(last[p] / all_of[p]), 4) if known and all_of[p] else None,
            wait_ms_per_step=round(waited[p] / steps[p], 6) if known else None,
            caused_wait_ms_per_step=round(caused[p] / steps[p] / (count - 1), 6) if known else None,
            imbalance_ms_per_step=None if extra is None else round(float(extra[p]), 6),
        )
        for p, facts in enumerate(ranks)
    )


@dataclass(frozen=True)
class _Waited:
    """What one rank waited for.

    Attributes:
        ns: in all.
        last: positions of the ranks that it waited for, distinct.
        charged_ns: how long for each of them.
        timed: whether any wait is known.
    """

    ns: int
    last: Ints
    charged_ns: Floats
    timed: bool


def _waited(position: int, facts: RankFacts, own: Waits, parts: Exposed) -> _Waited:
    waiting = np.maximum(own.wait_ns, 0)
    still = parts.row_wait if facts.budget is not None else np.where(facts.analysed > 0, waiting, 0)
    still = still if facts.steps.index.size else waiting
    charged = (own.last != MISSING) & (own.last != position)
    caused: Floats = np.bincount(own.last[charged], weights=still[charged]).astype(np.float64)
    last = np.flatnonzero(caused)
    return _Waited(int(still.sum()), last, caused[last], bool((own.wait_ns != MISSING).any()))


def _last(joined: Joined, count: int) -> tuple[Floats, Floats]:
    """Collectives that need everyone: in how many each rank was the last, and took part."""
    last, taken = np.zeros(count), np.zeros(count)
    for present, whose, times in each(_lasts, joined.timed):
        last[whose] += times
        taken[list(present)] += times.sum()
    return last, taken


def _lasts(timed: Timed) -> tuple[tuple[int, ...], Ints, Ints]:
    """Positions of the members, of those that were last, and how often they were."""
    own = timed.last[timed.matched.is_op(*EVERYONE) & (timed.last != MISSING)]
    times = np.bincount(own)
    whose = np.flatnonzero(times)
    return timed.matched.communicator.present, whose, times[whose]


def _own_ns(facts: RankFacts) -> float:
    """Median of its own time in a step, NaN where that is not known."""
    return float(np.median(facts.budget.step - facts.budget.exposed)) if facts.budget is not None else np.nan


def _imbalance(ranks: Sequence[RankFacts]) -> Floats | None:
    """Own time of each rank less the mean, ms per step."""
    own = each(_own_ns, ranks)
    return None if np.isnan(own).any() or len(own) < 2 else (np.array(own) - np.mean(own)) / 1e6
