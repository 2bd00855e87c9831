"""Where the threads of all ranks meet the collectives of the step: where they issue them and where they wait."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.grouped import Floats
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.whatif.model import Point
from commlens.analyzers.whatif.thread import NEVER, Thread


class Met(NamedTuple):
    """Points, their own times, shape (points, ranks, steps), and when the first rank usually meets each, ns."""

    points: list[Point]
    own_ns: Floats
    wall_ns: Floats


def issued(threads: Sequence[Thread], rows: Sequence[Ints]) -> Met:
    """Where the threads issue each collective.

    Args:
        threads: of all ranks.
        rows: of each, shape (collectives, steps).
    """
    times = each(_issued_own_ns, threads, rows)
    first = threads[0].facts.columns.collectives["issued_ns"][rows[0]]
    wall = first - threads[0].facts.steps.start_ns[threads[0].step[rows[0]]]
    points = [Point(place, waits=False) for place in range(rows[0].shape[0])]
    return Met(points, np.stack(times, axis=1), np.median(wall, axis=1))


def _issued_own_ns(thread: Thread, rows: Ints) -> Floats:
    return thread.own_ns(thread.facts.columns.collectives["issued_ns"][rows], thread.step[rows])


def waited(threads: Sequence[Thread], rows: Sequence[Ints]) -> Met | str:
    """Where the threads wait for each collective that anybody waits for; why that cannot be told."""
    places = np.flatnonzero(threads[0].waiter[rows[0][:, 0]] != NEVER)
    meetings = each(partial(_meeting, places=places), threads, rows)
    first = np.min([np.where(one.inside, one.lag, 2).min(axis=1) for one in meetings], axis=0)
    last = np.max([np.where(one.inside, one.lag, -1).max(axis=1) for one in meetings], axis=0)
    if ((first != last) | (first < 0) | (first > 1)).any():
        return "a collective is waited for now in one step, now in another"
    # Waits of the last step may lie beyond the recording: they are as usual.
    table = np.stack([_as_usual(one.own_ns, one.inside) for one in meetings], axis=1)
    wall = _median(meetings[0].wall_ns, meetings[0].inside)
    points = [Point(int(place), waits=True, lag=int(lag)) for place, lag in zip(places, first, strict=True)]
    return Met(points, table, wall)


class _Meeting(NamedTuple):
    """One thread's waits, shape (collectives, steps) each: own time, time since the step's start, both in the step in
    which they are; steps since the collective was issued; whether they were recorded at all."""

    own_ns: Floats
    wall_ns: Ints
    lag: Ints
    inside: NDArray[np.bool_]


def _meeting(thread: Thread, rows: Ints, places: Ints) -> _Meeting:
    rows = rows[places]
    at, steps = thread.wait_ns(rows), thread.facts.steps
    where = np.maximum(np.searchsorted(steps.start_ns, at, side="right") - 1, 0)
    inside = (at >= steps.start_ns[where]) & (at < steps.end_ns[where])
    return _Meeting(thread.own_ns(at, where), at - steps.start_ns[where], where - thread.step[rows], inside)


def _as_usual(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Values, in each line the median of the known ones where one is not known."""
    return values if known.all() else np.where(known, values, _median(values, known)[:, None])


def _median(values: Floats | Ints, known: NDArray[np.bool_]) -> Floats:
    """Of each line's known values, NaN where there are none."""
    if known.all():
        return np.median(values, axis=1)
    return np.asarray(np.nanmedian(np.where(known, values, np.nan), axis=1))
