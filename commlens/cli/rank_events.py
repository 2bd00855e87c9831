"""One rank as a process of a trace: what its thread did, its standstill, its collectives, its devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.across.communicators import split_by
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.columns import Column
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts
from commlens.analyzers.views.flows import Flows
from commlens.analyzers.views.side_by_side import side_by_side
from commlens.analyzers.views.spans import RankSpans, rank_spans
from commlens.analyzers.views.states import rank_states
from commlens.cli import trace_events as events
from commlens.render.words import size
from commlens.trace.schema import KERNEL_KINDS, MISSING, PHASES

_BLOCK: Final = 1 << 15  # rows written at once: bounds the memory
_STANDING: Final = ("exposed wait", "exposed transfer", "exposed, not split")


@dataclass
class Threads:
    """The threads of a process, numbered as they come; never as the process, which viewers take for its main thread."""

    pid: int
    free: int = 1
    named: list[bytes] = field(default_factory=list)

    def add(self, name: str, count: int = 1) -> int:
        """Threads beside each other for spans that overlap; the number of the first."""
        first = self.pid + 1 if self.free <= self.pid < self.free + count else self.free
        self.free = first + count
        for tid in range(first, self.free):
            beside = f" ({tid - first + 1})" if tid > first else ""
            named = {"name": events.shortened(name) + beside}
            self.named.append(events.described("thread_name", self.pid, named, tid))
            self.named.append(events.described("thread_sort_index", self.pid, {"sort_index": tid}, tid))
        return first


class RankEvents:
    """The events of one rank.

    Args:
        ranks: stage one of all ranks.
        joined: stage two.
        position: which of them.
        flows: arrows of this rank.
        steps: the step that each of its collectives was issued in, MISSING where not known, shape (rows,).
        base_ns: what is time 0 of the trace on the common clock.
    """

    def __init__(
        self, ranks: Sequence[RankFacts], joined: Joined, position: int, flows: Flows, steps: Ints, base_ns: int
    ) -> None:
        self.facts, self.joined, self.position, self.flows = ranks[position], joined, position, flows
        self.step, self.base_ns, self.pid = steps, base_ns, ranks[position].rank
        self.states = rank_states(self.facts, joined, position)
        self.spans = rank_spans(ranks, joined, position, self.states.end_ns)
        self.rank_of = np.array([*(facts.rank for facts in ranks), MISSING])
        self.threads = Threads(self.pid)

    def write(self) -> Iterator[bytes]:
        """Everything of the rank, a block at a time."""
        name = f"rank {self.facts.rank}" + (f" ({self.facts.who.host})" if self.facts.who.host else "")
        yield events.described("process_name", self.pid, {"name": events.shortened(name)})
        yield events.described("process_sort_index", self.pid, {"sort_index": self.pid})
        yield from self._steps()
        yield from self._phases()
        yield from self._standstill()
        yield from self._collectives()
        yield from self._calls()
        yield from self._kernels()
        yield from self.threads.named

    def time(self, aligned: Ints) -> Ints:
        """Times of the common clock as those of the trace."""
        return np.maximum(aligned - self.base_ns, 0)

    def own(self, times: Ints) -> Ints:
        """Times of the rank's clock as those of the trace."""
        return self.time(self.joined.clocks.aligned(self.position, times))

    def _steps(self) -> Iterator[bytes]:
        steps = self.facts.steps
        if steps.index.size:
            start, tid = self.own(steps.start_ns), self.threads.add("analysed steps")
            names = [events.name_of(f"step {number}") for number in steps.index]
            name = events.picked(names, np.arange(len(names)))
            yield events.slices(self.pid, str(tid), start, self.own(steps.end_ns) - start, name)

    def _phases(self) -> Iterator[bytes]:
        columns = self.facts.columns
        words = columns.phase_words["phase"]
        seen = np.logical_or.reduce([columns.during(phase) for phase in PHASES])
        found = split_by(columns.phases["thread"][seen])
        training = columns.training_thread
        for thread, which in sorted(found, key=lambda each: (each[0] != training, each[0])):
            rows = np.flatnonzero(seen)[which]
            name = "training thread" if thread == training else f"thread {thread}"
            start, end = (self.own(columns.phases[side][rows]) for side in ("start_ns", "end_ns"))
            names = _both(words, columns.phase_words["name"], rows)
            yield from self._beside(name, start, end, names)

    def _standstill(self) -> Iterator[bytes]:
        parts = self.states.parts[:3]
        if any(part.starts.size for part in parts):
            tid = str(self.threads.add("standing still for a collective"))
            for part, name in zip(parts, _STANDING, strict=True):
                start, end = self.time(part.starts), self.time(part.ends)
                yield events.slices(self.pid, tid, start, end - start, events.name_of(name))

    def _kernels(self) -> Iterator[bytes]:
        columns = self.facts.columns
        for kind in KERNEL_KINDS:
            rows = np.flatnonzero(columns.kernel_words["kind"].equals(kind))
            start, end = (self.own(columns.kernels[side][rows]) for side in ("start_ns", "end_ns"))
            words = [events.name_of(word) for word in columns.kernel_words["name"].words]
            names = events.picked(words, columns.kernel_words["name"].codes[rows])
            yield from self._beside(f"device: {kind}", start, np.maximum(start, end), names)

    def _beside(self, thread: str, start: Ints, end: Ints, names: Any) -> Iterator[bytes]:
        """Spans on as many threads of one name as they need."""
        if not start.size:
            return
        track = side_by_side(start, end)
        tid = self.threads.add(thread, int(track.max()) + 1) + track
        for first in range(0, start.size, _BLOCK):
            part = slice(first, first + _BLOCK)
            yield events.slices(self.pid, events.whole(tid[part]), start[part], (end - start)[part], names[part])

    def _collectives(self) -> Iterator[bytes]:
        spans, group = self.spans, self.facts.columns.words["group"]
        tid = np.zeros(spans.row.size, np.int64)
        for code, which in split_by(group.codes[spans.row]):
            track = side_by_side(spans.start_ns[which], spans.end_ns[which])
            tid[which] = track + self.threads.add(self._group_name(code, spans.row[which[0]]), int(track.max()) + 1)
            yield self._queue(code, which)
        for first in range(0, spans.row.size, _BLOCK):
            part = slice(first, first + _BLOCK)
            yield from _Part(self, spans, part, events.whole(tid[part])).write()

    def _group_name(self, code: int, row: int) -> str:
        group, desc = (self.facts.columns.words[name] for name in ("group", "group_desc"))
        what = desc.words[desc.codes[row]] if desc.codes[row] != MISSING else ""
        return f"group {group.words[code] if code != MISSING else '?'}" + (f" ({what})" if what else "")

    def _queue(self, code: int, which: Ints) -> bytes:
        """How many collectives of a group stand in its queue behind others of it, as a counter."""
        row = self.spans.row[which]
        issued = self.own(self.facts.columns.collectives["issued_ns"][row])
        started, ended = self.time(self.spans.start_ns[which]), self.time(self.spans.end_ns[which])
        order = np.argsort(issued, kind="stable")
        issued, started, reach = issued[order], started[order], np.maximum.accumulate(ended[order])
        behind = np.flatnonzero((issued[1:] < reach[:-1]) & (started[1:] > issued[1:])) + 1
        times = np.concatenate([issued[behind], started[behind]])
        change = np.repeat([1, -1], behind.size)
        order = np.argsort(times, kind="stable")
        last = np.append(np.diff(times[order]) > 0, True)[: times.size]
        waiting = np.cumsum(change[order])[last]
        name = events.name_of(f"queued in {self._group_name(code, int(row[0]))}")
        return events.counts(self.pid, times[order][last], name, "collectives", events.whole(waiting))

    def _calls(self) -> Iterator[bytes]:
        """Collectives that cannot be drawn as a span, for they have no start, or an end that is not known."""
        columns = self.facts.columns
        drawn = np.zeros(columns.over.size, bool)
        drawn[self.spans.row] = True
        rows = np.flatnonzero(~drawn & (columns.collectives["issued_ns"] != MISSING))
        if not rows.size:
            return
        tid = str(self.threads.add("calls of collectives whose times are not known"))
        for first in range(0, rows.size, _BLOCK):
            own = rows[first : first + _BLOCK]
            untold = columns.words["timing"].equals("enqueue_only")[own] & ~columns.over[own]
            finished = events.picked(["false", "true"], np.where(untold, MISSING, columns.over[own]))
            fields = events.arguments(*self.facts_of(own), last=("finished", finished))
            time = self.own(columns.collectives["issued_ns"][own])
            yield events.instants(self.pid, tid, time, self.names(own), *fields)

    def names(self, rows: Ints) -> Any:
        """Operation and size of collectives."""
        op, count = self.facts.columns.words["op"], self.facts.columns.collectives["bytes"][rows]
        sizes, which = np.unique(count, return_inverse=True)
        pairs, code = np.unique((op.codes[rows] + 1) * sizes.size + which, return_inverse=True)
        words = ["?", *op.words]
        named = [(words[pair // sizes.size], int(sizes[pair % sizes.size])) for pair in pairs]
        return events.picked(
            [events.name_of(word if total <= 0 else f"{word} {size(total)}") for word, total in named], code
        )

    def facts_of(self, rows: Ints) -> tuple[Any, ...]:
        """Arguments that every collective has."""
        columns, words = self.facts.columns.collectives, self.facts.columns.words
        return (
            *(events.argument(name, _word(words[name], rows)) for name in ("group", "op", "dtype")),
            *(events.known_number(name, columns[name][rows]) for name in ("seq", "bytes", "bucket", "peer")),
            events.known_number("step", self.step[rows]),
        )


class _Part:
    """Some of a rank's collectives: each a slice, with its wait and its transfer inside it."""

    def __init__(self, of: RankEvents, spans: RankSpans, part: slice, tid: Any) -> None:
        self.of, self.tid, self.row = of, tid, spans.row[part]
        self.start, self.end = of.time(spans.start_ns[part]), of.time(spans.end_ns[part])
        self.split, self.finished = spans.split[part] == 1, spans.finished[part]
        self.number, self.leaves = of.flows.number[self.row], of.flows.leaves[self.row]
        self.arrives = (self.number != MISSING) & ~self.leaves
        border = np.where(self.arrives, of.flows.enters_ns[self.row], spans.need_ns[part])
        self.border = of.time(np.clip(border, spans.start_ns[part], spans.end_ns[part]))

    def write(self) -> Iterator[bytes]:
        names, fields = self.of.names(self.row), self._arguments()
        yield events.slices(self.of.pid, self.tid, self.start, self.end - self.start, names, *fields)
        waits = self.split & (self.border > self.start)
        yield self._slices(waits, self.start, self.border, '"wait"')
        moves = self.split & ((self.end > self.border) | self.arrives)
        arrow = events.bound(self.number, "flow_in", self.arrives)
        yield self._slices(moves, self.border, self.end, '"transfer"', arrow)

    def _slices(self, chosen: NDArray[np.bool_], start: Ints, end: Ints, name: Any, *more: Any) -> bytes:
        tid, named, *fields = (events.chosen(each, chosen) for each in (self.tid, name, *more))
        return events.slices(self.of.pid, tid, start[chosen], (end - start)[chosen], named, *fields)

    def _arguments(self) -> tuple[Any, ...]:
        waits, columns = self.of.joined.waits[self.of.position], self.of.facts.columns.collectives
        issued, started = columns["issued_ns"][self.row], columns["started_ns"][self.row]
        queued = np.where((issued != MISSING) & (started >= issued), started - issued, MISSING)
        return (
            events.bound(self.number, "flow_out", self.leaves & (self.number != MISSING)),
            '"cat":"collective",',
            *events.arguments(
                *self.of.facts_of(self.row),
                events.known_ms("queued_ms", queued),
                events.known_ms("wait_ms", waits.wait_ns[self.row]),
                events.known_ms("transfer_ms", waits.transfer_ns[self.row]),
                events.known_number("last_rank", self.of.rank_of[waits.last[self.row]]),
                events.argument("finished", "false", self.finished == 0),
                last=("timing", _word(self.of.facts.columns.words["timing"], self.row)),
            ),
        )


def _word(column: Column, rows: Ints) -> Any:
    return events.picked([events.name_of(word) for word in column.words], column.codes[rows])


def _both(first: Column, second: Column, rows: Ints) -> Any:
    """Two words of each row as one name."""
    width = len(second.words) + 1
    pairs, code = np.unique(first.codes[rows] * width + second.codes[rows] + 1, return_inverse=True)
    words = ["", *second.words]
    return events.picked([events.name_of(f"{first.words[p // width]} {words[p % width]}".strip()) for p in pairs], code)
