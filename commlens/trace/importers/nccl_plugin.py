"""Files of commlens' NCCL profiler plugin from a program without torch: nccl-<host>-<process>.events, a file a process.

**Ranks.** A communicator tells the rank in it. The largest communicator of a process is taken for the world. A process
with several devices is as many ranks: devices are told apart by their ordinal, or by the rank in the world.

**Groups and numbers.** A group is a communicator, in which every operation was seen in its order, so the number means
what the format says. Where operations of a communicator were lost, or the recording was paused, the numbers of what
came after would not be those of other ranks: such a communicator is a group for each operation, as in
`nccl_inspector`, with NCCL's own numbers, in which what is lost leaves gaps.

**Times.** The device's own clock on the host's, see `trace.nccl.device_clock`; the host's, of NCCL before 2.27.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.errors import TraceError
from commlens.trace.importers.imported import Column, ImportedRank
from commlens.trace.importers.nccl_inspector_groups import fill_members
from commlens.trace.importers.nccl_inspector_rows import sizes
from commlens.trace.nccl import layout
from commlens.trace.nccl.log import Communicator, Log, read_log, recognise
from commlens.trace.nccl.operations import FUNCS, communicator_name, device_ops
from commlens.trace.schema import DEVICE_CLOCKS, MISSING, OPS

__all__ = ["fill_members", "read", "recognise"]

_TIMINGS: Final = ("device", "host", "enqueue_only")
_ON_DEVICE: Final = [DEVICE_CLOCKS.index(each) for each in ("device", "device_late")]


def read(path: Path) -> list[ImportedRank]:
    """The ranks in a file: one, or as many as the process drove devices.

    Raises:
        TraceError: There is no operation in it, or it cannot be read.
    """
    log = read_log(path)
    if not len(log.operations):
        raise TraceError(f"{path} holds no operation; run the job with NCCL_PROFILER_PLUGIN for longer than a moment")
    parts = _parts(log)
    return [_rank(log, own, _notes(log)) for own in parts]


def _notes(log: Log) -> list[str]:
    notes = []
    if log.torn or log.damaged:
        notes.append(f"{log.damaged} records are damaged, {log.torn} bytes are cut off at its end: left out")
    lost = log.tallies.get("no_slot", 0) + log.tallies.get("no_room", 0)
    if lost:
        notes.append(f"{lost} operations were lost for want of room while it was recorded")
    return notes


def _parts(log: Log) -> list[list[int]]:
    """The communicators of each rank in the process."""
    used = sorted({int(each) for each in np.unique(log.operations["communicator"])})
    own = {index: log.communicators[index] for index in used}
    ranks: defaultdict[int, set[int]] = defaultdict(set)
    for each in own.values():
        ranks[each.id].add(each.rank)
    if all(len(found) == 1 for found in ranks.values()):
        return [used]
    if all(each.device >= 0 for each in own.values()):
        keys = {index: each.device for index, each in own.items()}
    else:
        world = max(own.values(), key=lambda each: (each.ranks, len(ranks[each.id])))
        keys = {index: each.rank for index, each in own.items() if ranks[each.id] == ranks[world.id]}
    return [[index for index, key in keys.items() if key == one] for one in sorted(set(keys.values()))]


def _rank(log: Log, own: list[int], notes: list[str]) -> ImportedRank:
    communicators = {index: log.communicators[index] for index in own}
    size = max(each.ranks for each in communicators.values())
    world = {index: each for index, each in communicators.items() if each.ranks == size}
    ranks = {each.rank for each in world.values()}
    rank = next(iter(ranks)) if len(ranks) == 1 and size else None
    chosen = np.isin(log.operations["communicator"], own)
    operations = device_ops(log, log.wall_offset_ns, chosen)
    collectives = _collectives(log, log.operations[chosen], operations, set(world) if rank is not None else set())
    notes = [*notes, f"its rank is that in the largest communicator of the process, of {size} ranks"] if size else notes
    return ImportedRank(
        source=log.path,
        rank=rank,
        world_size=size or None,
        info={
            "host": log.host,
            "boot_id": log.boot_id,
            "pid": log.pid,
            "groups": _groups(
                collectives, communicators, log.operations[chosen], set(world) if rank is not None else set()
            ),
        },
        run={"backend": "nccl"},
        tables={
            "collectives": collectives,
            "device_ops": {**operations, **{name: collectives[name] for name in ("event", "group")}},
        },
        notes=notes,
    )


def _groups(
    collectives: dict[str, Column], communicators: dict[int, Communicator], rows: NDArray[Any], world: set[int]
) -> list[dict[str, object]]:
    codes, words = collectives["group"]
    groups = {}
    for code in np.unique(codes).tolist():
        index = int(rows["communicator"][np.flatnonzero(codes == code)[0]])
        each = communicators[index]
        members = list(range(each.ranks)) if index in world else []
        groups[words[code]] = {
            "name": words[code],
            "desc": each.name,
            "ranks": members,
            "size": each.ranks,
            "rank": each.rank,
        }
    return list(groups.values())


def _collectives(log: Log, rows: NDArray[Any], operations: dict[str, Any], world: set[int]) -> dict[str, Column]:
    ops = operations["op"][0]
    counts = np.array([log.communicators.get(index, _NOBODY).ranks for index in range(max(log.communicators) + 1)])
    ranks = counts[rows["communicator"]]
    clock = operations["clock"][0]
    ended = operations["end_ns"] != MISSING
    timing = np.where(~ended, 2, np.where(np.isin(clock, _ON_DEVICE), 0, 1))
    moved = [
        sizes(None if op < 0 else OPS[op], size, number)
        for op, size, number in zip(ops.tolist(), rows["bytes"].tolist(), ranks.tolist(), strict=True)
    ]
    group, seq = _numbers(log, rows, operations)
    handed, received = np.array(moved, np.int64).reshape(-1, 2).T
    return {
        "event": np.arange(len(rows)),
        "group": group,
        "group_desc": operations["name"],
        "seq": seq,
        "op": operations["op"],
        "dtype": operations["dtype"],
        "in_bytes": handed,
        "out_bytes": received,
        "group_size": np.where(ranks > 0, ranks, MISSING),
        "peer": np.where(np.isin(rows["communicator"], list(world)), operations["peer"], MISSING),
        "issued_ns": operations["enqueued_ns"],
        "started_ns": operations["start_ns"],
        "completed_ns": operations["end_ns"],
        "source": (np.zeros(len(rows), np.int64), ["nccl_plugin"]),
        "timing": (timing, _TIMINGS),
    }


_NOBODY: Final = Communicator(0, "", 0, MISSING, 0, -1, 0)


def _numbers(log: Log, rows: NDArray[Any], operations: dict[str, Any]) -> tuple[Column, NDArray[np.int64]]:
    """Group and number of each operation."""
    words = {id: word for id, word in log.names.items() if word in FUNCS}
    names = [""] * len(rows)
    seq = np.array(operations["message"], np.int64)
    for index in np.unique(rows["communicator"]).tolist():
        own = np.flatnonzero(rows["communicator"] == index)
        collectives = own[(rows["flags"][own] & layout.MESSAGE) == 0]
        name = communicator_name(log.communicators[index].id)
        whole = _is_whole(rows[own], rows[collectives])
        seq[collectives] = np.arange(len(collectives)) if whole else rows["seq"][collectives]
        for place in own.tolist():
            names[place] = name
        for place in [] if whole else collectives.tolist():
            names[place] = f"{name}/{words.get(int(rows['func'][place]), '?')}"
    vocabulary = sorted(set(names))
    codes = {name: code for code, name in enumerate(vocabulary)}
    return (np.array([codes[name] for name in names], np.int64), vocabulary), seq


def _is_whole(own: NDArray[Any], collectives: NDArray[Any]) -> bool:
    """Whether every operation of a communicator is there from the first on, as far as NCCL's numbers tell."""
    if len(own) and (own["order"] != np.arange(len(own))).any():
        return False
    counted = collectives[(collectives["flags"] & layout.COPY_ENGINE) == 0]
    return all(_follow(counted[counted["func"] == func]) for func in np.unique(counted["func"]))


def _follow(rows: NDArray[Any]) -> bool:
    """Whether NCCL's numbers leave none out; not every version counts what a graph replays."""
    steps = np.diff(rows["seq"])
    return bool(((steps == 1) | ((steps == 0) & ((rows["flags"][:-1] & layout.CAPTURED) > 0))).all())
