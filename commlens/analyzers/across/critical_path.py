"""The chain of work and transfers that fixes the end of each step, walked backwards across ranks.

From the end of the step on the rank that ends last: computing -> stay on the rank; a standstill for
collective k -> its transfer since the last arrival, then on with the rank that arrived last; where
that one's part was queued behind an earlier collective of its group, through that one first. A standstill
for a collective that was over when it began held nobody up: it is charged, and the rank stays. Waiting
and hidden communication are never on it. Parts tile the time between the ends of two steps.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.clocks import Clocks
from commlens.analyzers.across.communicators import split_by
from commlens.analyzers.across.waits import Waits
from commlens.analyzers.blocked import Blocked
from commlens.analyzers.columns import Columns, small
from commlens.analyzers.intervals import Intervals, Ints, common, length_within
from commlens.analyzers.own_work import IDLE, own_work
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

TRANSFER, UNMATCHED, OTHER = "transfer", "unmatched communication", "other"
UNSPLIT = "transfer, or waiting for a missing rank"
_AWAKE: Final = 64  # lines with arrays: 24 bytes a collective each
_HELD: Final = 0.1  # of the time since the last arrival, see `_Line.held_up`
_Key = tuple[str, int, str]  # kind, position of the rank, name of what it did ("group: op" of a transfer)


@dataclass(frozen=True)
class Path:
    """The critical path over several steps.

    Attributes:
        steps: how many steps were walked.
        total_ns: their length together: the sum of all parts.
        parts: ns by (kind, position of the rank, name).
        stretches: where it went, ascending: int64, shape (stretches, 4): start and end on the common clock, ns,
            position of the rank, and the row whose transfer it was, MISSING where the rank worked.
    """

    steps: int
    total_ns: int
    parts: dict[_Key, int]
    stretches: Ints


def find_path(ranks: Sequence[RankFacts], waits: Sequence[Waits], clocks: Clocks) -> Path | None:
    """Walk the analysed steps that all ranks have; None where there are none, or clocks are not joined."""
    if clocks.refusal or not ranks or not all(facts.budgeted for facts in ranks):
        return None
    lines = _Lines(
        [_Line(facts, own, clocks, position) for position, (facts, own) in enumerate(zip(ranks, waits, strict=True))]
    )
    shared = common(*(facts.steps.index for facts in ranks))
    if not shared.size:
        return None
    starts, ends = (np.array([line.bounds(shared)[side] for line in lines]) for side in (0, 1))
    parts: defaultdict[_Key, int] = defaultdict(int)
    total = 0
    for step in range(shared.size):
        begin, end = int(starts[:, step].max()), int(ends[:, step].max())
        _walk(lines, int(ends[:, step].argmax()), begin, end, parts)
        total += end - begin
    for line in lines:
        line.charge_own_time(parts)
    return Path(int(shared.size), total, {key: ns for key, ns in parts.items() if ns}, _stretches(lines))


class _Lines(Sequence["_Line"]):
    """The ranks' lines; of thousands of ranks only those that the path came to lately keep their arrays."""

    def __init__(self, lines: Sequence[_Line]) -> None:
        self._lines = lines
        self._awake: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, position: Any) -> Any:
        self._awake[position] = None
        self._awake.move_to_end(position)
        if len(self._awake) > _AWAKE:
            self._lines[self._awake.popitem(last=False)[0]].rest()
        return self._lines[position]

    def __iter__(self) -> Iterator[_Line]:
        return iter(self._lines)


def _stretches(lines: Sequence[_Line]) -> Ints:
    """What was walked, ascending, without what took no time, shape (stretches, 4); see `Path`."""
    walked = [(start, end, line.position, MISSING) for line in lines for start, end in line.followed]
    carried = [(start, end, line.position, row) for line in lines for start, end, row in line.carried]
    found = np.array(walked + carried, np.int64).reshape(-1, 4)
    found = found[found[:, 1] > found[:, 0]]
    return np.asarray(found[np.argsort(found[:, 0], kind="stable")])


class _Line:
    """One rank as the walk needs it: its standstills and its phases on the common clock."""

    def __init__(self, facts: RankFacts, waits: Waits, clocks: Clocks, position: int) -> None:
        self.position, self.facts, self.waits = position, facts, waits
        self._clocks = clocks
        self.followed: list[tuple[int, int]] = []
        self.carried: list[tuple[int, int, int]] = []

    # All that is long is made where the path comes to the rank: it seldom comes to every one.

    @cached_property
    def blocked(self) -> Blocked:
        return self.facts.blocked

    @cached_property
    def columns(self) -> Columns:
        return self.facts.columns

    @cached_property
    def _still(self) -> Ints:
        """Standstills by their ends, shape (pieces,)."""
        return small(np.argsort(self.blocked.ends, kind="stable"))

    @cached_property
    def still_ends(self) -> Ints:
        return self._aligned(self.blocked.ends[self._still])

    @cached_property
    def need(self) -> Ints:
        return self._aligned(self.waits.need_ns)

    @cached_property
    def _known_from_wait(self) -> NDArray[np.bool_]:
        return self.columns.words["timing"].equals("wait")

    @cached_property
    def last(self) -> Ints:
        return self.waits.last

    @cached_property
    def last_row(self) -> Ints:
        return self.waits.last_row

    @cached_property
    def _before(self) -> Ints:
        return small(_freed_by(self.facts))

    def rest(self) -> None:
        """Give up what is long, until the path comes back."""
        for name in [name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)]:
            del self.__dict__[name]

    def _aligned(self, times: Ints) -> Ints:
        return self._clocks.aligned(self.position, times)

    def bounds(self, index: Ints) -> tuple[Ints, Ints]:
        chosen = np.searchsorted(self.facts.steps.index, index)
        steps = self.facts.steps
        return self._aligned(steps.start_ns[chosen]), self._aligned(steps.end_ns[chosen])

    def last_standstill(self, before: int) -> int | None:
        """The latest standstill that ended by then."""
        found = int(np.searchsorted(self.still_ends, before, side="right")) - 1
        return found if found >= 0 else None

    def still_row(self, still: int) -> int:
        """The row of a standstill."""
        return int(self.blocked.row[self._still[still]])

    def still_start(self, still: int) -> int:
        """When a standstill began."""
        return int(self._aligned(self.blocked.starts[self._still[still]]))

    def held_up(self, still: int) -> bool:
        """Whether a standstill began before its collective was over, so that this fixed when the rank went on.

        Where the end is known from the wait alone, the standstill has to be a tenth of the time since the last
        arrival: of a smaller one it hardly matters whether the transfer or the rank's own work took longer.
        """
        row, piece = self.still_row(still), self._still[still]
        start, end = self.blocked.starts[piece], self.blocked.ends[piece]
        if self._known_from_wait[row]:
            return bool(end - start >= _HELD * (end - self.waits.need_ns[row]))
        return bool(self.columns.collectives["completed_ns"][row] > start)

    def kind(self, row: int) -> str:
        """Of the part of a step that a row makes up."""
        if self.need[row] == MISSING:
            return UNMATCHED
        return TRANSFER if self.waits.whole[row] == 1 else UNSPLIT

    def issued(self, row: int) -> int:
        """When a row was issued."""
        return int(self._aligned(self.columns.collectives["issued_ns"][row]))

    def queued_behind(self, row: int) -> int | None:
        """The row whose end let this one start, where it had to queue."""
        earlier = int(self._before[row])
        if earlier == MISSING:
            return None
        started = int(self._aligned(self.columns.collectives["started_ns"][row]))
        return earlier if started > self.issued(row) else None

    def transfer_name(self, row: int) -> str:
        words = self.columns.words
        group, op = (words[name].words[words[name].codes[row]] for name in ("group", "op"))
        return f"{op} in group {group}"

    def charge_own_time(self, parts: defaultdict[_Key, int]) -> None:
        """Charge the time it was followed for to its work by kind, the rest to OTHER."""
        if not self.followed:
            return
        starts, ends = (np.array([each[side] for each in self.followed], np.int64) for side in (0, 1))
        left = ends - starts
        for name, times in own_work(self.facts).items():
            work = Intervals(*map(self._aligned, times))
            # Where phases overlap (a forward recomputed in a backward) time counts once, for the first.
            ns = np.minimum(length_within(work, starts, ends), left)
            left = left - ns
            parts[name if name in IDLE else "compute", self.position, name] += int(ns.sum())
        parts[OTHER, self.position, ""] += int(left.sum())


def _freed_by(facts: RankFacts) -> Ints:
    """For each row the row of its group whose end is its start, MISSING where there is none, shape (rows,)."""
    rows = facts.columns.collectives
    result = np.full(rows["seq"].size, MISSING, np.int64)
    for _, group in split_by(facts.columns.words["group"].codes):
        order = group[np.argsort(rows["completed_ns"][group], kind="stable")]
        ends = rows["completed_ns"][order]
        place = np.searchsorted(ends, rows["started_ns"][group])
        found = np.minimum(place, order.size - 1)
        hit = (ends[found] == rows["started_ns"][group]) & (rows["started_ns"][group] != MISSING)
        result[group[hit]] = order[found[hit]]
    return result


def _walk(lines: Sequence[_Line], position: int, begin: int, end: int, parts: defaultdict[_Key, int]) -> None:
    """Walk back from `end` on one rank to `begin`, charging every nanosecond once."""
    now, line = end, lines[position]
    seen: set[tuple[int, int]] = set()
    while now > begin:
        still = line.last_standstill(now)
        while still is not None and (line.position, still) in seen:
            still = still - 1 if still else None
        stop = begin if still is None else max(begin, int(line.still_ends[still]))
        line.followed.append((stop, now))
        if still is None or stop == begin:
            return
        seen.add((line.position, still))
        now, line = _through(lines, line, still, stop, begin, parts)


def _through(
    lines: Sequence[_Line], line: _Line, still: int, now: int, begin: int, parts: defaultdict[_Key, int]
) -> tuple[int, _Line]:
    """From the end of a standstill to the moment, and the rank, that made its collective possible."""
    row: int | None = line.still_row(still)
    since = partial(line.still_start, still)
    stays = not line.held_up(still)
    gone: set[tuple[int, int]] = set()  # rows of a torn recording may free each other at one moment
    while row is not None and now > begin and (line.position, row) not in gone:
        gone.add((line.position, row))
        name = line.transfer_name(row)
        if stays or line.need[row] == MISSING:
            start = min(now, max(begin, since()))
            parts[line.kind(row), line.position, name] += now - start
            line.carried.append((start, now, row))
            return start, line
        arrival = max(begin, min(now, int(line.need[row])))
        parts[line.kind(row), line.position, name] += now - arrival
        line.carried.append((arrival, now, row))
        now, last_row = arrival, int(line.last_row[row])
        line = lines[int(line.last[row])]
        row, since = line.queued_behind(last_row), partial(line.issued, last_row)
    return now, line
