"""The lines of an NCCL Inspector log: one for each operation that a process took part in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from commlens.errors import TraceError
from commlens.trace.importers.content import Content
from commlens.trace.importers.nccl_inspector_fields import decode
from commlens.trace.schema import MISSING

LATEST_US: Final = 1 << 52  # later times are damage; in ns even a sum of two still fits
_LONGEST: Final = 1 << 20  # bytes: a verbose line with all of NCCL's channels is a tenth of that
_MOST_BYTES: Final = 1 << 50
_MOST_RANKS: Final = 1 << 18  # of a communicator; more is damage

# Names of operations in the log. A log names others only where its writer did not know them.
OPS: Final = {
    "AllReduce": "all_reduce",
    "AllGather": "all_gather",
    "ReduceScatter": "reduce_scatter",
    "AlltoAll": "all_to_all",
    "All2All": "all_to_all",
    "Broadcast": "broadcast",
    "Reduce": "reduce",
    "Gather": "gather",
    "Scatter": "scatter",
    "Send": "send",
    "Recv": "recv",
}


class Place(NamedTuple):
    """A rank's place in a communicator."""

    communicator: str
    rank: int
    size: int


class Operation(NamedTuple):
    """One operation of a log, MISSING for what it does not tell; times in us of the host's wall clock.

    Attributes:
        place: who took part in what.
        desc: name that the communicator was given.
        coll: NCCL's name of the operation.
        direct: it is a message to or from one rank.
        number: how many of its kind came before: collectives of this operation in the communicator from 0,
            messages of any kind and peer in it from 1.
        peer: rank in the communicator of the other end of a message.
        bytes: what NCCL was told to move, see `nccl_inspector.sizes`.
        lasted_us: duration, whole us.
        on_device: the duration was measured on the device.
        issued_us: the host launched it.
        seen_us: the host saw the last of its channels end.
        dumped_us: the line was written, at any time after the end.
        host, process: who wrote it.
    """

    place: Place
    desc: str
    coll: str
    direct: bool
    number: int
    peer: int
    bytes: int
    lasted_us: int
    on_device: bool
    issued_us: int
    seen_us: int
    dumped_us: int
    host: str
    process: int


def parse_lines(content: Content) -> Iterator[Operation | None]:
    """Every operation of a log in its order, None for a line that is damaged or cut off.

    Raises:
        TraceError: A line is too long for a log, or the file may not be read.
    """
    for line in _lines(content):
        yield _parsed(line)


def _lines(content: Content) -> Iterator[bytes]:
    """Lines that are not blank."""
    rest = b""
    for chunk in content.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > _LONGEST:
            raise TraceError(f"{content.path} has lines longer than a log of NCCL Inspector; give its .log files")
    if rest.strip(b"\0 \r\n\t"):
        yield rest


def _parsed(line: bytes) -> Operation | None:
    try:
        found = decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    perf, head, about = found.coll_perf or found.p2p_perf, found.header, found.metadata
    if perf is None or not (0 <= head.rank < head.n_ranks <= _MOST_RANKS) or not 0 <= perf.number < LATEST_US:
        return None
    direct = found.coll_perf is None
    seen = max((each.kernel_stop_ts or each.kernel_record_ts for each in perf.times.kernel_events), default=0)
    return Operation(
        place=Place(head.id, head.rank, head.n_ranks),
        desc="" if head.comm_name == "unknown" else head.comm_name,
        coll=perf.name,
        direct=direct,
        number=perf.number,
        peer=perf.peer if 0 <= perf.peer < head.n_ranks else MISSING,
        bytes=_sane(perf.bytes, _MOST_BYTES),
        lasted_us=_sane(perf.lasted_us, LATEST_US),
        on_device=perf.timing == "kernel_gpu",
        issued_us=_sane(perf.times.p2p_start_ts if direct else perf.times.coll_start_ts, LATEST_US) or MISSING,
        seen_us=_sane(seen, LATEST_US) or MISSING,
        dumped_us=_sane(about.dump_timestamp_us, LATEST_US) or MISSING,
        host=about.hostname,
        process=about.pid,
    )


def _sane(value: int, most: int) -> int:
    return value if 0 <= value < most else MISSING
