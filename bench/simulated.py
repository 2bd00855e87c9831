"""What the generators of simulated runs share: hosts, their clocks, and what every rank says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from commlens.trace.schema import OPS, SOURCES, TIMINGS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

START: Final = 1_700_000_000_000_000_000
US, MS = 1000, 1_000_000
HOST: Final = 8  # ranks
SLOWER: Final = 1.12  # the straggler


@dataclass
class Clocks:
    """What each rank's clock shows: those of hosts differ by milliseconds and drift; a rank reads its wall clock once.

    Attributes:
        offset: of the rank's host, ns, shape (ranks,).
        drift: of the host, ns per ns since START.
        misread: of the rank.
    """

    offset: Ints
    drift: Floats
    misread: Ints

    @classmethod
    def drawn(cls, ranks: int, draw: np.random.Generator) -> Clocks:
        hosts = (ranks - 1) // HOST + 1
        offset = draw.integers(-40 * MS, 40 * MS, hosts).repeat(HOST)[:ranks]
        drift = draw.normal(0, 2e-6, hosts).repeat(HOST)[:ranks]
        return cls(offset, drift, draw.integers(-20 * US, 20 * US, ranks))

    def shown(self, rank: int, times: Ints) -> Ints:
        """True times as the rank's clock shows them."""
        drifted = np.round((times - START) * self.drift[rank]).astype(np.int64)
        return np.asarray(times + drifted + self.error(rank))

    def error(self, rank: int) -> int:
        """What it shows too much at START."""
        return int(self.offset[rank] + self.misread[rank])


def run_info(run_id: str, ranks: int) -> dict[str, Any]:
    """What run.json holds."""
    run = {"command": ["torchrun", "train.py"], "start_ns": START, "backend": "gloo", "torch": "2.13.0"}
    return {"run_id": run_id, "world_size": ranks, **run}


def rank_info(rank: int, clocks: Clocks, groups: Sequence[dict[str, Any]], end: int) -> dict[str, Any]:
    """What rank.json holds of any rank; `end` is when it exited, on the true clock."""
    host = f"node-{rank // HOST:03d}"
    hooks = ("collectives", "waits", "backward", "optimizer", "forward", "gradients")
    return {
        "rank": rank,
        "local_rank": rank % HOST,
        "host": host,
        "boot_id": f"boot of {host}",
        "backend": "gloo",
        "device": "cpu",
        "groups": list(groups),
        "models": [],
        "interfaces": [{"name": "eth0", "state": "up", "speed_mbit_s": 100_000, "mtu": 9000, "address": "192.0.2.1"}],
        "links": [],
        "counters": {},
        "hooks": {"recorder": "native", **dict.fromkeys(hooks, "ok")},
        "overhead": {"trampoline_ns": 1000},
        "clock": {"wall_offset_ns": START - 10**15 + clocks.error(rank)},
        "end": {"how": "exit", "ns": int(clocks.shown(rank, np.array([end]))[0])},
    }


def group_info(name: str, desc: str, members: Sequence[int]) -> dict[str, Any]:
    """What rank.json says of a process group."""
    return {
        "name": name,
        "desc": desc,
        "ranks": list(members),
        "size": len(members),
        "backend": "gloo",
        "workers": 1,
    }


def natively_recorded(rows: int) -> dict[str, Any]:
    """Columns of the collectives that are the same in every row."""
    zeros = np.zeros(rows, np.int64)
    native, host = SOURCES.index("native"), TIMINGS.index("host")
    return {
        "thread": zeros,
        "source": (zeros + native, list(SOURCES)),
        "timing": (zeros + host, list(TIMINGS)),
    }


def as_ops(words: Sequence[str]) -> Ints:
    """Codes of operations."""
    return np.array([OPS.index(each) for each in words])


def overhead_columns(clocks: Clocks, rank: int, issued: Ints, end: int) -> dict[str, Any]:
    """A row a second, as the recorder leaves them; `issued` are true times of its collectives, in any order."""
    first, last = clocks.shown(rank, np.array([START, end]))
    times = np.arange(first + 1000 * MS, last + 1000 * MS, 1000 * MS)
    events = np.diff(np.searchsorted(np.sort(clocks.shown(rank, issued)), times), prepend=0)
    zeros = np.zeros(times.size, np.int64)
    flush = zeros + 2 * MS
    columns = {"time_ns": times, "events": events, "hook_ns": 1500 * events, "flush_ns": flush, "dropped": zeros}
    return {**columns, "written_bytes": 20 * events, "window_ns": zeros}
