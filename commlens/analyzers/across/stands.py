"""Collectives that were under way when the recording of their members ended, and for how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.issued import is_word, issued_at_least, lines
from commlens.analyzers.across.matching import BY_SEQUENCE, Matched
from commlens.analyzers.across.signs import last_event_ns, last_sign_ns, normal_s
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

# Ranks that were killed, or fail because another one did, take seconds to end on a busy host, and a process that is
# torn down keeps its connections for as long. A recorder writes once a second: what lasts longer than this was
# written by every rank that lived.
FLOOR_S = 10.0
TIMES_NORMAL = 3.0  # of the longest that the rank stood in a collective before
UNKNOWN_S = 30.0  # where too little was seen to know what is normal
_ENDS_SEEN = ("host", "device")  # timings that show the end of a collective without anybody's wait


@dataclass(frozen=True)
class Wait:
    """One rank in a collective without end.

    Attributes:
        rank: global rank.
        row: its row of the collective.
        stood_s: from its issue to the rank's last sign of life, by its own clock; from the last thing that the
            rank did where the end of such a collective is never seen.
        dumped: a dump shows it, which does not say for how long: `stood_s` is the most it can be.
        normal_s: the longest that it stood in a collective before, None where too few were seen.
    """

    rank: int
    row: int
    stood_s: float
    normal_s: float | None
    dumped: bool = False

    @property
    def too_long(self) -> bool:
        """It stood longer than a healthy job's rank does."""
        normal = UNKNOWN_S if self.normal_s is None else TIMES_NORMAL * self.normal_s
        return self.stood_s > max(FLOOR_S, normal)


@dataclass(frozen=True)
class Stand:
    """A collective under way at the end.

    Attributes:
        matched: its communicator.
        column: which one of it.
        waits: the members that issued it and saw no end, the longest first.
        absent: recorded members that never issued it.
        unrecorded: members of which nothing is known.
    """

    matched: Matched
    column: int
    waits: tuple[Wait, ...]
    absent: tuple[int, ...]
    unrecorded: tuple[int, ...]

    @property
    def seq(self) -> int:
        """Its sequence number."""
        return int(self.matched.seq[self.column])

    @property
    def ranks(self) -> tuple[int, ...]:
        """Who waits in it."""
        return tuple(sorted(wait.rank for wait in self.waits))

    @property
    def too_long(self) -> bool:
        """Some rank waited in it longer than a healthy job's does."""
        return any(wait.too_long for wait in self.waits)


def find_stands(
    ranks: Sequence[RankFacts], matched: Sequence[Matched], infos: Mapping[int, Mapping[str, Any]]
) -> tuple[Stand, ...]:
    """Collectives under way at the end, of each communicator with sequence numbers that commlens itself recorded."""
    anyone = each(_receives_from_anyone, ranks)
    from_anyone = frozenset(facts.rank for facts, yes in zip(ranks, anyone, strict=True) if yes)
    open_ = each(partial(_is_open, ranks=ranks, from_anyone=from_anyone), matched)
    return tuple(stand for one, yes in zip(matched, open_, strict=True) if yes for stand in _stands(ranks, one, infos))


def _is_open(matched: Matched, ranks: Sequence[RankFacts], from_anyone: frozenset[int]) -> bool:
    """Whether some member may stand in a collective of a communicator of which that can be told."""
    present = [ranks[position].who for position in matched.communicator.present]
    imported = any(who.imported and not who.dumped for who in present)
    unsure = matched.communicator.point_to_point and matched.communicator.members[1] in from_anyone
    if matched.how != BY_SEQUENCE or imported or unsure:
        return False
    return any(True for _ in _waiting(ranks, matched, issued_at_least(ranks, matched)))


def _stands(ranks: Sequence[RankFacts], matched: Matched, infos: Mapping[int, Mapping[str, Any]]) -> list[Stand]:
    known = issued_at_least(ranks, matched)
    waits: defaultdict[int, list[Wait]] = defaultdict(list)
    for facts, row, column in _waiting(ranks, matched, known):
        waits[column].append(_wait(facts, row, infos.get(facts.rank, {})))
    return [_stand(matched, column, own, known) for column, own in sorted(waits.items())]


def _waiting(
    ranks: Sequence[RankFacts], matched: Matched, known: Mapping[int, int]
) -> Iterator[tuple[RankFacts, int, int]]:
    """Members in a collective without end, their row of it and its column."""
    fewest = min(known.values(), default=MISSING)
    for position, line in lines(matched):
        facts = ranks[position]
        if known[facts.rank] > matched.seq[line != MISSING].max():
            continue  # what it was in when it last wrote has ended since
        column = _first_open(facts, line, matched.seq, fewest)
        if column is not None:
            yield facts, int(line[column]), column


def _stand(matched: Matched, column: int, waits: list[Wait], known: Mapping[int, int]) -> Stand:
    seq, members = int(matched.seq[column]), matched.communicator.members
    return Stand(
        matched,
        column,
        tuple(sorted(waits, key=lambda wait: -wait.stood_s)),
        absent=tuple(sorted(rank for rank, last in known.items() if last < seq)),
        unrecorded=tuple(rank for rank in members if rank not in known),
    )


def _first_open(facts: RankFacts, line: Ints, seq: Ints, fewest: int) -> int | None:
    """Column of the first collective this rank issued after the last it saw end, None where all is done.

    Where no end is ever seen (a device, a work nobody waited for) only what another member lacks counts.
    """
    seen = line != MISSING
    ended = seen & facts.columns.over[line]
    after = seen & (seq > seq[ended].max(initial=MISSING))
    open_ = np.flatnonzero(after & (_sees_ends(facts, line) | (seq > fewest)))
    return int(open_[0]) if open_.size else None


def _wait(facts: RankFacts, row: int, info: Mapping[str, Any]) -> Wait:
    since = int(facts.columns.collectives["issued_ns"][row])
    if facts.who.dumped:
        written = (info.get("flight_recorder") or {}).get("written_ns") or since
        return Wait(facts.rank, row, max(written - since, 0) / 1e9, None, dumped=True)
    if not is_word(facts, "timing", _ENDS_SEEN, np.array([row]))[0]:
        since = max(since, last_event_ns(facts.columns))
    stood = last_sign_ns(facts, info) - since
    return Wait(facts.rank, row, max(stood, 0) / 1e9, normal_s(facts))


def _sees_ends(facts: RankFacts, rows: Ints) -> NDArray[np.bool_]:
    """Whether the ends of these rows are seen without anybody's wait."""
    return is_word(facts, "timing", _ENDS_SEEN, rows) | facts.who.dumped


def _receives_from_anyone(facts: RankFacts) -> bool:
    """Whether some receives do not say from whom: then nobody knows which messages were taken."""
    received = is_word(facts, "op", ("recv",), np.arange(facts.columns.collectives["peer"].size))
    return bool((facts.columns.collectives["peer"][received] == MISSING).any())
