"""Builds a Run from torch.profiler's files: NCCL kernels and what the host did before them.

A small reader for tests on real traces; it knows one kind of file and no more.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

from synthetic import UNNUMBERED, Collective, Phase, RankTruth, write_run

OPS = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "SendRecv": "all_to_all",
    "AllToAll": "all_to_all",
    "Broadcast": "broadcast",
}


def kineto_run(folder: Path, path: Path) -> Path:
    """Writes the run of all traces in `folder` to `path` and returns it."""
    ranks = {}
    for file in sorted(folder.glob("*.json.gz")):
        trace = json.loads(gzip.decompress(file.read_bytes()))
        rank = (trace.get("distributedInfo") or {}).get("rank")
        ranks[len(ranks) if rank is None else rank] = trace["traceEvents"]
    members = sorted(ranks)
    return write_run(path, {rank: _truth(events, members) for rank, events in ranks.items()})


def _truth(events: list[dict[str, Any]], members: list[int]) -> RankTruth:
    timed = [event for event in events if event.get("ph") == "X"]
    launches = {
        event["args"]["correlation"]: event
        for event in timed
        if event.get("cat") in ("cuda_runtime", "Runtime") and "correlation" in event.get("args", {})
    }
    kernels = [e for e in timed if e.get("cat") in ("kernel", "Kernel") and re.match("nccl", e["name"])]
    rows = sorted((_row(kernel, launches, len(members)) for kernel in kernels), key=lambda row: row.issued_ns)
    group = {"name": "0", "desc": "all", "ranks": members, "size": len(members)}
    return RankTruth(
        rows, _steps(timed), info={"groups": [group], "boot_id": "one", "host": "one", "imported": "kineto"}
    )


def _row(kernel: dict[str, Any], launches: dict[int, dict[str, Any]], size: int) -> Collective:
    op = next(op for word, op in OPS.items() if word in kernel["name"])
    started = _ns(kernel["ts"])
    launch = launches.get(kernel["args"].get("correlation"))
    issued = _ns(launch["ts"]) if launch else started
    end = _ns(kernel["ts"] + kernel["dur"])
    return Collective(
        issued, end, started, op=op, in_bytes=-1, out_bytes=-1, timing="device", group_size=size, seq=UNNUMBERED
    )


def _steps(timed: list[dict[str, Any]]) -> list[Phase]:
    return []


def _ns(us: float) -> int:
    return round(us * 1000)
