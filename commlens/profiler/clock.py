"""The rank's clock: monotonic readings, turned into wall time once.

The wall clock may be stepped while a job runs; differences of monotonic
readings never are. Both are read together at start, and every stored time is
monotonic + that one offset.
"""

from __future__ import annotations

import time

now = time.perf_counter_ns
cpu_now = time.thread_time_ns  # what a hook costs, without what the machine takes from it meanwhile


def wall_offset_ns(samples: int = 5) -> int:
    """Wall clock minus `now`, in ns, from the tightest of a few bracketed readings."""
    best, offset = None, 0
    for _ in range(samples):
        before, wall, after = now(), time.time_ns(), now()
        if best is None or after - before < best:
            best, offset = after - before, wall - (before + after) // 2
    return offset
