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
import weakref
from typing import Any

from commlens.profiler import collectives, environment, fix, live, losses, models, phases
from commlens.profiler.clock import now, wall_offset_ns
from commlens.profiler.gradients import Gradients
from commlens.profiler.groups import Groups
from commlens.profiler.output import Output
from commlens.profiler.slots import Slots
from commlens.profiler.trampoline import Trampoline

FLUSH_S = 1.0
# At exit a Gloo thread may be about to call back into Python, which must not meet a
# finalising interpreter. Without us the process group's destructor waits for the same operations.
EXIT_PATIENCE_S = 60.0
SETTLE_S = 0.05
LOOK_UNTIL_BACKWARD, LOOK_UNTIL_STEP = 4, 2  # for models: looking takes time, and these steps are never analysed
# Steps before which DDP has written down what it found, as it does in its first ten and in some later ones.
LOOK_FOR_UNUSED = frozenset([*range(3, 11), *range(101, 1002, 100)])
_generation = 0
_begun: Recorder | None = None  # the newest, also after it gave up


class Recorder:
    """One rank's recording, from `init_process_group` to the end of the process."""

    def __init__(self, folder: str, rank: int, world_size: int, store: Any, generation: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self.offset_ns = wall_offset_ns()
        self.groups = Groups(self._info_changed)
        self.phases = phases.Phases(self._thread)
        self.gradients = Gradients(self._info_changed)
        self.losses = losses.asked()
        self.slots = Slots()
        self.collectives = collectives.CollectiveLog(self.slots, self.groups, self.phases)
        self.hooks: dict[str, str] = {}
        self.trampoline_ns: int | None = None
        self._models: list[dict[str, Any]] = []
        self._found: list[weakref.ref[Any]] = []
        self._awaiting_rebuild = False
        self._looked = -1
        self._backwards = 0
        self._stale = True
        self._output = Output(folder, rank, store, generation)
        self._wake = threading.Event()
        self._stopping = self._leaving = False
        self._flusher = threading.Thread(target=self._run, name="commlens-flush", daemon=True)
        self.phases.before_backward = self._before_backward
        self.phases.after_backward = self._after_backward

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
        absent = collectives.install()
        self.trampoline_ns = trampoline.cost_ns()
        seen = f"not in this torch: {', '.join(absent)}" if absent else "ok"
        self.hooks = {
            "collectives": seen,
            "waits": "ok",
            "forward": "no backward was seen",
        } | phases.install()
        self.groups.of(dist.distributed_c10d._get_default_group())
        self._flusher.start()

    def flush_soon(self) -> None:
        self._wake.set()

    def disable(self) -> None:
        """Ends recording after a failure; what was written stays readable."""
        self._stopping = True
        self._wake.set()
        self.gradients.let_go()

    def abandon(self) -> None:
        """Leaves everything to the parent, in a forked child."""
        self._output.abandon()

    def stop(self, patience_s: float = 5.0) -> None:
        """Writes what is left. A disk that hangs holds the process for `patience_s` at most."""
        self._let_callbacks_finish()
        self._stopping = self._leaving = True
        self._wake.set()
        if self._flusher.is_alive():
            self._flusher.join(patience_s)

    def _let_callbacks_finish(self) -> None:
        in_flight = self.collectives.in_flight
        deadline = time.monotonic() + EXIT_PATIENCE_S
        while in_flight and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(SETTLE_S)  # also for the thread of the last collective, which drops its tensors after the end

    def _after_backward(self) -> None:
        """Looks for the models in the job's first steps."""
        self.gradients.after_backward()
        self._backwards += 1
        if self._backwards > LOOK_UNTIL_BACKWARD or self.phases.step >= LOOK_UNTIL_STEP:
            return
        found = models.outermost()
        for module in found:
            phases.watch_forward(module)
        self.hooks["forward"] = "ok" if found else "no module with trainable parameters was found"
        self._found = [weakref.ref(module) for module in found]
        self._describe(found)

    def _before_backward(self, roots: Any) -> None:
        """Describes the models anew when DDP has rebuilt its buckets."""
        if self.losses is not None:
            self.losses.see(roots)
        if self._awaiting_rebuild:
            found = [module for reference in self._found if (module := reference()) is not None]
            if not any(models.awaits_rebuild(module) for module in found):
                self._describe(found)
        if self.phases.step in LOOK_FOR_UNUSED and self.phases.step != self._looked:
            self._looked = self.phases.step
            self._look_for_unused()
        self.gradients.before_backward(self.phases.step)

    def _look_for_unused(self) -> None:
        """Notes in each model what DDP's search for unused parameters found in the steps before."""
        found = [reference() for reference in self._found]
        unused = [models.unused_bytes(module) if module is not None else None for module in found]
        if len(found) != len(self._models) or unused == [None] * len(found):
            return
        self._models = [  # new ones: the flush thread may be writing the old
            model if number is None else model | {"unused_bytes": [*model.get("unused_bytes", ()), number]}
            for model, number in zip(self._models, unused, strict=True)
        ]
        self._stale = True

    def _describe(self, found: list[Any]) -> None:
        autocast = self.phases.autocast
        self._models = [models.describe(module) | {"autocast": autocast.get(module)} for module in found]
        self._awaiting_rebuild = any(models.awaits_rebuild(module) for module in found)
        layouts: dict[str, list[list[int]]] = {}
        for model in self._models:
            if model["bucket_bytes"]:
                layouts.setdefault(model["group"], []).append(model["bucket_bytes"])
        self.phases.bucket_bytes = layouts
        self.gradients.watch(found)
        self._stale = True

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.wait(FLUSH_S)
                self._wake.clear()
                self._flush()
            self._flush()
            self._output.close(self._info(ended=True))
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            self._output.abandon()
            if live.recorder is self:
                live.give_up(error)
            else:
                live.warn(f"the end of the recording was not written ({live.one_line(error)})")

    def _flush(self) -> None:
        started = time.thread_time_ns()
        if self._stale and self._output.is_placed():
            self._stale = False
            self._output.describe(self._run_info(), self._info())
        rows = self.slots.drain(now())
        finished, self.phases.finished = self.phases.finished, []
        hook_ns, self.collectives.hook_ns = self.collectives.hook_ns, 0
        sample_ns, self.gradients.hook_ns = self.gradients.hook_ns, 0
        ready, self.gradients.finished = self.gradients.finished, []
        dropped, self.slots.dropped = self.slots.dropped, 0
        issued, self.slots.issued = self.slots.issued, 0
        self._output.add_collectives(rows, self.groups.ordered, self.offset_ns)
        self._output.add_phases(finished, self.phases.names, self.offset_ns)
        self._output.add_gradients(ready, self.offset_ns)
        under_way = len(self.slots) > 0
        self._output.add_overhead(now() + self.offset_ns, issued, hook_ns + sample_ns, dropped, started, under_way)

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
        }

    def _info(self, ended: bool = False) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "local_rank": int(os.environ.get("LOCAL_RANK", -1)),
            "world_size": self.world_size,
            **environment.host(),
            "backend": self.groups.ordered[0].backend,
            "device": "cuda" if any("nccl" in group.backend for group in self.groups.ordered) else "cpu",
            "groups": [group.describe() for group in self.groups.ordered],
            "models": self._models,
            "environment": environment.settings(),
            "interfaces": environment.interfaces(),
            "hooks": {**self.hooks, "gradients": self.gradients.state},
            "fix": fix.described(),
            "overhead": {"trampoline_ns": self.trampoline_ns},
            "clock": {"wall_offset_ns": self.offset_ns},
            "losses": self.losses.described() if ended and self._leaving and self.losses is not None else None,
            "end": {"ns": now() + self.offset_ns, "how": "exit"} if ended else None,
        }


def start(folder: str) -> None:
    """Begins recording this rank; called when `init_process_group` has returned."""
    global _generation, _begun
    import torch.distributed as dist

    rank, world_size = dist.get_rank(), dist.get_world_size()
    running = live.recorder
    if running is not None and (running.rank, running.world_size) == (rank, world_size):
        return  # the group was made anew; its recording goes on
    if running is None and _begun is not None:
        return  # it gave up and said so; one rank alone in a second run would hide the first
    if running is not None:
        finish()
    _generation += 1
    recorder = Recorder(folder, rank, world_size, dist.distributed_c10d._get_default_store(), _generation)
    recorder.begin()
    live.recorder = _begun = recorder
    if _generation == 1:
        _register_endings()


def finish() -> None:
    """Stops recording, at the end of the process."""
    live.recorder = None
    if _begun is not None:  # one that gave up has callbacks on their way too
        live.guarded(_begun.stop)


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
