"""What became of a rank that others wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from commlens.analyzers.across.issued import issued_at_least, lines
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.across.signs import alive_ns, last_sign_ns, longest_pause_ns
from commlens.analyzers.across.stands import Stand
from commlens.analyzers.endings import find_raised, gave_up
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import ALIVE_EVERY_S, MISSING

# LEFT: its process ended by itself, so its recording is whole. GONE: its recording stops while the others' goes on.
# QUIET: so does it, but its recorder leaves no sign of life while the rank issues nothing. ALIVE: its recorder went on.
LEFT, GONE, QUIET, ALIVE, UNKNOWN = "left", "gone", "quiet", "alive", "unknown"
_GONE_S = 3.0  # a sign of life of a living recorder is never so much too late
_PAUSES = 2.0  # of the longest between two signs


@dataclass(frozen=True)
class Fate:
    """What became of a rank.

    Attributes:
        rank: global rank.
        kind: LEFT, GONE, QUIET, ALIVE or UNKNOWN.
        earlier_s: how much earlier its recording stops than that of who waits longest, None where clocks do not tell.
        error: the exception that ended its process, None where none did or the recording does not tell.
    """

    rank: int
    kind: str
    earlier_s: float | None
    error: str | None = None


def find_fate(ranks: Sequence[RankFacts], rank: int, stand: Stand, infos: Mapping[int, Mapping[str, Any]]) -> Fate:
    """What became of `rank`, which never came to `stand`."""
    by_number = {facts.rank: facts for facts in ranks}
    own, longest = by_number[rank], stand.waits[0]
    if own.who.dumped:
        return Fate(rank, ALIVE, None)
    waiting = by_number[longest.rank]
    earlier_ns = _earlier_ns(own, waiting, stand.matched, ranks, infos)
    earlier_s = None if earlier_ns is None else earlier_ns / 1e9
    if own.who.ended is not None:
        return Fate(
            rank, LEFT, earlier_s, next((each.error for each in find_raised({rank: infos.get(rank, {})})), None)
        )
    if gave_up(infos.get(rank, {})) is not None:
        return Fate(rank, UNKNOWN, None)  # its recording stops, which says nothing of the rank
    if _lost_its_last_second(ranks, rank, stand.matched):
        return Fate(rank, GONE, earlier_s)
    pause = longest_pause_ns(waiting, int(waiting.columns.collectives["issued_ns"][longest.row]))
    if pause is None or earlier_s is None:
        return Fate(rank, UNKNOWN, earlier_s)
    signs = alive_ns(infos.get(rank, {})) is not None
    if earlier_s > max(_GONE_S + (ALIVE_EVERY_S if signs else 0.0), _PAUSES * pause / 1e9):
        return Fate(rank, GONE if signs else QUIET, earlier_s)
    return Fate(rank, ALIVE if earlier_s < longest.stood_s - _GONE_S else UNKNOWN, earlier_s)


def _lost_its_last_second(ranks: Sequence[RankFacts], rank: int, matched: Matched) -> bool:
    """Others saw collectives end that need this rank and are not in its recording, which a living one had written."""
    present = [ranks[position].rank for position in matched.communicator.present]
    written = matched.rows[present.index(rank)] != MISSING if rank in present else np.zeros(matched.seq.size, bool)
    return issued_at_least(ranks, matched)[rank] > int(matched.seq[written].max(initial=MISSING))


def _earlier_ns(
    own: RankFacts,
    other: RankFacts,
    matched: Matched,
    ranks: Sequence[RankFacts],
    infos: Mapping[int, Mapping[str, Any]],
) -> int | None:
    """How much earlier the recording of `own` stops than that of `other`.

    Clocks of two hosts may be far apart. The last collective that both saw end is a moment that they share.
    """
    shared = _shared_moment(own, other, matched, ranks)
    if shared is None and (not own.who.machine or own.who.machine != other.who.machine):
        return None
    own_mark, other_mark = shared or (0, 0)
    own_after = last_sign_ns(own, infos.get(own.rank, {})) - own_mark
    return last_sign_ns(other, infos.get(other.rank, {})) - other_mark - own_after


def _shared_moment(
    own: RankFacts, other: RankFacts, matched: Matched, ranks: Sequence[RankFacts]
) -> tuple[int, int] | None:
    """When the last collective that both saw end did so, by the clock of each."""
    rows = {ranks[position].rank: line for position, line in lines(matched)}
    if own.rank not in rows or other.rank not in rows:
        return None
    ends = [
        np.where(line == MISSING, MISSING, facts.columns.collectives["completed_ns"][line])
        for facts, line in ((own, rows[own.rank]), (other, rows[other.rank]))
    ]
    both = np.flatnonzero((ends[0] != MISSING) & (ends[1] != MISSING))
    return (int(ends[0][both[-1]]), int(ends[1][both[-1]])) if both.size else None
