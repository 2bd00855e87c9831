"""Operations of a log as columns of the `device_ops` table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.nccl import layout
from commlens.trace.nccl.log import Log
from commlens.trace.nccl.times import times_of
from commlens.trace.schema import DEVICE_CLOCKS, DEVICE_STATES, DTYPES, MISSING, OPS

Columns = dict[str, Any]

# NCCL's words for operations and types. It counts some collectives in bytes, whatever their tensors were of.
FUNCS: Final = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "AlltoAll": "all_to_all",
    "Broadcast": "broadcast",
    "Reduce": "reduce",
    "Gather": "gather",
    "Scatter": "scatter",
    "Send": "send",
    "Recv": "recv",
}
_TYPES: Final = {
    "ncclInt8": "int8",
    "ncclUint8": "uint8",
    "ncclInt32": "int32",
    "ncclInt64": "int64",
    "ncclFloat16": "float16",
    "ncclBfloat16": "bfloat16",
    "ncclFloat32": "float32",
    "ncclFloat64": "float64",
    "ncclFloat8e4m3": "float8",
    "ncclFloat8e5m2": "float8",
}


def communicator_name(id: int) -> str:
    """How a communicator is called in groups and tables."""
    return f"{id:#x}"


def device_ops(log: Log, wall_offset_ns: int, chosen: NDArray[np.bool_] | None = None) -> Columns:
    """The columns, in the order of the log's operations.

    Args:
        log: of one process.
        wall_offset_ns: wall clock minus monotonic clock of what the times are to be compared with.
        chosen: which of its operations; all where not given.
    """
    times = times_of(log)
    rows = log.operations if chosen is None else log.operations[chosen]
    if chosen is not None:
        times = {name: values[chosen] for name, values in times.items()}
    for name in ("start_ns", "end_ns"):
        times[name] = np.where(times[name] == MISSING, MISSING, times[name] + wall_offset_ns)
    flags = rows["flags"].astype(np.int64)
    return {
        **_who(log, rows),
        "order": rows["order"],
        "seq": np.where(flags & layout.MESSAGE, MISSING, rows["seq"]),
        "message": message_numbers(rows),
        "op": _words(log, rows["func"], FUNCS, OPS),
        "dtype": _words(log, rows["dtype"], _TYPES, DTYPES, "other"),
        "bytes": rows["bytes"],
        "peer": np.where(rows["peer"] < 0, MISSING, rows["peer"]),
        "algorithm": _named(log, rows["algorithm"]),
        "protocol": _named(log, rows["protocol"]),
        "channels": rows["channels"].astype(np.int64),
        "enqueued_ns": rows["enqueued_ns"] + wall_offset_ns,
        **times,
        "clock": (times["clock"], DEVICE_CLOCKS),
        "state": (_states(flags), DEVICE_STATES),
        "graph": (flags & layout.CAPTURED) // layout.CAPTURED,
        "copy_engine": (flags & layout.COPY_ENGINE) // layout.COPY_ENGINE,
        **_proxies(rows),
    }


def _who(log: Log, rows: NDArray[Any]) -> Columns:
    indices = sorted(log.communicators)
    place = np.searchsorted(indices, rows["communicator"])
    return {
        "communicator": (place, [communicator_name(log.communicators[each].id) for each in indices]),
        "name": (place, [log.communicators[each].name for each in indices]),
    }


def message_numbers(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Of each message its number among those to, or from, the same peer of its communicator; else MISSING."""
    numbers = np.full(len(rows), MISSING, np.int64)
    messages = np.flatnonzero(rows["flags"] & layout.MESSAGE)
    own = rows[messages]
    sends = (own["flags"] & layout.SEND).astype(np.int64)
    order = np.lexsort((own["order"], sends, own["peer"], own["communicator"]))
    keys = np.stack((own["communicator"].astype(np.int64), own["peer"].astype(np.int64), sends))[:, order]
    new = np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))[: len(order)]
    places = np.arange(len(order))
    numbers[messages[order]] = places - np.maximum.accumulate(np.where(new, places, 0))
    return numbers


def _states(flags: NDArray[np.int64]) -> NDArray[np.int64]:
    conditions = [flags & bit > 0 for bit in (layout.COMPLETE, layout.CUT_OFF, layout.UNDER_WAY)]
    return np.select(conditions, [DEVICE_STATES.index(each) for each in ("ended", "cut_off", "under_way")], 3)


def _proxies(rows: NDArray[Any]) -> Columns:
    """What the proxies did; not known where none took part, which on one node is the rule."""
    none = rows["proxy_ops"] == 0
    waits = {f"{name}_ns": np.where(none, MISSING, rows["waits_ns"][:, i]) for i, name in enumerate(layout.WAITS)}
    moved = {name: np.where(none, MISSING, rows[name]) for name in ("sent_bytes", "received_bytes")}
    return {**waits, **moved, "steps": np.where(none, MISSING, rows["steps"].astype(np.int64))}


def _words(
    log: Log, codes: NDArray[Any], meanings: dict[str, str], vocabulary: Sequence[str], otherwise: str | None = None
) -> Columns | tuple[NDArray[np.int64], Sequence[str]]:
    """NCCL's words as ours; MISSING, or `otherwise`, where there is none."""
    unknown = MISSING if otherwise is None else vocabulary.index(otherwise)
    found = np.full(256, unknown, np.int64)
    for id, word in log.names.items():
        if id < 256 and word in meanings:
            found[id] = vocabulary.index(meanings[word])
    found[0] = MISSING
    return found[codes], vocabulary


def _named(log: Log, codes: NDArray[Any]) -> tuple[NDArray[np.int64], Sequence[str]]:
    """Words as NCCL has them, each once: it may keep a word at several places."""
    words = sorted(set(log.names.values()))
    found = np.full(256, MISSING, np.int64)
    for id, word in log.names.items():
        if 0 < id < 256:
            found[id] = words.index(word)
    used = np.unique(found[codes])
    used = used[used != MISSING]
    again = np.full(len(words) + 1, MISSING, np.int64)
    again[used] = np.arange(len(used))
    return again[found[codes]], [words[each] for each in used]
