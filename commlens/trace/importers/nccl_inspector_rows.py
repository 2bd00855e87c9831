"""Operations of an NCCL Inspector log as the collectives table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.imported import Column
from commlens.trace.importers.nccl_inspector_lines import OPS as NAMES
from commlens.trace.importers.nccl_inspector_lines import Operation
from commlens.trace.schema import MISSING, OPS

_TIMINGS: Final = ("device", "host")
# How many times the size is handed in and received: once, and once for each rank.
_MOVES: Final = {
    "all_reduce": (1, 1, 0, 0),
    "broadcast": (1, 1, 0, 0),
    "reduce": (1, 1, 0, 0),
    "all_gather": (1, 0, 0, 1),
    "reduce_scatter": (0, 1, 1, 0),
    "send": (1, 0, 0, 0),
    "recv": (0, 1, 0, 0),
}
_Span = tuple[int, int, int]  # issued, started, completed, us
_NO_TIMES: Final = (MISSING, MISSING, MISSING)


def group_of(operation: Operation) -> str:
    """Name of the group: the communicator, and of collectives the operation."""
    name = operation.place.communicator
    return name if operation.direct else f"{name}/{operation.coll}"


def sizes(op: str | None, size: int, ranks: int) -> tuple[int, int]:
    """Bytes handed in and received, MISSING where not known, from what NCCL was told to move.

    That is each rank's own part of all_gather and reduce_scatter, and the whole of the others. all_to_all,
    gather and scatter are written as messages by all known versions.
    """
    if size == MISSING or op not in _MOVES:
        return MISSING, MISSING
    own_in, own_out, all_in, all_out = _MOVES[op]
    return size * (own_in + all_in * ranks), size * (own_out + all_out * ranks)


def table(operations: Sequence[Operation], world: Collection[str] | None) -> tuple[dict[str, Column], int]:
    """The columns, by issue; and how many operations have a duration but no time.

    Args:
        operations: of one rank, in the order of the log.
        world: communicators whose ranks are global ranks, None where that is not known.
    """
    spans, bounds = _spans(operations)
    order = sorted(range(len(operations)), key=lambda row: (spans[row][0], row))
    rows = [operations[row] for row in order]
    ops = [NAMES.get(each.coll) for each in rows]
    moved = [sizes(op, each.bytes, each.place.size) for op, each in zip(ops, rows, strict=True)]
    seqs = _seqs(rows)
    times = _ints([spans[row] for row in order]).reshape(-1, 3).T
    return {
        "event": np.arange(len(rows)),
        "group": _words([group_of(each) for each in rows]),
        "group_desc": _words([each.desc for each in rows]),
        "seq": _ints(seqs),
        "op": (_ints([MISSING if op is None else OPS.index(op) for op in ops]), OPS),
        "in_bytes": _ints([handed_in for handed_in, _ in moved]),
        "out_bytes": _ints([received for _, received in moved]),
        "group_size": _ints([each.place.size for each in rows]),
        "peer": _ints([each.peer if each.place.communicator in (world or ()) else MISSING for each in rows]),
        "issued_ns": _ns(times[0]),
        "started_ns": _ns(times[1]),
        "completed_ns": _ns(times[2]),
        "source": (np.zeros(len(rows), np.int64), ["nccl_inspector"]),
        "timing": (_ints([0 if each.on_device else 1 for each in rows]), _TIMINGS),
    }, bounds


def _spans(operations: Sequence[Operation]) -> tuple[list[_Span], int]:
    """When each operation ran; and how many are only laid where their lines were written, or nowhere."""
    spans: list[_Span] = [_NO_TIMES] * len(operations)
    latest: dict[tuple[str, bool], int] = {}
    bounds = 0
    for row in reversed(range(len(operations))):
        each = operations[row]
        if each.seen_us != MISSING:
            spans[row] = _seen(each)
            continue
        bounds += 1
        lane = each.place.communicator, each.direct
        spans[row] = _laid(each, min(latest.get(lane, each.dumped_us), each.dumped_us))
        if spans[row][1] != MISSING:
            latest[lane] = spans[row][1]
    return spans, bounds


def _seen(each: Operation) -> _Span:
    """The end is seen late, the duration is right: so the start follows from the end, and is after the launch."""
    lasted = max(each.lasted_us, 0)
    issued = each.issued_us if each.issued_us != MISSING else each.seen_us - lasted
    completed = max(each.seen_us, issued + lasted)
    if issued < 0:
        return MISSING, MISSING, each.seen_us
    return issued, MISSING if each.lasted_us == MISSING else completed - lasted, completed


def _laid(each: Operation, end: int) -> _Span:
    """As late as it can have been; it counts as issued when it started."""
    if end == MISSING or each.lasted_us == MISSING or end < each.lasted_us:
        return _NO_TIMES
    started = end - each.lasted_us
    return (started if each.issued_us == MISSING else min(each.issued_us, started)), started, end


def _seqs(rows: Sequence[Operation]) -> list[int]:
    """Sequence numbers: of messages the n-th to or from the peer, MISSING where lines of the communicator are lost."""
    seqs = [MISSING if each.direct else each.number for each in rows]
    messages: defaultdict[str, list[int]] = defaultdict(list)
    for row, each in enumerate(rows):
        if each.direct:
            messages[each.place.communicator].append(row)
    for own in messages.values():
        own.sort(key=lambda row: rows[row].number)
        if [rows[row].number for row in own] == list(range(1, len(own) + 1)):
            count: Counter[tuple[int, str]] = Counter()
            for row in own:
                end = rows[row].peer, rows[row].coll
                seqs[row] = count[end]
                count[end] += 1
    return seqs


def _ints(values: Sequence[object]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def _ns(us: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(us == MISSING, MISSING, us * 1000)


def _words(words: Sequence[str]) -> Column:
    vocabulary = sorted(set(words))
    codes = {word: code for code, word in enumerate(vocabulary)}
    return _ints([codes[word] for word in words]), vocabulary
