"""The thread that reads counters: in every rank its own connections', in one rank of each node the node's.

The recorder begins it, takes its rows each second and stops it. A driver's call that hangs holds this thread alone,
which nobody waits for longer than `PATIENCE_S`; a failure ends the readings with one line.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from commlens.profiler import live
from commlens.profiler.clock import cpu_now
from commlens.profiler.counters import infiniband, nvml, prometheus, settings
from commlens.profiler.counters.election import Seat
from commlens.profiler.counters.ethernet import Ethernet
from commlens.profiler.counters.process import Process
from commlens.profiler.counters.prometheus import Own, exposition
from commlens.profiler.counters.readings import Readings, Rows
from commlens.profiler.counters.schedule import Raw, Schedule
from commlens.profiler.counters.source import ALL, Source
from commlens.profiler.counters.tcp import Tcp

PATIENCE_S: Final = 0.5  # for the last reading, at the end of the job
IDLE_MS: Final = 2000  # between the readings of a rank that reads its own connections only
SEAT_S: Final = 5.0  # between two looks whether the sampler's seat is free
REFRESH_S: Final = 10.0  # between two looks for devices that came
DRAIN_S: Final = 5.0  # between two batches: one costs 0.7 ms when nothing of it is in the caches, however long it is
_CHARGED: Final = 8  # samples between two looks at what this thread has cost
_MOST_HELD: Final = 4096  # raw readings that wait for the flush thread, a few kB each at most


def node_sources() -> list[Source]:
    """Everything of the node that counts bytes on links."""
    return [Ethernet(), Tcp(), *infiniband.sources(), *nvml.sources()]


class Counters:
    """One rank's share of the readings.

    Args:
        run_id: waits for the run's name; called on the sampler's thread.
        changed: called when `described` has something new to say.
        rank: of this process.
        interval_ms: between two samples of the node; 0 reads nothing.
    """

    def __init__(
        self,
        run_id: Callable[[], str],
        changed: Callable[[], None],
        rank: int = 0,
        interval_ms: int | None = None,
        own: Callable[[], list[Source]] = lambda: [Process()],
        node: Callable[[], list[Source]] = node_sources,
    ) -> None:
        self.interval_ms = settings.interval_ms() if interval_ms is None else interval_ms
        self.readings = Readings()
        self.rank = rank
        self._run_id, self._changed, self._node = run_id, changed, node
        self._own = own
        self._sources: list[Source] = []
        self._late: list[Source] = []  # those whose driver has not answered yet
        self._schedule: Schedule | None = None
        self._seat: Seat | None = None
        self._raw: deque[Raw] = deque(maxlen=_MOST_HELD)
        self._lost = 0
        self._drain_at = 0.0
        self._cpu_ns = self._charged_ns = self._setup_ns = 0
        self._cost_us: float | None = None  # CPU time of a sample and of waking up; without finding the devices
        self._failed = ""
        self._file = prometheus.asked()
        self._own_totals = Own()
        self._was_sampling = False
        self._stopping = False
        self._wake = threading.Lock()  # held; released to wake the thread, for a third of what an Event's wait costs
        self._thread = threading.Thread(target=self._run, name="commlens-counters", daemon=True)

    @property
    def is_sampling(self) -> bool:
        """Whether this rank reads the node's counters."""
        return self._seat is not None and self._seat.is_held

    def begin(self) -> None:
        if self.interval_ms and sys.platform.startswith("linux"):
            self._wake.acquire()
            self._thread.start()

    def let_go(self) -> None:
        """Ends the thread soon; waits for nothing."""
        if self._thread.is_alive() and not self._stopping:
            self._stopping = True
            with contextlib.suppress(RuntimeError):  # of two who end it at once the second
                self._wake.release()

    def stop(self) -> None:
        """Takes a last reading of everything, if that does not take long."""
        self.let_go()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)
        if self._file is not None:
            self._file.remove()

    def abandon(self) -> None:
        """In the child of a fork: lets go of what would hold the seat beyond the parent's end."""
        self._stopping = True
        self._close()

    def _run(self) -> None:
        try:
            self._sample_until_stopped()
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            self._failed = f"stopped: {type(error).__name__}: {live.one_line(error)}"
            live.warn(f"counters are no longer read ({type(error).__name__}: {live.one_line(error)})")
            self._changed()
        finally:
            self._note_cost()
            self._close()

    def _close(self) -> None:
        if self._seat is not None:
            self._seat.leave()
        for source in self._sources:
            source.close()

    def _sample_until_stopped(self) -> None:
        self._begin(self._own(), max(IDLE_MS, self.interval_ms))
        assert self._schedule is not None
        seat = Seat(self._run_id())
        look_at = 0.0
        while not self._stopping:
            started = time.monotonic()
            if started >= look_at:
                look_at = started + self._look(seat)
            self._schedule.sample(self._keep)
            if self._schedule.samples % _CHARGED == 0:
                self._note_cost()
            left = started + self._schedule.interval_ms / 1e3 - time.monotonic()
            if left > 0 and not self._stopping:
                self._wake.acquire(timeout=left)
        self._schedule.sample(self._keep, everything=True)

    def _look(self, seat: Seat) -> float:
        """Takes the seat where it is free, looks for new devices where it is held; seconds until the next look."""
        if not seat.is_held:
            if not seat.take():
                return SEAT_S
            self._seat, self._was_sampling = seat, True
            node = self._node()
            self._late = [source for source in node if source.slow_to_begin]
            self._begin([source for source in node if not source.slow_to_begin], self.interval_ms)
            return 0.0 if self._late else REFRESH_S
        if self._late:
            self._begin(self._late, self.interval_ms)
            self._late = []
            return REFRESH_S
        before = [len(source.links) for source in self._sources]
        for source in self._sources:
            source.refresh()
        if before != [len(source.links) for source in self._sources]:
            self._changed()
        return REFRESH_S

    def _begin(self, sources: list[Source], interval_ms: int) -> None:
        """Takes up further sources; those before go on, from now on at `interval_ms`."""
        cpu_from = cpu_now()
        for source in sources:
            source.refresh()
        self._sources = [*self._sources, *sources]
        if self._schedule is None or self._schedule.interval_ms != interval_ms:
            self._schedule = Schedule(interval_ms, self._sources)
        else:
            self._schedule.add(sources)
        self._setup_ns += cpu_now() - cpu_from
        self._changed()

    def _note_cost(self) -> None:
        self._cpu_ns = cpu_now()
        samples = self._schedule.samples if self._schedule is not None else 0
        self._cost_us = round((self._cpu_ns - self._setup_ns) / 1e3 / samples, 1) if samples else None

    def _keep(self, reading: Raw) -> None:
        if len(self._raw) == _MOST_HELD:
            self._lost += 1
        self._raw.append(reading)

    def drain(self, ended: bool = False) -> Rows:
        """The rows of what was read since, every few seconds; on the flush thread."""
        if not ended and time.monotonic() < self._drain_at:
            return Rows([], [], [])
        self._drain_at = time.monotonic() + DRAIN_S
        for _ in range(len(self._raw)):
            self._decode(*self._raw.popleft())
        if ended:
            self.readings.end()
        return self.readings.drain()

    def _decode(self, source: Source, at_ns: int, raw: Any) -> None:
        try:
            self.readings.take(source, at_ns, raw)
            self.readings.keep_alive(at_ns)
        except Exception as error:  # noqa: BLE001 - a driver's nonsense must not cost the recording
            source.refuse(source.name, ALL, f"not understood: {type(error).__name__}: {live.one_line(error)}")

    def publish(self, run_id: str, collectives: int, dropped: int) -> None:
        """Brings the Prometheus file up to date where one is asked for and it is time.

        Args:
            collectives, dropped: of this rank, since the last call.
        """
        self._own_totals = Own(self._own_totals.collectives + collectives, self._own_totals.dropped + dropped)
        if self._file is not None and self.is_sampling:
            links = [each for source in self._sources for each in source.links]
            text = exposition(run_id, self.rank, self.readings.latest(), links, self._own_totals, time.time())
            self._file.write_when_due(text)

    def charge(self) -> int:
        """CPU time in ns that the sampler's thread took since the last call."""
        before, self._charged_ns = self._charged_ns, self._cpu_ns
        return self._charged_ns - before

    def described(self) -> dict[str, Any]:
        """`links` and `counters` of rank.json."""
        return {"links": [each for source in self._sources for each in source.links], "counters": self._counters()}

    def _counters(self) -> dict[str, Any]:
        schedule = self._schedule
        if not self.interval_ms:
            return {"sampled_by": f"nobody: {settings.VARIABLE} is off"}
        if self._failed:
            return {"sampled_by": self._failed}
        if schedule is None:
            return {"sampled_by": "not begun yet" if sys.platform.startswith("linux") else "nobody: not on this system"}
        said: dict[str, Any] = {
            "interval_ms": schedule.interval_ms,
            "samples": schedule.samples,
            "sources": schedule.described(),
            "slowed": schedule.slowed,
            "lost": self._lost,
            "unsupported": self._unsupported(),
            "cost_us_per_sample": self._cost_us,
        }
        if self._was_sampling:
            return {**said, "sampler_rank": self.rank}
        return {**said, "sampled_by": "another process of this run on this node"}

    def _unsupported(self) -> list[dict[str, str]]:
        late = [
            {"device": each.name, "counter": ALL, "reason": "its driver has not answered yet"} for each in self._late
        ]
        return [each for source in self._sources for each in source.unsupported] + late
