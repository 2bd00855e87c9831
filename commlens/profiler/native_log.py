"""The Python side of the native recorder: the same door as `collectives.CollectiveLog`, the hooks in C++.

Beyond what Python sees it knows when Gloo's threads began and ended each collective.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from commlens.profiler.groups import Group, Groups
from commlens.profiler.operators import OPERATORS
from commlens.profiler.slots import FORGET_NS, LINGER_NS, ROW, Rows
from commlens.trace.schema import DTYPES, OPS, TIMINGS

if TYPE_CHECKING:
    from commlens.profiler.phases import Phases

CAPACITY = 65_536  # more than one thread issues in a second
_NONE = -1  # an argument that an operator does not have
_installed: list[str] | None = None  # operators that this torch does not have, once the hooks are in


class NativeLog:
    """The recorder's book of collectives, kept by the module `native` that `commlens build` compiled.

    Args:
        native: The compiled module.

    Raises:
        RuntimeError: It was compiled from other sources than these.
    """

    source = "native"
    exit_patience_s = 1.0  # its threads never enter Python: waiting only helps to see the last ends

    def __init__(self, native: Any, groups: Groups, phases: Phases) -> None:
        if ROW.itemsize != native.ROW_BYTES:
            raise RuntimeError("the native recorder is of another version")
        self.groups = groups
        self._native = native
        self._addresses: dict[int, int] = {}  # of process groups, by their identity in Python
        self._layouts: dict[str, list[list[int]]] = {}
        self._log = native.Log(CAPACITY, LINGER_NS, FORGET_NS, _codes(), _dtypes(), self._resolve)
        self.slots = NativeSlots(self._log)
        self.buckets = NativeBuckets(self._log, self._layouts)
        self._log.thread()  # the thread that starts recording is number 0
        groups.on_gone = self._gone
        phases.on_step = self._log.set_step

    @property
    def in_flight(self) -> int:
        """Ends that are still to be seen."""
        return int(self._log.pending())

    def install(self) -> list[str]:
        """Puts the hooks in, once per process.

        Returns:
            Names of operators that this torch does not have.
        """
        global _installed
        if _installed is None:
            _installed = list(self._native.install({name: _places(name) for name in OPERATORS}))
        return _installed

    def unseen_ns(self) -> int:
        """What a collective costs beyond what hooks time themselves: torch marking Gloo's threads for us, ns."""
        return int(self._log.span_cost_ns())

    def open(self) -> None:
        """The hooks write here from now on."""
        self._log.set_open(True)
        self._native.record_into(self._log)

    def close(self) -> None:
        """The hooks step aside."""
        self._log.set_open(False)

    def thread(self) -> int:
        """Small number of the calling thread; 0 is the one that started recording."""
        return int(self._log.thread())

    def take_hook_ns(self) -> int:
        """CPU time of the hooks since the last call."""
        return int(self._log.take_hook_ns())

    def failure(self) -> str:
        """Why the hooks broke; empty as long as they have not."""
        return str(self._log.failure())

    def _resolve(self, process_group: Any, address: int) -> tuple[Any, ...]:
        """What a hook asks once per process group."""
        group = self.groups.of(process_group)
        registered = bool(group.ranks)
        if registered:
            self._addresses[id(process_group)] = address
        layouts = self._layouts.get(group.name, [])
        return (*_described(group), not registered, group.ranks, group.name, layouts)

    def _gone(self, identity: int) -> None:
        address = self._addresses.pop(identity, None)
        if address is not None:
            self._log.forget_group(address)


class NativeSlots:
    """The slots in C++, drained from Python."""

    capacity = CAPACITY

    def __init__(self, log: Any) -> None:
        self._log = log

    def __len__(self) -> int:
        """Slots in use."""
        return int(self._log.used())

    @property
    def dropped(self) -> int:
        """Collectives that found no slot since `take_counts`."""
        return int(self._log.dropped())

    def take_counts(self) -> tuple[int, int]:
        """Collectives first drained, and dropped, since the last call."""
        return int(self._log.take_issued()), int(self._log.take_dropped())

    def drain(self, now_ns: int) -> Rows:
        """As `slots.Slots.drain`."""
        return np.frombuffer(self._log.drain(now_ns), dtype=ROW)


class NativeBuckets:
    """Tells the hooks what `buckets.Buckets` would remember."""

    def __init__(self, log: Any, layouts: dict[str, list[list[int]]]) -> None:
        self._log = log
        self._layouts = layouts
        self._backwards = 0

    def begin(self) -> None:
        self._backwards += 1
        self._log.set_backward(self._backwards)

    def end(self) -> None:
        self._log.set_backward(0)

    def lay_out(self, layouts: dict[str, list[list[int]]]) -> None:
        gone = self._layouts.keys() - layouts.keys()
        self._layouts.clear()
        self._layouts.update(layouts)
        for group, of_models in (*layouts.items(), *((group, []) for group in gone)):
            self._log.set_layouts(group, of_models)


def _described(group: Group) -> tuple[int, int, bool, bool, bool]:
    return group.code, group.size, group.host_cpu, group.host_device, group.workers is not None


def _codes() -> dict[str, int]:
    words = {name: TIMINGS.index(name) for name in ("host", "wait", "enqueue_only")}
    words |= {name: OPS.index(name) for name in ("barrier", "send", "recv", "all_reduce")}
    return words | {"other_dtype": DTYPES.index("other")}


def _dtypes() -> list[tuple[Any, int]]:
    import torch

    return [(getattr(torch, name), code) for code, name in enumerate(DTYPES) if hasattr(torch, name)]


def _places(name: str) -> tuple[Any, ...]:
    """Where the arguments of an operator are, for C++."""
    operator = OPERATORS[name]
    optional = (operator.inputs, operator.outputs, operator.group, operator.peer, operator.is_async)
    places = [_NONE if place is None else place for place in optional]
    return (operator.code, *places, name != "monitored_barrier_")
