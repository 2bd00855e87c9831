"""COMMLENS_QUOTA: full rows up to a step, sums from it on, nothing lost and nothing counted twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from commlens.profiler.aggregation import IDLE_NS, PATIENCE_NS, SOONEST_NS, Aggregation
from commlens.profiler.counters.readings import Rows as Readings
from commlens.profiler.groups import Group
from commlens.profiler.output import Output
from commlens.profiler.phases import Phase
from commlens.profiler.slots import LINGER_NS, Slots
from commlens.trace import Rank, open_run
from commlens.trace.schema import OPS, TIMINGS

SECOND = 1_000_000_000
MS = 1_000_000
GROUP = Group(0, "0", "default_pg", [0, 1], "gloo", 2, 2)
QUOTA = 40_000  # bytes: a dozen flushes
INFO: dict[str, Any] = {"rank": 0, "world_size": 1}


class Recording:
    """Collectives through slots, aggregation and files, as the flush thread does it, on a clock of its own."""

    def __init__(self, folder: Path, quota: int | None) -> None:
        self.output = Output(str(folder), 0, dist.HashStore(), 1)
        assert self.output.is_placed()
        self.output.describe({"world_size": 1, "start_ns": 1}, INFO)
        self.aggregation = Aggregation(quota)
        self.slots = Slots()
        self.now = 0
        self.step = self.issued = 0
        self.finished: list[Phase] = []

    def issue(self, size: int = 4096) -> int:
        event, self.issued = self.issued, self.issued + 1
        op, host = OPS.index("all_reduce"), TIMINGS.index("host")
        slot = self.slots.issue(event, event, size, size, self.now, 2, -1, self.step, -1, 0, op, 0, host, 0)
        assert slot >= 0
        return slot

    def end(self, slot: int, event: int, waited: bool = True) -> None:
        self.slots.completed(slot, event, self.now)
        if waited:
            self.slots.waited(slot, event, self.now - MS, MS)

    def whole(self, size: int = 4096) -> None:
        """A collective of 2 ms."""
        event, slot = self.issued, self.issue(size)
        self.now += 2 * MS
        self.end(slot, event)

    def next_step(self) -> None:
        self.finished.append(Phase(2, 1, self.now, self.now + MS, self.step, 0))
        self.now += MS
        self.step += 1

    def flush(self, ended: bool = False) -> None:
        rows = self.aggregation.split(self.slots.drain(self.now), self.now)
        self.output.add_collectives(rows, [GROUP], 0, "dispatcher")
        finished, self.finished = self.finished, []
        self.output.add_phases(self.aggregation.phases(finished), ["", "SGD"], 0)
        if ended or self.aggregation.due(self.now):
            size = self.output.add_aggregates(self.aggregation.sums.take(["0"], 0))
            self.aggregation.written(size, self.now)
        self.aggregation.look(self.output.total_bytes, self.step, self.now)

    def close(self) -> Rank:
        self.now += 2 * LINGER_NS
        self.flush(ended=True)
        self.output.close({**INFO, "aggregates": self.aggregation.described(), "end": {"ns": self.now, "how": "exit"}})
        return open_run(self.output.folder.parent).ranks[0]


def counted(rank: Rank, name: str = "count") -> int:
    columns = rank.columns("aggregates", ["group", name])
    return int(columns[name][columns["group"] >= 0].sum())


def test_what_is_not_in_full_rows_is_in_the_sums(tmp_path: Path) -> None:
    recording = Recording(tmp_path, QUOTA)
    for _ in range(60):
        for size in (4096, 8192, 4096):
            recording.whole(size)
        recording.next_step()
        recording.flush()
    first = recording.aggregation.from_step
    rank = recording.close()
    assert first is not None and 5 < first < 55
    full = rank.columns("collectives", ["step", "completed_ns"])
    assert full["step"].max() == first - 1 and (full["completed_ns"] >= 0).all()
    assert full["step"].size == 3 * first  # whole steps
    assert counted(rank) == counted(rank, "ended") == counted(rank, "waits") == 3 * (60 - first)
    assert counted(rank, "duration_ns") == 2 * MS * 3 * (60 - first)
    assert counted(rank, "blocked_ns") == MS * 3 * (60 - first)
    assert rank.columns("phases", ["step"])["step"].max() == first - 1
    assert rank.info["aggregates"] == {"quota_bytes": QUOTA, "from_step": first}


def test_bins_hold_every_duration(tmp_path: Path) -> None:
    recording = Recording(tmp_path, 0)
    for _ in range(40):
        recording.whole()
        recording.next_step()
        recording.flush()
    rank = recording.close()
    assert rank.table("collectives").num_rows == rank.table("phases").num_rows == 0
    columns = rank.columns("aggregates", ["ended"])
    bins = rank.columns("aggregate_bins", ["bin", "count"])
    assert bins["count"].sum() == columns["ended"].sum() == 40 + 40 + 39  # collectives, optimizers, whole steps
    assert np.floor(4 * np.log2(2 * MS)) in bins["bin"]


def test_ends_that_come_later_are_added_once(tmp_path: Path) -> None:
    recording = Recording(tmp_path, 0)
    pending = [(recording.issue(), event) for event in range(100)]
    recording.flush()
    recording.now += 5 * MS
    for slot, event in pending[:70]:
        recording.end(slot, event, waited=False)
    recording.flush()
    recording.flush()
    recording.now += MS
    for slot, event in pending[:30]:
        recording.slots.waited(slot, event, recording.now - MS, MS)
    recording.flush()
    rank = recording.close()
    assert [counted(rank, name) for name in ("count", "ended", "waits")] == [100, 70, 30]
    assert counted(rank, "duration_ns") == 70 * 5 * MS
    bins = rank.columns("aggregate_bins", ["count"])
    assert bins["count"].sum() == 70


def test_what_is_under_way_when_the_quota_is_reached_is_told_in_full(tmp_path: Path) -> None:
    recording = Recording(tmp_path, QUOTA)
    hanging = recording.issue()
    while recording.aggregation.from_step is None:
        recording.whole()
        recording.flush()
    recording.next_step()
    recording.whole()
    recording.flush()
    recording.end(hanging, 0)
    recording.next_step()
    full = recording.issued - 1
    rank = recording.close()
    rows = rank.columns("collectives", ["event", "completed_ns"])
    assert rows["event"].size == full and (rows["completed_ns"] >= 0).all()
    assert counted(rank) == counted(rank, "ended") == 1


def test_a_job_whose_steps_do_not_end_is_cut_all_the_same(tmp_path: Path) -> None:
    recording = Recording(tmp_path, QUOTA)
    while recording.aggregation.from_step is None:
        recording.whole()
        recording.flush()
    under_way = recording.issued, recording.issue()
    recording.flush()
    recording.now += PATIENCE_NS
    recording.flush()
    recording.end(under_way[1], under_way[0])
    full = recording.issued
    for _ in range(50):
        recording.whole()
    recording.flush()
    rank = recording.close()
    rows = rank.columns("collectives", ["event", "completed_ns"])
    assert rows["event"].size == full and (rows["completed_ns"] >= 0).all()
    assert counted(rank) == 50


def test_without_a_quota_nothing_is_summed(tmp_path: Path) -> None:
    recording = Recording(tmp_path, None)
    for _ in range(20):
        recording.whole()
        recording.flush()
    rank = recording.close()
    assert rank.table("collectives").num_rows == 20
    assert rank.table("aggregates").num_rows == 0 and rank.info["aggregates"] is None


def test_a_day_takes_little_room(tmp_path: Path) -> None:
    recording = Recording(tmp_path, 0)
    seconds = 0.5
    for step in range(int(86_400 / seconds) // 40):
        recording.step = 40 * step  # each 40th is enough to see what is written
        for size in (4096, 8192, 16384, 1 << 20, 1 << 24):
            recording.whole(size + 64 * (step % 7))
        recording.next_step()
        recording.now += int(40 * seconds * SECOND)
        recording.flush()
    recording.close()
    sizes = {path.name: path.stat().st_size for path in recording.output.folder.iterdir()}
    assert recording.output.total_bytes < 1_500_000
    assert sum(sizes.values()) < 1_500_000


def see_one(aggregation: Aggregation, now_ns: int) -> None:
    slots = Slots()
    slots.issue(0, 0, 1, 1, now_ns, 2, -1, 0, -1, 0, 0, 0, 1, 0)
    aggregation.split(slots.drain(now_ns), now_ns)


def test_sums_are_written_ever_more_seldom_and_when_the_job_stands_still() -> None:
    aggregation = Aggregation(0)
    see_one(aggregation, 0)
    assert not aggregation.due(SOONEST_NS - 1) and aggregation.due(SOONEST_NS)
    hour, pause = 3600 * SECOND, 3600 * SECOND * 5000 // 2**18
    aggregation.written(5000, hour)
    see_one(aggregation, hour)
    assert pause > IDLE_NS
    assert not aggregation.due(hour + IDLE_NS - 1) and aggregation.due(hour + IDLE_NS)  # it may be killed
    see_one(aggregation, hour + pause - SECOND)
    assert not aggregation.due(hour + pause - 1) and aggregation.due(hour + pause)


def test_of_counters_the_newest_readings_are_kept() -> None:
    aggregation = Aggregation(0)
    assert aggregation.readings(Readings([1, 2, 3], [0, 1, 0], [10, 20, 30]), write=False) == Readings([], [], [])
    later = aggregation.readings(Readings([4], [1], [40]), write=True)
    assert later == Readings([3, 4], [0, 1], [30, 40])
    assert aggregation.readings(Readings([], [], []), write=True) == Readings([], [], [])
    off = Aggregation(None)
    assert off.readings(Readings([1], [0], [1]), write=False) == Readings([1], [0], [1])


def test_overhead_that_is_written_later_is_not_lost(tmp_path: Path) -> None:
    recording = Recording(tmp_path, 0)
    start = recording.now
    for second in range(10):
        recording.output.add_overhead(start + second, 7, 3, 1, 0, True, later=second % 5 != 4)
    rank = recording.close()
    rows = rank.columns("overhead", ["events", "hook_ns", "dropped"])
    assert {name: values.tolist() for name, values in rows.items()} == {
        "events": [35, 35],
        "hook_ns": [15, 15],
        "dropped": [5, 5],
    }


def test_sizes_without_end_are_not_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("commlens.trace.aggregates.MOST_KINDS", 8)
    recording = Recording(tmp_path, 0)
    for size in range(1, 101):
        recording.whole(size)
    rank = recording.close()
    columns = rank.columns("aggregates", ["kind", "in_bytes", "total_bytes"])
    assert set(columns["kind"].tolist()) == set(range(9))
    assert counted(rank) == 100 and columns["total_bytes"].sum() == sum(range(1, 101))
    assert columns["in_bytes"][columns["kind"] == 8].tolist() == [-1]
