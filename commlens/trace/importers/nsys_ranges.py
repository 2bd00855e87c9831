"""The NVTX ranges of an Nsight Systems export that tell of steps or of NCCL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from commlens.trace.importers.nsys_tables import LATEST_NS, Tables
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
