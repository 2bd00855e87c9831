"""When a rank's part of a collective began to execute, where only issue and end are known.

Gloo executes the collectives of a process group in the order of issue on a few
threads (two in torch), so a collective is queued until a thread gets free.
"""

from __future__ import annotations

from typing import Final, TypeGuard

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from commlens.trace.columns import Integers, from_arrow, one_array, to_arrow
from commlens.trace.schema import MISSING, POINT_TO_POINT

_NEVER: Final = np.iinfo(np.int64).max

# Timings whose ends the host saw, without the start.
_ESTIMATED: Final = ("host", "wait")


def started_ns(issued_ns: Integers, completed_ns: Integers, workers: int) -> NDArray[np.int64]:
    """Start of every item of a first-in first-out queue served by `workers` threads.

    An item starts when it is issued and all but `workers - 1` of the earlier
    items have completed; an earlier item without a known end never does.

    Args:
        issued_ns: Times of issue in ns, ascending.
        completed_ns: Times of completion in ns, `MISSING` where not known.
        workers: Number of threads, at least 1.

    Returns:
        Times of start in ns, never after the item's own end; `MISSING` where
        no thread is known to have got free, or the issue is not known.

    Raises:
        ValueError: `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"a queue needs a worker, not {workers}")
    issued = issued_ns.astype(np.int64)
    ends = np.where(completed_ns == MISSING, _NEVER, completed_ns).astype(np.int64)
    started = np.minimum(np.maximum(issued, _worker_free(ends, workers)), ends)
    started[(started == _NEVER) | (issued == MISSING)] = MISSING
    return started


def _worker_free(ends: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """The `workers`-th largest end of the items before each item; `MISSING` where there are fewer."""
    free = np.full(ends.size, MISSING, np.int64)
    if workers >= ends.size:
        return free
    rest = ends
    for _ in range(workers - 1):
        # What each item displaces from the running maximum competes for the next place.
        largest = np.maximum.accumulate(rest)
        rest = np.concatenate(([MISSING], np.minimum(rest[1:], largest[:-1])))
    free[1:] = np.maximum.accumulate(rest)[:-1]
    return free


def _hangs_on(late: NDArray[np.bool_], issued_ns: Integers, completed_ns: Integers, workers: int) -> NDArray[np.bool_]:
    """Items whose start would be another if the `late` ends, which are upper bounds, were as early as can be."""
    ends = np.where(completed_ns == MISSING, _NEVER, completed_ns).astype(np.int64)
    earliest = np.where(late, np.minimum(issued_ns, ends), ends)
    free, free_earliest = (_worker_free(each, workers) for each in (ends, earliest))
    differ: NDArray[np.bool_] = np.maximum(issued_ns, free) != np.maximum(issued_ns, free_earliest)
    return differ


def fill_started(rows: pa.Table, groups: object) -> pa.Table:
    """Collectives with null `started_ns` estimated where the timing is host or wait.

    The end of a "wait" is when the caller came to wait, or earlier: a start that hangs on it stays null.

    Args:
        rows: Collectives in the order of issue.
        groups: The "groups" of rank.json; those with an integer "workers" are
            queues. Sends, receives and other groups start when they are issued.
    """
    issued, ends, known = (_values(rows, name) for name in ("issued_ns", "completed_ns", "started_ns"))
    wanted = (known == MISSING) & (issued != MISSING) & _is_one_of(rows, "timing", _ESTIMATED)
    if not wanted.any():
        return rows
    estimate = np.where(ends == MISSING, issued, np.minimum(issued, ends))
    late = _is_one_of(rows, "timing", ("wait",))
    queued = (issued != MISSING) & ~_is_one_of(rows, "op", POINT_TO_POINT)
    for name, workers in _queues(groups).items():
        queue = np.flatnonzero(queued & _is_one_of(rows, "group", (name,)))
        estimate[queue] = started_ns(issued[queue], ends[queue], workers)
        unsure = queue[_hangs_on(late[queue], issued[queue], ends[queue], workers)]
        estimate[unsure] = MISSING
    filled = to_arrow(np.where(wanted, estimate, known), pa.int64())
    return rows.set_column(rows.column_names.index("started_ns"), "started_ns", filled)


def _queues(groups: object) -> dict[str, int]:
    """Workers by group name; what is not of the expected shape is no queue."""
    entries = groups if isinstance(groups, list) else []
    pairs = [(entry.get("name"), entry.get("workers")) for entry in entries if isinstance(entry, dict)]
    return {name: workers for name, workers in pairs if isinstance(name, str) and _is_count(workers)}


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _values(rows: pa.Table, column: str) -> Integers:
    return from_arrow(one_array(rows, column))


def _is_one_of(rows: pa.Table, column: str, names: tuple[str, ...] | frozenset[str]) -> NDArray[np.bool_]:
    array = one_array(rows, column)
    wanted = [code for code, name in enumerate(array.dictionary.to_pylist()) if name in names]
    return np.isin(from_arrow(array), wanted)
