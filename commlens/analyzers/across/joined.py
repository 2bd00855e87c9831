"""Stage two in one piece: the ranks joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from commlens.analyzers.across.clocks import Clocks, find_clocks
from commlens.analyzers.across.communicators import find_communicators
from commlens.analyzers.across.device_clocks import with_device_clocks
from commlens.analyzers.across.exposed import Exposed, split_exposed
from commlens.analyzers.across.lateness import Lateness, find_lateness
from commlens.analyzers.across.matching import BY_ORDER, Matched, match
from commlens.analyzers.across.waits import Shares, Timed, Waits, find_places, gather_waits, split
from commlens.analyzers.held import each, engine_of
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_LEAST_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Joined:
    """What all ranks together tell; per rank in the order of the ranks given.

    Attributes:
        matched: the collectives of each communicator.
        clocks: how times of different ranks compare.
        waits: of each rank.
        timed: of each communicator.
        exposed: of each rank.
        lateness: who is waited for; None where it cannot be told.
        unmatched: collectives (of one rank each) without a counterpart on every recorded member.
    """

    matched: Sequence[Matched]
    clocks: Clocks
    waits: Sequence[Waits]
    timed: Sequence[Timed]
    exposed: Sequence[Exposed]
    lateness: Lateness | None
    unmatched: int


def join(ranks: Sequence[RankFacts]) -> Joined:
    """Join the ranks of a run.

    Args:
        ranks: stage one of each rank, ascending.
    """
    engine = engine_of(ranks)
    communicators = find_communicators(ranks)
    matched = engine.keep(partial(match, ranks=ranks), communicators)
    clocks = with_device_clocks(_believed(find_clocks(ranks, matched), matched), ranks)
    timed, shares = engine.keep_parts(2, partial(split, ranks=ranks, clocks=clocks), matched)
    places = find_places(communicators, len(ranks))
    waits, exposed = engine.keep_parts(2, partial(_of_rank, shares=shares), ranks, places)
    lateness = None if clocks.contradiction else find_lateness(ranks, waits, exposed, matched, clocks)
    total = sum(facts.rows for facts in ranks)
    return Joined(matched, clocks, waits, timed, exposed, lateness, total - sum(each(_paired, matched)))


def _of_rank(facts: RankFacts, places: Sequence[tuple[int, int]], shares: Sequence[Shares]) -> tuple[Waits, Exposed]:
    waits = gather_waits(facts, places, shares)
    return waits, split_exposed(facts, waits)


def _believed(clocks: Clocks, matched: Sequence[Matched]) -> Clocks:
    """Clocks, refused where matches were guessed from the order and do not agree with one another."""
    guessed = [m for m in matched if m.how == BY_ORDER and len(m.communicator.present) > 1]
    doubtful = min((m.confidence for m in guessed), default=1.0)
    if clocks.refusal or doubtful >= _LEAST_CONFIDENCE:
        return clocks
    reason = (
        f"the trace has no sequence numbers, and matched by order only {100 * doubtful:.0f} % of the collectives"
        " of different ranks were under way at the same time"
    )
    return Clocks(clocks.method, clocks.uncertainty_ns, clocks.shift_ns, clocks.offsets, reason, contradiction=True)


def _paired(matched: Matched) -> int:
    """Rows that have a counterpart on every recorded member, of which there are at least two (or all of one)."""
    whole = (matched.rows != MISSING).all(axis=0)
    alone = matched.rows.shape[0] < min(2, matched.communicator.size)
    return 0 if alone else int(np.count_nonzero(whole)) * matched.rows.shape[0]
