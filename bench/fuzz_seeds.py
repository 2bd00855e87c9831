"""Small valid files of every format that commlens imports, for `fuzz_importers.py`: cut from real ones, and made."""

from __future__ import annotations

import contextlib
import gzip
import json
import pickle
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMATS = ("kineto", "flight_recorder_json", "flight_recorder_pickle", "nccl_inspector", "nsys", "nccl_tests")
START = 1_724_779_239_936_775_119
EVENTS = 150  # of a trace, enough for a step with its collectives
ROWS = 60  # of a table of an export
LARGEST = 60_000  # bytes of a seed


def seeds(format: str, traces: Path) -> list[bytes]:
    """Valid files of a format, uncompressed; those cut from real ones only where `traces` has them."""
    return _MAKERS[format](traces)


# ---- torch.profiler


def _kineto(traces: Path) -> list[bytes]:
    cut = [_cut_trace(path) for path in _some_traces(traces)]
    texts = [json.dumps(each, indent=(None, 2)[place % 2]).encode() for place, each in enumerate(cut)]
    gloo = _gloo_trace()
    made = [json.dumps(gloo).encode(), json.dumps(gloo["traceEvents"]).encode(), json.dumps(_device_trace()).encode()]
    return [text for text in texts if len(text) <= LARGEST] + made


def _some_traces(traces: Path) -> list[Path]:
    """The first trace of each set."""
    first = {path.parent: path for path in sorted(traces.glob("*/*.json.gz"), reverse=True)}
    return sorted({*first.values(), *traces.glob("hta-edge-cases/*.json.gz")})


def _cut_trace(path: Path) -> dict[str, Any]:
    """A trace with some events of each kind, those of communication first."""
    trace = json.loads(gzip.decompress(path.read_bytes()))
    by_name: dict[tuple[str, str], list[Any]] = {}
    for event in trace["traceEvents"]:
        by_name.setdefault((str(event.get("cat")), str(event.get("name"))), []).append(event)
    ordered = sorted(by_name.items(), key=lambda each: (not _matters(*each[0]), len(each[1])))
    kept = [event for (cat, name), events in ordered for event in events[: 12 if _matters(cat, name) else 1]][:EVENTS]
    correlated = {(event.get("args") or {}).get("correlation") for event in kept} - {None}
    launches = [e for e in trace["traceEvents"] if (e.get("args") or {}).get("correlation") in correlated]
    trace["traceEvents"] = [*kept[: EVENTS - 60], *launches[:60]]
    trace["deviceProperties"] = trace.get("deviceProperties", [])[:1]
    return trace


def _matters(cat: str, name: str) -> bool:
    return "nccl" in name.lower() or name.startswith(("record_param_comms", "ProfilerStep", "Optimizer", "gloo"))


def _gloo_trace() -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    for step in range(4):
        begin = 1e6 + 50_000.25 * step
        shape = {"Input Dims": [[128, 64]], "Input type": ["float"], "Concrete Inputs": [""]}
        told = _told("allreduce", 8192) | {"Seq": step}
        events += [
            _span("user_annotation", f"ProfilerStep#{step}", begin, 50_000),
            _span("cpu_op", "c10d::allreduce_", begin + 10_000, 90),
            _span("cpu_op", "record_param_comms", begin + 10_020, 30, told),
            _span("user_annotation", "gloo:all_reduce", begin + 10_040, 1500, shape, tid=78),
            _span("user_annotation", "Optimizer.step#SGD.step", begin + 40_000, 900),
        ]
    about = {"backend": "gloo", "rank": 1, "world_size": 2, "pg_config": [{"pg_name": "0", "ranks": [0, 1]}]}
    return {"schemaVersion": 1, "distributedInfo": about, "traceEvents": events, "baseTimeNanoseconds": START}


def _device_trace() -> dict[str, Any]:
    events: list[dict[str, Any]] = []
    for number in range(12):
        begin, op = 2e6 + 9000.5 * number, ("allreduce", "_allgather_base", "send", "recv")[number % 4]
        device = {"device": 0, "stream": 20, "correlation": 100 + number, "grid": [24, 1, 1], "block": [512, 1, 1]}
        peers = {"Src Rank": 1, "Dst Rank": 1, "Seq": number}
        launch = {"correlation": 100 + number}
        events += [
            _span("user_annotation", "DistributedDataParallel.forward", begin, 800),
            _span("cpu_op", "record_param_comms", begin + 10, 200, _told(op, 4096)),
            _span("cuda_runtime", "cudaLaunchKernelExC", begin + 20, 5, launch),
            _span(
                "kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL", begin + 60, 300, device | _told(op, 4096) | peers
            ),
            _span("kernel", "void gemm<float>(int)", begin + 400, 2000, device | {"stream": 7, "correlation": 1}),
            _span("gpu_memcpy", "Memcpy HtoD", begin + 2600, 20, device | {"stream": 7, "correlation": 2}),
        ]
    return {"traceEvents": events, "host_name": "node-7", "deviceProperties": [{"id": 0, "name": "H100"}]}


def _told(op: str, count: int) -> dict[str, Any]:
    group = {"Process Group Name": "0", "Process Group Description": "default_pg", "Process Group Ranks": "[0, 1]"}
    shape = {"In msg nelems": count, "Out msg nelems": count, "dtype": "Float", "Group size": 2}
    return {"Collective name": op, **shape, **group, "Global rank start": 0, "Global rank stride": 1}


def _span(
    cat: str, name: str, ts: float, dur: float, args: dict[str, Any] | None = None, tid: int = 77
) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "pid": 7, "tid": tid, "ts": ts, "dur": dur, "args": args or {}}


# ---- Flight Recorder


def _flight_recorder_json(traces: Path) -> list[bytes]:
    return [json.dumps(dump).encode() for dump in _dumps()]


def _flight_recorder_pickle(traces: Path) -> list[bytes]:
    dumps = _dumps()
    dumps.append(dumps[-1]["entries"])  # as torch 2.2 and before
    return [pickle.dumps(dump, protocol) for dump in dumps for protocol in (2, 4)]


def _dumps() -> list[Any]:
    nccl = {"version": "2.10", "pg_config": _GROUPS, "comm_lib_version": "2.27.5", "pg_status": {"0": {}}}
    gloo = {"version": "2.10", "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": ""}}}
    entries = [_entry(number, title) for number, title in enumerate(_TITLES * 2)]
    plain = [_entry(number, "all_reduce", "gloo") for number in range(12)]
    old = [{**each, "seq_id": each["collective_seq_id"]} for each in entries if each["profiling_name"] != "x"]
    for each in old:
        del each["process_group"], each["collective_seq_id"]
    return [{**nccl, "entries": entries}, {**gloo, "entries": plain}, {"version": "1.5", "entries": old}]


_GROUPS = {
    "0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1, 2, 3]"},
    "7": {"name": "7", "desc": "tp", "ranks": "[2, 3]"},
}
_TITLES = ("all_reduce", "_all_gather_base", "send 0->1", "recv 0<-1", "all_reduce_barrier", "coalesced", "broadcast")


def _entry(number: int, title: str, backend: str = "nccl") -> dict[str, Any]:
    done = number < 11
    return {
        "record_id": number,
        "pg_id": 0,
        "process_group": ("0", "default_pg"),
        "thread_id": "139858798795648",
        "collective_seq_id": number + 1,
        "p2p_seq_id": 0,
        "op_id": number + 1,
        "profiling_name": f"{backend}:{title}",
        "time_created_ns": START + number * 1_000_000,
        "input_sizes": ((3, 4),),
        "input_dtypes": ["Float"],
        "output_sizes": ((3, 4),),
        "output_dtypes": ["Float"],
        "state": "completed" if done else "scheduled",
        "time_discovered_started_ns": None,
        "time_discovered_completed_ns": START + number * 1_000_000 + 500_000 if done else None,
        "retired": done,
        "timeout_ms": 600_000,
        "duration_ms": 0.25,
        "is_p2p": "->" in title or "<-" in title,
        "frames": [{"name": "step", "filename": "train.py", "line": 12}],
    }


# ---- NCCL Inspector


def _nccl_inspector(traces: Path) -> list[bytes]:
    return [_log(verbose=True), _log(verbose=False), _log(verbose=True, ranks=(4, 5))]


def _log(verbose: bool, ranks: tuple[int, ...] = (4,)) -> bytes:
    lines = [_operation(number, verbose, rank) for number in range(24) for rank in ranks]
    return b"".join(json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in lines)


def _operation(number: int, verbose: bool, rank: int) -> dict[str, Any]:
    issued = START // 1000 + 5000 * number
    kind, name = (
        ("p2p", ("Send", "Recv")[number % 2]) if number % 4 == 3 else ("coll", ("AllReduce", "AllGather")[number % 2])
    )
    numbers = {f"{kind}_sn": number // 2, f"{kind}_msg_size_bytes": 1 << 20, f"{kind}_exec_time_us": 400 + number}
    perf: dict[str, Any] = {kind: name, **numbers, f"{kind}_timing_source": "kernel_gpu", f"{kind}_algobw_gbs": 1.5}
    if kind == "p2p":
        perf["p2p_peer"] = (rank + 1) % 8
    if verbose:
        channel = {
            "channel_id": 0,
            "kernel_start_ts": issued + 9,
            "kernel_stop_ts": issued + 450,
            "kernel_record_ts": 0,
        }
        perf["event_trace_ts"] = {f"{kind}_start_ts": issued, f"{kind}_stop_ts": issued + 2, "kernel_events": [channel]}
    about = {
        "inspector_output_format_version": "v4.0",
        "dump_timestamp_us": issued + 900,
        "hostname": "node-7",
        "pid": 43,
    }
    small = number % 3 == 0
    head = {
        "id": "0xab" if small else "0xe6",
        "comm_name": "tp" if small else "unknown",
        "rank": rank % 2 if small else rank,
    }
    return {"header": head | {"n_ranks": 2 if small else 8, "nnodes": 1}, "metadata": about, f"{kind}_perf": perf}


# ---- Nsight Systems


def _nsys(traces: Path) -> list[bytes]:
    return [_cut_export(path) for path in sorted(traces.glob("nsys*/*.sqlite.gz"))] + [_made_export()]


def _cut_export(path: Path) -> bytes:
    """An export with some rows of each table, without its tables of constants."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.deserialize(gzip.decompress(path.read_bytes()))
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if not table.startswith(_TABLES):
                db.execute(f'DROP TABLE "{table}"')
            elif table != "StringIds":
                db.execute(f'DELETE FROM "{table}" WHERE rowid NOT IN (SELECT rowid FROM "{table}" {_first(table)})')
        used = "SELECT demangledName FROM CUPTI_ACTIVITY_KIND_KERNEL UNION SELECT textId FROM NVTX_EVENTS"
        db.execute(f"DELETE FROM StringIds WHERE id NOT IN ({used} WHERE textId IS NOT NULL)")
        return _packed(db)


_TABLES = ("StringIds", "CUPTI_ACTIVITY_KIND_", "NVTX_EVENTS", "TARGET_INFO_S", "TARGET_INFO_GPU", "META_DATA_")


def _first(table: str) -> str:
    """The rows to keep, kernels of collectives before others."""
    talks = "demangledName NOT IN (SELECT id FROM StringIds WHERE value LIKE 'nccl%'), "
    return f"ORDER BY {talks if table.endswith('KERNEL') else ''} rowid % 7, rowid LIMIT {ROWS // 2}"


def _made_export() -> bytes:
    tables: dict[str, tuple[str, list[tuple[Any, ...]]]] = {
        "StringIds": ("id INTEGER PRIMARY KEY, value TEXT", list(enumerate(_TEXTS, 1))),
        "CUPTI_ACTIVITY_KIND_KERNEL": (_DEVICE + ", demangledName, shortName", [_kernel(n) for n in range(ROWS)]),
        "CUPTI_ACTIVITY_KIND_MEMCPY": (_DEVICE + ", copyKind", [(*_kernel(n)[:6], 1) for n in range(8)]),
        "CUPTI_ACTIVITY_KIND_RUNTIME": (
            "start, correlationId, globalTid",
            [(n * 900, n, _PID + 1) for n in range(ROWS)],
        ),
        "NVTX_EVENTS": ("start, end, eventType, text, textId, globalTid", [_range(n) for n in range(ROWS)]),
        "TARGET_INFO_SESSION_START_TIME": ("utcEpochNs", [(START,)]),
        "TARGET_INFO_SYSTEM_ENV": ("name, value", [("Hostname", "one")]),
        "TARGET_INFO_GPU": ("id, cuDevice, name", [(4, 0, "NVIDIA H100")]),
        "META_DATA_EXPORT": ("name, value", [("EXPORT_PRODUCT_NAME", "NVIDIA Nsight Systems")]),
        "META_DATA_CAPTURE": ("name, value", [("PROCESS_1:ENVIRONMENT_VARIABLE", 'RANK="1";WORLD_SIZE="2"')]),
    }
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for table, (columns, rows) in tables.items():
            db.execute(f"CREATE TABLE {table} ({columns})")
            db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        return _packed(db)


_PID = 7 << 24
_DEVICE = "start, end, deviceId, streamId, correlationId, globalPid"
_TEXTS = (
    "gemm",
    "ncclDevKernel_AllReduce_Sum_f32_RING_LL(...)",
    "ncclDevKernel_SendRecv(...)",
    "ncclAllGather",
    "step 3",
)


def _kernel(number: int) -> tuple[Any, ...]:
    name = 1 + number % 3
    return 1000 * number, 1000 * number + 800, 0, 7 if name == 1 else 16, number, _PID, name, name


def _range(number: int) -> tuple[Any, ...]:
    kind = number % 4
    text = (f"step {number}", None, "nccl:all_reduce", "Optimizer.step#SGD")[kind]
    return 1000 * number, 1000 * number + 900, 59, text, 4 if kind == 1 else None, _PID + 1


def _packed(db: sqlite3.Connection) -> bytes:
    """The file, as small as it gets: pages of 1 kB."""
    db.commit()
    db.execute("PRAGMA page_size = 1024")
    db.execute("VACUUM")
    return db.serialize()


# ---- nccl-tests


def _nccl_tests(traces: Path) -> list[bytes]:
    logs = sorted(path for path in traces.glob("nccl-tests*/**/*") if path.suffix in (".txt", ".log"))
    real = [path.read_bytes()[:LARGEST] for path in logs if path.name.startswith(("all", "reduce", "g2", "algo"))]
    entry = {"op": "all_reduce", "ranks": [0, 1], "group_size": 2, "scope": "intra-node"}
    entries = [{**entry, "bytes": [256, 1024], "time_us": [12.5, 14.25]}]
    kind = {
        "kind": "commlens calibration",
        "format_version": 1,
        "source": "x",
        "made_with": {"torch": "", "backend": ""},
    }
    return [*real, _table().encode(), json.dumps({**kind, "entries": entries}).encode()]


def _table() -> str:
    """A log of two ranks on two hosts."""
    lines = ["# nThread 1 nGpus 1 minBytes 1024 maxBytes 65536 step: 2(factor) warmup iters: 1 iters: 20"]
    lines += ["# all_reduce_perf", "#  nccl-library=22705"]
    lines += [f"#  Rank  {rank} Group  0 Pid {9 + rank} on  host{rank} device  0 [0x07] H100" for rank in (0, 1)]
    table = "  ".join(("time", "algbw", "busbw", "#wrong") * 2)
    lines += ["#       size         count      type   redop    root  " + table]
    noise = random.Random(1)
    for power in range(10, 17):
        time = noise.uniform(10, 20)
        rate = f"{time:.2f} {2**power / time / 1e3:.2f} {2**power / time / 1e3:.2f} 0"
        lines.append(f"{2**power:12d} {2**power // 4:12d}     float     sum      -1 {rate} {rate}")
    return "\n".join(lines) + "\n"


_MAKERS: dict[str, Callable[[Path], list[bytes]]] = {
    "kineto": _kineto,
    "flight_recorder_json": _flight_recorder_json,
    "flight_recorder_pickle": _flight_recorder_pickle,
    "nccl_inspector": _nccl_inspector,
    "nsys": _nsys,
    "nccl_tests": _nccl_tests,
}
