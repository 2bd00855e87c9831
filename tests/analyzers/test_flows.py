"""Arrows between the ranks of a collective, and spans beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from synthetic import MS, START, Collective, RankTruth, write_run

from commlens.analyzers.stages import join_ranks
from commlens.analyzers.views.flows import Flows, find_flows
from commlens.analyzers.views.side_by_side import side_by_side
from commlens.trace import open_run
from commlens.trace.schema import MISSING


def part(began: int, ended: int, op: str = "all_reduce", peer: int = MISSING, seq: int = 0) -> Collective:
    """A collective from one millisecond to another."""
    times = (START + began * MS, START + ended * MS, START + began * MS)
    return Collective(*times, op=op, peer=peer, seq=seq, group_size=3)


def flows_of(path: Path, parts: Sequence[Sequence[Collective]], **info: object) -> tuple[tuple[Flows, ...], int]:
    group = {"name": "0", "desc": "", "ranks": list(range(len(parts))), "size": len(parts)}
    own = {"host": "a", "boot_id": "a", "groups": [group], **info}
    truths = {rank: RankTruth(rows, info=own) for rank, rows in enumerate(parts)}
    ranks, joined = join_ranks(open_run(write_run(path / "run", truths)))
    return find_flows(ranks, joined)


def entering(flows: Sequence[Flows]) -> list[tuple[int, bool]]:
    """Number of the arrow, and whether it leaves there, of each rank's first collective."""
    return [(int(each.number[0]), bool(each.leaves[0])) for each in flows]


def test_an_arrow_leaves_the_last_rank(tmp_path: Path) -> None:
    flows, count = flows_of(tmp_path, [[part(10, 20)], [part(15, 20)], [part(12, 20)]])
    assert count == 1
    assert entering(flows) == [(0, False), (0, True), (0, False)]
    assert [int(flows[rank].enters_ns[0]) for rank in (0, 2)] == [START + 15 * MS + 1] * 2


def test_of_a_broadcast_it_leaves_the_root(tmp_path: Path) -> None:
    rows = [[part(began, 20, "broadcast", peer=0)] for began in (14, 10, 16)]
    flows, count = flows_of(tmp_path, rows)
    assert count == 1
    assert entering(flows) == [(0, True), (0, False), (0, False)]
    assert int(flows[2].enters_ns[0]) == START + 16 * MS + 1  # which came later than the data


def test_of_a_reduce_it_enters_the_root_alone(tmp_path: Path) -> None:
    rows = [[part(10, 20, "reduce", peer=0)], [part(12, 13, "reduce", peer=0)], [part(15, 16, "reduce", peer=0)]]
    flows, count = flows_of(tmp_path, rows)
    assert count == 1
    assert entering(flows) == [(0, False), (MISSING, False), (0, True)]


def test_a_part_that_never_ended_has_none(tmp_path: Path) -> None:
    open_one = Collective(START + 10 * MS, started_ns=START + 10 * MS, seq=0, group_size=2)
    flows, count = flows_of(tmp_path, [[open_one], [part(15, 20)]])
    assert count == 0
    assert [number for number, _ in entering(flows)] == [MISSING, MISSING]


def test_each_collective_has_its_own(tmp_path: Path) -> None:
    rows = [[part(10 * n, 10 * n + 8 + rank % 2, seq=n) for n in range(1, 6)] for rank in range(3)]
    flows, count = flows_of(tmp_path, rows)
    assert count == 5
    assert all(each.number.tolist() == [0, 1, 2, 3, 4] for each in flows)
    assert sum(each.leaves.astype(int) for each in flows).tolist() == [1] * 5


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=40))
def test_spans_of_a_track_do_not_overlap(spans: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in spans], np.int64)
    ends = starts + np.array([length for _, length in spans], np.int64)
    track = side_by_side(starts, ends)
    taken = np.maximum(ends, starts + 1)
    for number in set(track.tolist()):
        own = np.flatnonzero(track == number)
        own = own[np.argsort(starts[own], kind="stable")]
        assert (starts[own][1:] >= taken[own][:-1]).all()
    depth = [int(((starts <= time) & (taken > time)).sum()) for time in starts]
    assert len(set(track.tolist())) == max(depth, default=0)
