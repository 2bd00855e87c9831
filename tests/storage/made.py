"""Runs of several hosts with a late rank, as folders and as packs."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
from healthy_run import INFO, LAST_NS, STEPS
from synthetic import MS, START, Collective, Phase, RankTruth, write_run

from commlens import analyze, open_run
from commlens.trace import RankWriter, write_run_info
from commlens.trace.pack import write_pack

RANKS = 8
PER_NODE = 2


def write_hosts(path: Path, ranks: int = RANKS) -> Path:
    """A run of two ranks a host; the last rank comes late to every collective, the others wait."""
    group = {"name": "0", "desc": "world", "ranks": list(range(ranks)), "size": ranks, "backend": "gloo", "workers": 2}
    return write_run(path, {number: _rank(number, ranks, group) for number in range(ranks)})


def _rank(number: int, ranks: int, group: dict[str, object]) -> RankTruth:
    rows, phases = [], []
    for step in range(STEPS):
        at = START + step * 20 * MS
        late = 5 * MS if number == ranks - 1 else number * 10_000
        for nth in range(3):
            begin = at + nth * 4 * MS + (late if nth == 0 else 5 * MS)
            end = at + nth * 4 * MS + 7 * MS
            size = 1 << (12 + nth)
            both = {"seq": step * 3 + nth, "in_bytes": size, "out_bytes": size, "group_size": ranks}
            rows.append(Collective(begin, end, begin, begin, end - begin, **both))
        phases.append(Phase("optimizer", at + 18 * MS, at + 19 * MS, "SGD"))
    links = [{"name": "eth0", "kind": "ethernet"}]
    host = f"host{number // PER_NODE}"
    info = {**INFO, "host": host, "boot_id": host, "groups": [group], "links": links}
    counters = [(START + each * MS, "eth0", "rx_bytes", each * 1000) for each in range(5)]
    first = number % PER_NODE == 0  # one rank of each node reads its links
    noted = {"time_ns": LAST_NS, "events": len(rows)}
    return RankTruth(rows, phases, info=info, overhead=noted, counters=counters if first else ())


def write_windowed(path: Path) -> Path:
    """A run of one rank with a deep window, which tells when its collectives began."""
    issued = np.arange(1, 31) * MS
    window = {"first_step": 5, "steps": 3, "state": "done", "start_ns": 10 * MS, "end_ns": 20 * MS}
    write_run_info(path, {"run_id": "windowed", "world_size": 1, "backend": "gloo"})
    writer = RankWriter(path, 0)
    writer.write_info({"rank": 0, "run_id": "windowed", "windows": [window], "end": {"how": "exit"}})
    words = {"op": ["all_reduce"], "group": ["0"], "timing": ["host"]}
    columns = {name: (np.zeros(issued.size, np.int64), each) for name, each in words.items()}
    times = {"event": np.arange(issued.size), "issued_ns": issued, "completed_ns": issued + 460_000}
    writer.append("collectives", {**columns, **times})
    writer.close()
    events = [
        {"ph": "X", "cat": kind, "name": name, "pid": 1, "tid": thread, "ts": ns / 1e3 + later, "dur": 400}
        for ns in issued[9:20].tolist()
        for kind, name, thread, later in (
            ("cpu_op", "c10d::allreduce_", 1, 0),
            ("user_annotation", "gloo:all_reduce", 2, 50),
        )
    ]
    trace = {"schemaVersion": 1, "traceEvents": events, "baseTimeNanoseconds": 0}
    (writer.path / "window-5.kineto.json.gz").write_bytes(gzip.compress(json.dumps(trace).encode()))
    return path


def packed(run: Path, into: Path, nodes: int | None = None) -> Path:
    """The same run with the ranks of its first nodes in packs, of all where `nodes` is None."""
    shutil.copytree(run, into)
    numbers = sorted(int(path.name.removeprefix("rank-")) for path in into.glob("rank-*"))
    groups = [numbers[begin : begin + PER_NODE] for begin in range(0, len(numbers), PER_NODE)]
    for ranks in groups[:nodes]:
        write_pack(into, ranks, into / f"node-{ranks[0]:05d}.zip")
        for rank in ranks:
            shutil.rmtree(into / f"rank-{rank:05d}")
    return into


def report_of(path: object, packs_too: bool = False) -> str:
    """The report's JSON, without the path; nor the size of the trace, where packs are compared with folders."""
    found = analyze(open_run(path)).to_dict()  # type: ignore[arg-type]
    assert found["run"].pop("path") == str(path)
    if packs_too:
        del found["overhead"]["trace_bytes"], found["overhead"]["bytes_per_collective"]
    return json.dumps(found, indent=1)
