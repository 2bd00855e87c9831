"""Logs of NCCL Inspector, the profiler plugin that comes with NCCL: <host>-pid<process>.log, a file a process.

**Groups and numbers.** NCCL counts collectives for each operation of a communicator apart, and leaves out those of
less than a set size, so where an AllReduce stood among the AllGathers of a communicator nobody can tell. A group is
therefore a communicator and an operation, "0xe62dedaa97644a/AllReduce", in which the number means what the format
says: the n-th of its group. Collectives whose lines are lost leave gaps, and the others still match.

**Ranks.** A line tells the rank in the communicator. The largest communicator of a process is taken for the world.

**Times.** Durations are whole microseconds of the device's clock (timing "device"), or of the host's ("host").
Only a verbose log (NCCL_INSPECTOR_DUMP_VERBOSE=1) tells when: the host's launch, and when its proxy thread saw the
end, which is late by as much as it polls. Of other logs there is the time at which a line was written, which may be
the end of the job. Then operations are laid as late as they can have been, one after another in each communicator:
durations are right, times are bounds, and info["clock"]["comparable"] is False.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.importers.imported import ImportedRank
from commlens.trace.importers.nccl_inspector_lines import Operation, parse_lines
from commlens.trace.importers.nccl_inspector_rows import group_of, table
from commlens.trace.schema import MISSING


def recognise(head: bytes) -> bool:
    """Whether a file that begins so is a log."""
    return b'"n_ranks"' in head and (b'"coll_perf"' in head or b'"p2p_perf"' in head)


def read(path: Path) -> list[ImportedRank]:
    """The ranks in a log: one, or as many as the process drove devices.

    Raises:
        TraceError: There is no operation in it, or it may not be read.
    """
    content = Content(path)
    lines = list(parse_lines(content))
    operations = [line for line in lines if line is not None]
    if not operations:
        raise TraceError(f"{path} holds no operation; run the job with NCCL_INSPECTOR_ENABLE=1 and give its .log files")
    notes = []
    if len(lines) > len(operations):
        notes.append(f"{len(lines) - len(operations)} of its {len(lines)} lines are damaged or cut off: left out")
    if not content.whole:
        notes.append("it is cut off or damaged within its gzip; the lines before that were used")
    parts, strange = _ranks(operations)
    if strange:
        notes.append(f"{strange} operations are of communicators that tell no device of the process: left out")
    return [_rank(path, part, notes) for part in parts]


def _ranks(operations: Sequence[Operation]) -> tuple[list[list[Operation]], int]:
    """The operations of each rank; and how many cannot be given to one.

    A process with several devices is several ranks of the same communicator. Where it is in several communicators,
    devices have the same rank in each or cannot be told.
    """
    ranks: defaultdict[str, set[int]] = defaultdict(set)
    for each in operations:
        ranks[each.place.communicator].add(each.place.rank)
    if all(len(own) == 1 for own in ranks.values()):
        return [list(operations)], 0
    world = max(operations, key=lambda each: (each.place.size, len(ranks[each.place.communicator]))).place
    devices = ranks[world.communicator]
    parts: dict[int, list[Operation]] = {rank: [] for rank in sorted(devices)}
    strange = 0
    for each in operations:
        if ranks[each.place.communicator] == devices:
            parts[each.place.rank].append(each)
        else:
            strange += 1
    return list(parts.values()), strange


def _rank(path: Path, operations: Sequence[Operation], notes: Sequence[str]) -> ImportedRank:
    places = sorted({each.place for each in operations}, key=lambda place: -place.size)
    world = [place for place in places if place.size == places[0].size]
    rank = world[0].rank if len({place.rank for place in world}) == 1 else None
    columns, bounds = table(operations, None if rank is None else {place.communicator for place in world})
    about = [f"its rank is that in the largest communicator of the process, of {world[0].size} ranks"]
    if rank is None:
        about = [f"its rank cannot be told: it differs between its largest communicators, of {world[0].size} ranks"]
    if bounds:
        about.append(
            f"{bounds} of {len(operations)} operations have no time, only a duration: they are laid where the line was "
            "written; record with NCCL_INSPECTOR_DUMP_VERBOSE=1"
        )
    return ImportedRank(
        source=path,
        rank=rank,
        world_size=world[0].size,
        info=_info(operations, rank, bool(bounds)),
        run={"backend": "nccl"},
        tables={"collectives": columns},
        notes=[*notes, *about],
    )


def _info(operations: Sequence[Operation], rank: int | None, bounds: bool) -> dict[str, object]:
    last = operations[-1]
    world_size = max(each.place.size for each in operations)
    groups = {}
    for each in operations:
        name, place = group_of(each), each.place
        # Of the other communicators only their other members' logs tell who is in them.
        whole = rank is not None and place.size == world_size
        ranks = list(range(place.size)) if whole else []
        groups[name] = {"name": name, "desc": each.desc, "ranks": ranks, "size": place.size, "rank": place.rank}
    info: dict[str, object] = {"host": last.host or None, "groups": list(groups.values())}
    info["clock"] = {"comparable": not bounds}
    if last.process != MISSING:
        info["pid"] = last.process
    return info
