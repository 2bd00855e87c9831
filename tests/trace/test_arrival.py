from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import batch

from commlens.trace import RankWriter, open_run, write_run_info
from commlens.trace.arrival import started_ns
from commlens.trace.schema import MISSING


def simulate(issued: list[int], durations: list[int], workers: int) -> tuple[list[int], list[int]]:
    """Starts and ends of a queue, by giving each item to the worker that is free first."""
    free = [0] * workers
    starts, ends = [], []
    for at, duration in zip(issued, durations, strict=True):
        starts.append(max(at, heapq.heappop(free)))
        ends.append(starts[-1] + duration)
        heapq.heappush(free, ends[-1])
    return starts, ends


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 60)), max_size=30),
    st.integers(1, 4),
)
def test_starts_are_those_of_a_simulated_queue(items: list[tuple[int, int]], workers: int) -> None:
    issued = np.cumsum([gap for gap, _ in items]).astype(np.int64)
    starts, ends = simulate(issued.tolist(), [duration for _, duration in items], workers)
    assert started_ns(issued, np.array(ends, np.int64), workers).tolist() == starts


@given(
    st.lists(st.tuples(st.integers(0, 30), st.one_of(st.just(MISSING), st.integers(0, 900))), max_size=20),
    st.integers(1, 4),
)
def test_starts_of_any_rows_follow_the_definition(items: list[tuple[int, int]], workers: int) -> None:
    issued = np.cumsum([gap for gap, _ in items]).astype(np.int64)
    ends = [end for _, end in items]
    got = started_ns(issued, np.array(ends, np.int64), workers).tolist()
    for i, start in enumerate(got):
        earlier = sorted((float("inf") if end == MISSING else end for end in ends[:i]), reverse=True)
        expected = max(issued[i], earlier[workers - 1] if len(earlier) >= workers else 0)
        if ends[i] != MISSING:
            expected = min(expected, ends[i])
        assert start == (MISSING if expected == float("inf") else expected)


def test_one_that_never_ends_holds_one_of_two_workers() -> None:
    issued, ends = np.array([0, 1, 2, 3]), np.array([MISSING, 50, 60, MISSING])
    assert started_ns(issued, ends, 2).tolist() == [0, 1, 50, 60]
    assert started_ns(issued, ends, 1).tolist() == [0, 50, 60, MISSING]


def test_unknown_issue_has_no_start_and_no_worker_is_refused() -> None:
    assert started_ns(np.array([MISSING, 5]), np.array([9, 12]), 2).tolist() == [MISSING, 5]
    with pytest.raises(ValueError, match="worker"):
        started_ns(np.array([1]), np.array([2]), 0)


GROUPS = [{"name": "queued", "workers": 1}, {"name": "free", "workers": None}, "odd", {"workers": 2}]


def starts(path: Path, groups: object = GROUPS, **replaced: object) -> list[int]:
    write_run_info(path, {"run_id": "r", "world_size": 1})
    writer = RankWriter(path, 0)
    writer.write_info({"rank": 0, "groups": groups})
    overlapping = {"issued_ns": np.array([10, 20, 30]), "completed_ns": np.array([100, 110, 120])}
    writer.append("collectives", batch(0, 3, **{**overlapping, **replaced}))
    writer.close()
    return open_run(path).ranks[0].columns("collectives", ["started_ns"])["started_ns"].tolist()


def names(codes: list[int], *vocabulary: str) -> tuple[np.ndarray, list[str]]:
    return np.array(codes), list(vocabulary)


def test_the_reader_queues_only_groups_with_workers(tmp_path: Path) -> None:
    assert starts(tmp_path / "a", group=names([0, 0, 0], "queued")) == [10, 100, 110]
    assert starts(tmp_path / "b", group=names([0, 0, 0], "free")) == [10, 20, 30]
    assert starts(tmp_path / "c", group=names([0, 1, 0], "queued", "free")) == [10, 20, 100]
    assert starts(tmp_path / "d", groups={"queued": 1}) == [10, 20, 30]


def test_the_reader_keeps_known_starts_and_estimates_only_host_and_wait(tmp_path: Path) -> None:
    queued = names([0, 0, 0], "queued")
    timing = names([0, 1, 2], "wait", "enqueue_only", "device")
    assert starts(tmp_path / "a", group=queued, timing=timing) == [10, MISSING, MISSING]
    known = np.array([MISSING, 77, MISSING])
    assert starts(tmp_path / "b", group=queued, started_ns=known) == [10, 77, 110]


def test_messages_between_two_ranks_do_not_queue(tmp_path: Path) -> None:
    op = names([0, 1, 0], "all_reduce", "send")
    assert starts(tmp_path, group=names([0, 0, 0], "queued"), op=op) == [10, 20, 100]
