"""The collectives in a profiler's trace: from the arguments of kernels, else from the host's calls, else from names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.imported import Column
from commlens.trace.importers.kineto_rows import RECORDED, Call, CommArgs, Rows
from commlens.trace.importers.torch_names import dtype_of, op_of
from commlens.trace.schema import DTYPES, MISSING, OPS, TIMINGS

_Ints = NDArray[np.int64]
_MOST_NAMES = 2**15 - 1  # of groups, as the format has room for
MOST_RANKS = 1 << 18  # of a job; more is damage
_LAST_SEQ = 2**62


@dataclass(frozen=True)
class Clock:
    """From the file's times to nanoseconds: in two steps, because a float holds no time since 1970 to the nanosecond.

    Attributes:
        origin_us: a whole time of the file, before all others.
        base_ns: what the file's times count from.
    """

    origin_us: float
    base_ns: int

    def ns(self, us: NDArray[np.float64]) -> _Ints:
        """Times in ns."""
        return np.rint((us - self.origin_us) * 1e3).astype(np.int64) + (int(self.origin_us) * 1000 + self.base_ns)


@dataclass(frozen=True)
class Device:
    """What ran on the device, in the order of the file, int64 arrays of shape (rows,).

    Attributes:
        start, end: ns.
        launched: begin of the host's launch, MISSING where it is not in the trace.
        thread: thread that launched it, MISSING where not known.
        launched_us: `launched` as the file has it.
        name: code of its name.
        device, stream: where it ran.
        blocks: of threads, MISSING where not known.
    """

    start: _Ints
    end: _Ints
    launched: _Ints
    thread: _Ints
    launched_us: NDArray[np.float64]
    name: _Ints
    device: _Ints
    stream: _Ints
    blocks: _Ints

    @classmethod
    def of(cls, rows: Rows, clock: Clock) -> Device:
        """The device rows with their launches."""
        start, lasted, name, device, stream, correlation, blocks = rows.device()
        begun, key, thread = rows.launches()
        order = np.argsort(key, kind="stable")
        found = np.minimum(np.searchsorted(key[order], correlation), max(key.size - 1, 0))
        row = order[found] if key.size else np.zeros(start.size, np.intp)
        known = (key[row] == correlation) & (correlation >= 0) if key.size else np.zeros(start.size, bool)
        launched_us = np.where(known, begun[row], np.nan) if key.size else np.full(start.size, np.nan)
        return cls(
            start=clock.ns(start),
            end=clock.ns(start) + np.rint(lasted * 1e3).astype(np.int64),  # exact, where a float's sum is not
            launched=np.where(known, clock.ns(np.where(known, launched_us, clock.origin_us)), MISSING),
            thread=np.where(known, thread[row], MISSING).astype(np.int64) if key.size else np.full(start.size, MISSING),
            launched_us=launched_us,
            name=name.astype(np.int64),
            device=np.clip(device, -1, 2**15 - 1).astype(np.int64),
            stream=np.clip(stream, -1, 2**31 - 1).astype(np.int64),
            blocks=np.clip(blocks, MISSING, 2.0**60).astype(np.int64),
        )


@dataclass(slots=True)
class _Row:
    """One collective on this rank; times in ns."""

    issued: int
    started: int
    completed: int
    timing: str
    op: str | None
    dtype: str | None = None
    in_bytes: int = MISSING
    out_bytes: int = MISSING
    group: str = ""
    desc: str = ""
    size: int = MISSING
    seq: int = MISSING
    peer: int = MISSING


Members = Mapping[str, dict[str, Any]]  # of each group {name, desc, ranks, size}


def groups(rows: Rows, distributed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The process groups that the file describes, by name."""
    found: dict[str, dict[str, Any]] = {}
    configured = distributed.get("pg_config")
    for each in configured if isinstance(configured, list) else []:
        if isinstance(each, dict) and isinstance(each.get("pg_name"), str):
            ranks = _ranks(each.get("ranks"))
            found[each["pg_name"]] = _group(each["pg_name"], each.get("pg_desc"), ranks, each.get("pg_size"))
    for args in (*rows.comm_args.values(), *(call.args for call in rows.calls)):
        if args.group and args.group not in found:
            found[args.group] = _group(args.group, args.desc, _all_ranks(args), args.group_size)
    return found


def _group(name: str, desc: object, ranks: list[int], size: object) -> dict[str, Any]:
    count = size if type(size) is int and 0 < size <= MOST_RANKS else len(ranks)
    return {"name": name, "desc": str(desc or ""), "ranks": ranks if len(ranks) == count else [], "size": count}


def _ranks(value: object) -> list[int]:
    """Global ranks, given as a list or as the text of one; of a shortened one what is there."""
    if isinstance(value, str):
        value = [int(word[:9]) for word in value.strip("[] ").replace(",", " ").split() if word.isdecimal()]
    return [each for each in value if type(each) is int and 0 <= each <= MOST_RANKS] if isinstance(value, list) else []


def _all_ranks(args: CommArgs) -> list[int]:
    """Global ranks of a group; the profiler shortens long lists, which their stride completes if it fits."""
    ranks, count = _ranks(args.ranks), args.group_size
    if len(ranks) >= 3 and len(ranks) < count <= MOST_RANKS and args.stride > 0:
        whole = list(range(args.first_rank, args.first_rank + args.stride * count, args.stride))
        if whole[: len(ranks) - 1] == ranks[:-1]:
            return whole
    return ranks


def collectives(
    rows: Rows, device: Device, clock: Clock, members: Members, world_size: int | None
) -> dict[str, Column]:
    """The collectives table.

    Args:
        rows: what was kept of the file.
        device: the device rows of it.
        clock: the file's clock.
        members: its process groups.
        world_size: ranks of the job, where known.
    """
    found = [*_on_device(rows, device), *_on_host(rows, clock)]
    only = next(iter(members)) if len(members) == 1 else ""
    for row in found:
        row.group = row.group or only
        _complete(row, members)
    found.sort(key=lambda row: (row.issued, row.started))
    return _columns(found)


def _on_device(rows: Rows, device: Device) -> list[_Row]:
    """A row for every kernel of a collective."""
    recorded = _Spans([call for call in rows.calls if call.name == RECORDED])
    spans = _Spans([call for call in rows.calls if call.name != RECORDED])
    begun = int(device.launched[device.launched != MISSING].min(initial=np.iinfo(np.int64).max))
    pointers: dict[str, str] = {}
    found = []
    for place, args in rows.comm_args.items():
        started, launched = int(device.start[place]), int(device.launched[place])
        thread, when = int(device.thread[place]), float(device.launched_us[place])
        row = _Row(
            # A launch that the trace does not have came before those it has.
            issued=launched if launched != MISSING else min(started, begun),
            started=started,
            completed=int(device.end[place]),
            timing="device",
            op=rows.ops[int(device.name[place])],
        )
        call = None if args.name else recorded.around(thread, when)
        _describe(row, call.args if call else args)
        if call:
            _describe_old(row, call.args, pointers)
        span = spans.around(thread, when)
        if span:
            _describe_span(row, span)
        found.append(row)
    _tell_by_others(found, [int(device.name[place]) for place in rows.comm_args])
    return found


def _tell_by_others(found: Sequence[_Row], names: Sequence[int]) -> None:
    """The operation of kernels whose call is not in the trace, if all others of their name have the same."""
    told: defaultdict[int, set[str]] = defaultdict(set)
    for row, name in zip(found, names, strict=True):
        if row.op is not None:
            told[name].add(row.op)
    for row, name in zip(found, names, strict=True):
        if row.op is None and len(told[name]) == 1:
            row.op = next(iter(told[name]))


def _on_host(rows: Rows, clock: Clock) -> list[_Row]:
    """A row for every span of a collective that the host executed: its end is when the profiler was told of it."""
    issues: defaultdict[str | None, list[Call]] = defaultdict(list)
    for call in sorted(rows.calls, key=lambda call: call.start):
        if call.name.startswith("c10d::"):
            issues[op_of(call.name)].append(call)
    spans = [call for call in rows.calls if call.name.startswith(("gloo:", "mpi:", "ucc:"))]
    found = []
    for span in sorted(spans, key=lambda call: -call.start):
        op = op_of(span.name)
        if op is None:
            continue
        # Backwards, so that what was issued before the trace began leaves the first spans without an issue.
        earlier = issues[op]
        while earlier and earlier[-1].start > span.start:
            earlier.pop()
        issue = earlier.pop().start if earlier else span.start
        issued, started, completed = clock.ns(np.array([issue, span.start, span.end])).tolist()
        row = _Row(issued, started, completed, "wait", op)
        _describe(row, span.args)
        _describe_span(row, span)
        found.append(row)
    return found


def _describe(row: _Row, args: CommArgs) -> None:
    """From the profiler's arguments of collectives."""
    row.op = op_of(args.name) or row.op
    row.group, row.desc = args.group or row.group, args.desc or row.desc
    row.size = args.group_size if 0 < args.group_size <= MOST_RANKS else row.size
    row.seq = args.seq if 0 <= args.seq <= _LAST_SEQ else row.seq
    row.peer = {"send": args.destination, "recv": args.source}.get(row.op or "", MISSING)
    kind = dtype_of(args.dtype)
    if kind:
        row.dtype = kind[0]
        row.in_bytes, row.out_bytes = (_bytes(count, kind[1]) for count in (args.in_nelems, args.out_nelems))


def _describe_old(row: _Row, args: CommArgs, pointers: dict[str, str]) -> None:
    """From the inputs as torch before 2.2 recorded them: sequence number, address of the group, its size."""
    inputs = args.inputs
    if args.name or not isinstance(inputs, list) or len(inputs) != 8 or not all(isinstance(i, str) for i in inputs):
        return
    seq, address, size = inputs[1], inputs[2], inputs[7]
    if seq.isdecimal() and address.isdecimal() and size.isdecimal():
        row.seq, row.size = int(seq[:15]), int(size[:7])
        # Addresses differ between ranks: all that they share is the order in which the groups come.
        order = sum(known.startswith(f"{row.size} ranks") for known in pointers.values())
        row.group = pointers.setdefault(address, f"{row.size} ranks #{order}")


def _describe_span(row: _Row, span: Call) -> None:
    """From the shape and type of the first input."""
    row.op = op_of(span.name) or row.op
    types, dims = span.args.types, span.args.dims
    first = types[0] if isinstance(types, list) and types else None
    kind = dtype_of(first) if isinstance(first, str) else None
    if kind is None or row.in_bytes != MISSING:
        return
    row.dtype = kind[0]
    shape = dims[0] if isinstance(dims, list) and dims else None
    if isinstance(shape, list) and all(type(length) is int and length >= 0 for length in shape):
        row.in_bytes = _bytes(prod(shape), kind[1])
        row.out_bytes = _other_bytes(row.op, row.in_bytes, row.size)


def _other_bytes(op: str | None, in_bytes: int, size: int) -> int:
    """What a rank receives, from what it hands in."""
    if op in ("all_reduce", "broadcast", "reduce", "send", "recv", "barrier") or in_bytes == MISSING:
        return in_bytes
    if op in ("all_gather", "reduce_scatter") and size > 0:
        return in_bytes * size if op == "all_gather" else in_bytes // size
    return MISSING


def _bytes(count: int, each: int) -> int:
    return count * each if 0 <= count < 2**56 else MISSING


def _complete(row: _Row, members: Members) -> None:
    """Fill in what the description of the group tells; peers by their global rank."""
    group = members.get(row.group)
    if group is None:
        row.peer = MISSING
        return
    row.desc, row.size = row.desc or group["desc"], row.size if row.size > 0 else group["size"]
    ranks = group["ranks"]
    row.peer = ranks[row.peer] if 0 <= row.peer < len(ranks) else MISSING


class _Spans:
    """Calls by thread, to be asked which one an instant lies in."""

    _BACK = 16  # how deep calls nest, at most

    def __init__(self, calls: Sequence[Call]) -> None:
        self._threads: dict[int, tuple[NDArray[np.float64], list[Call]]] = {}
        by_thread: defaultdict[int, list[Call]] = defaultdict(list)
        for call in sorted(calls, key=lambda call: call.start):
            by_thread[call.thread].append(call)
        for thread, own in by_thread.items():
            self._threads[thread] = np.array([call.start for call in own]), own

    def around(self, thread: int, us: float) -> Call | None:
        """The innermost call of a thread around an instant, None where there is none."""
        if thread not in self._threads:
            return None
        starts, calls = self._threads[thread]
        last = int(np.searchsorted(starts, us, side="right"))
        return next((call for call in reversed(calls[max(0, last - self._BACK) : last]) if call.end >= us), None)


def _columns(found: list[_Row]) -> dict[str, Column]:
    def numbers(name: str) -> _Ints:
        return np.array(list(map(attrgetter(name), found)), np.int64)

    def names(name: str, words: Sequence[str]) -> Column:
        places = {word: place for place, word in enumerate(words)}
        return np.array([places.get(each, MISSING) for each in map(attrgetter(name), found)], np.int64), list(words)

    def distinct(name: str) -> Column:
        return names(name, sorted(set(map(attrgetter(name), found)))[:_MOST_NAMES])

    count = len(found)
    return {
        "event": np.arange(count),
        "group": distinct("group"),
        "group_desc": distinct("desc"),
        "seq": numbers("seq"),
        "op": names("op", OPS),
        "dtype": names("dtype", DTYPES),
        "in_bytes": numbers("in_bytes"),
        "out_bytes": numbers("out_bytes"),
        "group_size": numbers("size"),
        "peer": numbers("peer"),
        "issued_ns": numbers("issued"),
        "started_ns": numbers("started"),
        "completed_ns": numbers("completed"),
        "thread": np.zeros(count, np.int64),
        "source": (np.zeros(count, np.int64), ["kineto"]),
        "timing": names("timing", TIMINGS),
    }
