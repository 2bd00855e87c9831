"""SQLite exports of Nsight Systems (nsys export --type sqlite).

A rank is a device on which a process ran kernels. Kernels of collectives become collectives without sizes and
sequence numbers: an export has neither. Its times count from the session's start, whose UTC it tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from commlens.errors import TraceError
from commlens.trace.importers.imported import Column, ImportedRank
from commlens.trace.importers.nsys_calls import Calls
from commlens.trace.importers.nsys_device import DeviceRows, read_device, split_ranks
from commlens.trace.importers.nsys_ranges import Mark, marks, read_ranges
from commlens.trace.importers.nsys_session import Session, read_session
from commlens.trace.importers.nsys_tables import MAGIC, Ints, open_tables, process_of
from commlens.trace.schema import COMMUNICATION, KERNEL_KINDS, MISSING, OPS

_COMMUNICATION: Final = KERNEL_KINDS.index(COMMUNICATION)
_MOST_RANKS: Final = 4096


def recognise(head: bytes) -> bool:
    """Whether a file that begins so may be an export: it is an SQLite database."""
    return head.startswith(MAGIC)


def read(path: Path) -> list[ImportedRank]:
    """The ranks in an export, by device; several have no number, for nothing in an export tells it.

    Raises:
        TraceError: It is no export, holds no GPU kernel, is damaged, or may not be read.
    """
    with open_tables(path) as tables:
        if "StringIds" not in tables:
            raise TraceError(f"{path} is a database of something else; give one made by nsys export --type sqlite")
        session, rows, ranges = read_session(tables), read_device(tables), read_ranges(tables)
    parts, strange = split_ranks(rows)
    if not parts:
        raise TraceError(f"{path} holds no GPU kernel; record with nsys profile --trace=cuda,nvtx and export again")
    if len(parts) > _MOST_RANKS:
        raise TraceError(f"{path} is damaged: it tells of {len(parts)} devices; export it again with nsys export")
    calls, steps = Calls(ranges), marks(ranges)
    found = [_rank(path, part, session, calls, steps) for part in parts]
    found[0].notes += _notes(rows, session, strange)
    if len(found) == 1:  # the environment is of the one process that was launched
        found[0].rank, found[0].world_size = session.rank, session.world_size
    return found


def _rank(path: Path, rows: DeviceRows, session: Session, calls: Calls, steps: Sequence[Mark]) -> ImportedRank:
    device, process, origin = int(rows.device[0]), int(rows.process[0]), session.start_ns or 0
    talk = rows.at(np.flatnonzero(rows.kind == _COMMUNICATION))
    ops = _ops(talk, calls)
    unknown = int((ops == MISSING).sum())
    return ImportedRank(
        source=path,
        rank=None,
        world_size=None,
        info={"host": session.host or path.name, "device": session.gpus.get(device), "device_index": device},
        run={"backend": "nccl" if _is_nccl(talk) else None, "profiler": session.product},
        tables={
            "kernels": _kernels(rows, origin),
            "collectives": _collectives(talk, ops, origin),
            "phases": _phases(_own(steps, process), origin),
        },
        notes=[f"the operation of {unknown} of {ops.size} collectives cannot be told"] if unknown else [],
    )


def _is_nccl(talk: DeviceRows) -> bool:
    return any(talk.names[code].startswith("nccl") for code in np.unique(talk.name))


def _own(steps: Sequence[Mark], process: int) -> list[Mark]:
    """The marks of a process; all of them where kernels tell no process."""
    whose = process_of(np.array([mark.thread for mark in steps], np.int64))
    return [mark for mark, own in zip(steps, (whose == process) | (process == MISSING), strict=True) if own]


def _ops(talk: DeviceRows, calls: Calls) -> Ints:
    """Operation of each collective, from the kernel's name, else from the call that launched it."""
    ops = talk.op.copy()
    for row in np.flatnonzero((ops == MISSING) & (talk.launched != MISSING)):
        op = calls.op(int(talk.thread[row]), int(talk.launched[row]))
        ops[row] = MISSING if op is None else OPS.index(op)
    return ops


def _kernels(rows: DeviceRows, origin: int) -> dict[str, Column]:
    used, name = np.unique(rows.name, return_inverse=True)
    return {
        "kind": (rows.kind, KERNEL_KINDS),
        "name": (name.ravel(), [rows.names[code] for code in used]),
        "device": rows.device,
        "stream": rows.stream,
        "launched_ns": _absolute(rows.launched, origin),
        "start_ns": _absolute(rows.start, origin),
        "end_ns": _absolute(rows.end, origin),
    }


def _collectives(talk: DeviceRows, ops: Ints, origin: int) -> dict[str, Column]:
    """In the order of issue; one whose launch is not in the export counts as issued when it started."""
    issued = np.where(talk.launched == MISSING, talk.start, talk.launched)
    order = np.argsort(issued, kind="stable")
    first = np.zeros(order.size, np.int64)
    return {
        "event": np.arange(order.size),
        "group": (first, [""]),
        "op": (ops[order], OPS),
        "issued_ns": _absolute(issued[order], origin),
        "started_ns": _absolute(talk.start[order], origin),
        "completed_ns": _absolute(talk.end[order], origin),
        "source": (first, ["nsys"]),
        "timing": (first, ["device"]),
    }


def _phases(own: Sequence[Mark], origin: int) -> dict[str, Column]:
    phases, names = sorted({mark.phase for mark in own}), sorted({mark.name for mark in own})
    return {
        "phase": (np.array([phases.index(mark.phase) for mark in own], np.int64), phases),
        "name": (np.searchsorted(names, [mark.name for mark in own]).astype(np.int64), names),
        "start_ns": np.array([mark.start for mark in own], np.int64) + origin,
        "end_ns": np.array([mark.end for mark in own], np.int64) + origin,
        "thread": np.zeros(len(own), np.int64),  # the thread that trains, whichever it is
    }


def _absolute(times: Ints, origin: int) -> Ints:
    return np.where(times == MISSING, MISSING, times + origin)


def _notes(rows: DeviceRows, session: Session, strange: int) -> list[str]:
    notes = ["an Nsight Systems export tells neither sizes nor sequence numbers of collectives"]
    if session.start_ns is None:
        notes.append("its times count from the start of the session: they cannot be compared with other files'")
    if rows.damaged:
        notes.append(f"{rows.damaged} of its rows make no sense and were left out")
    if strange:
        notes.append(f"{strange} times a process touched a device without its own kernels there; that was left out")
    return notes
