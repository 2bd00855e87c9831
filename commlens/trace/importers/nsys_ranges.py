"""What NVTX ranges in an Nsight Systems export tell: steps, and which call launched a kernel of NCCL's.

NCCL opens a range for each of its calls (ncclAllReduce, ncclGroupEnd), torch one for each collective
(nccl:all_to_all) where torch.autograd.profiler.emit_nvtx is on.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from commlens.trace.importers.nsys_tables import LATEST_NS, Tables
from commlens.trace.importers.torch_names import op_of
from commlens.trace.schema import MISSING, STEP_MARK

_PUSH_POP, _START_END = 59, 60
_OPTIMIZER: Final = re.compile(r"Optimizer\.step#")
# Names of whole steps, the surest first: of those in a file only the first kind counts, for others may lie within.
_STEPS: Final = (
    re.compile(r"ProfilerStep#\d+"),
    re.compile(r"(?:global[ _-]?|train(?:ing)?[ _-]?)?(?:step|iter|iteration)[ _:#=-]*\d+", re.IGNORECASE),
    re.compile(r"train(?:ing)?[ _-]?(?:step|iter|iteration)", re.IGNORECASE),
)
_LIKELY: Final = ("nccl%", "%step%", "%iter%")
_IN_GROUP: Final = {"ncclGroupStart": 1, "ncclGroupEnd": -1}


class Range(NamedTuple):
    """An NVTX range: its text, times in ns and the thread that opened it (a global id)."""

    name: str
    start: int
    end: int
    thread: int


class Mark(NamedTuple):
    """A row of the phases table, and whose it is."""

    phase: str
    name: str
    start: int
    end: int
    thread: int


def read_ranges(tables: Tables) -> list[Range]:
    """The ranges that may be steps or calls of NCCL, by start."""
    if not tables.has("NVTX_EVENTS", "start", "end", "eventType"):
        return []
    where = f"eventType IN ({_PUSH_POP}, {_START_END})"
    if tables.has("NVTX_EVENTS", "text"):
        where += f" AND (text IS NULL OR {_likely('text')})"
    ids = tables.rows("StringIds", ("id", "value"), _likely('"value"'))
    registered = {number: text for number, text in ids if isinstance(text, str)}
    found = []
    columns = ("text", "textId", "start", "end", "globalTid")
    for text, text_id, start, end, thread in tables.rows("NVTX_EVENTS", columns, where):
        name = text if isinstance(text, str) else registered.get(text_id)
        sane = type(start) is int and type(end) is int and 0 <= start <= end < LATEST_NS
        if name and sane:
            found.append(Range(name, start, end, thread if type(thread) is int else MISSING))
    return sorted(found, key=lambda r: (r.start, -r.end))


def _likely(column: str) -> str:
    """SQL that holds for every text which may matter."""
    return "(" + " OR ".join(f"{column} LIKE '{pattern}'" for pattern in _LIKELY) + ")"


def marks(ranges: Iterable[Range]) -> list[Mark]:
    """Steps and optimizer steps."""
    ranges = list(ranges)
    found = [Mark("optimizer", r.name, *r[1:]) for r in ranges if _OPTIMIZER.match(r.name)]
    for pattern in _STEPS:
        if steps := [Mark(STEP_MARK, r.name, *r[1:]) for r in ranges if pattern.fullmatch(r.name)]:
            return sorted(found + steps, key=lambda mark: mark.start)
    return found


class Calls:
    """Which operation a launch belongs to, by thread and time."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        by_thread: defaultdict[int, list[Range]] = defaultdict(list)
        for each in ranges:
            if each.name.startswith("nccl"):
                by_thread[each.thread].append(each)
        self._torch = {thread: _Spans(_torch_calls(own)) for thread, own in by_thread.items()}
        self._nccl = {thread: _Spans(_nccl_calls(own)) for thread, own in by_thread.items()}

    def op(self, thread: int, time: int) -> str | None:
        """The operation under way on a thread at a time, ns; None where that is not told."""
        for spans in (self._torch, self._nccl):
            if (own := spans.get(thread)) and (op := own.at(time)):
                return op
        return None


class _Spans:
    """Operations by time, of one thread: they do not overlap."""

    def __init__(self, spans: Sequence[tuple[int, int, str | None]]) -> None:
        self._starts = [start for start, _, _ in spans]
        self._spans = spans

    def at(self, time: int) -> str | None:
        place = bisect_right(self._starts, time) - 1
        if place < 0 or self._spans[place][1] < time:
            return None
        return self._spans[place][2]


def _torch_calls(ranges: Sequence[Range]) -> list[tuple[int, int, str | None]]:
    """Named "nccl:all_to_all, op_id = 7", "nccl:send 0->1"."""
    named = [r for r in ranges if r.name.startswith("nccl:")]
    return [(r.start, r.end, op_of(re.split("[ ,]", r.name)[0])) for r in named]


def _nccl_calls(ranges: Sequence[Range]) -> list[tuple[int, int, str | None]]:
    """Calls of NCCL; of a group the end that launches it, with the operation that the group is."""
    found: list[tuple[int, int, str | None]] = []
    depth, group, before = 0, [""], ""
    for each in ranges:
        if each.name.startswith("nccl:"):
            continue
        if step := _IN_GROUP.get(each.name, 0):
            if step > 0 and not depth:
                group = [before]
            depth = max(0, depth + step)
            if not depth:
                found.append((each.start, each.end, _op_of_group(group)))
        elif depth:
            group.append(each.name)
        else:
            found.append((each.start, each.end, _op_of_call(each.name)))
        before = each.name
    return found


def _op_of_call(name: str) -> str | None:
    return op_of(name.removeprefix("nccl"))


def _op_of_group(group: Sequence[str]) -> str | None:
    """The one operation of a group, given the call before it and the calls within.

    torch's all_to_all asks for the number of ranks and then sends to and receives from each in one group;
    a group of sends and receives alone may be anything.
    """
    before, *calls = group
    ops = {_op_of_call(name) for name in calls}
    if len(ops) == 1:
        return ops.pop()
    return "all_to_all" if ops == {"send", "recv"} and before == "ncclCommCount" else None
