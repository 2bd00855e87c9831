"""What is kept of a profiler's events: columns of device work, launches and the host's calls of collectives."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.trace_events import Event
from commlens.trace.kernel_names import classify
from commlens.trace.schema import COMMUNICATION, COPY

_KERNELS: Final = frozenset({"kernel", "Kernel"})
_COPIES: Final = frozenset({"gpu_memcpy", "gpu_memset", "Memcpy", "Memset"})
_DEVICE: Final = _KERNELS | _COPIES
_LAUNCHES: Final = frozenset({"cuda_runtime", "cuda_driver", "Runtime", "hip_runtime", "xpu_runtime"})
_HOST: Final = frozenset({"user_annotation", "cpu_op", "Operator", "cpu_instant_event"})

RECORDED: Final = "record_param_comms"
_CALLS: Final = ("nccl:", "gloo:", "c10d::", RECORDED, "mpi:", "ucc:")
_MARKS: Final = ("ProfilerStep#", "Optimizer.step#", "DistributedDataParallel.forward", "FullyShardedDataParallel.forward")


class CommArgs(msgspec.Struct, gc=False):
    """What the profiler says of a collective, on its kernel or on the host's call."""

    name: str = msgspec.field(default="", name="Collective name")
    dtype: str = ""
    in_nelems: int = msgspec.field(default=-1, name="In msg nelems")
    out_nelems: int = msgspec.field(default=-1, name="Out msg nelems")
    group_size: int = msgspec.field(default=-1, name="Group size")
    group: str = msgspec.field(default="", name="Process Group Name")
    desc: str = msgspec.field(default="", name="Process Group Description")
    ranks: Any = msgspec.field(default=None, name="Process Group Ranks")
    first_rank: int = msgspec.field(default=-1, name="Global rank start")
    stride: int = msgspec.field(default=-1, name="Global rank stride")
    seq: int = msgspec.field(default=-1, name="Seq")
    source: int = msgspec.field(default=-1, name="Src Rank")
    destination: int = msgspec.field(default=-1, name="Dst Rank")
    dims: Any = msgspec.field(default=None, name="Input Dims")
    types: Any = msgspec.field(default=None, name="Input type")
    inputs: Any = msgspec.field(default=None, name="Concrete Inputs")


class _DeviceArgs(msgspec.Struct, gc=False):
    device: int = 0
    stream: int = 0
    correlation: int = -1
    grid: list[int] = []


class Call(msgspec.Struct, gc=False):
    """The host's call of a collective, or a span of its work there; times in us."""

    name: str
    thread: int
    start: float
    end: float
    args: CommArgs


_comm_args: Final = msgspec.json.Decoder(CommArgs, strict=False)
_device_args: Final = msgspec.json.Decoder(list[_DeviceArgs], strict=False)
_BAD: Final = (msgspec.DecodeError, RecursionError)


class Rows:
    """Takes events and keeps what matters of them.

    Attributes:
        names: distinct names of kernels and copies, with their codes.
        kinds: kind of each of those, one of `schema.KERNEL_KINDS`.
        ops: operation of each, None where the name does not tell.
        comm_args: of kernels of collectives, by position among the device rows.
        calls: what the host did for collectives.
        marks: steps and phases: (name, thread, start, end) in us.
        negative: events whose duration is negative: they are left out.
    """

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.kinds: list[str] = []
        self.ops: list[str | None] = []
        self.comm_args: dict[int, CommArgs] = {}
        self.calls: list[Call] = []
        self.marks: list[tuple[str, int, float, float]] = []
        self.negative = 0
        self._device: list[NDArray[np.float64]] = []
        self._launches: list[NDArray[np.float64]] = []
        self._count = 0
        self._threads: dict[Any, int] = {}

    def take(self, events: Sequence[Event]) -> None:
        """Takes some events, in any order."""
        spans = [event for event in events if event.ph == "X"]
        self._take_device([event for event in spans if event.cat in _DEVICE])
        self._take_launches([event for event in spans if event.cat in _LAUNCHES])
        for event in spans:
            if event.cat in _HOST:
                if event.name.startswith(_CALLS):
                    self._take_call(event)
                elif event.name.startswith(_MARKS):
                    self.marks.append((event.name, self._thread(event), event.ts, event.ts + event.dur))

    def device(self) -> NDArray[np.float64]:
        """Device rows: start us, end us, name code, device, stream, correlation, blocks, shape (7, rows)."""
        return np.concatenate(self._device, axis=1) if self._device else np.zeros((7, 0))

    def launches(self) -> NDArray[np.float64]:
        """Launches: start us, correlation, thread, shape (3, rows)."""
        return np.concatenate(self._launches, axis=1) if self._launches else np.zeros((3, 0))

    def _take_device(self, events: list[Event]) -> None:
        sane = [event for event in events if event.dur >= 0]
        self.negative += len(events) - len(sane)
        if not sane:
            return
        codes = [self._code(event) for event in sane]
        for place, (event, code) in enumerate(zip(sane, codes, strict=True), self._count):
            if self.kinds[code] == COMMUNICATION:
                self.comm_args[place] = _decoded(event)
        args = _all_args(sane)
        self._count += len(sane)
        start = np.array([event.ts for event in sane])
        self._device.append(
            np.array(
                [
                    start,
                    start + np.array([event.dur for event in sane]),
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
            kind, op = classify(event.name)
            self.kinds.append(COPY if event.cat in _COPIES else kind)
            self.ops.append(op)
        return code

    def _take_launches(self, events: list[Event]) -> None:
        if events:
            args = _all_args(events)
            rows = [[e.ts for e in events], [a.correlation for a in args], [self._thread(e) for e in events]]
            self._launches.append(np.array(rows, np.float64))

    def _take_call(self, event: Event) -> None:
        if event.dur < 0:
            self.negative += 1
            return
        self.calls.append(Call(event.name, self._thread(event), event.ts, event.ts + event.dur, _decoded(event)))

    def _thread(self, event: Event) -> int:
        tid = event.tid if isinstance(event.tid, int | str) else repr(event.tid)
        return self._threads.setdefault(tid, len(self._threads))


def _decoded(event: Event) -> CommArgs:
    try:
        return _comm_args.decode(event.args)
    except _BAD:
        return CommArgs()


def _all_args(events: list[Event]) -> list[_DeviceArgs]:
    """The arguments of all events, decoded at once; of those that cannot be, the defaults."""
    try:
        return _device_args.decode(b"[%b]" % b",".join([event.args for event in events]))
    except _BAD:
        return [each for event in events for each in _one_args(event)]


def _one_args(event: Event) -> list[_DeviceArgs]:
    try:
        return _device_args.decode(b"[%b]" % event.args)
    except _BAD:
        return [_DeviceArgs()]
