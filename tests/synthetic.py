"""Writes a run whose every number is chosen, so that tests know the truth.

Times are nanoseconds of the rank's clock. A step is one optimizer end to the next:

    0            forward     backward                                 optimizer    gap
    |--load------|-----------|--c0-issued--c1-issued--...--end waits--|------------|
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from commlens.trace import RankWriter, write_run_info
from commlens.trace.schema import (
    DTYPES,
    KERNEL_KINDS,
    MISSING,
    OPS,
    PHASES,
    SOURCES,
    STEP_MARK,
    TABLES,
    TIMINGS,
)

US = 1000
MS = 1000 * US
UNNUMBERED = -2  # a `seq` that the trace does not have
START = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Collective:
    """One row; `waited_ns` and `blocked_ns` as in the trace schema."""

    issued_ns: int
    completed_ns: int = MISSING
    started_ns: int = MISSING
    waited_ns: int = MISSING
    blocked_ns: int = MISSING
    op: str = "all_reduce"
    group: str = "0"
    in_bytes: int = 4096
    out_bytes: int = 4096
    seq: int = MISSING
    dtype: str = "float32"
    timing: str = "host"
    group_size: int = 2
    thread: int = 0
    peer: int = MISSING


@dataclass(frozen=True)
class Phase:
    """One phase row."""

    phase: str
    start_ns: int
    end_ns: int
    name: str = ""
    thread: int = 0


@dataclass(frozen=True)
class Kernel:
    """One row of device work."""

    start_ns: int
    end_ns: int
    launched_ns: int = MISSING
    kind: str = "compute"
    name: str = "gemm"
    blocks: int = 1


@dataclass(frozen=True)
class RankTruth:
    """What one rank recorded."""

    collectives: Sequence[Collective] = ()
    phases: Sequence[Phase] = ()
    kernels: Sequence[Kernel] = ()
    ddp: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    overhead: dict[str, int] | None = None
    counters: Sequence[tuple[int, str, str, int]] = ()  # (time_ns, device, counter, value)
    device_ops: dict[str, Any] | None = None  # columns, as `operation_columns` in test_device_operations makes them


def write_run(path: Path, ranks: dict[int, RankTruth], world_size: int | None = None, backend: str = "gloo") -> Path:
    """Write a run folder and return it."""
    size = world_size or len(ranks)
    head = {"run_id": "synthetic", "world_size": size}
    job = {"command": ["torchrun", "train.py"], "start_ns": START, "backend": backend, "torch": "2.11.0"}
    write_run_info(path, head | job)
    for number, truth in ranks.items():
        _write_rank(path, number, truth, head)
    return path


def _write_rank(path: Path, number: int, truth: RankTruth, head: dict[str, Any]) -> None:
    model = {
        "kind": "DDP",
        "name": "DDP(Net)",
        "group": "0",
        "flags": {},
        "bucket_bytes": [],
        "parameters": [],
    }
    writer = RankWriter(path, number)
    own = {"rank": number, "host": f"host{number // 4}", "models": [model] if truth.ddp else []}
    own["end"] = {"how": "exit"}
    writer.write_info(head | own | {"overhead": {"trampoline_ns": 1000}} | truth.info)
    if truth.collectives:
        writer.append("collectives", collective_columns(truth.collectives))
    if truth.phases:
        writer.append("phases", _phase_columns(truth.phases))
    if truth.kernels:
        writer.append("kernels", _kernel_columns(truth.kernels))
    if truth.counters:
        writer.append("counters", _counter_columns(truth.counters))
    if truth.device_ops is not None:
        writer.append("device_ops", truth.device_ops)
    if truth.overhead is not None:
        values = {name: np.array([truth.overhead.get(name, 0)], np.int64) for name in TABLES["overhead"]}
        writer.append("overhead", values)
    writer.close()


def optimizer_columns(ends_ns: NDArray[np.int64]) -> dict[str, Any]:
    """Optimizer phases of 1 ms that end steps 0, 1, ... at these times, for `RankWriter.append("phases", ...)`."""
    zeros = np.zeros(ends_ns.size, np.int64)
    return {
        "phase": (zeros, ["optimizer"]),
        "name": (zeros, ["SGD"]),
        "start_ns": ends_ns - MS,
        "end_ns": ends_ns,
        "step": np.arange(ends_ns.size),
        "thread": zeros,
    }


def collective_columns(rows: Sequence[Collective]) -> dict[str, Any]:
    """Columns for `RankWriter.append`."""
    words = {"op": list(OPS), "dtype": list(DTYPES), "timing": list(TIMINGS)}
    words["group"] = sorted({row.group for row in rows})
    columns: dict[str, Any] = {
        name: (np.array([words[name].index(getattr(row, name)) for row in rows], np.int64), words[name])
        for name in words
    }
    columns["group_desc"] = (columns["group"][0], [f"desc {name}" for name in words["group"]])
    columns["source"] = (np.zeros(len(rows), np.int64), list(SOURCES))
    numbers = [name for name in TABLES["collectives"] if hasattr(rows[0], name) and name not in columns]
    columns |= {name: np.array([getattr(row, name) for row in rows], np.int64) for name in numbers}
    numbered = np.where(columns["seq"] == MISSING, np.arange(len(rows)), columns["seq"])
    numbered[columns["seq"] == UNNUMBERED] = MISSING
    none = np.full(len(rows), MISSING, np.int64)
    extra = {"event": np.arange(len(rows)), "seq": numbered, "bucket": none, "step": none}
    return columns | extra


def _phase_columns(rows: Sequence[Phase]) -> dict[str, Any]:
    names = sorted({row.name for row in rows})
    numbers = ("start_ns", "end_ns", "thread")
    kinds = [*PHASES, STEP_MARK]
    return {
        "phase": (np.array([kinds.index(row.phase) for row in rows], np.int64), kinds),
        "name": (np.array([names.index(row.name) for row in rows], np.int64), names),
        **{name: np.array([getattr(row, name) for row in rows], np.int64) for name in numbers},
        "step": np.zeros(len(rows), np.int64),
    }


def _kernel_columns(rows: Sequence[Kernel]) -> dict[str, Any]:
    names = sorted({row.name for row in rows})
    numbers = ("start_ns", "end_ns", "launched_ns", "blocks")
    return {
        "kind": (np.array([KERNEL_KINDS.index(row.kind) for row in rows], np.int64), list(KERNEL_KINDS)),
        "name": (np.array([names.index(row.name) for row in rows], np.int64), names),
        **{name: np.array([getattr(row, name) for row in rows], np.int64) for name in numbers},
    }


def _counter_columns(rows: Sequence[tuple[int, str, str, int]]) -> dict[str, Any]:
    devices, counters = (sorted({row[place] for row in rows}) for place in (1, 2))
    return {
        "time_ns": np.array([row[0] for row in rows], np.int64),
        "device": (np.array([devices.index(row[1]) for row in rows], np.int64), devices),
        "counter": (np.array([counters.index(row[2]) for row in rows], np.int64), counters),
        "value": np.array([row[3] for row in rows], np.int64),
    }


def training_rank(steps: int, forward: bool = True, collectives: int = 2, **info: Any) -> RankTruth:
    """A DDP rank with steps of 100 ms, every one the same.

    Per step: other 10 ms, forward 20 ms, backward 60 ms, optimizer 10 ms. All `collectives` are issued
    10 ms into the backward; they complete one after another, the last 5 ms before the backward's end:
    45 ms of the backward are exposed, nothing but the issue instant's gap is hidden.
    """
    rows: list[Collective] = []
    phases: list[Phase] = []
    for step in range(steps):
        t = START + step * 100 * MS
        issued, last = t + 40 * MS, t + 85 * MS
        each = (last - issued) // collectives
        for k in range(collectives):
            done = issued + each * (k + 1)
            rows.append(Collective(issued, done, issued + each * k, in_bytes=(k + 1) * 1024))
        if forward:
            phases.append(Phase("forward", t + 10 * MS, t + 30 * MS, "DDP(Net)"))
        phases.append(Phase("backward", t + 30 * MS, t + 90 * MS))
        phases.append(Phase("optimizer", t + 90 * MS, t + 100 * MS, "AdamW"))
    overhead = {"time_ns": START, "events": len(rows), "hook_ns": 3000 * len(rows), "written_bytes": 1000}
    return RankTruth(rows, phases, ddp=True, info=info, overhead=overhead)


def without_phases(truth: RankTruth) -> RankTruth:
    """The same rank, no phase seen."""
    return replace(truth, phases=())
