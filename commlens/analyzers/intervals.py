"""Half-open intervals [start, end) on one rank's clock: the one definition of overlap.

An `Intervals` is a pair of int64 arrays in nanoseconds. Functions that need disjoint, sorted
intervals say "merged"; `merge` makes them, and every function here returns them.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NEVER = np.iinfo(np.int64).max
Ints: TypeAlias = NDArray[np.int64]


class Intervals(NamedTuple):
    """Starts and ends, int64 ns, shape (n,) each."""

    starts: Ints
    ends: Ints


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Distinct values, ascending. numpy's `unique` hashes integers, which takes longer, and loads numpy.ma."""
    ordered = np.sort(values, kind="stable")
    keep = np.ones(ordered.size, bool)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


def common(first: Ints, *others: Ints) -> Ints:
    """Distinct values that are in every array, ascending."""
    for other in others:
        first = first[np.isin(first, other)]
    return distinct(first)


def merge(starts: ArrayLike, ends: ArrayLike) -> Intervals:
    """Union of any intervals as sorted, disjoint, non-touching ones.

    Args:
        starts: ns, shape (n,), in any order.
        ends: ns, shape (n,); an interval that does not end after its start is empty and vanishes.
    """
    begin, end = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    real = end > begin
    begin, end = begin[real], end[real]
    order = np.argsort(begin, kind="stable")
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    opens = np.ones(begin.size, bool)
    opens[1:] = begin[1:] > reach[:-1]
    closes = np.ones(begin.size, bool)
    closes[:-1] = opens[1:]
    return Intervals(begin[opens], reach[closes])


def length(merged: Intervals) -> int:
    """Total length of merged intervals, ns."""
    return int((merged.ends - merged.starts).sum())


def intersect(a: Intervals, b: Intervals) -> Intervals:
    """Times in both `a` and `b` (merged)."""
    edges, in_a, in_b = _sweep(a, b)
    return _kept(edges, in_a & in_b)


def subtract(a: Intervals, b: Intervals) -> Intervals:
    """Times in `a` but not in `b` (merged)."""
    edges, in_a, in_b = _sweep(a, b)
    return _kept(edges, in_a & ~in_b)


def clip(merged: Intervals, start: int, end: int) -> Intervals:
    """The part of merged intervals inside [start, end)."""
    return merge(np.maximum(merged.starts, start), np.minimum(merged.ends, end))


def length_within(merged: Intervals, starts: Ints, ends: Ints) -> Ints:
    """Length of `merged` inside each window [starts[i], ends[i]), ns, shape of `starts`."""
    return _before(merged, ends) - _before(merged, starts)


def shared_within(few: Intervals, many: Intervals, starts: Ints, ends: Ints) -> Ints:
    """Length of `few` and `many` (merged) together inside each window, ns; windows are disjoint and ascending.

    The same as the length of their intersection, without a pass over `many`.
    """
    pieces = cut(intersect(few, merge(starts, ends)), starts)  # windows may touch, and a piece reach over several
    window = np.searchsorted(starts, pieces.starts, side="right") - 1
    shared = length_within(many, *pieces)
    return np.bincount(window, weights=shared, minlength=starts.size).astype(np.int64)


def cut(merged: Intervals, times: Ints) -> Intervals:
    """Merged intervals, cut into two at each of `times` that lies within one: sorted, disjoint, maybe touching."""
    starts = distinct(np.concatenate([merged.starts, times[_inside(merged, times)]]))
    whole = merged.ends[np.searchsorted(merged.starts, starts, side="right") - 1]
    return Intervals(starts, np.minimum(whole, np.append(starts[1:], _NEVER)))


def _before(merged: Intervals, times: Ints) -> Ints:
    """Length of `merged` before each time, ns."""
    if merged.starts.size == 0:
        return np.zeros(np.shape(times), np.int64)
    total = np.concatenate([[0], np.cumsum(merged.ends - merged.starts)])
    begun = np.searchsorted(merged.starts, times, side="right")
    unfinished = np.maximum(merged.ends[np.maximum(begun - 1, 0)] - times, 0)
    return np.where(begun > 0, total[begun] - unfinished, 0).astype(np.int64)


def _sweep(a: Intervals, b: Intervals) -> tuple[Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Every edge, and for the stretch after it whether it lies in `a` and in `b`."""
    edges = np.sort(np.concatenate([*a, *b]), kind="stable")  # four sorted runs: merged faster than hashed
    edges = edges[np.diff(edges, prepend=edges[:1] - 1) > 0]
    return edges, _covered(a, edges), _covered(b, edges)


def _covered(merged: Intervals, edges: Ints) -> NDArray[np.bool_]:
    """Whether what follows each edge is inside; all starts and ends are edges."""
    change = np.zeros(edges.size, np.int8)
    change[np.searchsorted(edges, merged.starts)] = 1
    change[np.searchsorted(edges, merged.ends)] -= 1
    return np.cumsum(change, dtype=np.int8).astype(bool)


def _inside(merged: Intervals, times: Ints) -> NDArray[np.bool_]:
    begun = np.searchsorted(merged.starts, times, side="right")
    ended = np.searchsorted(merged.ends, times, side="right")
    return begun > ended


def _kept(edges: Ints, keep: NDArray[np.bool_]) -> Intervals:
    """The stretches between edges that are kept, merged; the last edge begins none."""
    turns = np.flatnonzero(np.diff(keep[:-1], prepend=False, append=False))
    return Intervals(edges[turns[::2]], edges[turns[1::2]])
