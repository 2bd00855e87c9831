"""What one rank's training thread did in each step: its own time, and where it met collectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers.columns import small, tiny
from commlens.analyzers.grouped import Floats, group_keys
from commlens.analyzers.held import Lengthy, each
from commlens.analyzers.intervals import Intervals, Ints, length_within, merge
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

# Who waits for a collective: nobody, the job's code, DDP's reducer, DDP's broadcast of buffers before a forward.
NEVER, CALLED, REDUCER, BUFFERS = range(4)


@dataclass(frozen=True)
class Thread(Lengthy, long=("facts", "still", "step", "waiter", "waited_ns", "backward", "backward_ns")):
    """One rank's collectives by step.

    Attributes:
        facts: of the rank.
        still: when it stood still for a collective that had not ended, merged.
        step: place of each row's step among the analysed ones, MISSING outside them, shape (rows,).
        waiter: who waits for each row, shape (rows,).
        waited_ns: when the thread came to wait for each row, but for DDP's reducer, shape (rows,).
        backward: number of the backward each row was issued in, MISSING outside, shape (rows,).
        backward_ns: start of each backward.
    """

    facts: RankFacts
    still: Intervals
    step: Ints
    waiter: Ints
    waited_ns: Ints
    backward: Ints
    backward_ns: Ints

    def own_ns(self, times: Ints, steps: Ints) -> Floats:
        """What the rank had worked between the start of a step and a time, ns, shape of both."""
        begun = self.facts.steps.start_ns[steps]
        return (times - begun - length_within(self.still, begun, times)).astype(np.float64)

    def wait_ns(self, rows: Ints) -> Ints:
        """When the thread came to wait for each row, ns; DDP's reducer, when it had issued its last bucket."""
        last = self._last_reduced_ns
        return np.where(self.waiter[rows] == REDUCER, last[self.backward[rows]], self.waited_ns[rows])

    @cached_property
    def _last_reduced_ns(self) -> Ints:
        """When DDP's reducer issued its last bucket, for each backward, then MISSING, shape (backwards + 1,)."""
        issued = self.facts.columns.collectives["issued_ns"]
        reduced = np.flatnonzero(self.waiter == REDUCER)
        last = np.full(self.backward_ns.size + 1, MISSING, np.int64)
        np.maximum.at(last, self.backward[reduced], issued[reduced])
        return last


def read_thread(facts: RankFacts, ends_ns: Ints) -> Thread:
    """The thread of one rank.

    Args:
        facts: of the rank.
        ends_ns: when each of its collectives ended, MISSING where not known, shape (rows,).
    """
    rows, blocked = facts.columns.collectives, facts.blocked
    ended = ends_ns[blocked.row]
    # What comes after the end is the thread's own: it had to wake up.
    ends = np.where(ended == MISSING, blocked.ends, np.maximum(ended, blocked.starts))
    waited = (rows["waited_ns"] != MISSING) & (rows["thread"] == facts.columns.training_thread)
    during = facts.columns.during("backward")
    backward = merge(facts.columns.phases["start_ns"][during], facts.columns.phases["end_ns"][during])
    inside = _place(rows["issued_ns"], backward)
    unseen = blocked.known & (rows["waited_ns"] == MISSING)  # DDP waits in C++; `find_blocked` tells for which
    buffers = unseen & (inside == MISSING)
    waiter = np.where(unseen, np.where(buffers, BUFFERS, REDUCER), np.where(waited, CALLED, NEVER))
    return Thread(
        facts=facts,
        still=merge(blocked.starts, ends),
        step=small(_place(rows["issued_ns"], Intervals(facts.steps.start_ns, facts.steps.end_ns))),
        waiter=tiny(waiter),
        waited_ns=_waited(rows, buffers, backward.starts),
        backward=small(inside),
        backward_ns=backward.starts,
    )


def _waited(rows: dict[str, Ints], buffers: NDArray[np.bool_], backward: Ints) -> Ints:
    """When the thread came to wait for each row; for buffers, when it had issued the last of them."""
    if not buffers.any():
        return rows["waited_ns"]
    return np.where(buffers, _last_before(rows["issued_ns"], buffers, backward), rows["waited_ns"])


def _last_before(issued: Ints, chosen: NDArray[np.bool_], starts: Ints) -> Ints:
    """The last issue among the chosen rows that come before the same backward, shape (rows,)."""
    ahead = np.searchsorted(starts, issued, side="right")
    last = np.full(starts.size + 1, MISSING, np.int64)
    np.maximum.at(last, ahead[chosen], issued[chosen])
    return last[ahead]


def _place(times: Ints, windows: Intervals) -> Ints:
    """Which window each time lies in, MISSING where in none."""
    if not windows.starts.size:
        return np.full(times.size, MISSING, np.int64)
    place = np.searchsorted(windows.starts, times, side="right") - 1
    return np.where((place >= 0) & (times < windows.ends[place]), place, MISSING)


def usual_steps(threads: Sequence[Thread]) -> Ints | str:
    """Numbers of the steps that every rank recorded and that are like most others; why there are none."""
    steps = threads[0].facts.steps.index
    for own in each(_numbers, threads):
        steps = np.intersect1d(steps, own)
    if not steps.size:
        return "no step was recorded on every rank"
    usual = each(partial(_usual, index=steps), threads)
    if not all(one.collectives == usual[0].collectives for one in usual):
        return "ranks issue different collectives in a step"
    if not usual[0].collectives:
        return "no collective is issued in a step"
    clean = np.logical_and.reduce([one.alike for one in usual])
    if not clean.any():
        return "no step is like the usual one on every rank"
    return np.asarray(steps[clean])


class _Usual(NamedTuple):
    """A rank's usual step: how many collectives it has, and which steps are like it, shape (steps,)."""

    collectives: int
    alike: NDArray[np.bool_]


def _usual(thread: Thread, index: Ints) -> _Usual:
    signatures = _signatures(thread, index)
    usual = Counter(signatures).most_common(1)[0][0]
    return _Usual(usual.collectives, np.array([signature == usual for signature in signatures]))


def _numbers(thread: Thread) -> Ints:
    return thread.facts.steps.index


class _Signature(NamedTuple):
    """What tells steps of a rank apart: its collectives in order, their sizes, and who waits for them."""

    collectives: int
    digest: bytes


def _signatures(thread: Thread, index: Ints) -> list[_Signature]:
    columns = thread.facts.columns
    words = [columns.words["group"].codes, columns.words["op"].codes, columns.collectives["bytes"], thread.waiter]
    tokens = group_keys([word.astype(np.int64) for word in words])[0]
    inside = thread.step != MISSING
    places = np.searchsorted(thread.facts.steps.index, index)
    bounds = np.searchsorted(thread.step[inside], [places, places + 1])
    tokens = tokens[inside]
    return [
        _Signature(int(end - start), blake2b(tokens[start:end].tobytes(), digest_size=16).digest())
        for start, end in bounds.T
    ]


def rows_by_step(thread: Thread, index: Ints) -> Ints:
    """Rows of a rank in some steps that are alike, shape (collectives, steps)."""
    places = np.searchsorted(thread.facts.steps.index, index)
    return np.stack([np.flatnonzero(thread.step == place) for place in places], axis=1)
