"""The recorder of one rank: starts, flushes each second, stops.

The job's threads only fill preallocated slots; a daemon thread turns them into
batches and writes. Nothing here raises into the job, issues a collective,
synchronises a device, or lets the job wait for a disk or a store.
"""

from __future__ import annotations

import atexit
import multiprocessing.process
import multiprocessing.util
import os
import threading
import time
from typing import Any

from commlens.profiler import (
    ending,
    environment,
    fix,
    graphs,
    limits,
    live,
    losses,
    nccl_plugin,
    phases,
    torch_profiler,
)
from commlens.profiler.aggregation import Aggregation
from commlens.profiler.chosen_steps import ChosenSteps
from commlens.profiler.clock import now, wall_offset_ns
from commlens.profiler.control import Control
from commlens.profiler.counters.sampler import Counters
from commlens.profiler.gradients import SAMPLED, Gradients
from commlens.profiler.groups import Groups
from commlens.profiler.logs import new_log
from commlens.profiler.output import Output
from commlens.profiler.phase import first_flush
from commlens.profiler.trampoline import Trampoline
from commlens.profiler.watched import WatchedModels
from commlens.profiler.windows import Windows

FLUSH_S, SOONEST_S = 1.0, 0.05
SETTLE_S = 0.05  # at exit, when the last collective has ended, until its thread has dropped its tensors
_generation = 0
_begun: Recorder | None = None  # the newest, also after it gave up


class Recorder:
    """One rank's recording, from `init_process_group` to the end of the process."""

    def __init__(self, folder: str, rank: int, world_size: int, store: Any, generation: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self.offset_ns = wall_offset_ns()
        self.software = environment.software()  # on the job's thread: another's current device may be another
        self.groups = Groups(self._info_changed)
        self.phases = phases.Phases(self._thread)
        choice = limits.chosen_steps()
        self.gradients = Gradients(self._info_changed, limits.gradient_steps(choice, SAMPLED))
        self.losses = losses.asked()
        self.collectives = new_log(self.groups, self.phases)
        self.slots = self.collectives.slots
        self.phases.buckets = self.collectives.buckets
        self.windows = Windows(self.phases, self._info_changed)
        self.control = Control(self.windows, lambda: self.phases.step, self._info_changed)
        self.chosen = ChosenSteps(choice, self.windows.spans)
        self.aggregation = Aggregation(limits.quota_bytes())
        self.graphs = graphs.Graphs()
        self.hooks: dict[str, str] = {}
        self.trampoline_ns: int | None = None
        self.models = WatchedModels(self.phases, self.gradients, self._info_changed)
        self._stale = True
        self._output = Output(folder, rank, store, generation)
        self.counters = Counters(self._output.agreed_name, self._info_changed, rank)
        self._wake = threading.Event()
        self._pause_s = 0.0 if self._output.is_packed else max(SOONEST_S, FLUSH_S * first_flush(rank, world_size))
        self._stopping = self._leaving = False
        self._nccl_tells = True
        self._end: dict[str, Any] = {"how": "exit"}
        self._gave_up: dict[str, Any] | None = None
        self._flusher = threading.Thread(target=self._run, name="commlens-flush", daemon=True)
        self.phases.before_backward = self._before_backward
        self.phases.after_backward = self.models.after_backward
        self.phases.after_step = self._step_begins

    def _thread(self) -> int:
        return self.collectives.thread()

    def _info_changed(self) -> None:
        self._stale = True

    def begin(self) -> None:
        """Installs the hooks and starts the flush thread."""
        # On this thread: a fork during an import elsewhere could not import it. Compaction needs `compute`,
        # which evaluates code; at exit that would make CPython forget that Ctrl-C is the exit code.
        import pyarrow.compute  # noqa: F401
        import torch.distributed as dist

        trampoline = Trampoline()
        absent = self.collectives.install()
        entering_ns = trampoline.cost_ns()
        self.trampoline_ns = None if entering_ns is None else entering_ns + self.collectives.unseen_ns()
        seen = f"not in this torch: {', '.join(absent)}" if absent else "ok"
        self.hooks = {
            "recorder": self.collectives.source,
            "collectives": seen,
            "waits": "ok",
        } | phases.install()
        torch_profiler.watch()
        self.graphs = graphs.watch()
        self.groups.of(dist.distributed_c10d._get_default_group())
        self._step_begins(self.phases.step, now())
        self.collectives.open()
        self.counters.begin()
        self._flusher.start()

    def _step_begins(self, step: int, at_ns: int) -> None:
        """On the thread that trains: from here on NCCL's plugin tells of the step's operations, or of none.

        Operations of steps whose collectives are not written would be taken for those of other steps.
        """
        is_chosen = self.chosen.include(step)
        if is_chosen:
            self.chosen.begin(step, at_ns)
        is_told = is_chosen and self.control.pauses.include(step) and not self.aggregation.begun
        if is_told != self._nccl_tells:
            self._nccl_tells = is_told
            (nccl_plugin.resume if is_told else nccl_plugin.pause)()

    def flush_soon(self) -> None:
        self._wake.set()

    def disable(self, why: str) -> None:
        """Ends recording after a failure; what was written stays readable, and says why there is no more."""
        self._gave_up = {"ns": now() + self.offset_ns, "error": why}
        self._stopping = True
        self._wake.set()
        self.collectives.close()
        self.counters.let_go()
        self.gradients.let_go()
        self.windows.close()

    def abandon(self) -> None:
        """Leaves everything to the parent, in a forked child."""
        self.collectives.close()
        self.counters.abandon()
        self._output.abandon()

    def stop(self, at_exit: bool = True, patience_s: float = 5.0) -> None:
        """Writes what is left. A disk that hangs holds the process for `patience_s` at most, at exit a pack longer."""
        if at_exit:
            self._end = {**ending.seen(), "left_ns": now() + self.offset_ns}
        self.windows.close()
        self.windows.wait_for_file()
        self.collectives.close()
        self._let_callbacks_finish()
        self.counters.stop()
        self._stopping = self._leaving = True
        self._wake.set()
        if self._flusher.is_alive():
            self._flusher.join(patience_s)
        if not self._flusher.is_alive():
            self._output.leave(at_exit)

    def _let_callbacks_finish(self) -> None:
        # A Gloo thread that calls back into Python must not meet a finalising interpreter.
        deadline = time.monotonic() + self.collectives.exit_patience_s
        while self.collectives.in_flight and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(SETTLE_S)

    def _before_backward(self, roots: Any) -> None:
        if self.losses is not None:
            self.losses.see(roots)
        self.models.before_backward()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.wait(self._pause_s)
                self._wake.clear()
                self._flush()
            self._flush(ended=True)
            self._output.close(self._info(ended=True))
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            self._output.give_up(ending.named(error))
            self._output.abandon()
            if live.recorder is self:
                live.give_up(error)
            else:
                live.warn(f"the end of the recording was not written ({live.one_line(error)})")

    def _flush(self, ended: bool = False) -> None:
        started = time.thread_time_ns()
        # Before rank.json is written: it has to know what the tables name, also where the job is killed in between.
        readings = self.counters.drain(ended)
        if self._stale and self._output.is_placed():
            self._stale = False
            self._output.describe(self._run_info(), self._info())
        self._look()
        begun = self.chosen.begun  # before rows are drained: all those of earlier steps are among them
        rows = self.slots.drain(now())
        # A job that issues so many that the slots may not last for a second is looked at more often.
        self._pause_s = min(FLUSH_S, max(SOONEST_S, self._pause_s * self.slots.capacity / (4 * len(rows) + 1)))
        issued, dropped = self.slots.take_counts()
        finished, self.phases.finished = self.phases.finished, []
        hook_ns = self.collectives.take_hook_ns()
        sample_ns, self.gradients.hook_ns = self.gradients.hook_ns, 0
        ready, self.gradients.finished = self.gradients.finished, []
        pauses = self.control.pauses
        if self.graphs.see(rows):
            self._stale = True
        if pauses.spans:
            rows = rows[pauses.written(rows["step"])]
            ready = pauses.only(ready)
        rows, finished = self.aggregation.split(rows, now()), self.aggregation.phases(finished)
        rows = self.chosen.written(rows, begun, now(), ended)  # after the sums, which are of all steps, as of phases
        self._output.add_collectives(rows, self.groups.ordered, self.offset_ns, self.collectives.source)
        self._output.add_phases(finished, self.phases.names, self.offset_ns)
        self._output.add_gradients(ready, self.offset_ns)
        write = ended or self.aggregation.due(now())
        readings = self.aggregation.readings(readings, write)
        self._output.add_counters(readings, self.counters.readings.keys, self.offset_ns)
        self._aggregate(write)
        self.counters.publish(self._output.run_id, issued, dropped)
        started -= self.counters.charge()
        under_way = len(self.slots) > 0
        if why := self.collectives.failure():
            raise RuntimeError(why)
        later = self.aggregation.begun and not write
        hook_ns += sample_ns
        self._output.add_overhead(now() + self.offset_ns, issued, hook_ns, dropped, started, under_way, later)

    def _aggregate(self, write: bool) -> None:
        """Writes sums where it is time, and looks whether the quota is reached."""
        if write and len(self.aggregation.sums):
            names = [group.name for group in self.groups.ordered]
            size = self._output.add_aggregates(self.aggregation.sums.take(names, self.offset_ns))
            self.aggregation.written(size, now())
        size = self._output.total_bytes + nccl_plugin.statistics().get("written_bytes", 0)
        if self.aggregation.look(size, self.phases.step, now()):
            self._stale = True
        if self.aggregation.begun:
            nccl_plugin.pause()

    def _look(self) -> None:
        """Whether there are requests, and what deep windows held the job for."""
        if self._output.is_placed():
            self.windows.place(self._output.folder)
            nccl_plugin.open_in(self._output.folder)
            self.control.look(self._output.folder.parent)
            self._output.look()
        self.windows.look()
        held, self.windows.held_ns = self.windows.held_ns, 0
        self._output.add_held(now() + self.offset_ns, held)

    def _run_info(self) -> dict[str, Any]:
        import torch

        from commlens._version import __version__

        return {
            "command": environment.job_command(),
            "start_ns": now() + self.offset_ns,
            "world_size": self.world_size,
            "backend": self.groups.ordered[0].backend,
            "torch": torch.__version__,
            "commlens": __version__,
            **({"sampled_ranks": said} if (said := limits.sampled_ranks()) else {}),
            **({"sampled_steps": said} if (said := limits.sampled_steps()) else {}),
        }

    def _info(self, ended: bool = False) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "local_rank": int(os.environ.get("LOCAL_RANK", -1)),
            "world_size": self.world_size,
            **environment.host(),
            **self.software,
            "backend": self.groups.ordered[0].backend,
            "device": "cuda" if any("nccl" in group.backend for group in self.groups.ordered) else "cpu",
            "groups": [group.describe() for group in self.groups.ordered],
            "models": self.models.described,
            "environment": environment.settings(),
            "interfaces": environment.interfaces(),
            **self.counters.described(),
            "hooks": {**self.hooks, "forward": self.models.forward, "gradients": self.gradients.state},
            "fix": fix.described(),
            "overhead": {"trampoline_ns": self.trampoline_ns},
            "windows": self.windows.described(self.offset_ns),
            "sampled_steps": limits.sampled_steps(),
            "paused": self.control.pauses.described(),
            "aggregates": self.aggregation.described(),
            "control": self.control.answers,
            "cuda_graphs": self.graphs.described(),
            "nccl_plugin": nccl_plugin.statistics(),
            "clock": {"wall_offset_ns": self.offset_ns},
            "losses": self.losses.described() if ended and self._leaving and self.losses is not None else None,
            # The process of a recorder that gave up goes on, and nothing is known of its end.
            "end": {"ns": now() + self.offset_ns, **self._end} if ended and self._gave_up is None else None,
            "gave_up": self._gave_up,
        }


def start(folder: str) -> None:
    """Begins recording this rank; called when `init_process_group` has returned."""
    global _generation, _begun
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    running = live.recorder
    if running is not None and (running.rank, running.world_size) == (rank, world_size):
        return  # the group was made anew; its recording goes on
    if not limits.is_recorded(rank, world_size):
        if running is not None:
            finish(at_exit=False)
        return
    if running is None and _begun is not None:
        return  # it gave up and said so; one rank alone in a second run would hide the first
    if running is not None:
        finish(at_exit=False)
    _generation += 1
    recorder = Recorder(folder, rank, world_size, dist.distributed_c10d._get_default_store(), _generation)
    recorder.begin()
    live.recorder = _begun = recorder
    if _generation == 1:
        _register_endings()


def finish(at_exit: bool = True) -> None:
    """Stops recording, at the end of the process or before another recording."""
    live.recorder = None
    if _begun is not None:  # one that gave up has callbacks on their way too
        live.guarded(_begun.stop, at_exit)


def _register_endings() -> None:
    atexit.register(finish)
    os.register_at_fork(after_in_child=_after_fork)
    if multiprocessing.process.parent_process() is not None:
        # A child of multiprocessing leaves by os._exit and runs these instead of atexit.
        multiprocessing.util.Finalize(None, finish, exitpriority=100)


def _after_fork() -> None:
    global _generation, _begun
    live.recorder, parents, _begun, _generation = None, _begun, None, 0
    if parents is not None:
        live.guarded(parents.abandon)
