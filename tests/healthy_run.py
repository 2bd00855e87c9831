"""A small healthy run of two ranks, and the same with something wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthetic import MS, START, Collective, Phase, RankTruth, write_run

STEPS = 8
LAST_NS = START + 100 * MS  # the last note of the recorder
ENVIRONMENT = {"NCCL_DEBUG": "WARN", "OMP_NUM_THREADS": "1"}
GROUP = {"name": "0", "desc": "", "ranks": [0, 1], "size": 2, "backend": "gloo"}
INFO = {
    "boot_id": "one",
    "host": "node",
    "backend": "gloo",
    "groups": [GROUP],
    "environment": ENVIRONMENT,
    "interfaces": [{"name": "eth0", "state": "up", "address": "10.0.0.1", "mtu": 1500, "speed_mbit_s": 1000}],
    "hooks": {"recorder": "native", "collectives": "ok", "waits": "ok", "backward": "ok", "optimizer": "ok"},
    "links": [],
    "end": {"how": "exit", "ns": LAST_NS},
}


def rank(overhead: dict[str, int] | None = None, collectives: int = STEPS, **info: Any) -> RankTruth:
    """A rank that all-reduces once in each of its steps of 10 ms."""
    begins = [START + step * 10 * MS for step in range(STEPS)]
    rows = [
        Collective(at + 2 * MS, at + 5 * MS, at + 2 * MS, waited_ns=at + 2 * MS, blocked_ns=3 * MS, seq=number)
        for number, at in enumerate(begins[:collectives])
    ]
    phases = [Phase("optimizer", at + 8 * MS, at + 9 * MS, "SGD") for at in begins]
    noted = {"time_ns": LAST_NS, "events": STEPS, "hook_ns": STEPS * 1000, **(overhead or {})}
    return RankTruth(rows, phases, info={**INFO, **info}, overhead=noted)


def write_healthy(path: Path, second: RankTruth | None = None, world_size: int = 2) -> Path:
    """The run; `second` takes the place of rank 1."""
    return write_run(path, {0: rank(), 1: second or rank()}, world_size)
