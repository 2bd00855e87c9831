"""What each member of a communicator is known to have issued."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.matching import EVERYONE, Matched
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


def issued_at_least(ranks: Sequence[RankFacts], matched: Matched) -> dict[int, int]:
    """Last sequence number that each recorded member is known to have issued, MISSING where none.

    More than its own rows say where its last second was lost: a collective that needs everyone has ended elsewhere.
    """
    known = dict.fromkeys(recorded_members(ranks, matched), MISSING)
    for position, line in lines(matched):
        known[ranks[position].rank] = int(matched.seq[line != MISSING].max(initial=MISSING))
    ended = max((_ended_for_all(ranks[p], line, matched.seq) for p, line in lines(matched)), default=MISSING)
    return {rank: max(own, ended) for rank, own in known.items()}


def recorded_members(ranks: Sequence[RankFacts], matched: Matched) -> list[int]:
    """The members of a communicator that were recorded, also those without a row in it."""
    present = {ranks[position].rank for position in matched.communicator.present}
    return [rank for rank in matched.communicator.members if rank in present or _is_there(ranks, rank)]


def _is_there(ranks: Sequence[RankFacts], rank: int) -> bool:
    place = bisect_left(ranks, rank, key=lambda facts: facts.rank)
    return place < len(ranks) and ranks[place].rank == rank


def lines(matched: Matched) -> list[tuple[int, Ints]]:
    """Each recorded member's position among the ranks, and its row of each collective."""
    return list(zip(matched.communicator.present, matched.rows, strict=True))


def is_word(facts: RankFacts, column: str, words: Sequence[str], rows: Ints) -> NDArray[np.bool_]:
    """Where a string column of these rows is one of some words, shape of `rows`."""
    own = facts.columns.words[column]
    return np.asarray(np.isin(own.codes[rows], [code for code, word in enumerate(own.words) if word in words]))


def _ended_for_all(facts: RankFacts, line: Ints, seq: Ints) -> int:
    """Last collective that this rank saw end and that could not without everyone."""
    everyone = is_word(facts, "op", (*EVERYONE, "recv"), line)
    over = (line != MISSING) & everyone & facts.columns.over[line]
    return int(seq[over].max(initial=MISSING))
