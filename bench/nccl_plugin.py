"""What NCCL's profiler plugin costs per event, and how many events a second it takes without losing any.

    python bench/nccl_plugin.py

A driver in C (tests/nccl/drive.c) calls the plugin as NCCL does. An event is what NCCL starts and stops: a
collective, or one channel of its kernel; each of those is two calls or, with the kernel's stop time, three. The
operations are all-reduces on two channels. Asked: at most 400 ns an event on one thread, 1 million events a second
from four threads with none lost, and exact counts of what is lost when far more come than are written.
The last line is JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/nccl")]

import driven  # noqa: E402

from commlens.trace.nccl.log import Log  # noqa: E402

VERSION = 6
EVENTS = 3  # of an operation: itself and two channels
ROUNDS = 7
THREADS = 4
PACE_US = 150  # pause of each thread after 64 operations: NCCL's threads do other things too


def run(scenario: str, *numbers: int) -> tuple[dict[str, Any], Log]:
    """What the driver measured, and the file it left."""
    with tempfile.TemporaryDirectory() as folder:
        done = driven.drive(Path(folder), scenario, VERSION, *numbers)[0]
        return done, driven.the_log(Path(folder))


def lost(log: Log) -> int:
    """Operations that the plugin says it lost."""
    return log.tallies["no_slot"] + log.tallies["no_room"]


def one_thread() -> tuple[float, float]:
    """ns and CPU ns an event, one thread that does nothing else; fewer operations than the ring has room for."""
    wall, cpu = [], []
    for _ in range(ROUNDS):
        done, _ = run("threads", 1, 20_000)
        wall.append(done["ns"] / (done["operations"] * EVENTS))
        cpu.append(done["cpu_ns"] / (done["operations"] * EVENTS))
    print(
        f"one thread: {min(wall):.0f} to {max(wall):.0f} ns an event in {ROUNDS} rounds, of CPU time"
        f" {min(cpu):.0f} to {max(cpu):.0f} ns"
    )
    return statistics.median(wall), statistics.median(cpu)


def four_threads() -> tuple[float, int]:
    """Events a second from four threads over seconds, and operations lost of them."""
    done, log = run("threads", THREADS, 500_000, PACE_US)
    rate = done["operations"] * EVENTS / done["ns"] * 1e9
    written = len(log.operations)
    print(f"four threads: {rate:.3g} events/s for {done['ns'] / 1e9:.1f} s, {written} of {done['operations']} written")
    assert written + lost(log) == done["operations"]
    return rate, done["operations"] - written


def flood() -> tuple[float, float]:
    """Four threads as fast as they can: the rate, and the share that is lost, every one of which is counted."""
    done, log = run("threads", THREADS, 500_000)
    rate = done["operations"] * EVENTS / done["ns"] * 1e9
    assert len(log.operations) + lost(log) == done["operations"]
    print(f"flood: {rate:.3g} events/s, {lost(log)} of {done['operations']} operations lost, all counted")
    return rate, lost(log) / done["operations"]


def main() -> None:
    library, _ = driven.built()
    size = library.stat().st_size
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    load = os.getloadavg()[0]
    print(f"{compiler}; {os.cpu_count()} cores, load average {load:.1f} at the start; library of {size} bytes")
    ns, cpu_ns = one_thread()
    rate, missing = four_threads()
    flooded, share = flood()
    result = {
        "plugin_ns_per_event": round(ns, 1),
        "plugin_cpu_ns_per_event": round(cpu_ns, 1),
        "plugin_events_per_s_4_threads": round(rate),
        "lost": missing,
        "flood_events_per_s": round(flooded),
        "flood_lost_fraction": round(share, 3),
        "cores": os.cpu_count(),
        "load_average_at_start": round(load, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
