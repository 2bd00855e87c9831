"""The trace format: tables, columns, units, vocabulary and version.

Every other module that names a column or an operation takes it from here.
Times are integer nanoseconds of the rank's own clock (wall clock derived once
from a monotonic one), sizes are bytes. `MISSING` stands for "not known" in
numpy columns; in the files it is an Arrow null.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION: Final = 1
MISSING: Final = -1

RUN_FILE: Final = "run.json"
RANK_FILE: Final = "rank.json"
RANK_FOLDER: Final = "rank-{rank:05d}"
TABLE_FILE: Final = "{table}.arrows"

OPS: Final = (
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "broadcast",
    "reduce",
    "gather",
    "scatter",
    "barrier",
    "send",
    "recv",
)
POINT_TO_POINT: Final = frozenset({"send", "recv"})

DTYPES: Final = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "complex128",
    "float8",
    "other",
)

SOURCES: Final = (
    "dispatcher",
    "native",
    "nccl_plugin",
    "kineto",
    "flight_recorder",
    "nccl_inspector",
    "nsys",
)

# The sources that are files of other tools, best first: where a folder holds several, the one that knows most is read.
IMPORTED: Final = {
    "kineto": "torch.profiler (Kineto) traces",
    "nsys": "Nsight Systems SQLite exports",
    "nccl_inspector": "NCCL Inspector logs",
    "flight_recorder": "Flight Recorder dumps",
}

# What `completed_ns` means.
#   device        measured on the device that moved the bytes
#   host          seen on the host when the operation completed
#   wait          the caller's wait() returned: the end is this or earlier
#   enqueue_only  only the host's call is known; the end is null
TIMINGS: Final = ("device", "host", "wait", "enqueue_only")

PHASES: Final = ("forward", "backward", "optimizer")
STEP_MARK: Final = "step"  # a row of the phases table that says where a step begins and ends; no phase of one

# What a device did: `unclassified` has a name like communication's that no table knows.
COMPUTE, COMMUNICATION, COPY, UNCLASSIFIED = KERNEL_KINDS = ("compute", "communication", "copy", "unclassified")

# table -> column -> kind. Kinds: int16/int32/int64; "name8"/"name16"/"name32"
# are strings stored as an Arrow dictionary with int8/int16/int32 codes.
TABLES: Final[dict[str, dict[str, str]]] = {
    "collectives": {
        "event": "int64",  # unique in the rank; a later row with the same event replaces the earlier
        "group": "name16",  # torch group name; "name#2" after the name was re-used by a new group
        "group_desc": "name16",
        "seq": "int64",  # n-th collective of the group, from 0; send/recv: n-th message to/from this peer
        "op": "name8",
        "dtype": "name8",
        "in_bytes": "int64",  # handed in by this rank
        "out_bytes": "int64",  # received by this rank
        "group_size": "int32",
        "peer": "int32",  # global rank of root, source or destination; null where there is none
        "issued_ns": "int64",  # the call entered the backend
        "started_ns": "int64",  # this rank's part began to execute
        "completed_ns": "int64",
        "waited_ns": "int64",  # the calling thread began to stand still for it
        "blocked_ns": "int64",  # how long it stood still
        "step": "int32",  # optimizer steps ended before it was issued
        "bucket": "int32",  # DDP gradient bucket
        "thread": "int16",  # 0 is the thread that initialised the process group
        "source": "name8",
        "timing": "name8",
    },
    "phases": {
        "phase": "name8",
        "name": "name16",  # "DDP(Net)", "AdamW", "" for backward
        "start_ns": "int64",
        "end_ns": "int64",
        "step": "int32",
        "thread": "int16",
    },
    # When gradients became ready, in a few sampled steps.
    "gradients": {
        "model": "int16",  # place in `models` of rank.json
        "parameter": "int32",  # place in that model's `parameters`
        "ready_ns": "int64",  # accumulated, on the host's clock
        "step": "int32",
    },
    # What ran on the rank's devices, the kernels of collectives among them.
    "kernels": {
        "kind": "name8",
        "name": "name32",
        "device": "int16",
        "stream": "int32",
        "blocks": "int64",  # of threads: the size of the grid
        "launched_ns": "int64",  # the host's call that launched it began
        "start_ns": "int64",
        "end_ns": "int64",
    },
    # Readings of the node's links and devices, by one rank of each node. Of equal values in a row there are the
    # first and the last.
    "counters": {
        "time_ns": "int64",  # when it was read
        "device": "name16",  # a name in `links` of rank.json
        "counter": "name8",  # a word of `counters.COUNTERS`
        "value": "int64",
    },
    # One row a flush; counts since the row before.
    "overhead": {
        "time_ns": "int64",
        "events": "int64",  # collectives seen
        "hook_ns": "int64",  # CPU time of our hooks on the job's threads
        "flush_ns": "int64",  # CPU time of the flush thread
        "dropped": "int64",  # collectives not recorded for want of room
        "written_bytes": "int64",
    },
}


@cache
def arrow_schema(table: str) -> pa.Schema:
    """Arrow schema of `table`.

    Raises:
        KeyError: `table` is not one of `TABLES`.
    """
    import pyarrow as pa

    kinds = {
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "name8": pa.dictionary(pa.int8(), pa.string()),
        "name16": pa.dictionary(pa.int16(), pa.string()),
        "name32": pa.dictionary(pa.int32(), pa.string()),
    }
    return pa.schema([(column, kinds[kind]) for column, kind in TABLES[table].items()])
