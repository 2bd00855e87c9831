"""Interval functions against a boolean timeline."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from commlens.analyzers.intervals import (
    Intervals,
    clip,
    intersect,
    length,
    length_within,
    merge,
    subtract,
)

SPAN = 40
PAIRS = st.lists(st.tuples(st.integers(0, SPAN), st.integers(0, SPAN)), max_size=12)


def make(pairs: list[tuple[int, int]]) -> Intervals:
    return merge([a for a, _ in pairs], [b for _, b in pairs])


def timeline(pairs: list[tuple[int, int]]) -> np.ndarray:
    line = np.zeros(SPAN, bool)
    for start, end in pairs:
        line[start:end] = True
    return line


def painted(merged: Intervals) -> np.ndarray:
    assert np.all(merged.starts < merged.ends)
    assert np.all(merged.ends[:-1] < merged.starts[1:])
    return timeline(list(zip(merged.starts.tolist(), merged.ends.tolist(), strict=True)))


@given(PAIRS)
def test_merge_covers_the_same_instants(pairs: list[tuple[int, int]]) -> None:
    assert np.array_equal(painted(make(pairs)), timeline(pairs))
    assert length(make(pairs)) == timeline(pairs).sum()


@given(PAIRS, PAIRS)
def test_intersect_and_subtract(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    assert np.array_equal(painted(intersect(make(a), make(b))), timeline(a) & timeline(b))
    assert np.array_equal(painted(subtract(make(a), make(b))), timeline(a) & ~timeline(b))


@given(PAIRS, st.integers(0, SPAN), st.integers(0, SPAN))
def test_clip_and_length_within(pairs: list[tuple[int, int]], start: int, end: int) -> None:
    start, end = min(start, end), max(start, end)
    inside = timeline(pairs)[start:end].sum()
    assert length(clip(make(pairs), start, end)) == inside
    assert length_within(make(pairs), np.array([start]), np.array([end])).tolist() == [inside]


def test_times_beyond_float_precision_stay_exact() -> None:
    start = 1_700_000_000_000_000_001
    assert length(merge([start], [start + 1])) == 1
