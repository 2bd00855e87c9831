"""The plugin's file as numpy types; `commlens/profiler/nccl/records.h` says the same in C.

A header of 256 bytes, then records of 192, each of which says what it is and carries the sum of its words. Times are
ns of the host's monotonic clock, device times ns of the GPU's global timer; 0 stands for none.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"COMMLNCC"
VERSION: Final = 1
HEADER_BYTES: Final = 256
RECORD_BYTES: Final = 192

COMMUNICATOR, NAME, OPERATION, TALLY = 1, 2, 3, 4

MESSAGE, SEND, CAPTURED, COPY_ENGINE, COMPLETE, UNDER_WAY, CUT_OFF = 1, 2, 4, 8, 16, 32, 64
NO_OFFSET: Final = np.iinfo(np.int64).max
WAITS: Final = ("send_gpu", "send_peer", "send_network", "recv_network", "recv_flush", "recv_gpu")

HEADER: Final = np.dtype(
    {
        "names": [
            "magic",
            "version",
            "header_bytes",
            "record_bytes",
            "pid",
            "rank",
            "table",
            "monotonic_ns",
            "wall_ns",
            "host",
            "boot_id",
        ],
        "formats": ["S8", "<u4", "<u4", "<u4", "<u4", "<i4", "<i4", "<i8", "<i8", "S64", "S40"],
        "offsets": [0, 8, 12, 16, 20, 24, 28, 32, 40, 48, 112],
        "itemsize": HEADER_BYTES,
    }
)
COMMUNICATOR_RECORD: Final = np.dtype(
    {
        "names": ["kind", "check", "index", "device", "id", "ranks", "rank", "nodes", "table", "created_ns", "name"],
        "formats": ["<u4", "<u4", "<u4", "<i4", "<u8", "<i4", "<i4", "<i4", "<i4", "<i8", "S128"],
        "offsets": [0, 4, 8, 12, 16, 24, 28, 32, 36, 40, 48],
        "itemsize": RECORD_BYTES,
    }
)
NAME_RECORD: Final = np.dtype(
    {
        "names": ["kind", "check", "id", "text"],
        "formats": ["<u4", "<u4", "<u4", "S64"],
        "offsets": [0, 4, 8, 16],
        "itemsize": RECORD_BYTES,
    }
)
OPERATION_RECORD: Final = np.dtype(
    [
        ("kind", "<u4"),
        ("check", "<u4"),
        ("communicator", "<u4"),
        ("flags", "<u2"),
        ("channels", "<u2"),
        ("order", "<i8"),  # n-th operation of its communicator in this process, from 0
        ("seq", "<i8"),  # NCCL's own number, of each operation of a communicator apart
        ("count", "<i8"),
        ("bytes", "<i8"),
        ("enqueued_ns", "<i8"),
        ("before_ns", "<i8"),  # the device had not begun at this time
        ("device_start_ns", "<i8"),
        ("device_stop_ns", "<i8"),
        ("offset_most_ns", "<i8"),  # least (time at which a device time was read - that device time)
        ("host_start_ns", "<i8"),
        ("host_stop_ns", "<i8"),
        ("waits_ns", "<i8", (len(WAITS),)),
        ("sent_bytes", "<i8"),
        ("received_bytes", "<i8"),
        ("steps", "<u4"),
        ("proxy_ops", "<u4"),
        ("peer", "<i4"),
        ("func", "u1"),
        ("dtype", "u1"),
        ("algorithm", "u1"),
        ("protocol", "u1"),
        ("channels_ended", "<u2"),
        ("reserved", "V6"),
    ]
)
TALLIES: Final = ("operations", "no_slot", "no_room", "no_step", "late", "foreign", "cut_off")
TALLY_RECORD: Final = np.dtype(
    {
        "names": ["kind", "check", "time_ns", *TALLIES],
        "formats": ["<u4", "<u4", "<i8", *["<i8"] * len(TALLIES)],
        "offsets": [0, 4, *range(8, 16 + 8 * len(TALLIES), 8)],
        "itemsize": RECORD_BYTES,
    }
)

_WORDS: Final = RECORD_BYTES // 4
_WEIGHTS: Final = ((2 * np.arange(_WORDS, dtype=np.uint64) + 0x9E3779B1) & 0xFFFFFFFF) * (np.arange(_WORDS) != 1)


def checks(data: bytes) -> NDArray[np.bool_]:
    """Whether each whole record in `data` is as it was written."""
    whole = len(data) // RECORD_BYTES * RECORD_BYTES
    words = np.frombuffer(data[:whole], "<u4").reshape(-1, _WORDS)
    sums = np.full(len(words), 0x434F4D4D, np.uint32)
    for place in range(_WORDS):
        if place != 1:
            sums += words[:, place] * np.uint32(_WEIGHTS[place])
    return np.asarray(sums == words[:, 1])
