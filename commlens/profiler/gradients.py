"""When gradients became ready: read in at most ten steps of a job, at doubling distance.

Before a backward of such a step a probe goes into each model, after it the probe is taken out
(`gradient_probes.py`); all other steps cost one comparison a backward. Whatever goes wrong ends
this reading, says so in `hooks` of rank.json, and leaves the rest of the recording alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.profiler import live
from commlens.profiler.clock import cpu_now
from commlens.profiler.gradient_probes import Probe, is_compiled, probe_of

SAMPLED: Final = frozenset(4 << doubling for doubling in range(10))
MAX_BACKWARDS: Final = 256  # of one step: more micro-batches tell nothing new
CALL_NS: Final = 2_000  # of the engine and one hook: 0.7 to 2 us measured; it cannot time the way into itself
OK: Final = "ok"
NOT_YET: Final = "no step was sampled yet"
NONE_READY: Final = "no gradient became ready in a sampled step"


class Ready(NamedTuple):
    """What one backward told of one model: places of its parameters and when each was ready, ns of `clock.now`."""

    model: int
    step: int
    places: NDArray[np.int64]
    ready_ns: NDArray[np.int64]


class Gradients:
    """The recorder's book of gradient-ready times.

    Args:
        changed: Called when `state` has changed.
        sampled: The steps to read in.

    Attributes:
        state: For `hooks` of rank.json: "ok", or why there is nothing.
        finished: What is not written yet.
        hook_ns: CPU time spent since it was last taken, ns.
    """

    def __init__(self, changed: Callable[[], None], sampled: frozenset[int] = SAMPLED) -> None:
        self.state = NOT_YET
        self.finished: list[Ready] = []
        self.hook_ns = 0
        self._changed = changed
        self._sampled = sampled
        self._models: list[weakref.ref[Any]] = []
        self._probes: dict[int, Probe] = {}
        self._step = -1
        self._backwards = 0
        self._depth = 0
        self._off = False

    def watch(self, models: list[Any]) -> None:
        """The outermost models, in the order of rank.json."""
        self._models = [weakref.ref(model) for model in models]

    def before_backward(self, step: int) -> None:
        """Puts the probes in where `step` is one to sample."""
        if self._probes:  # one inside another, on a thread of the engine
            self._depth += 1
        elif step in self._sampled and not self._off:
            self._backwards = self._backwards + 1 if step == self._step else 0
            self._step = step
            if self._backwards < MAX_BACKWARDS:
                self._timed(self._begin)

    def after_backward(self) -> None:
        """Takes the probes out and keeps what they saw."""
        if self._probes and self._depth:
            self._depth -= 1
        elif self._probes:
            self._timed(self._end)

    def let_go(self) -> None:
        """Takes the probes out, for good."""
        self._off = True
        probes, self._probes = self._probes, {}
        for probe in probes.values():
            probe.remove()

    def _timed(self, action: Callable[[], None]) -> None:
        entered = cpu_now()
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the boundary inside the job
            self.let_go()
            self._say(f"failed ({type(error).__name__}: {live.one_line(error)})")
        self.hook_ns += cpu_now() - entered

    def _begin(self) -> None:
        if is_compiled():
            self._say("backward is compiled; a hook would have it compiled anew")
            return
        reasons = []
        for number, reference in enumerate(self._models):
            model = reference()
            probe = probe_of(model) if model is not None else None
            if isinstance(probe, str):
                reasons.append(probe)
            elif probe is not None:
                self._probes[number] = probe
        for probe in self._probes.values():
            probe.insert()
        if reasons and not self._probes:
            self._off = True
            self._say(reasons[0])

    def _end(self) -> None:
        probes, self._probes = self._probes, {}
        for probe in probes.values():
            probe.remove()
        state = self.state if self.state == OK else NONE_READY
        for number, probe in probes.items():
            places, ready_ns = probe.seen()
            self.hook_ns += probe.calls() * CALL_NS
            if places.size:
                order = np.argsort(ready_ns, kind="stable")
                self.finished.append(Ready(number, self._step, places[order], ready_ns[order]))
                state = OK
        self._say(state)

    def _say(self, state: str) -> None:
        if state != self.state:
            self.state = state
            self._changed()
