"""One collective of a profiler's trace: what the arguments of its kernel, or of the host's call, tell of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.imported import Column
from commlens.trace.importers.kineto_args import CommArgs
from commlens.trace.importers.kineto_groups import MOST_RANKS, Members
from commlens.trace.importers.kineto_rows import Call
from commlens.trace.importers.torch_names import dtype_of, op_of
from commlens.trace.schema import DTYPES, MISSING, OPS, TIMINGS

_Ints = NDArray[np.int64]
_MOST_NAMES = 2**15 - 1  # of groups, as the format has room for
_LAST_SEQ = 2**62


@dataclass(slots=True)
class Row:
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


def describe(row: Row, args: CommArgs) -> None:
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


def describe_old(row: Row, args: CommArgs, pointers: dict[str, str]) -> None:
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


def describe_span(row: Row, span: Call) -> None:
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


def complete(row: Row, members: Members) -> None:
    """Fill in what the description of the group tells; peers by their global rank."""
    group = members.get(row.group)
    if group is None:
        row.peer = MISSING
        return
    row.desc, row.size = row.desc or group["desc"], row.size if row.size > 0 else group["size"]
    ranks = group["ranks"]
    row.peer = ranks[row.peer] if 0 <= row.peer < len(ranks) else MISSING


def columns(found: Sequence[Row]) -> dict[str, Column]:
    """The collectives table of these rows."""

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
