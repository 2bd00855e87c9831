"""Makes this process keep time as exactly as the machine allows."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import threading

_PR_SET_TIMERSLACK = 29
_RECORDER = "commlens-flush"  # comes after the job's threads, but before others: it may hold the interpreter lock


def quiet() -> None:
    """No timer slack, no garbage collection, and ahead of other processes where the user may have that.

    Threads started later inherit it. What is left with root, besides a hypervisor's doings: Linux (6.12 and later)
    now and then lets ordinary processes pass for up to 50 ms; `Lane.late_ms` shows it.
    """
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.disable()
    recorder = {thread.native_id for thread in threading.enumerate() if thread.name == _RECORDER}
    for thread in map(int, os.listdir("/proc/self/task")):  # noqa: PTH208 - ids, not paths
        with contextlib.suppress(OSError):  # not root
            os.sched_setscheduler(thread, os.SCHED_RR, os.sched_param(1 if thread in recorder else 2))
