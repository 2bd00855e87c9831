"""How far each rank got in each communicator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from commlens.analyzers.across.issued import recorded_members
from commlens.analyzers.across.matching import BY_SEQUENCE, Matched
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class RankProgress:
    """One member's place in a communicator; sequence numbers, None where there is none or it is not known.

    Attributes:
        rank: global rank.
        recorded: False where nothing is known of this rank.
        last_issued: its last collective.
        last_started: the last that is known to have begun to execute.
        last_completed: the last whose end was seen.
        op: operation of the last issued.
    """

    rank: int
    recorded: bool
    last_issued: int | None = None
    last_started: int | None = None
    last_completed: int | None = None
    op: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far the members of one communicator got.

    Attributes:
        group: torch's name of the group.
        desc: its description.
        members: global ranks; of messages the sender, then the receiver.
        point_to_point: messages of one direction between two ranks.
        per_rank: each member, in the order of `members`.
        behind: recorded members that issued fewer than another member did.
    """

    group: str
    desc: str
    members: tuple[int, ...]
    point_to_point: bool
    per_rank: tuple[RankProgress, ...]
    behind: tuple[int, ...]


def find_progress(ranks: Sequence[RankFacts], matched: Sequence[Matched]) -> tuple[Progress, ...]:
    """Progress in each communicator whose collectives carry sequence numbers."""
    return tuple(found for found in each(partial(_progress, ranks=ranks), matched) if found is not None)


def _progress(matched: Matched, ranks: Sequence[RankFacts]) -> Progress | None:
    if matched.how != BY_SEQUENCE:
        return None
    who, recorded = matched.communicator, set(recorded_members(ranks, matched))
    found = {rank: RankProgress(rank, rank in recorded) for rank in who.members}
    for position, line in zip(who.present, matched.rows, strict=True):
        found[ranks[position].rank] = _rank_progress(ranks[position], line, matched.seq)
    most = max((MISSING if p.last_issued is None else p.last_issued for p in found.values()), default=MISSING)
    behind = [p.rank for p in found.values() if p.recorded and (p.last_issued is None or p.last_issued < most)]
    return Progress(who.name, who.desc, who.members, who.point_to_point, tuple(found.values()), tuple(sorted(behind)))


def _rank_progress(facts: RankFacts, line: Ints, seq: Ints) -> RankProgress:
    columns, seen = facts.columns, line != MISSING
    started, completed = seen & (columns.collectives["started_ns"][line] != MISSING), seen & columns.over[line]
    last = columns.words["op"].codes[line[seen]]
    return RankProgress(
        rank=facts.rank,
        recorded=True,
        last_issued=_last(seq[seen]),
        last_started=_last(seq[started]),
        last_completed=_last(seq[completed]),
        op=columns.words["op"].words[last[-1]] if last.size and last[-1] != MISSING else None,
    )


def _last(seq: Ints) -> int | None:
    return int(np.max(seq)) if seq.size else None
