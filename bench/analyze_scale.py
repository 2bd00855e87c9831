"""How long a report takes, and how much memory, as the job grows.

Writes runs of a data-parallel job with tensor-parallel groups of eight (by default 64 ranks x 100 steps x
1,000 collectives) and reports each in a process of its own. Prints time and memory by ranks; the last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from commlens.trace import RankWriter, write_run_info
from commlens.trace.schema import DTYPES, MISSING, OPS, PHASES, SOURCES, TIMINGS

START = 1_700_000_000_000_000_000
MS = 1_000_000
TENSOR_PARALLEL = 8
SMALL, LARGE = 64 << 10, 4 << 20  # bytes of a message in the tensor-parallel and the data-parallel group


def main() -> None:
    options = parse()
    rows = []
    with tempfile.TemporaryDirectory(prefix="commlens-scale-") as folder:
        for ranks in options.ranks:
            path = write_job(Path(folder) / f"run-{ranks}", ranks, options.steps, options.collectives)
            seconds, rss = report(path)
            rows.append((ranks, ranks * options.steps * options.collectives, seconds, rss))
            print(f"{ranks:5d} ranks {rows[-1][1]:10,d} rows {seconds:7.2f} s {rss / 2**30:6.2f} GiB", flush=True)
    first, last = rows[0], rows[-1]
    result = {
        "ranks": last[0],
        "rows": last[1],
        "report_s": round(last[2], 2),
        "peak_rss_gib": round(last[3] / 2**30, 3),
        "growth_of_time_per_growth_of_ranks": round((last[2] / first[2]) / (last[0] / first[0]), 3),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--collectives", type=int, default=1000, help="per rank and step")
    return parser.parse_args()


def report(path: Path) -> tuple[float, int]:
    """Wall time and peak memory of a whole `commlens report`."""
    command = [sys.executable, "-m", "commlens", "report", str(path), "--format", "json"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit("the report failed")
    found = json.loads(output)
    assert found["coverage"]["collectives_unmatched"] == 0
    assert found["critical_path"] is not None
    # Linux counts the largest child that was waited for; runs come in ascending size.
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def write_job(path: Path, ranks: int, steps: int, collectives: int) -> Path:
    """A run in which rank 3 computes 10 % longer in every step."""
    write_run_info(path, {"run_id": "scale", "world_size": ranks, "start_ns": START, "backend": "gloo"})
    work = np.random.default_rng(0).normal(1.0, 0.02, (ranks, steps, collectives)).clip(0.5)
    work[min(3, ranks - 1)] *= 1.10
    tensor, world = collectives - collectives // 10, collectives // 10
    for rank in range(ranks):
        _write_rank(path, rank, ranks, _times(work, rank, ranks, tensor, world), tensor)
    return path


def _times(work: np.ndarray, rank: int, ranks: int, tensor: int, world: int) -> tuple[np.ndarray, np.ndarray]:
    """Issue and end of every collective of a rank, ns, shape (steps, collectives): blocking, one after another."""
    own = slice(rank - rank % TENSOR_PARALLEL, min(ranks, rank - rank % TENSOR_PARALLEL + TENSOR_PARALLEL))
    us = 100_000 * work
    # Every step begins together; within it a group's collective k ends when its slowest member has come.
    ends = np.cumsum(us[own], axis=2).max(axis=0) + 20_000 * np.arange(1, us.shape[2] + 1)
    issued = ends - 20_000 - (us[own].max(axis=0) - us[rank]).clip(0)
    step_ns = int(us.sum(axis=2).max()) + 20_000 * us.shape[2] + 20 * MS
    base = START + step_ns * np.arange(us.shape[1])[:, None]
    together = np.cumsum(us, axis=2).max(axis=0) + 20_000 * np.arange(1, us.shape[2] + 1)
    ends[:, tensor:] = together[:, tensor:]
    issued[:, tensor:] = ends[:, tensor:] - 20_000 - (us.max(axis=0) - us[rank])[:, tensor:].clip(0)
    issued[:, 1:] = np.maximum(issued[:, 1:], ends[:, :-1])
    issued = np.minimum(issued, ends - 20_000)
    return base + issued.astype(np.int64), base + ends.astype(np.int64)


def _write_rank(path: Path, rank: int, ranks: int, times: tuple[np.ndarray, np.ndarray], tensor: int) -> None:
    issued, ends = times
    steps, count = issued.shape
    first = rank - rank % TENSOR_PARALLEL
    members = list(range(first, min(ranks, first + TENSOR_PARALLEL)))
    groups = [
        {"name": "0", "desc": "world", "ranks": list(range(ranks)), "size": ranks, "workers": 2},
        {"name": f"tp{first}", "desc": "tensor parallel", "ranks": members, "size": len(members), "workers": 2},
    ]
    writer = RankWriter(path, rank)
    info = {"rank": rank, "world_size": ranks, "run_id": "scale", "host": "a", "boot_id": "a", "groups": groups}
    writer.write_info(info | {"end": {"how": "exit", "ns": int(ends.max())}})
    is_tensor = np.broadcast_to(np.arange(count) < tensor, issued.shape)
    for step in range(steps):
        names, sizes = [group["name"] for group in groups], (len(members), ranks)
        writer.append("collectives", _columns(issued[step], ends[step], is_tensor[step], step, names, sizes))
    starts = issued[:, 0] - MS
    optimizer = ends[:, -1] + 10 * MS
    spans = {"backward": (starts, ends[:, -1] + MS), "optimizer": (ends[:, -1] + MS, optimizer)}
    for phase, (begin, end) in spans.items():
        zeros = np.zeros(steps, np.int64)
        columns = {"phase": (zeros + PHASES.index(phase), list(PHASES)), "name": (zeros, [phase])}
        writer.append("phases", {**columns, "start_ns": begin, "end_ns": end, "step": zeros, "thread": zeros})
    writer.close()


def _columns(
    issued: np.ndarray, ends: np.ndarray, tensor: np.ndarray, step: int, names: list[str], sizes: tuple[int, int]
) -> dict[str, object]:
    """One step's rows; `sizes` are those of the tensor-parallel and the world group."""
    count = issued.size
    none, zeros = np.full(count, MISSING, np.int64), np.zeros(count, np.int64)
    size = np.where(tensor, SMALL, LARGE)
    number = np.where(tensor, np.cumsum(tensor) + step * tensor.sum(), np.cumsum(~tensor) + step * (~tensor).sum()) - 1
    return {
        "event": np.arange(count) + step * count,
        "group": (np.where(tensor, 1, 0), names),
        "group_desc": (zeros, ["g"]),
        "seq": number,
        "op": (zeros, list(OPS)),
        "dtype": (zeros, list(DTYPES)),
        "in_bytes": size,
        "out_bytes": size,
        "group_size": np.where(tensor, *sizes),
        "peer": none,
        "issued_ns": issued,
        "started_ns": none,
        "completed_ns": ends,
        "waited_ns": issued,
        "blocked_ns": ends - issued,
        "step": zeros + step,
        "bucket": none,
        "thread": zeros,
        "source": (zeros, list(SOURCES)),
        "timing": (zeros + TIMINGS.index("host"), list(TIMINGS)),
    }


if __name__ == "__main__":
    main()
