"""Where the threads of all ranks meet one collective of the step: when they issue it, and when they wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from commlens.analyzers.grouped import Floats
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.model import Point
from commlens.analyzers.whatif.thread import NEVER, Thread


class Met(NamedTuple):
    """A point, its own time, shape (ranks, steps), and when the first rank usually meets it in a step, ns."""

    point: Point
    own_ns: Floats
    wall_ns: float


def issued(threads: Sequence[Thread], rows: Sequence[Ints], place: int) -> Met:
    times = [
        t.own_ns(t.facts.columns.collectives["issued_ns"][own[place]], t.step[own[place]])
        for t, own in zip(threads, rows, strict=True)
    ]
    first = threads[0].facts.columns.collectives["issued_ns"][rows[0][place]]
    wall = first - threads[0].facts.steps.start_ns[threads[0].step[rows[0][place]]]
    return Met(Point(place, waits=False), np.stack(times), float(np.median(wall)))


def waited(threads: Sequence[Thread], rows: Sequence[Ints], place: int) -> Met | str | None:
    """Where the threads wait for a collective; None where nobody does."""
    if threads[0].waiter[rows[0][place, 0]] == NEVER:
        return None
    times, walls, lags = [], [], set()
    for thread, own in zip(threads, rows, strict=True):
        at, steps = thread.wait_ns(own[place]), thread.facts.steps
        where = np.maximum(np.searchsorted(steps.start_ns, at, side="right") - 1, 0)
        inside = (at >= steps.start_ns[where]) & (at < steps.end_ns[where])
        lags |= set((where - thread.step[own[place]])[inside].tolist())
        # Waits of the last step may lie beyond the recording: they are as usual.
        times.append(np.where(inside, thread.own_ns(at, where), np.nan))
        walls.append(np.where(inside, at - steps.start_ns[where], np.nan))
    if len(lags) != 1 or not lags <= {0, 1}:
        return "a collective is waited for now in one step, now in another"
    table = np.stack(times)
    usual = np.nanmedian(table, axis=1, keepdims=True)
    point = Point(place, waits=True, lag=lags.pop())
    return Met(point, np.where(np.isnan(table), usual, table), float(np.nanmedian(walls[0])))
