"""What NCCL Inspector writes, one JSON object a line; fields that are of no use are not read.

From github.com/NVIDIA/nccl, plugins/profiler/inspector: NCCL 2.28 to 2.29 writes collectives (coll_perf), 2.30 also
messages (p2p_perf) and the communicator's name, all of them event traces where the log is verbose.
"""

from __future__ import annotations

from typing import Final

import msgspec

from commlens.trace.schema import MISSING


class Header(msgspec.Struct, gc=False):
    """The communicator, and the rank in it."""

    id: str
    rank: int
    n_ranks: int
    comm_name: str = ""


class Metadata(msgspec.Struct, gc=False):
    """Who wrote the line, and when."""

    dump_timestamp_us: int = MISSING
    hostname: str = ""
    pid: int = MISSING


class Channel(msgspec.Struct, gc=False):
    """When the host saw a channel's kernel end, us; 0 where it did not."""

    kernel_stop_ts: int = 0
    kernel_record_ts: int = 0


class Times(msgspec.Struct, gc=False):
    """The event trace of a verbose log, us; 0 for what was not seen."""

    coll_start_ts: int = 0
    p2p_start_ts: int = 0
    kernel_events: list[Channel] = []


class Collective(msgspec.Struct, gc=False):
    """A collective."""

    name: str = msgspec.field(name="coll")
    number: int = msgspec.field(name="coll_sn")
    bytes: int = msgspec.field(default=MISSING, name="coll_msg_size_bytes")
    lasted_us: int = msgspec.field(default=MISSING, name="coll_exec_time_us")
    timing: str = msgspec.field(default="", name="coll_timing_source")
    times: Times = msgspec.field(default_factory=Times, name="event_trace_ts")
    peer: int = MISSING  # of messages only


class Message(msgspec.Struct, gc=False):
    """A message to or from one rank."""

    name: str = msgspec.field(name="p2p")
    number: int = msgspec.field(name="p2p_sn")
    peer: int = msgspec.field(default=MISSING, name="p2p_peer")
    bytes: int = msgspec.field(default=MISSING, name="p2p_msg_size_bytes")
    lasted_us: int = msgspec.field(default=MISSING, name="p2p_exec_time_us")
    timing: str = msgspec.field(default="", name="p2p_timing_source")
    times: Times = msgspec.field(default_factory=Times, name="event_trace_ts")


class Line(msgspec.Struct, gc=False):
    """A line: either a collective or a message."""

    header: Header
    metadata: Metadata = msgspec.field(default_factory=Metadata)
    coll_perf: Collective | None = None
    p2p_perf: Message | None = None


decode: Final = msgspec.json.Decoder(Line).decode
