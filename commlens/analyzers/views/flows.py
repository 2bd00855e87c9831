"""Arrows between the parts of one collective: from the rank that the others waited for to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.across.matching import Matched
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_BLOCK = 1 << 20  # cells worked on at once: bounds the memory


@dataclass(frozen=True)
class Flows:
    """Which arrow each collective of a rank takes part in.

    Attributes:
        number: of the arrow, the same on all its ranks and of no other collective; MISSING where there is
            none, shape (rows,).
        leaves: the arrow begins here; else it ends here, shape (rows,).
        enters_ns: where it ends, on the common clock: within the collective, shape (rows,).
    """

    number: Ints
    leaves: NDArray[np.bool_]
    enters_ns: Ints


def find_flows(ranks: Sequence[RankFacts], joined: Joined) -> tuple[tuple[Flows, ...], int]:
    """The arrows of a run, and how many there are: one for each collective whose wait is known on all its ranks.

    An arrow leaves where the rank that the others waited for arrived, and ends where each other's transfer began,
    1 ns later at the earliest: a viewer follows arrows forward in time only. Where clocks are so unsure that no part
    began after that, it leaves from the earliest part. A part that ended before is left out. Where clocks are not
    compared there is none.
    """
    found = tuple(_none(facts.columns.collectives["seq"].size) for facts in ranks)
    count = 0
    if joined.clocks.refusal is None:
        for matched in joined.matched:
            count += _add(ranks, joined, matched, found, count)
    return found, count


def _none(rows: int) -> Flows:
    return Flows(np.full(rows, MISSING, np.int64), np.zeros(rows, bool), np.full(rows, MISSING, np.int64))


def _add(ranks: Sequence[RankFacts], joined: Joined, matched: Matched, found: Sequence[Flows], first: int) -> int:
    """Number the arrows of one communicator from `first` on; how many there are."""
    members, count = matched.rows.shape
    if members < 2:
        return 0
    width, number = max(1, _BLOCK // members), first
    for start in range(0, count, width):
        block = _Block(ranks, joined, matched, matched.rows[:, start : start + width])
        number += block.write(found, number)
    return number - first


class _Block:
    """Some collectives of a communicator, those that every member has whole; shapes are (members, collectives)."""

    def __init__(self, ranks: Sequence[RankFacts], joined: Joined, matched: Matched, rows: Ints) -> None:
        self.present = matched.communicator.present
        known = (rows != MISSING).all(axis=0)
        for line, position in enumerate(self.present):
            columns, own = ranks[position].columns.collectives, rows[line]
            known &= joined.waits[position].need_ns[own] != MISSING
            known &= columns["completed_ns"][own] >= columns["started_ns"][own]
        self.rows = rows[:, known]
        self.arrivals, self.enters, self.ends = (np.empty_like(self.rows) for _ in range(3))
        self.sources = np.empty_like(self.rows)  # line of the member that each one depended on
        lines = np.full(len(ranks), MISSING, np.int64)
        lines[list(self.present)] = np.arange(len(self.present))
        for line, position in enumerate(self.present):
            own, waits = self.rows[line], joined.waits[position]
            columns, aligned = ranks[position].columns.collectives, joined.clocks.aligned
            self.arrivals[line] = aligned(position, columns["started_ns"][own])
            self.ends[line] = aligned(position, columns["completed_ns"][own])
            self.enters[line] = np.minimum(aligned(position, waits.need_ns[own]) + 1, self.ends[line])
            self.sources[line] = lines[waits.last[own]]

    def write(self, found: Sequence[Flows], first: int) -> int:
        """Number the arrows from `first` on; how many there are."""
        count = int(self.rows.shape[1])
        source = self._source()
        numbers = first + np.arange(count)
        entered = self._after(source)
        for line, position in enumerate(self.present):
            own, flows = self.rows[line], found[position]
            taken = (source == line) | entered[line]
            flows.number[own[taken]] = numbers[taken]
            flows.leaves[own] = source == line
            flows.enters_ns[own] = self.enters[line]
        return count

    def _source(self) -> Ints:
        """The line that the others waited for; the earliest where no part began after it, shape (collectives,)."""
        other = self.sources != np.arange(self.sources.shape[0])[:, None]
        waited = np.where(other, self.enters - self.arrivals, MISSING)
        longest = waited.argmax(axis=0)
        chosen = np.take_along_axis(self.sources, longest[None], axis=0)[0]
        source = np.where(other.any(axis=0), chosen, self._first(self.arrivals))
        self._enter_after(source, other)
        alone = ~self._after(source).any(axis=0)
        return np.where(alone, self._first(self.enters), source)

    def _enter_after(self, source: Ints, other: NDArray[np.bool_]) -> None:
        """Who waited for the source goes on after it, to the nanosecond, which two clocks do not round alike."""
        begin = np.take_along_axis(self.arrivals, source[None], axis=0)
        later = np.minimum(np.maximum(self.enters, begin + 1), self.ends)
        self.enters = np.where(other & (self.sources == source), later, self.enters)

    def _first(self, times: Ints) -> Ints:
        """The line with the smallest time, of several the rank that comes first, shape (collectives,)."""
        order = np.argsort(self.present, kind="stable")
        return np.asarray(order[times[order].argmin(axis=0)])

    def _after(self, source: Ints) -> NDArray[np.bool_]:
        """Parts that an arrow from `source` reaches, by time and, of equal times, by rank: shape of `rows`."""
        lines = np.arange(self.rows.shape[0])[:, None]
        begin = np.take_along_axis(self.arrivals, source[None], axis=0)
        present = np.array(self.present)
        later = (self.enters == begin) & (present[:, None] > present[source][None])
        return np.asarray((lines != source) & ((self.enters > begin) | later))
