"""All ranks on one clock, at any zoom: shares of time far out, single collectives close up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.held import Held, each
from commlens.analyzers.intervals import Intervals, Ints
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.stages import Examined
from commlens.analyzers.views.lines import Line
from commlens.analyzers.views.spans import RankSpans, rank_spans
from commlens.analyzers.views.states import (
    COMPUTE,
    STATES,
    TRANSFER,
    UNSPLIT,
    WAIT,
    RankStates,
    rank_states,
    recorded_between,
)
from commlens.trace.schema import MISSING


@dataclass(frozen=True)
class Bars:
    """Pieces of time, shape (bars,) each, int64.

    Attributes:
        line: which line each is on.
        state: place in `STATES`.
        start_ns: on the common clock.
        end_ns: likewise.
        position: the rank it is of.
        row: the collective it is a part of, MISSING of what a rank did besides.
        communicator: place of its communicator in `Joined.matched`, or MISSING.
        place: of the collective in it, or MISSING.
    """

    line: Ints
    state: Ints
    start_ns: Ints
    end_ns: Ints
    position: Ints
    row: Ints
    communicator: Ints
    place: Ints


@dataclass(frozen=True)
class Part:
    """One rank's part of a collective; times on the common clock, ns, None where not known."""

    rank: int
    host: str | None
    issued_ns: int | None
    started_ns: int | None
    completed_ns: int | None
    wait_ns: int | None
    transfer_ns: int | None
    exposed_ns: int
    last: bool


@dataclass(frozen=True)
class CollectiveDetail:
    """One collective over its ranks."""

    group: str
    op: str
    bytes: int | None
    dtype: str
    seq: int | None
    parts: tuple[Part, ...]


class Timeline:
    """The ranks of a run on the common clock.

    Attributes:
        examined: of which run; where clocks are not compared its hosts begin together.
        refusal: why clocks are not compared: then each rank is drawn on its own; None where they are.
        begin_ns: first record of any rank.
        end_ns: last record of any rank.
        step_index: numbers of the analysed steps, ascending, shape (steps,).
        steps: when each began on its first and ended on its last rank, shape (steps,) each.
        unseen: rows of collectives for which it is not known whether the rank stood still: no share of time has them.
        rows: of collectives, on all ranks.
    """

    def __init__(self, examined: Examined) -> None:
        outlines = each(_outline, examined.ranks)
        joined = _drawn(examined.joined, outlines)
        self.examined = replace(examined, joined=joined)
        self.refusal = joined.clocks.refusal
        bounds = [joined.clocks.aligned(position, own.bounds) for position, own in enumerate(outlines)]
        seen = [(int(begin), int(end)) for begin, end in bounds if end > begin]
        self.begin_ns = min((begin for begin, _ in seen), default=0)
        self.end_ns = max((end for _, end in seen), default=0)
        self.step_index, self.steps = self._find_steps(outlines)
        self.unseen = sum(own.unseen for own in outlines)
        self.rows = sum(own.rows for own in outlines)
        self._states = lru_cache(maxsize=None)(self._find_states)
        self._spans = lru_cache(maxsize=None)(self._find_spans)
        if not isinstance(examined.ranks, Held):  # what lies here is made at once, of other ranks those that are shown
            for position in range(len(outlines)):
                self._states(position)

    def _find_steps(self, outlines: Sequence[_Outline]) -> tuple[Ints, Intervals]:
        clocks = self.examined.joined.clocks
        found = [own.step_index for own in outlines]
        index = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
        starts = np.full(index.size, np.iinfo(np.int64).max)
        ends = np.full(index.size, np.iinfo(np.int64).min)
        for position, own in enumerate(outlines):
            at = np.searchsorted(index, own.step_index)
            np.minimum.at(starts, at, clocks.aligned(position, own.steps.starts))
            np.maximum.at(ends, at, clocks.aligned(position, own.steps.ends))
        return index.astype(np.int64), Intervals(starts, ends)

    def _find_states(self, position: int) -> RankStates:
        return rank_states(self.examined.ranks[position], self.examined.joined, position)

    def _find_spans(self, position: int) -> RankSpans:
        return rank_spans(self.examined.ranks, self.examined.joined, position, self._states(position).end_ns)

    def shares(self, lines: Sequence[Line], begin_ns: int, end_ns: int, bins: int) -> NDArray[np.float32]:
        """Share of each state, mean over each line's ranks, float32, shape (lines, states, bins)."""
        edges = np.linspace(0, end_ns - begin_ns, bins + 1).astype(np.int64) + begin_ns
        found = [np.mean([self._states(p).shares(edges) for p in line.positions], axis=0) for line in lines]
        return np.stack(found) if found else np.zeros((0, len(STATES), bins), np.float32)

    def bars(self, lines: Sequence[Line], begin_ns: int, end_ns: int, most: int) -> Bars | None:
        """Every collective and what ranks did besides; None where that is more than `most` bars.

        None also where a line stands for several ranks: their bars would cover one another.
        """
        if any(len(line.positions) > 1 for line in lines):
            return None
        positions = [(number, position) for number, line in enumerate(lines) for position in line.positions]
        if sum(self._spans(position).most_between(begin_ns, end_ns) for _, position in positions) > most:
            return None
        pieces = [piece for place in positions for piece in self._pieces(*place, begin_ns, end_ns)]
        if sum(piece[0].size for piece in pieces) > most:
            return None
        if not pieces:
            return Bars(*(np.zeros(0, np.int64) for _ in range(8)))
        return Bars(*(np.concatenate(column) for column in zip(*pieces, strict=True)))

    def _pieces(self, line: int, position: int, begin_ns: int, end_ns: int) -> list[tuple[Ints, ...]]:
        """Columns of `Bars`, of one rank."""
        spans, states = self._spans(position), self._states(position)
        at = spans.between(begin_ns, end_ns)
        start, need, end = spans.start_ns[at], spans.need_ns[at], spans.end_ns[at]
        split = spans.split[at] == 1
        names = spans.row[at], spans.communicator[at], spans.place[at]
        moving = np.where(split, STATES.index(TRANSFER), STATES.index(UNSPLIT))
        found = [
            (np.full(at.size, STATES.index(WAIT)), start, np.where(split, need, start), *names),
            (moving, np.where(split, need, start), end, *names),
        ]
        compute = states.parts[STATES.index(COMPUTE)]
        inside = slice(
            np.searchsorted(compute.ends, begin_ns, side="right"), np.searchsorted(compute.starts, end_ns, side="left")
        )
        starts = compute.starts[inside]
        nothing = np.full(starts.size, MISSING)
        found.append((np.full(starts.size, STATES.index(COMPUTE)), starts, compute.ends[inside], *(nothing,) * 3))
        return [self._columns(line, position, *columns) for columns in found]

    @staticmethod
    def _columns(line: int, position: int, state: Ints, start: Ints, end: Ints, *names: Ints) -> tuple[Ints, ...]:
        keep = end > start
        count = int(keep.sum())
        row, communicator, place = (each[keep] for each in names)
        lines, positions = np.full(count, line), np.full(count, position)
        return lines, state[keep], start[keep], end[keep], positions, row, communicator, place

    def path(self, begin_ns: int, end_ns: int, most: int) -> Ints | None:
        """Stretches of the critical path in a stretch of time, see `Path`, the shortest left out where too many.

        Returns:
            Shape (stretches, 4); None where the path is not known.
        """
        if self.examined.path is None:
            return None
        all_of = self.examined.path.stretches
        found = all_of[(all_of[:, 1] > begin_ns) & (all_of[:, 0] < end_ns)]
        if len(found) > most:
            longest = np.argsort(found[:, 0] - found[:, 1], kind="stable")[:most]
            found = found[np.sort(longest)]
        return found

    def collective(self, communicator: int, place: int) -> CollectiveDetail | None:
        """All parts of one collective; None where there is no such."""
        matched = self.examined.joined.matched
        if not (0 <= communicator < len(matched) and 0 <= place < matched[communicator].seq.size):
            return None
        own = matched[communicator]
        parts = [
            (position, int(row))
            for position, row in zip(own.communicator.present, own.rows[:, place], strict=True)
            if row != MISSING
        ]
        position, row = parts[0]
        words, rows = self.examined.ranks[position].columns.words, self.examined.ranks[position].columns.collectives
        return CollectiveDetail(
            group=_group(own.communicator.name, own.communicator.desc),
            op=own.ops[own.op[place]],
            bytes=_known(rows["bytes"][row]),
            dtype=words["dtype"].words[words["dtype"].codes[row]],
            seq=_known(own.seq[place]),
            parts=tuple(self._part(*each) for each in parts),
        )

    def _part(self, position: int, row: int) -> Part:
        facts, joined = self.examined.ranks[position], self.examined.joined
        rows, waits = facts.columns.collectives, joined.waits[position]

        def at(name: str) -> int | None:
            return _known(joined.clocks.aligned(position, rows[name][row : row + 1])[0])

        return Part(
            rank=facts.rank,
            host=facts.who.host,
            issued_ns=at("issued_ns"),
            started_ns=at("started_ns"),
            completed_ns=at("completed_ns"),
            wait_ns=_known(waits.wait_ns[row]),
            transfer_ns=_known(waits.transfer_ns[row]),
            exposed_ns=int(facts.exposed_ns[row]),
            last=bool(waits.last[row] == position and waits.need_ns[row] != MISSING),
        )


@dataclass(frozen=True)
class _Outline:
    """What of one rank is needed before any of its collectives is shown; times on its own clock, ns.

    Attributes:
        bounds: first and last time in its record, shape (2,).
        step_index: its analysed steps.
        steps: when each began and ended.
        unseen: rows of which it is not known whether the rank stood still.
        rows: of collectives.
        machine: what shares a clock.
    """

    bounds: Ints
    step_index: Ints
    steps: Intervals
    unseen: int
    rows: int
    machine: str


def _outline(facts: RankFacts) -> _Outline:
    return _Outline(
        bounds=np.array(recorded_between(facts)),
        step_index=facts.steps.index,
        steps=Intervals(facts.steps.start_ns, facts.steps.end_ns),
        unseen=int((~facts.blocked.known).sum()),
        rows=int(facts.blocked.known.size),
        machine=facts.who.machine,
    )


def _drawn(joined: Joined, outlines: Sequence[_Outline]) -> Joined:
    """Where clocks are not compared each host begins at its first record: they may be days apart."""
    if joined.clocks.refusal is None:
        return joined
    begins = [int(joined.clocks.aligned(p, own.bounds)[0]) for p, own in enumerate(outlines)]
    first: dict[str, int] = {}
    for own, begin in zip(outlines, begins, strict=True):
        if own.bounds[1] > own.bounds[0]:
            first[own.machine] = min(begin, first.get(own.machine, begin))
    earliest = min(first.values(), default=0)
    moved = np.array([earliest - first.get(own.machine, earliest) for own in outlines], np.int64)
    return replace(joined, clocks=replace(joined.clocks, shift_ns=joined.clocks.shift_ns + moved))


def _group(name: str, desc: str) -> str:
    return f"{name} ({desc})" if desc not in ("", "undefined", name) else name


def _known(value: Any) -> int | None:
    return None if value == MISSING else int(value)
