"""Which call of the host launched what ran on a device, in an Nsight Systems export."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.nsys_tables import LATEST_NS, Ints, Tables, process_of
from commlens.trace.schema import MISSING

_CORRELATION_BITS: Final = 32


def find_launches(tables: Tables, correlation: Ints, process: Ints) -> tuple[Ints, Ints]:
    """Begin of the call that launched each row, and its thread, MISSING where the export has no such call."""
    calls = tables.numbers("CUPTI_ACTIVITY_KIND_RUNTIME", ("start", "correlationId", "globalTid"))
    whose = process_of(calls["globalTid"])
    if (process == MISSING).all():  # old versions do not tell the process of a kernel
        whose = np.full(whose.size, MISSING)
    processes = np.unique(process)
    keys = _key(processes, whose, calls["correlationId"])
    usable = np.flatnonzero((keys != MISSING) & (calls["start"] >= 0) & (calls["start"] < LATEST_NS))
    usable = usable[np.argsort(calls["start"][usable], kind="stable")]
    ordered, first = np.unique(keys[usable], return_index=True)  # the earliest call of each key
    wanted = _key(processes, process, correlation)
    place = np.searchsorted(ordered, wanted)
    known = np.append(ordered, MISSING)[place] == wanted
    known &= wanted != MISSING
    row = np.append(usable[first], 0)[np.where(known, place, -1)]
    return _taken(calls["start"], row, known), _taken(calls["globalTid"], row, known)


def _key(processes: Ints, process: Ints, correlation: Ints) -> Ints:
    """One number for a process and a correlation id, MISSING where the process is none of `processes`."""
    place = np.minimum(np.searchsorted(processes, process), max(processes.size - 1, 0))
    sane = (correlation >= 0) & (correlation < 1 << _CORRELATION_BITS)
    if processes.size:
        sane &= processes[place] == process
    return np.where(sane, (place << _CORRELATION_BITS) + correlation, MISSING)


def _taken(values: Ints, row: NDArray[np.intp], known: NDArray[np.bool_]) -> Ints:
    return np.where(known, np.append(values, MISSING)[row], MISSING)
