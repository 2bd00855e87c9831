"""Logs of nccl-tests (github.com/NVIDIA/nccl-tests, src/util.cu; also of rccl-tests), read as a calibration.

A log is read line by line: what says how the test ran, then rows of numbers. Logs get cut, filtered and
concatenated, so each stretch of rows goes with what was said last before it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

from commlens.errors import TraceError
from commlens.trace.calibration import INTER, INTRA, Calibration, CalibrationEntry, MadeWith
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
_DEFAULT_HEADER: Final = [
    "size",
    "count",
    "type",
    "redop",
    "root",
    "time",
    "algbw",
    "busbw",
    "#wrong",
    "time",
    "algbw",
    "busbw",
    "#wrong",
]
_TIMES: Final = frozenset({"time", "cputime"})
_MOST_RANKS: Final = 4096

_TAG = re.compile(r"^\[\d+,\d+\]<std(?:out|err)>:")  # mpirun --tag-output
_PROGRAM = re.compile(r"([a-z_]+)_perf(?![a-z])")
_THREADS = re.compile(r"nThread (\d+) nGpus (\d+)")
_RANK = re.compile(r"#\s+Rank\s+(\d+)\s.*\son\s+(\S+)\s+device")
_LIBRARY = re.compile(r"nccl-library=(\d+)")


@dataclass(frozen=True)
class Row:
    """One line of numbers: a message size and its times, None where the log has none."""

    bytes: int
    out_of_place_us: float | None
    algbw_gb_s: float | None
    busbw_gb_s: float | None
    in_place_us: float | None
    in_place_algbw_gb_s: float | None
    in_place_busbw_gb_s: float | None


@dataclass
class Stretch:
    """Rows that stand together, and what was said before them.

    Attributes:
        program: nccl-tests' program without "_perf", "" where the log does not name it.
        hosts: host of each rank listed.
        processes_gpus: threads times GPUs of a process, None where not said.
        header: columns of the rows.
        rows: the numbers, in the order of the log.
    """

    program: str = ""
    hosts: tuple[str, ...] = ()
    processes_gpus: int | None = None
    header: tuple[str, ...] = tuple(_DEFAULT_HEADER)
    library: str = ""
    rows: list[Row] = field(default_factory=list)


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
            if (time := _time(op, row)) and row.bytes:
                times[key][row.bytes].append(time)
    entries = [_entry(*key, sizes) for key, sizes in times.items() if sizes]
    if not entries:
        raise TraceError(f"{path} holds no time of a message; give a whole log of nccl-tests")
    library = next((stretch.library for stretch in stretches if stretch.library), "")
    return Calibration(f"nccl-tests: {path.name}", MadeWith("", f"nccl {library}".strip()), tuple(entries))


def parse_log(text: str) -> list[Stretch]:
    """Every stretch of rows in a log, in its order; those without rows were cut short."""
    stretches = [Stretch()]
    for line in text.splitlines():
        _take(stretches, _TAG.sub("", line))
    return stretches


def _take(stretches: list[Stretch], line: str) -> None:
    """Reads one line into the last stretch, or begins a new one with it."""
    now = stretches[-1]
    if row := _row(line, now.header):
        now.rows.append(row)
        return
    said = _said(line, now)
    if not now.rows:
        stretches[-1] = said
    elif said is not now or line.startswith("#"):
        stretches.append(replace(said, rows=[]))


def _said(line: str, now: Stretch) -> Stretch:
    """What is known after a line that is no row."""
    if found := _LIBRARY.search(line):
        return replace(now, library=_version(int(found[1])))
    if found := _THREADS.search(line):
        return replace(now, processes_gpus=int(found[1]) * int(found[2]), hosts=())
    if found := _RANK.search(line):
        return replace(now, hosts=(*now.hosts, found[2]))
    if (found := _PROGRAM.search(line)) and found[1] != now.program:
        return replace(now, program=found[1])
    words = line.lstrip("# ").split()
    if words[:2] == ["size", "count"] and _TIMES & set(words):
        return replace(now, header=tuple(words))
    return now


def _version(code: int) -> str:
    """NCCL's version code: 2.9 and later count major * 10000 + minor * 100 + patch, before major * 1000."""
    major = 10000 if code >= 10000 else 1000
    return f"{code // major}.{code % major // 100}.{code % 100}"


def _row(line: str, header: Sequence[str]) -> Row | None:
    """The numbers of a line, None where it is no row."""
    words = line.split()
    bodies = [place for place, word in enumerate(header) if word in _TIMES]
    if len(words) <= bodies[0] or not (words[0].isdigit() and words[1].isdigit()):
        return None
    parts = [_numbers(words[start : start + 3]) for start in bodies[:2] if len(words) > start]
    out, into = parts if len(parts) == 2 else [_numbers([]), *parts]  # a replayed trace has in-place times only
    return Row(int(words[0]), *out, *into)


def _numbers(words: Sequence[str]) -> tuple[float | None, float | None, float | None]:
    time, algbw, busbw = [*map(_number, words), None, None, None][:3]
    return time, algbw, busbw


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:  # "N/A"
        return None


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
