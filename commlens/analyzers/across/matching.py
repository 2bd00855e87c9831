"""Which rows of different ranks are parts of the same collective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.communicators import Communicator, rows_of
from commlens.analyzers.across.order import align
from commlens.analyzers.columns import Columns
from commlens.analyzers.held import Lengthy
from commlens.analyzers.intervals import Ints, distinct
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

BY_SEQUENCE, BY_ORDER = "sequence", "order"

# Operations in which every rank needs something from every rank.
EVERYONE = ("all_reduce", "all_gather", "reduce_scatter", "barrier", "all_to_all")

# Operations whose ranks hand in (or get) the same number of bytes, so that other sizes are a mistake of the job.
_ALIKE = {"all_reduce": "in_bytes", "reduce_scatter": "in_bytes", "broadcast": "in_bytes", "reduce": "in_bytes"}


@dataclass(frozen=True)
class Matched(Lengthy, long=("rows", "seq", "op", "bytes", "conflict")):
    """The collectives of one communicator, one column each, in order.

    Attributes:
        communicator: whose they are.
        rows: row of each recorded member's part, MISSING where it has none, shape (members present, collectives).
        seq: sequence number of each, MISSING where the trace has none, shape (collectives,).
        how: BY_SEQUENCE or BY_ORDER.
        confidence: share of the matches that agree with one another, 0..1; 1 by sequence.
        op: the operation of each, code in `ops`, shape (collectives,).
        ops: the words.
        bytes: message size of each as the first rank has it, shape (collectives,).
        conflict: where ranks disagree in operation, or in a size that must be alike, shape (collectives,).
    """

    communicator: Communicator
    rows: Ints
    seq: Ints
    how: str
    confidence: float
    op: Ints
    ops: list[str]
    bytes: Ints
    conflict: NDArray[np.bool_]

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Collectives seen on every recorded member, on two at least, without conflict, shape (collectives,)."""
        if self.rows.shape[0] < min(2, self.communicator.size):
            return np.zeros(self.seq.size, bool)
        return np.asarray((self.rows != MISSING).all(axis=0) & ~self.conflict)

    def is_op(self, *words: str) -> NDArray[np.bool_]:
        """Which collectives are one of these operations, shape (collectives,)."""
        codes = [code for code, word in enumerate(self.ops) if word in words]
        return np.asarray(np.isin(self.op, codes))


def match(communicator: Communicator, ranks: Sequence[RankFacts]) -> Matched:
    """Match the rows of one communicator, by sequence number where every row has one, else by order."""
    parts = [_part(ranks[position], communicator) for position in communicator.present]
    if all((part.seq != MISSING).all() for part in parts):
        rows, seq = by_sequence([part.rows for part in parts], [part.seq for part in parts])
        return _matched(communicator, parts, rows, seq, BY_SEQUENCE, 1.0)
    columns = [ranks[position].columns for position in communicator.present]
    rows, confidence = align([part.rows for part in parts], columns)
    return _matched(communicator, parts, rows, np.full(rows.shape[1], MISSING), BY_ORDER, confidence)


@dataclass(frozen=True)
class _Part:
    """What matching asks of one member's rows of a communicator, shape (own rows,) each; all copied.

    Attributes:
        rows: which of the rank's rows they are, ascending.
        seq: their sequence numbers.
        op: code of the operation in `ops`.
        ops: the words.
        alike: the size that every rank must share, MISSING where the operation has none.
        bytes: message size.
    """

    rows: Ints
    seq: Ints
    op: Ints
    ops: list[str]
    alike: Ints
    bytes: Ints


def _part(facts: RankFacts, communicator: Communicator) -> _Part:
    rows, columns = rows_of(facts, communicator), facts.columns
    op, numbers = columns.words["op"], columns.collectives
    return _Part(
        rows, numbers["seq"][rows], op.codes[rows], op.words, alike_sizes(columns, rows), numbers["bytes"][rows]
    )


def by_sequence(rows: Sequence[Ints], seqs: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Line up rows by sequence number.

    A coalesced call gives several rows the same number: the n-th of them matches the n-th.

    Returns:
        Rows, shape (members, collectives), and the sequence number of each collective.
    """
    places = [_place_among_equals(seq) for seq in seqs]
    depth = 1 + max((int(place.max(initial=0)) for place in places), default=0)
    keys = [seq * depth + place for seq, place in zip(seqs, places, strict=True)]
    every = keys[0] if all(np.array_equal(keys[0], key) for key in keys[1:]) else distinct(np.concatenate(keys))
    every = np.sort(every)
    table = np.full((len(rows), every.size), MISSING, np.int64)
    for line, key, own in zip(table, keys, rows, strict=True):
        line[np.searchsorted(every, key)] = own
    return table, every // depth


def _place_among_equals(seq: Ints) -> Ints:
    """How many earlier rows have the same number."""
    if np.all(np.diff(seq) > 0):
        return np.zeros(seq.size, np.int64)
    order = np.argsort(seq, kind="stable")
    first = np.searchsorted(seq[order], seq[order], side="left")
    place = np.empty(seq.size, np.int64)
    place[order] = np.arange(seq.size) - first
    return place


def _matched(
    communicator: Communicator, parts: Sequence[_Part], rows: Ints, seq: Ints, how: str, confidence: float
) -> Matched:
    ops = sorted({word for part in parts for word in part.ops})
    op, size = np.full(seq.size, MISSING, np.int64), np.full(seq.size, MISSING, np.int64)
    alike, conflict = np.full(seq.size, MISSING, np.int64), np.zeros(seq.size, bool)
    for part, line in zip(parts, rows, strict=True):
        seen = line != MISSING
        own = np.searchsorted(part.rows, line[seen])
        own_op = renumbered(part.ops, ops)[part.op[own]]
        own_alike, new = part.alike[own], op[seen] == MISSING
        if not communicator.point_to_point:
            differs = (own_op != op[seen]) | ((own_alike != alike[seen]) & (alike[seen] != MISSING))
            conflict[seen] |= ~new & differs
        first = np.flatnonzero(seen)[new]
        op[first], alike[first], size[first] = own_op[new], own_alike[new], part.bytes[own[new]]
    return Matched(communicator, rows, seq, how, confidence, op, ops, size, conflict)


def renumbered(words: Sequence[str], ops: Sequence[str]) -> Ints:
    """For each code of a column of `words`, and for MISSING, the code in `ops`."""
    return np.array([*(ops.index(word) for word in words), MISSING], np.int64)


def alike_sizes(columns: Columns, line: Ints) -> Ints:
    """The size that every rank must share, MISSING where the operation has none."""
    result = np.full(line.size, MISSING, np.int64)
    for word, name in _ALIKE.items():
        chosen = columns.words["op"].equals(word)[line]
        result[chosen] = columns.collectives[name][line[chosen]]
    return result
