"""Readings of links and devices over time: totals as rates, gauges as they were read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from commlens.analyzers.across.joined import Joined
from commlens.analyzers.counted.nodes import BYTES, Node
from commlens.analyzers.counted.series import Series
from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.trace.counters import COUNTERS


class Readings(NamedTuple):
    """One counter of one device.

    Attributes:
        position: of the rank that read it.
        device: its name.
        counter: a word of `COUNTERS`.
        unit: of `value`: that of the counter, of a total per second.
        time_ns: from when on each value holds, on the common clock, shape (n,).
        value: a rate until the next reading, or a gauge, shape (n,).
    """

    position: int
    device: str
    counter: str
    unit: str
    time_ns: Ints
    value: Floats


def readings(nodes: Sequence[Node], joined: Joined) -> Iterator[Readings]:
    """Those of every node: gauges, bytes, and other totals that moved; where a total began anew there is no rate."""
    for node in nodes:
        for (device, counter), series in node.series.items():
            what = COUNTERS[counter]
            moved = bool((series.value != series.value[0]).any())
            if what.total and not (moved or counter in BYTES):
                continue
            times, values = _rates(series) if what.total else (series.time_ns, series.value.astype(np.float64))
            if times.size:
                aligned = joined.clocks.aligned(node.sampler, times)
                yield Readings(node.sampler, device, counter, what.unit + "/s" * what.total, aligned, values)


def _rates(series: Series) -> tuple[Ints, Floats]:
    """What a total grew by a second from each reading to the next."""
    grown, took = np.diff(series.value), np.diff(series.time_ns)
    known = (grown >= 0) & (took > 0)
    return series.time_ns[:-1][known], grown[known] / took[known] * 1e9
