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
ALIVE_FILE: Final = "alive"  # in a rank's folder until it ends: its recorder's last sign of life, ns of its clock
SIGN_BYTES: Final = 21  # of it; behind them stands why the recorder gave up, where it did
ALIVE_EVERY_S: Final = 5.0  # while nothing else is written
RANK_FOLDER: Final = "rank-{rank:05d}"
TABLE_FILE: Final = "{table}.arrows"
PACK_FILE: Final = "node-{rank:05d}.zip"  # in a run's folder: the ranks of a node, named by the lowest of them
PACKED_TABLE: Final = "{table}.parquet"  # in a pack, in a rank's folder
WINDOW_FILE: Final = "window-{step}.kineto.json.gz"  # in a rank's folder: torch.profiler's trace of a deep window

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
    "nccl_plugin": "NCCL plugin files (nccl-*.events)",
    "nccl_inspector": "NCCL Inspector logs",
    "flight_recorder": "Flight Recorder dumps",
}

# What `completed_ns` means.
#   device        measured on the device that moved the bytes
#   host          seen on the host when the operation completed
#   wait          the caller's wait() returned: the end is this or earlier
#   enqueue_only  only the host's call is known; the end is null
TIMINGS: Final = ("device", "host", "wait", "enqueue_only")

# How an operation's times in `device_ops` were told.
#   device         the device's own clock, known on the host's to error_ns
#   device_late    the same, bounded from one side only: start and end are those or earlier, their difference is exact
#   kernel_seen    when the host saw the kernel begin and end (NCCL 2.26)
#   proxy_seen     when its network proxies began and ended (before NCCL 2.26)
#   contradictory  the clocks' bounds contradict each other: only device_ns is known
#   none           nothing told of its execution
DEVICE_CLOCKS: Final = ("device", "device_late", "kernel_seen", "proxy_seen", "contradictory", "none")

# `cut_off`: its communicator ended first; `unseen`: it must have ended, but not all its channels told so.
DEVICE_STATES: Final = ("ended", "cut_off", "under_way", "unseen")

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
    # What NCCL did, an operation a row, as its profiler plugin saw it. One collective of torch may be several of them.
    # The waits are sums over the steps (chunks) of its network proxies, which overlap: they compare with one another,
    # not with its duration. They are null where no proxy took part.
    "device_ops": {
        "event": "int64",  # the row of `collectives` that it belongs to
        "group": "name16",  # whose communicator it is
        "communicator": "name16",  # NCCL's id of it, the same in all its ranks
        "name": "name16",  # that the communicator was given
        "order": "int64",  # n-th operation of its communicator, from 0
        "seq": "int64",  # NCCL's number, of each operation of a communicator apart; null for messages
        "message": "int64",  # n-th message to, or from, this peer in the communicator; null for collectives
        "op": "name8",
        "dtype": "name8",  # as NCCL counted: all_gather and broadcast in int8
        "bytes": "int64",  # of all_gather and reduce_scatter each rank's part, of others the whole
        "peer": "int32",  # rank in the communicator: root, source or destination
        "algorithm": "name8",  # NCCL's words: RING, TREE, NVLS, ...
        "protocol": "name8",  # LL, LL128, SIMPLE
        "channels": "int32",
        "enqueued_ns": "int64",  # NCCL had handed it to the device
        "start_ns": "int64",  # its first channel began
        "end_ns": "int64",  # its last channel ended
        "error_ns": "int64",  # start and end are right to this much; null where they are bounds
        "device_ns": "int64",  # first start to last end by the device's own clock
        "clock": "name8",
        "state": "name8",
        "graph": "int16",  # 1: replayed by a CUDA graph
        "copy_engine": "int16",  # 1: moved by copy engines, which tell no times
        "send_gpu_ns": "int64",  # for the GPU to have data to send
        "send_peer_ns": "int64",  # for the receiver to have room
        "send_network_ns": "int64",  # for the network to have sent
        "recv_network_ns": "int64",  # for data to come in
        "recv_flush_ns": "int64",  # until it is visible to the GPU
        "recv_gpu_ns": "int64",  # for the GPU to have used it
        "sent_bytes": "int64",
        "received_bytes": "int64",
        "steps": "int64",
    },
    # Readings of the node's links and devices, by one rank of each node. Of equal values in a row there are the
    # first and the last.
    "counters": {
        "time_ns": "int64",  # when it was read
        "device": "name16",  # a name in `links` of rank.json
        "counter": "name8",  # a word of `counters.COUNTERS`
        "value": "int64",
    },
    # What is kept after COMMLENS_QUOTA: sums, a row for each stretch of steps and kind of collective or phase. Rows of
    # the same stretch and kind add up.
    "aggregates": {
        "from_step": "int32",  # first step of the stretch
        "to_step": "int32",  # the step after its last one
        "phase": "name8",  # of phases, and `step` for whole steps; null of collectives
        "group": "name16",
        "op": "name8",
        "dtype": "name8",
        "in_bytes": "int64",  # of each of them; null where a rank has too many sizes to tell them apart
        "out_bytes": "int64",
        "peer": "int32",  # of send and recv
        "kind": "int32",  # number of this group, op, dtype, sizes and peer in the rank
        "count": "int64",  # issued
        "total_bytes": "int64",  # of those, the larger of in_bytes and out_bytes
        "ended": "int64",  # whose end was seen
        "bounds": "int64",  # of those, whose end was seen by wait() alone: that or earlier
        "duration_ns": "int64",  # of those that ended, the sum from issue to end
        "shortest_ns": "int64",
        "longest_ns": "int64",
        "started": "int64",  # of those that ended, whose beginning was seen too
        "executed_ns": "int64",  # of those, the sum from beginning to end
        "waits": "int64",  # for which a thread stood still
        "blocked_ns": "int64",  # the sum of that
        "first_seq": "int64",
        "last_seq": "int64",
        "first_ns": "int64",  # when the first was issued
        "last_ns": "int64",
    },
    # How long they took: a histogram with four bins an octave. Rows add up likewise.
    "aggregate_bins": {
        "from_step": "int32",
        "kind": "int32",
        "bin": "int16",  # b: from 2^(b/4) up to, not including, 2^((b+1)/4) ns
        "count": "int64",
    },
    # One row a flush; counts since the row before.
    "overhead": {
        "time_ns": "int64",
        "events": "int64",  # collectives seen
        "hook_ns": "int64",  # CPU time of our hooks on the job's threads
        "flush_ns": "int64",  # CPU time of the recorder's own threads
        "dropped": "int64",  # collectives not recorded for want of room
        "written_bytes": "int64",
        "window_ns": "int64",  # how long the job stood still for deep windows
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
