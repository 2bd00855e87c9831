"""What is recorded of Gloo's collectives agrees with torch.profiler, which saw them on Gloo's own threads.

Gloo has no reduce-scatter: torch copies the input, all-reduces the copy (the span that the profiler sees),
and copies the rank's part out when the caller waits. Its part begins with the call, and it is complete when
its output is there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_runs import Launch
from numpy.typing import NDArray

from commlens.trace import Rank, open_run

pytestmark = pytest.mark.job

STEPS, BUCKETS, REPEATS = 30, 4, 12
SERIES = ["all_reduce", "all_gather", "reduce_scatter", "async all_reduce", "async all_gather", "async reduce_scatter"]
LABELS = ["ddp"] * BUCKETS * STEPS + [label for label in SERIES for _ in range(REPEATS)]
MS = 1_000_000

# Messages of many ms, so that the ways between threads are small beside them.
JOB = """
import json, pathlib, sys, time
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

MB, STEPS, REPEATS = 1 << 18, 30, 12  # MB: in floats
dist.init_process_group("gloo")
torch.manual_seed(0)
layers = [nn.Linear(2048, 2048, bias=False) for _ in range(4)]  # each a bucket of 16 MiB
model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=16)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def train():
    optimizer.zero_grad()
    model(torch.randn(8, 2048)).sum().backward()
    optimizer.step()


small, large = torch.zeros(32 * MB), torch.zeros(64 * MB)


def all_reduce(**options):
    return dist.all_reduce(large, **options)


def all_gather(**options):
    return dist.all_gather_into_tensor(large, small, **options)


def reduce_scatter(**options):
    return dist.reduce_scatter_tensor(small, large, **options)


def one_by_one(call):
    for _ in range(REPEATS):
        call()


def all_at_once(call):
    works = [call(async_op=True) for _ in range(REPEATS)]
    for work in works:
        work.wait()


for call in (train, train, train, all_reduce, all_gather, reduce_scatter, dist.barrier):
    call()
with profile(activities=[ProfilerActivity.CPU]) as profiler:
    began = time.time_ns()
    for _ in range(STEPS):
        train()
    for series in (one_by_one, all_at_once):
        for call in (all_reduce, all_gather, reduce_scatter):
            series(call)
    ended = time.time_ns()
path = pathlib.Path(sys.argv[1], f"{dist.get_rank()}.json")
profiler.export_chrome_trace(str(path))
trace = json.loads(path.read_text())
zero = trace.get("baseTimeNanoseconds", 0)
spans = [
    (event["name"], zero + round(event["ts"] * 1000), round(event["dur"] * 1000))
    for event in trace["traceEvents"]
    if event.get("ph") == "X"
    and (event["name"].startswith("gloo:") or event["name"] in ("aten::copy_", "c10d::_reduce_scatter_base_"))
]
path.write_text(json.dumps({"began": began, "ended": ended, "spans": sorted(spans, key=lambda each: each[1])}))
dist.destroy_process_group()
"""


@dataclass
class Compared:
    """Times of the profiled collectives in ns, shape (collectives,): ours, and the profiler's."""

    rows: list[dict[str, Any]]
    names: list[str]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def errors_percent(self, label: str) -> tuple[float, float]:
        """Our median duration against the profiler's, and the median of the errors one by one."""
        chosen = np.array(LABELS) == label
        theirs = (self.ends - self.starts)[chosen]
        mine = [row for row, name in zip(self.rows, LABELS, strict=True) if name == label]
        ours = np.array([row["completed_ns"] - row["started_ns"] for row in mine])
        medians, each = np.median(ours) / np.median(theirs), np.median(ours / theirs)
        return float(100 * (medians - 1)), float(100 * (each - 1))


def compare(rank: Rank, seen: dict[str, Any], with_copies: bool) -> Compared:
    """Pairs rows and spans in their order: both follow the queue of one group.

    With copies, a reduce_scatter is as the recorder in Python sees it: with what torch copies before and after.
    """
    rows = [row for row in rank.table("collectives").to_pylist() if seen["began"] <= row["issued_ns"] <= seen["ended"]]
    spans = [span for span in seen["spans"] if span[0].startswith("gloo:")]
    assert len(rows) == len(spans) == len(LABELS)
    starts = np.array([start for _, start, _ in spans])
    ends = starts + [duration for _, _, duration in spans]
    copies = np.array([start + duration for name, start, duration in seen["spans"] if name == "aten::copy_"])
    calls = np.array([start for name, start, _ in seen["spans"] if name == "c10d::_reduce_scatter_base_"])
    for i, label in enumerate(LABELS):
        if label == "reduce_scatter" and with_copies:
            starts[i] = calls[np.searchsorted(calls, starts[i], side="right") - 1]
            ends[i] = copies[np.searchsorted(copies, ends[i])]
    return Compared(rows, [name for name, _, _ in spans], starts, ends)


def profiled(launch: Launch, folder: Path, env: dict[str, str]) -> list[Compared]:
    """Runs the job, recorded and profiled."""
    job = launch(JOB, 2, str(folder), env={"COMMLENS": str(folder / "runs"), **env}, timeout=300)
    assert job.rc == 0, job.stderr
    run = open_run(folder / "runs")
    assert list(run.ranks) == [0, 1]
    seen = [json.loads((folder / f"{number}.json").read_text()) for number in run.ranks]
    return [compare(rank, each, not env) for rank, each in zip(run.ranks.values(), seen, strict=True)]


def test_counts_and_durations_are_those_of_the_profiler(launch: Launch, tmp_path: Path) -> None:
    for rank in profiled(launch, tmp_path, {}):
        ops = ["all_reduce" if label == "ddp" else label.removeprefix("async ") for label in LABELS]
        assert [row["op"] for row in rank.rows] == ops
        assert rank.names == [f"gloo:{op.replace('reduce_scatter', 'all_reduce')}" for op in ops]
        assert {row["bucket"] for row in rank.rows[: BUCKETS * STEPS]} == set(range(BUCKETS))
        errors = {label: rank.errors_percent(label) for label in dict.fromkeys(LABELS[:-REPEATS])}
        # One by one: where a busy core wakes single workers late, two medians of twelve wander apart by a few percent.
        assert all(abs(one_by_one) < 5 for _, one_by_one in errors.values()), errors
        check_unseen_ends(rank)


def check_unseen_ends(rank: Compared) -> None:
    """Nobody sees the end of an asynchronous reduce-scatter before its wait: what is not known is not claimed."""
    rows, ends = rank.rows[-REPEATS:], rank.ends[-REPEATS:]
    assert {row["timing"] for row in rows} == {"wait"}
    assert all(row["completed_ns"] > end - MS for row, end in zip(rows, ends, strict=True))
    # Gloo's two threads take the first two; when they get free for the others is what nobody sees.
    assert [row["started_ns"] is None for row in rows] == [False] * 2 + [True] * (REPEATS - 2)


def test_the_native_recorder_sees_what_the_profiler_sees(launch: Launch, tmp_path: Path, built: dict[str, str]) -> None:
    for rank in profiled(launch, tmp_path, built):
        assert {row["timing"] for row in rank.rows} == {"host"}
        assert {row["bucket"] for row in rank.rows[: BUCKETS * STEPS]} == set(range(BUCKETS))
        errors = {label: rank.errors_percent(label) for label in dict.fromkeys(LABELS)}
        assert all(abs(one_by_one) < 1 for _, one_by_one in errors.values()), errors
