"""When operations ran, on the host's clock, as far as NCCL's version tells."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.nccl import layout
from commlens.trace.nccl.device_clock import MOST_DRIFT, Evidence, on_host
from commlens.trace.nccl.log import Log
from commlens.trace.schema import DEVICE_CLOCKS, MISSING

Columns = dict[str, Any]

_FIRST_TIMED: Final = 4  # NCCL's table from which kernels tell the device's time
_FIRST_KERNELS: Final = 3


def times_of(log: Log) -> Columns:
    """Start and end on the host's monotonic clock, what they may be wrong by, the device's own duration, the clock."""
    rows = log.operations
    table = np.zeros(max(log.communicators, default=0) + 1, np.int64)
    for index, each in log.communicators.items():
        table[index] = each.table
    versions = table[rows["communicator"]] if len(rows) else np.zeros(0, np.int64)
    has_kernels = (versions >= _FIRST_TIMED) & (rows["device_start_ns"] > 0)
    ended = (rows["flags"] & (layout.UNDER_WAY | layout.CUT_OFF)) == 0
    stopped = ended & (rows["channels_ended"] > 0)
    timed = has_kernels & stopped & (rows["device_stop_ns"] >= rows["device_start_ns"])
    times = _seen_by_host(rows, versions, ended)
    duration = np.where(timed, rows["device_stop_ns"] - rows["device_start_ns"], MISSING)
    for own in _by_device(log):
        _map_device(rows, own & has_kernels, timed, times)
    return {**times, "device_ns": duration}


def _seen_by_host(rows: NDArray[Any], versions: NDArray[np.int64], ended: NDArray[np.bool_]) -> Columns:
    """What the host saw, of versions whose kernels do not tell the time."""
    old = (versions < _FIRST_TIMED) & (rows["host_start_ns"] > 0)
    clock = np.where(versions >= _FIRST_KERNELS, DEVICE_CLOCKS.index("kernel_seen"), DEVICE_CLOCKS.index("proxy_seen"))
    return {
        "start_ns": np.where(old, rows["host_start_ns"], MISSING),
        "end_ns": np.where(old & ended & (rows["host_stop_ns"] > 0), rows["host_stop_ns"], MISSING),
        "error_ns": np.full(len(rows), MISSING, np.int64),
        "clock": np.where(old, clock, DEVICE_CLOCKS.index("none")),
    }


def _map_device(rows: NDArray[Any], own: NDArray[np.bool_], timed: NDArray[np.bool_], times: Columns) -> None:
    """Fills in the times of one device's operations."""
    seen = rows[own]
    if not len(seen):
        return
    starts = seen["device_start_ns"]
    least = seen["before_ns"] - starts
    stops = np.maximum(seen["device_stop_ns"], starts)
    has_most = seen["offset_most_ns"] != layout.NO_OFFSET
    # It was read at some time until the stop.
    most = np.where(has_most, seen["offset_most_ns"], 0) + np.ceil(MOST_DRIFT * (stops - starts)).astype(np.int64)
    evidence = Evidence(starts, most, has_most, least, seen["before_ns"] > 0)
    start, end = on_host(evidence, starts), on_host(evidence, stops)
    clocks = np.where(start.error_ns >= 0, DEVICE_CLOCKS.index("device"), DEVICE_CLOCKS.index("device_late"))
    known = start.known & end.known
    times["start_ns"][own] = np.where(known, start.time_ns, MISSING)
    times["end_ns"][own] = np.where(known & timed[own], end.time_ns, MISSING)
    one_sided = (start.error_ns < 0) | (end.error_ns < 0)
    times["error_ns"][own] = np.where(known & ~one_sided, np.maximum(start.error_ns, end.error_ns), MISSING)
    times["clock"][own] = np.where(known, clocks, DEVICE_CLOCKS.index("contradictory"))


def _by_device(log: Log) -> list[NDArray[np.bool_]]:
    """Which operations share a clock: those of a device, or of a communicator where the device is not known."""
    keys = {index: (each.device, -1 if each.device >= 0 else index) for index, each in log.communicators.items()}
    own = log.operations["communicator"]
    return [np.isin(own, [i for i, key in keys.items() if key == one]) for one in sorted(set(keys.values()))]
