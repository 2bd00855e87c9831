"""Readings of one counter of one device: what it grew by between any two times."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Intervals, Ints, intersect, length_within, merge


@dataclass(frozen=True)
class Series:
    """Readings by time, shape (n,) each, n >= 1.

    Attributes:
        time_ns: when each was read, ascending, on the clock of the node.
        value: what was read.
    """

    time_ns: Ints
    value: Ints

    @cached_property
    def resets(self) -> Intervals:
        """Between which readings a total began anew, merged: what it grew by there is not known."""
        fell = np.flatnonzero(np.diff(self.value) < 0)
        return merge(self.time_ns[fell], self.time_ns[fell + 1])

    @cached_property
    def standing(self) -> Intervals:
        """Between which readings it stayed as it was, merged."""
        same = np.flatnonzero(np.diff(self.value) == 0)
        return merge(self.time_ns[same], self.time_ns[same + 1])

    def grown(self, starts: Ints, ends: Ints) -> Floats:
        """What a total grew by in each window, linear between readings, nothing outside them or where it began anew."""
        return self._at(ends) - self._at(starts)

    def grown_in(self, windows: Intervals) -> float:
        """What a total grew by in merged windows, all together."""
        return float(self.grown(*windows).sum())

    def mean_in(self, windows: Intervals) -> float | None:
        """Mean of a gauge over merged windows, each value taken to hold until the next; None where nothing was read."""
        held, values = self._held(windows)
        return float((held * values).sum() / held.sum()) if held.sum() else None

    def share_in(self, windows: Intervals, bits: int) -> float | None:
        """Share of merged windows in which a gauge had any of these bits set, 0..1; None where nothing was read."""
        held, values = self._held(windows)
        return float(held[values & bits != 0].sum() / held.sum()) if held.sum() else None

    def largest_in(self, windows: Intervals) -> int | None:
        """Largest value of a gauge in merged windows; None where nothing was read."""
        held, values = self._held(windows)
        return int(values[held > 0].max()) if (held > 0).any() else None

    def _held(self, windows: Intervals) -> tuple[Ints, Ints]:
        """How long each value held inside the windows, ns, and the values; the last reading holds for no time."""
        inside = intersect(windows, merge(self.time_ns[:1], self.time_ns[-1:]))
        return length_within(inside, self.time_ns[:-1], self.time_ns[1:]), self.value[:-1]

    def _at(self, times: Ints) -> Floats:
        begin = self.time_ns[0]  # wall-clock nanoseconds have more digits than a float
        return np.asarray(np.interp(times - begin, self.time_ns - begin, self._total), np.float64)

    @cached_property
    def _total(self) -> Floats:
        steps = np.diff(self.value).clip(0)
        return np.concatenate([[0.0], np.cumsum(steps, dtype=np.float64)])


def series_of(time_ns: Ints, value: Ints) -> Series:
    """A series of readings in any order; of several at one time the largest comes last."""
    order: NDArray[np.intp] = np.lexsort((value, time_ns))
    return Series(time_ns[order], value[order])
