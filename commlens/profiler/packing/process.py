"""The process that packs a node: one a node, started by a rank, whose end it outlives.

It alone touches the run's folder on shared storage. Where that hangs, it hangs: nobody waits for it but the last
rank at its exit, for seconds.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from commlens.profiler.packing.presence import came, gate, is_present, is_recording
from commlens.profiler.packing.schedule import Schedule
from commlens.profiler.packing.state import FAILED, PACKED, WAITING, State, write_state
from commlens.profiler.phase import phase
from commlens.trace.control import CONTROL_FILE

TICK_S: Final = 0.2
CONTROL_S: Final = 1.0
DESCRIBED_WITHIN_S: Final = 10.0
_DESCRIBED_AGAIN_S: Final = 60.0
_COMING_S: Final = 2.0  # of a job that ends as soon as it has begun, until its other ranks have come
_LEAVING_S: Final = 10.0  # from a pack until the processes of its ranks have ended

_Clock = Callable[[], float]


class Packer:
    """Packs one node.

    Args:
        local: node-local folder of the run.
        run: folder of the run on shared storage.
        every_s: seconds between packs; None for growing intervals.
        keep: leave the local folder when it is packed.
        rank: one of the node's, from which the node's phase is drawn.
        ranks_here: how many ranks will come, 0 where not known.
    """

    def __init__(
        self,
        local: Path,
        run: Path,
        every_s: float | None = None,
        keep: bool = False,
        rank: int = 0,
        ranks_here: int = 0,
        clock: _Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.local = local
        self.run = run
        self._keep = keep
        self._ranks_here = ranks_here
        self._clock, self._sleep = clock, sleep
        self._start = clock()
        self._schedule = Schedule(every_s, phase(rank))
        self._describe_s = DESCRIBED_WITHIN_S * phase(rank)
        self._control_s = CONTROL_S * phase(rank)
        self._control: tuple[int, int, int] | None = None
        self._pack: Path | None = None
        self._packed_bytes = 0

    def work(self) -> bool:
        """Until the node's ranks are packed, or cannot be; whether they are."""
        write_state(self.local, State())
        while True:
            while is_recording(self.local) or self._is_coming():
                self._tick(self._clock() - self._start)
                self._sleep(TICK_S)
            why = self._packed()
            if why is not None:
                write_state(self.local, State(FAILED, why))
                return False
            write_state(self.local, State(PACKED))
            if self._is_over():
                return True
            write_state(self.local, State())

    def _is_coming(self) -> bool:
        return came(self.local) < self._ranks_here and self._clock() - self._start < _COMING_S

    def _tick(self, since_start_s: float) -> None:
        if since_start_s >= self._describe_s:
            self._describe(since_start_s)
        if since_start_s >= self._control_s:
            self._control_s = since_start_s + CONTROL_S
            self._take_requests()
        if self._schedule.is_time(since_start_s):
            self._pack_meanwhile(since_start_s)

    def _describe(self, since_start_s: float) -> None:
        from commlens.trace.node_local import describe_run

        try:
            done = describe_run(self.local, self.run)
            self._describe_s = float("inf") if done else since_start_s + CONTROL_S
        except OSError as error:
            self._describe_s = since_start_s + _DESCRIBED_AGAIN_S
            write_state(self.local, State(WAITING, _why(error)))

    def _take_requests(self) -> None:
        """What users ask of the job, from the run's folder into the node's, where the ranks look."""
        try:
            found = (self.run / CONTROL_FILE).stat()
            seen = found.st_mtime_ns, found.st_size, found.st_ino
            if seen == self._control:
                return
            part = self.local / f".{CONTROL_FILE}.part"
            part.write_bytes((self.run / CONTROL_FILE).read_bytes())
            part.replace(self.local / CONTROL_FILE)
            self._control = seen
        except OSError:
            return  # no requests, or no storage: packing says so

    def _pack_meanwhile(self, since_start_s: float) -> None:
        from commlens.trace.node_local import size

        if self._schedule.has_grown(size(self.local)):
            why = self._pack_now()
            write_state(self.local, State(WAITING, why or ""))
            if why is None:
                self._schedule.packed(self._packed_bytes)
        self._schedule.go_on(since_start_s)

    def _pack_now(self) -> str | None:
        """Writes the node's pack; why it could not, a clause."""
        from commlens.trace.node_local import pack_node, size

        try:
            self._packed_bytes = size(self.local)
            before, self._pack = self._pack, pack_node(self.local, self.run)
        except (OSError, MemoryError, ValueError) as error:  # pyarrow's are ValueErrors and OSErrors
            return _why(error)
        if before is not None and before != self._pack:  # a lower rank came later
            with suppress(OSError):
                before.unlink()
        return None

    def _packed(self) -> str | None:
        """Packs all there is; why that cannot be relied on, a clause."""
        from commlens.trace.node_local import difference

        why = self._pack_now()
        if why is not None or self._pack is None:
            return why
        return difference(self.local, self._pack)

    def _is_over(self) -> bool:
        """Lets the ranks' processes end, then removes what is packed; False where there is more to pack."""
        from commlens.trace.node_local import remove, size

        deadline = self._clock() + _LEAVING_S
        while is_present(self.local) and self._clock() < deadline:
            if is_recording(self.local):
                return False
            self._sleep(TICK_S)
        with gate(self.local):
            if is_recording(self.local) or size(self.local) != self._packed_bytes:  # NCCL's plugin may write to the end
                return False
            if not self._keep:
                remove(self.local)
        return True


def _why(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return str(text) or type(error).__name__


def _step_back() -> None:
    """Behind everything of the job: last to run, on any core, first to go where memory ends; no signal but SIGKILL."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError, AttributeError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(arguments: Sequence[str]) -> None:
    """The program; `arguments` are those of `Packer`, 0 seconds for growing intervals, and the lock that it holds."""
    _step_back()
    local, run, every_s, keep, rank, ranks_here, lock = arguments
    os.pwrite(int(lock), b"%d\n" % os.getpid(), 0)  # for who finds the lock held
    Packer(Path(local), Path(run), float(every_s) or None, keep == "1", int(rank), int(ranks_here)).work()
