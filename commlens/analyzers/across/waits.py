"""Wait and transfer of every collective on every rank.

wait = last arrival that the rank depends on - its own arrival; transfer = the rest until its completion.
Both together are its duration, started to completed, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.clocks import Clocks
from commlens.analyzers.across.communicators import Communicator
from commlens.analyzers.across.matching import EVERYONE, Matched
from commlens.analyzers.columns import small, tiny
from commlens.analyzers.held import Lengthy
from commlens.analyzers.intervals import Ints, distinct
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_BLOCK = 1 << 19  # cells worked on at once: bounds the memory
_FROM_ROOT = ("broadcast", "scatter")
_TO_ROOT = ("reduce", "gather")


@dataclass(frozen=True)
class Waits(Lengthy, long=("need_ns", "wait_ns", "transfer_ns", "last", "last_row", "shortest_ns", "whole")):
    """What one rank waited for, arrays of shape (rows,), MISSING where it cannot be told; times are int64.

    Attributes:
        need_ns: the last arrival it depended on, on its own clock; its own arrival where it was the last.
        wait_ns: how long it waited for that.
        transfer_ns: the rest of its duration.
        last: position of the rank that arrived last.
        last_row: row of that rank's part.
        shortest_ns: smallest duration of its collective over the ranks, which needs no common clock; MISSING
            where an end is only an upper bound or a member was not recorded.
        whole: 1 where every member was recorded, so that what was not waiting was transfer; else 0.
    """

    need_ns: Ints
    wait_ns: Ints
    transfer_ns: Ints
    last: Ints
    last_row: Ints
    shortest_ns: Ints
    whole: Ints


@dataclass(frozen=True)
class Timed(Lengthy, long=("matched", "time_ns", "transfer_ns", "shortest_ns", "skew_ns", "last")):
    """The collectives of one communicator over all ranks, shape (collectives,) each.

    Attributes:
        matched: which they are.
        time_ns: last arrival on the common clock, MISSING where not known.
        transfer_ns: median over the ranks, MISSING where not known or where an end is only an upper bound.
        shortest_ns: smallest duration over the ranks, which needs no common clock; MISSING as above.
        skew_ns: last arrival - first arrival.
        last: position of the rank that arrived last, MISSING where not known.
    """

    matched: Matched
    time_ns: Ints
    transfer_ns: Ints
    shortest_ns: Ints
    skew_ns: Ints
    last: Ints


@dataclass(frozen=True)
class Shares:
    """What each member of one communicator waited for, shape (members present, collectives) unless said; see `Waits`.

    Attributes:
        matched: which collectives they are.
        known: where that can be told, shape (collectives,).
        need_ns: see `Waits`; no matter where not known, as the next four.
        wait_ns: likewise.
        transfer_ns: likewise.
        last: likewise.
        last_row: likewise.
        whole: where the smallest duration counts, shape (collectives,).
        shortest_ns: it, shape (collectives,).
    """

    matched: Matched
    known: NDArray[np.bool_]
    need_ns: Ints
    wait_ns: Ints
    transfer_ns: Ints
    last: Ints
    last_row: Ints
    whole: NDArray[np.bool_]
    shortest_ns: Ints


def split(matched: Matched, ranks: Sequence[RankFacts], clocks: Clocks) -> tuple[Timed, Shares]:
    """Split every collective of a communicator; where clocks are not joined only `shortest_ns` is known."""
    members, count = matched.rows.shape
    timed = Timed(matched, *(np.full(count, MISSING, np.int64) for _ in range(5)))
    known, whole = np.zeros(count, bool), np.zeros(count, bool)
    wide = (members, 0 if clocks.refusal else count)
    need, wait, transfer = (np.full(wide, MISSING, np.int64) for _ in range(3))
    last, last_row = (small(np.full(wide, MISSING)) for _ in range(2))
    shares = Shares(matched, known, need, wait, transfer, last, last_row, whole, timed.shortest_ns)
    width = max(1, _BLOCK // max(members, 1))
    for start in range(0, count, width):
        _split_block(_Block(ranks, matched, clocks, slice(start, start + width)), clocks, timed, shares)
    return timed, shares


def find_places(communicators: Sequence[Communicator], ranks: int) -> list[list[tuple[int, int]]]:
    """For each rank the communicators that it is in, and its line there."""
    places: list[list[tuple[int, int]]] = [[] for _ in range(ranks)]
    for number, communicator in enumerate(communicators):
        for line, position in enumerate(communicator.present):
            places[position].append((number, line))
    return places


def gather_waits(facts: RankFacts, places: Sequence[tuple[int, int]], shares: Sequence[Shares]) -> Waits:
    """What one rank waited for, of all its communicators.

    Args:
        facts: of the rank.
        places: see `find_places`.
        shares: of all communicators.
    """
    waits = _unknown(facts.columns.collectives["seq"].size)
    for number, line in places:
        share = shares[number]
        rows = share.matched.rows[line]
        waits.shortest_ns[rows[share.whole]] = share.shortest_ns[share.whole]
        own = rows[share.known]
        if not own.size:
            continue
        for name in ("need_ns", "wait_ns", "transfer_ns", "last", "last_row"):
            getattr(waits, name)[own] = getattr(share, name)[line][share.known]
        waits.whole[own] = int(share.matched.communicator.complete)
    return waits


def _unknown(rows: int) -> Waits:
    need, wait, transfer, shortest = (np.full(rows, MISSING, np.int64) for _ in range(4))
    last, last_row = (small(np.full(rows, MISSING)) for _ in range(2))
    return Waits(need, wait, transfer, last, last_row, shortest, tiny(np.full(rows, MISSING)))


class _Block:
    """Arrivals and durations of some collectives of a communicator, shape (members, collectives) each."""

    def __init__(self, ranks: Sequence[RankFacts], matched: Matched, clocks: Clocks, part: slice) -> None:
        self.matched, self.part = matched, part
        self.present = matched.communicator.present
        self.rows = matched.rows[:, part]
        self.started, self.arrivals = np.empty_like(self.rows), np.empty_like(self.rows)
        self.durations, self.roots = np.empty_like(self.rows), np.full(self.rows.shape[1], MISSING, np.int64)
        self.sure = np.ones(self.rows.shape[1], bool)  # no end is only an upper bound
        places = {ranks[position].rank: line for line, position in enumerate(self.present)}
        for line, position in enumerate(self.present):
            self._fill(line, ranks[position], clocks, position, places)

    def _fill(self, line: int, facts: RankFacts, clocks: Clocks, position: int, places: dict[int, int]) -> None:
        rows, seen, columns = self.rows[line], self.rows[line] != MISSING, facts.columns
        started = np.where(seen, columns.collectives["started_ns"][rows], MISSING)
        ended = np.where(seen, columns.collectives["completed_ns"][rows], MISSING)
        known = (started != MISSING) & (ended >= started)
        self.durations[line] = np.where(known, ended - started, MISSING)
        self.started[line], self.arrivals[line] = started, clocks.aligned(position, started)
        self.sure &= known & ~columns.words["timing"].equals("wait")[rows]
        peers = columns.collectives["peer"][rows]
        for rank in distinct(peers[seen]):
            self.roots[seen & (peers == rank)] = places.get(int(rank), MISSING)

    @property
    def answerable(self) -> NDArray[np.bool_]:
        """Where every member took part and arrived at a known time."""
        return np.asarray(self.matched.whole[self.part] & (self.arrivals != MISSING).all(axis=0))

    def needs(self) -> tuple[Ints, Ints]:
        """The last arrival that each member depends on, and whose it is (a line), shape (members, collectives)."""
        lines = np.arange(self.rows.shape[0])[:, None]
        everyone_waits = self.matched.is_op(*EVERYONE)[self.part]
        everyone = everyone_waits | self.matched.communicator.point_to_point
        last = np.broadcast_to(self.arrivals.argmax(axis=0), self.rows.shape)
        is_root = lines == self.roots
        from_root = self.matched.is_op(*_FROM_ROOT)[self.part] & (self.roots != MISSING)
        to_root = self.matched.is_op(*_TO_ROOT)[self.part] & is_root
        whose = np.where(everyone | to_root, last, np.broadcast_to(lines, self.rows.shape))
        whose = np.where(from_root, np.broadcast_to(np.maximum(self.roots, 0), self.rows.shape), whose)
        need = np.take_along_axis(self.arrivals, whose, axis=0)
        # A message may leave, or a root's data arrive, before the other side has come: then it was not waited for. A
        # message that ends before it was sent shows the error of the clocks: all of its receive was waiting.
        received = self.matched.communicator.point_to_point & (lines == 1)
        ended_before = ~everyone_waits & ~received & (need > self.arrivals + self.durations)
        own = (need < self.arrivals) | ended_before
        return np.where(own, self.arrivals, need), np.where(own, lines, whose)


def _split_block(block: _Block, clocks: Clocks, out: Timed, shares: Shares) -> None:
    known, part = block.answerable, block.part
    # A member that was not recorded may be the one that all waited for: then no time is known to be transfer.
    whole = block.matched.whole[part] & block.sure & block.matched.communicator.complete
    shares.whole[part] = whole
    out.shortest_ns[part][whole] = block.durations.min(axis=0)[whole] if whole.any() else 0
    if clocks.refusal or not known.any():
        return
    shares.known[part] = known
    need, whose = block.needs()
    # A duration is of the rank's own clock, so the two parts make it up whatever the clocks are.
    wait = np.where(block.durations == MISSING, MISSING, np.clip(need - block.arrivals, 0, block.durations))
    transfer = np.where(block.durations == MISSING, MISSING, block.durations - wait)
    last = block.arrivals.argmax(axis=0)
    positions = np.array(block.present)
    shares.need_ns[:, part] = block.started + (need - block.arrivals)
    shares.wait_ns[:, part], shares.transfer_ns[:, part] = wait, transfer
    shares.last[:, part] = positions[whose]
    shares.last_row[:, part] = np.take_along_axis(block.rows, whose, axis=0)
    out.time_ns[part][known] = block.arrivals.max(axis=0)[known]
    out.skew_ns[part][known] = (block.arrivals.max(axis=0) - block.arrivals.min(axis=0))[known]
    out.last[part][known] = positions[last[known]]
    sure = known & whole
    out.transfer_ns[part][sure] = np.median(transfer, axis=0).astype(np.int64)[sure]
