"""What ran on the device, with its launches, and the clock that all times of a trace are of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from commlens.trace.importers.kineto_rows import Rows
from commlens.trace.schema import MISSING

_Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Clock:
    """From the file's times to nanoseconds: in two steps, because a float holds no time since 1970 to the nanosecond.

    Attributes:
        origin_us: a whole time of the file, before all others.
        base_ns: what the file's times count from.
    """

    origin_us: float
    base_ns: int

    def ns(self, us: NDArray[np.float64]) -> _Ints:
        """Times in ns."""
        return np.rint((us - self.origin_us) * 1e3).astype(np.int64) + (int(self.origin_us) * 1000 + self.base_ns)


@dataclass(frozen=True)
class Device:
    """What ran on the device, in the order of the file, int64 arrays of shape (rows,).

    Attributes:
        start, end: ns.
        launched: begin of the host's launch, MISSING where it is not in the trace.
        thread: thread that launched it, MISSING where not known.
        launched_us: `launched` as the file has it.
        name: code of its name.
        device, stream: where it ran.
        blocks: of threads, MISSING where not known.
    """

    start: _Ints
    end: _Ints
    launched: _Ints
    thread: _Ints
    launched_us: NDArray[np.float64]
    name: _Ints
    device: _Ints
    stream: _Ints
    blocks: _Ints

    @classmethod
    def of(cls, rows: Rows, clock: Clock) -> Device:
        """The device rows with their launches."""
        start, lasted, name, device, stream, correlation, blocks = rows.device()
        begun, key, thread = rows.launches()
        order = np.argsort(key, kind="stable")
        found = np.minimum(np.searchsorted(key[order], correlation), max(key.size - 1, 0))
        row = order[found] if key.size else np.zeros(start.size, np.intp)
        known = (key[row] == correlation) & (correlation >= 0) if key.size else np.zeros(start.size, bool)
        launched_us = np.where(known, begun[row], np.nan) if key.size else np.full(start.size, np.nan)
        return cls(
            start=clock.ns(start),
            end=clock.ns(start) + np.rint(lasted * 1e3).astype(np.int64),  # exact, where a float's sum is not
            launched=np.where(known, clock.ns(np.where(known, launched_us, clock.origin_us)), MISSING),
            thread=np.where(known, thread[row], MISSING).astype(np.int64) if key.size else np.full(start.size, MISSING),
            launched_us=launched_us,
            name=name.astype(np.int64),
            device=np.clip(device, -1, 2**15 - 1).astype(np.int64),
            stream=np.clip(stream, -1, 2**31 - 1).astype(np.int64),
            blocks=np.clip(blocks, MISSING, 2.0**60).astype(np.int64),
        )
