"""Where ranks do different things at the same place of a communicator's sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from commlens.analyzers.across.matching import BY_SEQUENCE, Matched, alike_sizes, renumbered
from commlens.analyzers.across.shifts import Shift, find_shift
from commlens.analyzers.columns import Column
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints, distinct
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import DTYPES, MISSING

_ROOTED = ("broadcast", "reduce", "gather", "scatter")
_AROUND = 512  # collectives before and after the disagreement that are looked at
_ROOT = 3  # the last of what must be alike


@dataclass(frozen=True)
class Side:
    """Ranks that did the same, and the row of the first of them."""

    ranks: tuple[int, ...]
    row: int


@dataclass(frozen=True)
class Disagreement:
    """The first collective of a communicator in which ranks differ in operation, size, dtype or root.

    Attributes:
        matched: the communicator.
        column: the first such collective.
        sides: who did the same, the most ranks first.
        odd: the ranks that are not with the majority; none where there is no majority.
        roots: the sides differ in nothing but the root.
        count: collectives from there on in which ranks differ.
        shift: who skipped a collective, or issued one too many, None where the sequences do not say so.
    """

    matched: Matched
    column: int
    sides: tuple[Side, ...]
    odd: tuple[int, ...]
    roots: bool
    count: int
    shift: Shift | None

    @property
    def seq(self) -> int:
        """Its sequence number."""
        return int(self.matched.seq[self.column])


def find_disagreements(ranks: Sequence[RankFacts], matched: Sequence[Matched]) -> tuple[Disagreement, ...]:
    """The first disagreement in each communicator with sequence numbers; messages are left out."""
    differ = zip(matched, each(partial(_differs, ranks=ranks), matched), strict=True)
    found = (_disagreement(ranks, one) for one, somewhere in differ if somewhere)
    return tuple(one for one in found if one is not None)


def _differs(matched: Matched, ranks: Sequence[RankFacts]) -> bool:
    if matched.how != BY_SEQUENCE or matched.communicator.point_to_point:
        return False
    return bool(_differ(ranks, matched).size)


def _disagreement(ranks: Sequence[RankFacts], matched: Matched) -> Disagreement | None:
    differ = _differ(ranks, matched)
    if not differ.size:
        return None
    column = int(differ[0])
    begin = max(column - _AROUND, 0)
    rows = matched.rows[:, begin : column + _AROUND]
    parts = [_parts(ranks[p], line, matched.ops) for p, line in zip(matched.communicator.present, rows, strict=True)]
    tokens = _tokens(parts, rows)
    members = [ranks[position].rank for position in matched.communicator.present]
    here = tokens[:, column - begin]
    sides = _sides(members, here, matched.rows[:, column])
    usual = members.index(sides[0].ranks[0])
    others = [index for index, token in enumerate(here) if token not in (MISSING, here[usual])]
    return Disagreement(
        matched,
        column,
        sides,
        odd=_odd(sides),
        roots=len({tuple(parts[members.index(side.ranks[0])][:_ROOT, column - begin]) for side in sides}) == 1,
        count=int(differ.size),
        shift=find_shift(tokens, members, usual, others, column - begin),
    )


def _differ(ranks: Sequence[RankFacts], matched: Matched) -> Ints:
    """Columns in which two members differ in something that both are known to have."""
    first = np.full((4, matched.seq.size), MISSING, np.int64)
    differ = np.zeros(matched.seq.size, bool)
    for position, line in zip(matched.communicator.present, matched.rows, strict=True):
        own = _parts(ranks[position], line, matched.ops)
        differ |= ((own != MISSING) & (first != MISSING) & (own != first)).any(axis=0)
        first = np.where(first == MISSING, own, first)
    return np.flatnonzero(differ)


def _parts(facts: RankFacts, line: Ints, ops: list[str]) -> Ints:
    """What must be alike: operation, size, dtype, root; MISSING where it need not or is not known, (4, columns)."""
    columns = facts.columns
    op, dtype = columns.words["op"], columns.words["dtype"]
    rooted = np.isin(op.codes[line], [code for code, word in enumerate(op.words) if word in _ROOTED])
    root = np.where(rooted, columns.collectives["peer"][line], MISSING)
    names, dtypes = renumbered(op.words, ops)[op.codes[line]], _dtypes(dtype)[dtype.codes[line]]
    parts = np.stack([names, alike_sizes(columns, line), dtypes, root])
    return np.where(line == MISSING, MISSING, parts)


def _dtypes(dtype: Column) -> Ints:
    """For each code of the column the place in `DTYPES`."""
    return np.array([*(DTYPES.index(w) if w in DTYPES else len(DTYPES) for w in dtype.words), MISSING], np.int64)


def _tokens(parts: Sequence[Ints], rows: Ints) -> Ints:
    """One number for all that must be alike, MISSING where a member has no part, shape (members, columns)."""
    together = np.concatenate(parts, axis=1)
    tokens = np.unique(together, axis=1, return_inverse=True)[1].reshape(rows.shape)
    return np.where(rows == MISSING, MISSING, tokens)


def _sides(members: Sequence[int], tokens: Ints, rows: Ints) -> tuple[Side, ...]:
    sides = []
    for token in distinct(tokens[tokens != MISSING]):
        own = np.flatnonzero(tokens == token).tolist()
        sides.append(Side(tuple(members[index] for index in own), int(rows[own[0]])))
    return tuple(sorted(sides, key=lambda side: (-len(side.ranks), side.ranks)))


def _odd(sides: Sequence[Side]) -> tuple[int, ...]:
    """Everyone outside the majority."""
    count = sum(len(side.ranks) for side in sides)
    if 2 * len(sides[0].ranks) <= count:
        return ()
    return tuple(sorted(rank for side in sides[1:] for rank in side.ranks))
