"""The text of an nccl-tests log, line by line: how tests ran, and their rows of numbers.

The columns are those of each table's own header (github.com/NVIDIA/nccl-tests, src/util.cu, and its history).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

_BODY: Final = ("time", "algbw", "busbw", "#wrong")
_DEFAULT_HEADER: Final = ("size", "count", "type", "redop", "root", *_BODY, *_BODY)
_TIMES: Final = frozenset({"time", "cputime"})

_TAG = re.compile(r"^\[\d+,\d+\]<std(?:out|err)>:")  # mpirun --tag-output
_PROGRAM = re.compile(r"([a-z_]+)_perf(?![a-z])")
_THREADS = re.compile(r"nThread (\d{1,6}) nGpus (\d{1,6})\b")
_RANK = re.compile(r"#\s+Rank\s+(\d+)\s.*\son\s+(\S+)\s+device")
_COUNT = re.compile(r"\d{1,18}")
_LIBRARY = re.compile(r"nccl-library=(\d{1,9})\b")


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
    header: tuple[str, ...] = _DEFAULT_HEADER
    library: str = ""
    rows: list[Row] = field(default_factory=list)


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
    if len(words) <= bodies[0] or not (_COUNT.fullmatch(words[0]) and _COUNT.fullmatch(words[1])):
        return None
    parts = [_numbers(words[start : start + 3]) for start in bodies[:2] if len(words) > start]
    out, into = parts if len(parts) == 2 else [_numbers([]), *parts]  # a replayed trace has in-place times only
    return Row(int(words[0]), *out, *into)


def _numbers(words: Sequence[str]) -> tuple[float | None, float | None, float | None]:
    time, algbw, busbw = [*map(_number, words), None, None, None][:3]
    return time, algbw, busbw


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:  # "N/A"
        return None
    return number if math.isfinite(number) else None
