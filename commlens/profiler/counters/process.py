"""Bytes over the TCP connections of this process, told by the kernel for each of its sockets.

Asked through libc on the number itself: a copy of a descriptor would keep a connection open that the job closes, and
closing one drops the locks that the process holds on a file. A number that has meanwhile become another file's is
answered by an error, nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterable
from typing import Any, Final

from commlens.profiler.counters.source import ALL, Pair, Source, key, link

_TCP, _TCP_INFO = socket.IPPROTO_TCP, 11  # linux/tcp.h
_ROOM: Final = 192
# struct tcp_info: total_retrans; bytes_acked, bytes_received (kernel 4.1); segs_out (4.2).
_RETRANSMITS, _ACKED, _RECEIVED, _SEGMENTS = 100, 120, 128, 136
_LEAST: Final = 140
_MOST_FILES: Final = 4096
_Totals = tuple[int, int, int, int]
_WORDS: Final = ("tx_bytes", "rx_bytes", "retransmits", "tx_segments")
_NOTHING: Final = (0, 0, 0, 0)


class Process(Source):
    """What this process sent and received over TCP, over whatever link; connections that have ended included."""

    name = "process"
    every_ms = 2000

    def __init__(self) -> None:
        super().__init__()
        self.device = f"process-{os.getpid()}"
        self._keys = [key(self.device, word) for word in _WORDS]
        self._ended = _NOTHING
        self._open: dict[int, _Totals] = {}  # by the socket's inode, which no other has
        self._ask: Any = None

    def refresh(self) -> None:
        if self._ask is not None:
            return
        reason = self._refusal()
        if reason:
            self._ask = None
            self.refuse(self.device, ALL, reason)
            return
        note = "TCP connections of this process alone; what a connection moved after its last reading is missing"
        counts = "payload: acknowledged by the peer, and received"
        self.links.append(link(self.device, "process", counts, "when read", None, "no link by itself", note=note))

    def _refusal(self) -> str:
        """Why this system does not tell, "" where it does."""
        if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112 - one call, no object
            return "/proc/self/fd is not there"
        try:
            self._ask = _libc_getsockopt()
        except (OSError, AttributeError):
            return "libc has no getsockopt"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as tried:
            return "" if self._ask(tried.fileno()) is not None else "the kernel does not tell bytes of a connection"

    def read(self) -> _Totals | None:
        if self._ask is None:
            return None
        found: dict[int, _Totals] = {}
        for entry in os.listdir("/proc/self/fd")[:_MOST_FILES]:  # noqa: PTH208 - names, no objects
            number = int(entry)
            told = self._ask(number)
            if told is not None:
                with contextlib.suppress(OSError):  # closed since
                    found[os.fstat(number).st_ino] = told
        self._ended = _sum([self._ended, *(told for inode, told in self._open.items() if inode not in found)])
        self._open = found
        return _sum([self._ended, *found.values()])

    def decode(self, raw: _Totals) -> Iterable[Pair]:
        return zip(self._keys, raw, strict=True)


def _sum(rows: list[_Totals]) -> _Totals:
    return tuple(map(sum, zip(*rows, strict=True)))  # type: ignore[return-value]


def _libc_getsockopt() -> Any:
    getsockopt = ctypes.CDLL(None, use_errno=False).getsockopt  # gives up the interpreter lock
    room, length = ctypes.create_string_buffer(_ROOM), ctypes.c_uint32()

    def ask(number: int) -> _Totals | None:
        """A connection's totals; None for what is no TCP socket, and from kernels that do not tell."""
        length.value = _ROOM
        if getsockopt(number, _TCP, _TCP_INFO, room, ctypes.byref(length)) != 0 or length.value < _LEAST:
            return None
        acked, received = struct.unpack_from("QQ", room, _ACKED)
        return acked, received, *struct.unpack_from("I", room, _RETRANSMITS), *struct.unpack_from("I", room, _SEGMENTS)

    return ask
