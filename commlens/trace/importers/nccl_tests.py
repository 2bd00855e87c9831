"""Logs of nccl-tests (github.com/NVIDIA/nccl-tests), read as a calibration.

Logs get cut, filtered and concatenated, so each stretch of rows goes with what was said last before it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from commlens.errors import TraceError
from commlens.trace.calibration import INTER, INTRA, Calibration, CalibrationEntry, MadeWith
from commlens.trace.importers.nccl_tests_log import Row, Stretch, parse_log
from commlens.trace.ops import busbw_factor

# Names of nccl-tests' programs, longest first: "reduce" is in three of them.
_PROGRAMS: Final = {
    "reduce_scatter": "reduce_scatter",
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "broadcast": "broadcast",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "sendrecv": "send",
    "scatter": "scatter",
    "gather": "gather",
    "reduce": "reduce",
}
# torch's calls of these work in place; of the others out of place.
_IN_PLACE: Final = frozenset({"all_reduce", "broadcast", "reduce"})
_MOST_RANKS: Final = 4096


def read_log(path: Path, text: str) -> Calibration:
    """The calibration in a log.

    The operation is that of the program the log names, else of the file's name. Sizes that were measured
    several times have the median of their times.

    Raises:
        TraceError: There is nothing of nccl-tests in it, or it does not tell what was measured.
    """
    stretches = [stretch for stretch in parse_log(text) if stretch.rows]
    if not stretches:
        raise TraceError(f"{path} is neither a calibration nor a log of nccl-tests; make one with: commlens calibrate")
    times: defaultdict[tuple[str, int, str | None], defaultdict[int, list[float]]]
    times = defaultdict(lambda: defaultdict(list))
    for stretch in stretches:
        op = _op(path, stretch)
        key = op, _group_size(path, op, stretch), _scope(stretch)
        for row in stretch.rows:
            if (time := _time(op, row) or 0.0) > 0 and row.bytes:
                times[key][row.bytes].append(time)
    entries = [_entry(*key, sizes) for key, sizes in times.items() if sizes]
    if not entries:
        raise TraceError(f"{path} holds no time of a message; give a whole log of nccl-tests")
    library = next((stretch.library for stretch in stretches if stretch.library), "")
    return Calibration(f"nccl-tests: {path.name}", MadeWith("", f"nccl {library}".strip()), tuple(entries))


def _op(path: Path, stretch: Stretch) -> str:
    if "cputime" in stretch.header:
        raise TraceError(f"{path} holds CPU times (-C 1), not transfers; run nccl-tests without -C")
    said = stretch.program or path.name.lower()
    for program, op in _PROGRAMS.items():
        if re.search(rf"(?<![a-z]){program}(?![a-z])", said):
            return op
    if stretch.program:
        raise TraceError(f"{path} measures {stretch.program}, which torch.distributed does not have; give another log")
    raise TraceError(f"{path} does not say which operation it measured; name the file after it, e.g. all_reduce.txt")


def _group_size(path: Path, op: str, stretch: Stretch) -> int:
    """What busbw over algbw tells; else the ranks listed; else the threads and GPUs of one process."""
    if op == "send":
        return 2
    size = _size_from_bandwidths(op, stretch.rows) or len(stretch.hosts) or stretch.processes_gpus
    if not size:
        raise TraceError(f"{path} does not tell how many ranks took part; give the whole log, from its first line")
    return size


def _size_from_bandwidths(op: str, rows: Sequence[Row]) -> int | None:
    """The group size whose bus bandwidth factor is the one in the rows, None where none is or several are."""
    outs = ((row.algbw_gb_s, row.busbw_gb_s) for row in rows)
    ins = ((row.in_place_algbw_gb_s, row.in_place_busbw_gb_s) for row in rows)
    known = [(algbw, busbw) for algbw, busbw in (*outs, *ins) if algbw and busbw]
    if not known:
        return None
    algbw, busbw = max(known)
    slack = 1e-4 + 0.005 / algbw + 0.005 / busbw  # printed with two decimals, at least four digits
    fitting = [n for n in range(2, _MOST_RANKS) if abs((busbw_factor(op, n) or 0.0) * algbw / busbw - 1) <= slack]
    return fitting[0] if len(fitting) == 1 else None


def _scope(stretch: Stretch) -> str | None:
    if not stretch.hosts:
        return None
    return INTRA if len(set(stretch.hosts)) == 1 else INTER


def _time(op: str, row: Row) -> float | None:
    """The time of the call as torch makes it, else of the other; us."""
    preferred, other = row.out_of_place_us, row.in_place_us
    if op in _IN_PLACE:
        preferred, other = other, preferred
    return preferred if preferred is not None else other


def _entry(op: str, group_size: int, scope: str | None, sizes: dict[int, list[float]]) -> CalibrationEntry:
    ordered = sorted(sizes)
    return CalibrationEntry(op, (), group_size, scope, tuple(ordered), tuple(median(sizes[size]) for size in ordered))
