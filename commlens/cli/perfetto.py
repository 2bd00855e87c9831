"""A run as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open: all ranks on one clock.

Written a rank at a time, a block of rows at a time, so that it takes little more memory than joining the ranks.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from commlens._version import __version__
from commlens.analyzers.across.critical_path import find_path
from commlens.analyzers.counted.read_nodes import read_nodes
from commlens.analyzers.coverage import find_coverage
from commlens.analyzers.intervals import Ints
from commlens.analyzers.stages import join_ranks
from commlens.analyzers.views.flows import find_flows
from commlens.analyzers.views.path_spans import PathSpans, path_spans
from commlens.analyzers.views.readings import Readings, readings
from commlens.analyzers.views.states import recorded_between
from commlens.cli import trace_events as events
from commlens.cli.rank_events import RankEvents, Threads
from commlens.render.trust import compared_clocks
from commlens.trace.schema import MISSING

if TYPE_CHECKING:
    from commlens.trace import Run

_GZIP_LEVEL: Final = 1  # six times smaller than the text is; higher levels take several times as long
_SCALES: Final = {"B/s": ("MB/s", 1e6)}
_ALONE: Final = "each rank is drawn on its own clock: do not compare times of different ranks; there are no arrows"


@dataclass(frozen=True)
class Written:
    """What went into a trace.

    Attributes:
        ranks: how many.
        collectives: a part on each rank counts as one.
        arrows: collectives with arrows between their ranks.
        clocks: how times of ranks compare, in words.
        notes: what is missing from it, a sentence each.
    """

    ranks: int
    collectives: int
    arrows: int
    clocks: str
    notes: tuple[str, ...]


def write_trace(run: Run, path: Path, packed: bool) -> Written:
    """Write the trace of a run.

    Args:
        run: the run.
        path: a new file.
        packed: compress it with gzip.

    Raises:
        OSError: it cannot be written.
    """
    trace = _Trace(run)
    with _opened(path, packed) as stream:
        for block in trace.write():
            stream.write(block)
    return trace.written


@contextmanager
def _opened(path: Path, packed: bool) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if not packed:
            yield file
            return
        with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packer:
            yield packer  # type: ignore[misc]


class _Trace:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.ranks, self.joined = join_ranks(run)
        self.clock = find_coverage(run, self.ranks, self.joined).clock
        self.flows, arrows = find_flows(self.ranks, self.joined)
        begins = [self._begins(position) for position in range(len(self.ranks))]
        self.base_ns = min((begin for begin in begins if begin is not None), default=0)
        self.pid = max([run.world_size, *(number + 1 for number in run.ranks)])
        collectives = sum(facts.columns.over.size for facts in self.ranks)
        self.written = Written(len(self.ranks), collectives, arrows, compared_clocks(self.clock), self._notes())

    def _begins(self, position: int) -> int | None:
        """Where a rank's record begins on the common clock."""
        begin, end = recorded_between(self.ranks[position])
        return int(self.joined.clocks.aligned(position, np.array([begin]))[0]) if end > begin else None

    def _notes(self) -> tuple[str, ...]:
        missing = self.run.missing
        few = ", ".join(map(str, missing[:8])) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        apart = self.clock.refusal is not None and len(self.ranks) > 1
        return (
            *((_ALONE,) if apart else ()),
            *((f"ranks {few} were not recorded",) if missing else ()),
            *(() if any(facts.columns.over.size for facts in self.ranks) else ("no collective was recorded",)),
            *self.run.notes,
        )

    def write(self) -> Iterator[bytes]:
        """The file, a block at a time."""
        yield b'{"displayTimeUnit":"ms","otherData":' + json.dumps(self._about()).encode() + b',"traceEvents":[\n'
        for position, facts in enumerate(self.ranks):
            steps = self.run.ranks[facts.rank].columns("collectives", ["step"])["step"].astype(np.int64)
            rank = RankEvents(self.ranks, self.joined, position, self.flows[position], steps, self.base_ns)
            self.run.ranks[facts.rank].forget()
            yield from rank.write()
        for each in readings(read_nodes(self.ranks, self.run.ranks), self.joined):
            yield self._counter(each)
        yield from self._of_all()
        # The last event has no comma behind it, as JSON wants it.
        yield events.described("process_sort_index", self.pid, {"sort_index": -1}).rstrip(b",\n") + b"\n]}\n"

    def _about(self) -> dict[str, Any]:
        return {
            "commlens": __version__,
            "run": self.run.run_id,
            "starts_at_ns": self.base_ns,
            "clocks": self.written.clocks,
            "clock_uncertainty_us": self.clock.uncertainty_us,
            "clocks_refused": self.clock.refusal,
            "notes": list(self.written.notes),
        }

    def _counter(self, each: Readings) -> bytes:
        unit, scale = _SCALES.get(each.unit, (each.unit, 1.0))
        inside = each.time_ns >= self.base_ns
        values = events.shortest(each.value[inside] / scale)
        name = events.name_of(f"{each.device} {each.counter}")
        pid = self.ranks[each.position].rank
        return events.counts(pid, each.time_ns[inside] - self.base_ns, name, unit, values)

    def _of_all(self) -> Iterator[bytes]:
        """The process that is no rank's: what the trace rests on, and the critical path."""
        threads = Threads(self.pid)
        yield events.described("process_name", self.pid, {"name": "all ranks"})
        tid = str(threads.add("about this trace"))
        notes = [f"clocks: {self.written.clocks}", *self.written.notes]
        names = events.picked([events.name_of(note) for note in notes], np.arange(len(notes)))
        yield events.instants(self.pid, tid, np.arange(len(notes)), names)
        path = find_path(self.ranks, self.joined.waits, self.joined.clocks) if len(self.ranks) > 1 else None
        if path is not None:
            yield self._path(path_spans(self.ranks, self.joined, path), str(threads.add("critical path")))
        yield from threads.named

    def _path(self, spans: PathSpans, tid: str) -> bytes:
        start, end = spans.start_ns - self.base_ns, spans.end_ns - self.base_ns
        kinds = [events.name_of(kind) for kind, _ in spans.kinds]
        rank = np.array([facts.rank for facts in self.ranks])[spans.position]
        fields = events.arguments(
            events.argument("rank", events.whole(rank)), last=("kind", events.picked(kinds, spans.code))
        )
        return events.slices(self.pid, tid, np.maximum(start, 0), end - start, self._path_names(spans), *fields)

    def _path_names(self, spans: PathSpans) -> Any:
        """What each span is, and whose."""
        did = np.zeros(spans.row.size, np.int64)
        words: dict[str, int] = {}
        for position, facts in enumerate(self.ranks):
            own = np.flatnonzero(spans.position == position)
            rows = np.where(spans.row[own] == MISSING, 0, spans.row[own])
            pairs = [(spans.code[own])]
            columns = facts.columns.words
            for name in ("op", "group"):
                codes: Ints = columns[name].codes[rows] if columns[name].codes.size else rows
                pairs.append(np.where(spans.row[own] == MISSING, MISSING, codes))
            found, which = np.unique(np.column_stack(pairs), axis=0, return_inverse=True)
            names = [self._path_name(spans, position, *map(int, each)) for each in found]
            did[own] = np.array([words.setdefault(name, len(words)) for name in names], np.int64)[which.ravel()]
        return events.picked([events.name_of(name) for name in words], did)

    def _path_name(self, spans: PathSpans, position: int, code: int, op: int, group: int) -> str:
        facts, (kind, name) = self.ranks[position], spans.kinds[code]
        if op == MISSING:
            return f"{name or kind}, rank {facts.rank}"
        ops, groups = (facts.columns.words[word].words for word in ("op", "group"))
        return f"{kind}: {ops[op]} in group {groups[group]}, rank {facts.rank}"
