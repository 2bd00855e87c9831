"""What is kept of a profiler's events: columns of device work, launches and the host's calls of collectives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.event_pieces import Event
from commlens.trace.importers.kineto_args import CommArgs, comm_args, device_args, launch_args
from commlens.trace.kernel_names import classify
from commlens.trace.schema import COMMUNICATION, COPY

_KERNELS: Final = frozenset({"kernel", "Kernel"})
_COPIES: Final = frozenset({"gpu_memcpy", "gpu_memset", "Memcpy", "Memset"})
_LAUNCHES: Final = frozenset({"cuda_runtime", "cuda_driver", "Runtime", "hip_runtime", "xpu_runtime"})
_HOST: Final = frozenset({"user_annotation", "cpu_op", "Operator"})
_PLACES: Final = dict.fromkeys(_KERNELS | _COPIES, 0) | dict.fromkeys(_LAUNCHES, 1) | dict.fromkeys(_HOST, 2)
_LAUNCHING: Final = re.compile("launch|graph|mem|copy|fill|collective|signal", re.IGNORECASE)  # all that starts work

RECORDED: Final = "record_param_comms"
_CALLS: Final = ("nccl:", "gloo:", "c10d::", RECORDED, "mpi:", "ucc:")
_MARKS: Final = (
    "ProfilerStep#",
    "Optimizer.step#",
    "DistributedDataParallel.forward",
    "FullyShardedDataParallel.forward",
)
_LONGEST_NAME: Final = 4096  # letters of a kernel's name that are looked at
_LATEST_US: Final = 2.0**61 / 1000  # beyond is damage; in ns even the sum of a time and a duration still fits


class Call(msgspec.Struct, gc=False):
    """The host's call of a collective, or a span of its work there; times in us."""

    name: str
    thread: int
    start: float
    end: float
    args: CommArgs


class Rows:
    """Takes events and keeps what matters of them.

    Attributes:
        names: distinct names of kernels and copies, with their codes.
        kinds: kind of each of those, one of `schema.KERNEL_KINDS`.
        ops: operation of each, None where the name does not tell.
        comm_args: of kernels of collectives, by position among the device rows.
        calls: what the host did for collectives.
        marks: steps and phases: (name, thread, start, end) in us.
        strange: events whose duration is negative, or which are at no possible time: they are left out.
    """

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.kinds: list[str] = []
        self.ops: list[str | None] = []
        self.comm_args: dict[int, CommArgs] = {}
        self.calls: list[Call] = []
        self.marks: list[tuple[str, int, float, float]] = []
        self.strange = 0
        self._device: list[NDArray[np.float64]] = []
        self._launches: list[NDArray[np.float64]] = []
        self._count = 0
        self._threads: dict[Any, int] = {}
        self._meant: dict[str, int] = {}
        self._launching: dict[str, bool] = {}

    def take(self, events: Sequence[Event]) -> None:
        """Takes some events, in any order."""
        chosen: tuple[list[Event], list[Event], list[Event]] = [], [], []
        # One look-up an event: this is the importer's busiest line.
        keep_by_category = {category: chosen[place].append for category, place in _PLACES.items()}.get
        for event in events:
            if keep := keep_by_category(event.cat):
                keep(event)
        device, launches, host = chosen
        self._take_device([event for event in device if event.ph == "X"])
        self._take_launches([event for event in launches if event.ph == "X" and self._launches_work(event.name)])
        self._take_host(host)

    def device(self) -> NDArray[np.float64]:
        """Device rows: start us, duration us, name code, device, stream, correlation, blocks, shape (7, rows)."""
        return np.concatenate(self._device, axis=1) if self._device else np.zeros((7, 0))

    def launches(self) -> NDArray[np.float64]:
        """Launches: start us, correlation, thread, shape (3, rows)."""
        return np.concatenate(self._launches, axis=1) if self._launches else np.zeros((3, 0))

    def _take_device(self, events: list[Event]) -> None:
        sane = [event for event in events if 0 <= event.dur < _LATEST_US and -_LATEST_US < event.ts < _LATEST_US]
        self.strange += len(events) - len(sane)
        if not sane:
            return
        codes = [self._code(event) for event in sane]
        for place, (event, code) in enumerate(zip(sane, codes, strict=True), self._count):
            if self.kinds[code] == COMMUNICATION:
                self.comm_args[place] = comm_args(event)
        args = device_args(sane)
        self._count += len(sane)
        self._device.append(
            np.array(
                [
                    [event.ts for event in sane],
                    [event.dur for event in sane],
                    codes,
                    [each.device for each in args],
                    [each.stream for each in args],
                    [each.correlation for each in args],
                    [prod(each.grid) if each.grid else -1 for each in args],
                ],
                np.float64,
            )
        )

    def _code(self, event: Event) -> int:
        code = self.names.get(event.name)
        if code is None:
            code = self.names[event.name] = len(self.names)
            kind, op = classify(event.name[:_LONGEST_NAME])
            self.kinds.append(COPY if event.cat in _COPIES else kind)
            self.ops.append(op)
        return code

    def _take_launches(self, events: list[Event]) -> None:
        if events:
            args = launch_args(events)
            rows = [[e.ts for e in events], [a.correlation for a in args], self._thread_codes(events)]
            found = np.array(rows, np.float64)
            self._launches.append(found[:, np.abs(found[0]) < _LATEST_US])

    def _take_host(self, events: list[Event]) -> None:
        meant = self._meant
        for event in events:
            kind = meant.get(event.name)
            if kind is None:  # a trace has few names, and many events of each
                kind = event.name.startswith(_CALLS) + 2 * event.name.startswith(_MARKS)
                meant[event.name] = kind
            if not kind or event.ph != "X":
                continue
            if not (0 <= event.dur < _LATEST_US and -_LATEST_US < event.ts < _LATEST_US):
                self.strange += 1
                continue
            if kind == 1:
                self._take_call(event)
            else:
                self.marks.append((event.name, self._thread(event.tid), event.ts, event.ts + event.dur))

    def _take_call(self, event: Event) -> None:
        # Of the operators only the time is used, and there are as many as collectives.
        args = CommArgs() if event.name.startswith("c10d::") else comm_args(event)
        self.calls.append(Call(event.name, self._thread(event.tid), event.ts, event.ts + event.dur, args))

    def _launches_work(self, name: str) -> bool:
        found = self._launching.get(name)
        if found is None:
            found = self._launching[name] = bool(_LAUNCHING.search(name))
        return found

    def _thread_codes(self, events: list[Event]) -> list[int]:
        codes = self._threads
        try:
            return [codes[event.tid] for event in events]
        except (KeyError, TypeError):
            return [self._thread(event.tid) for event in events]

    def _thread(self, tid: Any) -> int:
        return self._threads.setdefault(tid if isinstance(tid, int | str) else repr(tid), len(self._threads))
