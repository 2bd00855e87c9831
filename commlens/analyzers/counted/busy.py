"""When a host's ranks moved bytes to other hosts, and when they stood still for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.waits import find_places
from commlens.analyzers.held import keep
from commlens.analyzers.intervals import Intervals, Ints, intersect, merge
from commlens.analyzers.ranks import RankFacts
from commlens.trace.calibration import INTER
from commlens.trace.schema import MISSING

Which = NDArray[np.bool_]


@dataclass(frozen=True)
class Busy:
    """Times of one host, merged, on the clock of its sampling rank.

    Attributes:
        transfer: a collective between hosts moved bytes.
        exposed: and a rank of this host stood still.
        flight: one was under way, moving bytes or waiting for a late rank.
    """

    transfer: Intervals
    exposed: Intervals
    flight: Intervals


def between_hosts(ranks: Sequence[RankFacts], joined: Joined) -> Sequence[Which]:
    """Which rows of each rank are of collectives between hosts, shape (rows,) each."""
    communicators = [matched.communicator for matched in joined.matched]
    inter = [
        [(number, line) for number, line in own if communicators[number].scope == INTER]
        for own in find_places(communicators, len(ranks))
    ]
    return keep(partial(_between_hosts, matched=joined.matched), ranks, inter)


def _between_hosts(facts: RankFacts, places: Sequence[tuple[int, int]], matched: Sequence[Matched]) -> Which:
    found = np.zeros(facts.rows, bool)
    for number, line in places:
        rows = matched[number].rows[line]
        found[rows[rows != MISSING]] = True
    return found


def find_busy(
    ranks: Sequence[RankFacts],
    joined: Joined,
    positions: Sequence[int],
    inter: Sequence[Which],
    shift_ns: Ints,
    window: Intervals,
) -> Busy | None:
    """Times of the host with the ranks at `positions` within a window; None where transfers are not known."""
    moving: list[Intervals] = []
    standing: list[Intervals] = []
    flying: list[Intervals] = []
    for position in positions:
        rows, own = ranks[position].columns.collectives, joined.waits[position]
        known = inter[position] & (own.need_ns != MISSING) & (rows["completed_ns"] != MISSING)
        began = np.maximum(own.need_ns, rows["started_ns"])
        transfers = merge(began[known], rows["completed_ns"][known])
        pieces = ranks[position].blocked
        of_them = known[pieces.row]
        still = intersect(transfers, merge(pieces.starts[of_them], pieces.ends[of_them]))
        under_way = merge(rows["started_ns"][known], rows["completed_ns"][known])
        for kept, each in ((moving, transfers), (standing, still), (flying, under_way)):
            kept.append(Intervals(each.starts + shift_ns[position], each.ends + shift_ns[position]))
    times = [_together(each, window) for each in (moving, standing, flying)]
    return Busy(*times) if times[0].starts.size else None


def _together(parts: Sequence[Intervals], window: Intervals) -> Intervals:
    starts, ends = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return intersect(merge(starts, ends), window)
