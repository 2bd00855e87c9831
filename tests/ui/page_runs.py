"""Runs that pages are made of: healthy, faulty, partial, and such that have nothing to show."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from blocking_job import BlockingJob, even_job, slower
from counted_job import two_hosts
from synthetic import MS, US, Collective, Kernel, Phase, RankTruth, training_rank, write_run

from commlens import Report, analyze, open_run

HOSTILE = "<img src=x onerror=window.hacked=1></script><b>%{x}$a$</b>"
SIZES = (20_000, 200_000, 2_000_000, 20_000_000)


def hostile() -> dict[int, RankTruth]:
    """A late rank on a host, in a group, whose names are markup."""
    found = {}
    for rank, truth in slower(even_job(4, steps=30), 1, 20 * MS).truths().items():
        group = {**truth.info["groups"][0], "name": HOSTILE, "desc": HOSTILE}
        rows = [replace(row, group=HOSTILE) for row in truth.collectives]
        phases = [replace(phase, name=HOSTILE if phase.name else "") for phase in truth.phases]
        info = {**truth.info, "groups": [group], "host": f"{HOSTILE}{rank // 2}", "boot_id": "one"}
        found[rank] = RankTruth(rows, phases, info=info)
    return found


def sized() -> dict[int, RankTruth]:
    """Messages of four sizes whose cost is 200 us and 1 GB/s: a curve can be fitted."""
    draw = np.random.default_rng(1)
    work = 30 * MS + draw.integers(0, 300 * US, (4, 22, len(SIZES)))
    transfer = np.array([200 * US + each for each in SIZES])
    return BlockingJob(work, transfer, bytes=SIZES).truths()


def on_devices() -> dict[int, RankTruth]:
    """Kernels of two devices: compute, a collective that the second comes late to, and idleness."""
    found = {}
    for rank in range(2):
        rows, phases, kernels = [], [], []
        for step in range(6):
            t = step * 100 * MS
            late = 20 * MS * rank
            kernels.append(Kernel(t + MS + late, t + 40 * MS + late, t + MS))
            begin = t + 41 * MS + late
            kernels.append(Kernel(begin, t + 80 * MS, t + 2 * MS, kind="communication", name="ncclDevKernel_AllReduce"))
            rows.append(Collective(begin, t + 80 * MS, begin, timing="device", in_bytes=10**7, out_bytes=10**7))
            phases.append(Phase("optimizer", t + 85 * MS, t + 95 * MS, "AdamW"))
        found[rank] = RankTruth(rows, phases, kernels)
    return found


def hung() -> dict[int, RankTruth]:
    """Rank 2 stops issuing; the others wait for it without an end."""
    found = {}
    for rank, truth in even_job(4).truths().items():
        rows = list(truth.collectives)
        rows = rows[:40] if rank == 2 else [*rows[:40], replace(rows[40], completed_ns=-1, blocked_ns=-1)]
        found[rank] = replace(truth, collectives=rows, phases=truth.phases[:26], info={**truth.info, "end": None})
    return found


RUNS: Mapping[str, Callable[[], dict[int, RankTruth]]] = {
    "healthy": lambda: even_job(8).truths(),
    "faulty": lambda: slower(even_job(8, hosts=[f"node-{rank // 4}" for rank in range(8)]), 3, 25 * MS).truths(),
    "partial": lambda: {rank: truth for rank, truth in even_job(4).truths().items() if rank != 2},
    "single": lambda: {0: training_rank(8)},
    "nothing": lambda: {0: RankTruth()},
    "sized": sized,
    "counted": lambda: two_hosts(steps=40).truths(),
    "imported": on_devices,
    "hung": hung,
    "hostile": hostile,
}
_EXTRA: Mapping[str, dict[str, Any]] = {"imported": {"imported": "kineto", "backend": "nccl"}}


def written(name: str, path: Path) -> Path:
    """One of `RUNS` as a folder."""
    write_run(path, RUNS[name](), world_size=4 if name == "partial" else None)
    head = path / "run.json"
    head.write_text(json.dumps(json.loads(head.read_text()) | _EXTRA.get(name, {})))
    return path


@cache
def report_of(name: str) -> Report:
    """One of `RUNS`, analysed once."""
    with TemporaryDirectory(prefix="commlens-ui-") as folder:
        return analyze(open_run(written(name, Path(folder) / "run")))
