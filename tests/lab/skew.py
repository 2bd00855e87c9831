"""What differs between hosts and is one on this machine: host name, boot id, and how the clock goes.

    python tests/lab/skew.py job.py [arguments]     # or: `import skew` in the job, before anything of commlens

LAB_CLOCK says what to fake. Every host's monotonic clock begins at its own time and goes at its own speed; its wall
clock goes at the same speed and is off by an offset. So wall = monotonic + one constant per host, as on a real
host, and every time that the recorder stores is

    wall_ns + offset_s * 1e9 + (mono - mono_ns) * (1 + drift_ppm / 1e6)

where (mono_ns, wall_ns) is the launcher's own reading, one for all ranks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

VARIABLE = "LAB_CLOCK"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_DAY_NS = 86_400 * 10**9
_BINDERS = ("collectives", "phases", "recorder", "trampoline")  # modules that take `now` when they are imported


@dataclass(frozen=True)
class Clock:
    """How a host's clock goes.

    Attributes:
        offset_s: wall clock minus the true time at launch.
        drift_ppm: how much faster than true time both of its clocks go.
    """

    offset_s: float = 0.0
    drift_ppm: float = 0.0


def reference() -> dict[str, int]:
    """The machine's own monotonic and wall clock, read together."""
    return {"mono_ns": time.perf_counter_ns(), "wall_ns": time.time_ns()}


def variables(host: int, clock: Clock | None, reading: dict[str, int]) -> dict[str, str]:
    """What a rank of `host` needs in its environment; with no clock only the host's name and boot id differ."""
    return {VARIABLE: json.dumps({"host": host, **({**asdict(clock), **reading} if clock else {})})}


def stored_ns(mono_ns: int, clock: Clock, reading: dict[str, int]) -> int:
    """The time that a recorder on a host with `clock` stores for an event at `mono_ns` of this machine."""
    since = mono_ns - reading["mono_ns"]
    return reading["wall_ns"] + round(clock.offset_s * 1e9) + since + round(since * clock.drift_ppm) // 10**6


def true_ns(stored: int, clock: Clock, reading: dict[str, int]) -> int:
    """This machine's wall time of an event that the recorder on a host with `clock` stored: undoes `stored_ns`."""
    since = stored - reading["wall_ns"] - round(clock.offset_s * 1e9)
    return reading["wall_ns"] + since - round(since * clock.drift_ppm / (1e6 + clock.drift_ppm))


def install(plan: dict[str, Any]) -> None:
    """Fakes what `plan` says, in this process."""
    early = [name for name in _BINDERS if f"commlens.profiler.{name}" in sys.modules]
    if early:
        raise RuntimeError(f"too late to fake the clock: commlens.profiler has loaded {', '.join(early)}")
    from commlens.profiler import clock, environment

    actual, number = environment.host, int(plan["host"])
    names = {"host": f"lab-host-{number}", "boot_id": f"00000000-1ab0-4000-8000-{number:012d}"}
    environment.host = lambda: actual() | names
    if "drift_ppm" in plan:
        _install_clock(clock, plan)


def _install_clock(clock: Any, plan: dict[str, Any]) -> None:
    faked = Clock(plan["offset_s"], plan["drift_ppm"])
    reading = {name: plan[name] for name in ("mono_ns", "wall_ns")}
    # A monotonic clock that began at a time of its own: hosts were not started together.
    began = stored_ns(reading["mono_ns"], faked, reading) - (plan["host"] + 1) * _DAY_NS
    read = time.perf_counter_ns
    clock.now = lambda: stored_ns(read(), faked, reading) - began
    clock.time = SimpleNamespace(time_ns=lambda: stored_ns(read(), faked, reading))


def main() -> None:
    """Runs the script named on the command line, with what LAB_CLOCK says faked."""
    import ctypes
    import runpy

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a launcher that is killed leaves no rank behind
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if VARIABLE in os.environ:
    install(json.loads(os.environ[VARIABLE]))
if __name__ == "__main__":
    main()
