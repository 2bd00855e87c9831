"""Traces of torch.profiler (Kineto): the Chrome trace JSON that `export_chrome_trace` writes.

Kernels, their launches and the host's calls of collectives become the tables of the trace format; events
of other kinds are passed over. Every time that is read is kept: kernels whose launch came before the
profiler began are there as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.content import Content
from commlens.trace.importers.imported import Column, ImportedRank
from commlens.trace.importers.kineto_collectives import collectives
from commlens.trace.importers.kineto_device import Clock, Device
from commlens.trace.importers.kineto_groups import MOST_RANKS, groups
from commlens.trace.importers.kineto_rows import Rows
from commlens.trace.importers.trace_events import TraceEvents
from commlens.trace.schema import KERNEL_KINDS, STEP_MARK

_TRACE: Final = re.compile(
    rb'^\s*(?:\{.*"traceEvents"\s*:\s*\[|\[\s*\{\s*"(?:ph|name|cat|pid|tid|ts|args)")', re.DOTALL
)
_EARLY: Final = re.compile(rb'^\s*\{\s*"schemaVersion"\s*:')
_PHASES: Final = {"Optimizer.step#": "optimizer", "ProfilerStep#": STEP_MARK}
_LAST_NS: Final = 2**61


def recognise(head: bytes) -> bool:
    """Whether a file that begins so is a trace."""
    return bool(_EARLY.match(head) or _TRACE.match(head))


def read(path: Path) -> list[ImportedRank]:
    """The rank in a trace file.

    Raises:
        TraceError: It is no trace, or may not be read.
    """
    events, rows = TraceEvents(Content(path)), Rows()
    for some in events:
        rows.take(some)
    about = _About(events.about)
    clock = Clock(_earliest(rows), about.base_ns)
    device = Device.of(rows, clock)
    members = groups(rows, about.distributed)
    world_size = _number(about.distributed.get("world_size"))
    table = collectives(rows, device, clock, members)
    return [
        ImportedRank(
            source=path,
            rank=_number(about.distributed.get("rank")),
            world_size=world_size,
            info={"host": about.host, "device": about.device, "groups": list(members.values())},
            run={
                "backend": _text(about.distributed.get("backend")),
                "nccl": _text(about.distributed.get("nccl_version")),
            },
            tables={"collectives": table, "kernels": _kernels(rows, device), "phases": _phases(rows, clock)},
            notes=[*_notes(events, rows), *_unnamed(table, world_size)],
        )
    ]


class _About:
    """What the file says besides its events; what is of another shape is not known."""

    def __init__(self, raw: dict[str, msgspec.Raw]) -> None:
        base = _decoded(raw, "baseTimeNanoseconds")
        self.base_ns = base if isinstance(base, int) and 0 <= base < _LAST_NS else 0
        found = _decoded(raw, "distributedInfo")
        self.distributed: dict[str, Any] = found if isinstance(found, dict) else {}
        host = _decoded(raw, "host_name")
        self.host = host if isinstance(host, str) else None
        devices = _decoded(raw, "deviceProperties")
        names = [d.get("name") for d in devices if isinstance(d, dict)] if isinstance(devices, list) else []
        self.device = next((name for name in names if isinstance(name, str)), None)


def _decoded(raw: dict[str, msgspec.Raw], key: str) -> Any:
    try:
        return msgspec.json.decode(raw[key])
    except (KeyError, msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_RANKS else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _earliest(rows: Rows) -> float:
    """The first time in the file, us."""
    times = [rows.device()[0], rows.launches()[0], [c.start for c in rows.calls], [m[2] for m in rows.marks]]
    known = np.concatenate([np.asarray(each, np.float64) for each in times])
    return float(np.floor(known.min())) if known.size else 0.0


def _kernels(rows: Rows, device: Device) -> dict[str, Column]:
    kinds = np.array([KERNEL_KINDS.index(kind) for kind in rows.kinds] or [0], np.int8)
    return {
        "kind": (kinds[device.name] if device.name.size else np.zeros(0, np.int8), KERNEL_KINDS),
        "name": (device.name.astype(np.int32), list(rows.names)),
        "device": device.device.astype(np.int16),
        "stream": device.stream.astype(np.int32),
        "blocks": device.blocks,
        "launched_ns": device.launched,
        "start_ns": device.start,
        "end_ns": device.end,
    }


def _phases(rows: Rows, clock: Clock) -> dict[str, Column]:
    marks = sorted(rows.marks, key=lambda mark: mark[2])
    kinds = [next((p for prefix, p in _PHASES.items() if m[0].startswith(prefix)), "forward") for m in marks]
    words = sorted(set(kinds))
    names = sorted({mark[0] for mark in marks})
    # The thread of the steps is the one that trains, which the format calls 0.
    training = next((mark[1] for mark in marks), 0)
    return {
        "phase": (_codes(kinds, words), words),
        "name": (_codes([mark[0] for mark in marks], names), names),
        "start_ns": clock.ns(np.array([mark[2] for mark in marks], np.float64)),
        "end_ns": clock.ns(np.array([mark[3] for mark in marks], np.float64)),
        "thread": np.array([0 if mark[1] == training else 1 for mark in marks], np.int16),
    }


def _codes(words: list[str], vocabulary: list[str]) -> NDArray[np.int64]:
    places = {word: place for place, word in enumerate(vocabulary)}
    return np.array([places[word] for word in words], np.int64)


def _unnamed(table: dict[str, Column], world_size: int | None) -> list[str]:
    _, groups = table["group"]
    unnamed = (world_size or 0) > 1 and "" in groups
    return ["collectives that name no process group were taken to be of all ranks"] if unnamed else []


def _notes(events: TraceEvents, rows: Rows) -> list[str]:
    notes = []
    if not events.whole:
        notes.append("it is cut off or damaged at its end; the events before that were used")
    if events.damaged:
        notes.append(f"{events.damaged} of its events are damaged and were left out")
    if rows.strange:
        notes.append(f"{rows.strange} of its events have a negative duration or no possible time and were left out")
    return notes
