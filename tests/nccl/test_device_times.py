"""Collectives of torch's dispatcher matched with NCCL's operations: every mapping, gaps, coalescing, several groups."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_log import Written, operation

from commlens import analyze
from commlens.trace.device_times import Joined, Membership, joined
from commlens.trace.nccl import layout
from commlens.trace.pack import write_pack
from commlens.trace.reader import open_run
from commlens.trace.schema import DEVICE_CLOCKS, DTYPES, MISSING, OPS, SOURCES, TIMINGS
from commlens.trace.writer import RankWriter, write_run_info

SIZE = 4
WORLD = {"name": "0", "desc": "default_pg", "ranks": [0, 1, 2, 3], "size": 4}
HALF = {"name": "5", "desc": "mesh_tp", "ranks": [1, 3], "size": 2}
DEVICE = DEVICE_CLOCKS.index("device")


class Job:
    """One rank's calls and what NCCL made of them, with the times at which each happened."""

    def __init__(self, groups: list[dict[str, Any]], rank: int = 1) -> None:
        self.groups, self.rank, self.time = groups, rank, 1_000_000
        self.calls: list[tuple[int, str, int, int, int, int]] = []
        self.operations: list[tuple[int, str, int, int, int]] = []
        self.truth: list[int] = []

    def call(self, group: int, op: str, in_bytes: int, out_bytes: int, peer: int = MISSING) -> int:
        self.time += 10_000 + len(self.calls) ** 2 % 911  # no regular steps, which would look like a coarse clock
        self.calls.append((group, op, in_bytes, out_bytes, peer, self.time))
        return len(self.calls) - 1

    def ran(self, row: int, communicator: int, op: str, size: int, peer: int = MISSING) -> None:
        self.time += 1_000
        self.operations.append((communicator, op, size, peer, self.time))
        self.truth.append(row)

    def rows(self) -> dict[str, Any]:
        table = np.array([each[2:] for each in self.calls], np.int64).reshape(-1, 4)
        return {
            "group": (np.array([each[0] for each in self.calls]), [group["name"] for group in self.groups]),
            "op": (np.array([OPS.index(each[1]) for each in self.calls]), OPS),
            "in_bytes": table[:, 0],
            "out_bytes": table[:, 1],
            "peer": table[:, 2],
            "issued_ns": table[:, 3],
            "timing": np.full(len(self.calls), TIMINGS.index("enqueue_only")),
        }

    def columns(self, kept: list[int] | None = None) -> dict[str, Any]:
        chosen = [self.operations[each] for each in (range(len(self.operations)) if kept is None else kept)]
        communicators = np.array([each[0] for each in chosen], np.int64)
        times = np.array([each[4] for each in chosen], np.int64)
        order = np.zeros(len(chosen), np.int64)
        for each in np.unique(communicators):
            order[communicators == each] = np.arange((communicators == each).sum())
        return {
            "communicator": (communicators, []),
            "order": order,
            "op": (np.array([OPS.index(each[1]) for each in chosen], np.int64), OPS),
            "bytes": np.array([each[2] for each in chosen], np.int64),
            "peer": np.array([each[3] for each in chosen], np.int64),
            "enqueued_ns": times,
            "start_ns": times + 500,
            "end_ns": times + 5_000,
            "clock": (np.full(len(chosen), DEVICE), DEVICE_CLOCKS),
            "graph": np.zeros(len(chosen), np.int64),
        }

    def joined(self, communicators: list[Membership], kept: list[int] | None = None) -> Joined:
        return joined(self.rows(), self.columns(kept), communicators, self.groups, self.rank)


def in_world(name: str = "") -> Membership:
    return Membership(name, 4, 1)


# operation, bytes in and out of rank 1 of 4, root; what NCCL runs in that rank: operation, bytes, peer
CASES: list[tuple[str, int, int, int, list[tuple[str, int, int]]]] = [
    ("all_reduce", 400, 400, MISSING, [("all_reduce", 400, MISSING)]),
    ("all_reduce", 700, 700, MISSING, [("all_reduce", 400, MISSING), ("all_reduce", 300, MISSING)]),  # coalesced
    ("all_gather", 100, 400, MISSING, [("all_gather", 100, MISSING)]),
    ("all_gather", 100, 370, MISSING, [("broadcast", size, peer) for peer, size in enumerate((90, 100, 100, 80))]),
    ("all_gather", 300, 1200, MISSING, [("all_gather", 100, MISSING), ("all_gather", 200, MISSING)]),
    ("reduce_scatter", 400, 100, MISSING, [("reduce_scatter", 100, MISSING)]),
    ("reduce_scatter", 370, 100, MISSING, [("reduce", size, peer) for peer, size in enumerate((90, 100, 100, 80))]),
    ("broadcast", 64, 64, 2, [("broadcast", 64, 2)]),
    ("reduce", 64, 64, 2, [("reduce", 64, 2)]),
    ("barrier", 0, 0, MISSING, [("all_reduce", 4, MISSING)]),
    ("all_to_all", 400, 400, MISSING, [(way, 100, peer) for peer in range(4) for way in ("send", "recv")]),
    ("all_to_all", 300, 500, MISSING, [("send", 150, 3), ("recv", 500, 0), ("send", 150, 2)]),  # uneven, some empty
    ("all_to_all", 400, 400, MISSING, [("all_to_all", 100, MISSING)]),  # NCCL's own
    ("gather", 100, 0, 2, [("send", 100, 2)]),
    ("gather", 100, 400, 1, [("recv", 100, peer) for peer in (0, 2, 3)]),
    ("scatter", 0, 100, 2, [("recv", 100, 2)]),
    ("scatter", 400, 100, 1, [("send", 100, peer) for peer in (0, 2, 3)]),
    ("send", 100, 0, 3, [("send", 100, 3)]),
    ("recv", 0, 100, 0, [("recv", 100, 0)]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{len(case[4])}-{case[4][0][0]}")
def test_each_collective_finds_what_nccl_makes_of_it(case: tuple[Any, ...]) -> None:
    op, moved_in, moved_out, root, ran = case
    job = Job([WORLD])
    for _ in range(3):
        row = job.call(0, op, moved_in, moved_out, root)
        for each in ran:
            job.ran(row, 0, *each)
    match = job.joined([in_world()])
    own = [number for number, (_, _, _, peer, _) in enumerate(job.operations) if op != "all_to_all" or peer != 1]
    assert [int(match.row[each]) for each in own] == [job.truth[each] for each in own]
    assert match.matched == match.asked == 3
    for row in range(3):
        times = [job.operations[each][4] for each in own if job.truth[each] == row]
        assert (match.started_ns[row], match.completed_ns[row]) == (min(times) + 500, max(times) + 5_000)


def test_every_operation_of_the_vocabulary_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(OPS)


def mixed(job: Job, random_: random.Random, count: int, communicators: dict[int, int]) -> None:
    """Collectives of several groups, of few sizes, so that many look alike."""
    for _ in range(count):
        group = random_.choice(list(communicators))
        size = random_.choice((64, 128))
        op = random_.choice(("all_reduce", "all_gather", "reduce_scatter", "broadcast"))
        members = len(job.groups[group]["ranks"])
        moved = {"all_gather": (size, size * members), "reduce_scatter": (size * members, size)}.get(op, (size, size))
        job.ran(job.call(group, op, *moved), communicators[group], op, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120), st.floats(0, 0.9))
def test_gaps_shift_nothing(seed: int, count: int, lost: float) -> None:
    """Whatever was not recorded of NCCL, what was is given to the right collective."""
    job = Job([WORLD, HALF])
    mixed(job, random.Random(seed), count, {0: 1, 1: 0})
    kept = [each for each in range(len(job.operations)) if random.Random(seed + each).random() >= lost]
    match = job.joined([Membership("", 2, 0), in_world()], kept)
    expected = [job.truth[each] for each in kept]
    assert match.row.tolist() == expected
    assert match.matched == len(kept)


def test_groups_alike_are_told_apart_by_when() -> None:
    other = {**WORLD, "name": "7", "desc": "again"}
    job = Job([WORLD, other])
    mixed(job, random.Random(3), 200, {0: 1, 1: 0})
    match = job.joined([in_world(), in_world()])
    assert match.row.tolist() == job.truth
    assert match.group.tolist() == [1 - each[0] for each in job.operations]


def test_a_name_tells_the_group() -> None:
    other = {**WORLD, "name": "7", "desc": "again"}
    job = Job([WORLD, other])
    job.ran(job.call(1, "all_reduce", 8, 8), 0, "all_reduce", 8)
    match = job.joined([in_world("again")])
    assert match.group.tolist() == [1]


def test_coalesced_calls_run_after_the_last_and_sorted_by_size() -> None:
    job = Job([WORLD])
    for _ in range(5):
        rows = [job.call(0, "all_reduce", size, size) for size in (8, 64, 16, 64)]
        for place in (1, 3, 2, 0):
            job.ran(rows[place], 0, "all_reduce", (8, 64, 16, 64)[place])
    match = job.joined([in_world()])
    assert match.matched == 20
    sizes = [each[2] for each in job.calls]
    assert [sizes[row] for row in match.row] == [each[2] for each in job.operations]
    assert [row // 4 for row in match.row.tolist()] == [row // 4 for row in job.truth]


def test_sends_may_have_a_communicator_of_two() -> None:
    job = Job([WORLD])
    for _ in range(4):
        job.ran(job.call(0, "all_reduce", 8, 8), 0, "all_reduce", 8)
        job.ran(job.call(0, "send", 32, 0, 3), 1, "send", 32, 1)
        job.ran(job.call(0, "recv", 0, 16, 0), 2, "recv", 16, 0)
    match = job.joined([in_world(), Membership("", 2, 0), Membership("", 2, 1)])
    assert match.row.tolist() == job.truth
    assert match.matched == 12


def test_what_a_graph_replayed_takes_no_calls_place() -> None:
    """It looks like the calls before it, and comes after them."""
    job = Job([WORLD])
    for _ in range(3):
        job.ran(job.call(0, "all_reduce", 8, 8), 0, "all_reduce", 8)
    for _ in range(2):
        job.ran(MISSING, 0, "all_reduce", 8)
    columns = job.columns()
    columns["graph"][3:] = 1
    match = joined(job.rows(), columns, [in_world()], job.groups, 1)
    assert match.row.tolist() == job.truth
    assert match.group.tolist() == [0] * 5
    assert match.started_ns.tolist() == columns["start_ns"][:3].tolist()


def test_another_ranks_communicator_is_nobodys() -> None:
    job = Job([WORLD])
    job.ran(job.call(0, "all_reduce", 8, 8), 0, "all_reduce", 8)
    match = job.joined([Membership("", 4, 2)])
    assert match.row.tolist() == [MISSING]
    assert match.matched == 0
    assert (match.asked, match.completed_ns.tolist()) == (1, [MISSING])


def test_an_operation_without_times_leaves_its_collective_without() -> None:
    job = Job([WORLD])
    row = job.call(0, "all_reduce", 24, 24)
    job.ran(row, 0, "all_reduce", 8)
    job.ran(row, 0, "all_reduce", 16)
    columns = job.columns()
    columns["end_ns"][1] = MISSING
    match = joined(job.rows(), columns, [in_world()], job.groups, 1)
    assert match.row.tolist() == [0, 0]
    assert match.matched == 0


def test_collectives_that_the_host_timed_are_left_alone() -> None:
    job = Job([WORLD])
    job.ran(job.call(0, "all_reduce", 8, 8), 0, "all_reduce", 8)
    rows = job.rows()
    rows["timing"][:] = TIMINGS.index("host")
    assert joined(rows, job.columns(), [in_world()], job.groups, 1).asked == 0


def test_device_times_of_others_are_kept_and_their_operations_found() -> None:
    job = Job([WORLD])
    for _ in range(2):
        job.ran(job.call(0, "all_reduce", 8, 8), 0, "all_reduce", 8)
    rows = job.rows()
    rows["timing"][0] = TIMINGS.index("device")
    match = joined(rows, job.columns(), [in_world()], job.groups, 1)
    assert match.row.tolist() == [0, 1]
    assert (match.asked, match.matched) == (1, 1)
    assert match.completed_ns[0] == MISSING


# ---- through the door ----

OFFSET = 1_700_000_000_000_000_000


def recorded(folder: Path, job: Job, timing: str = "enqueue_only") -> RankWriter:
    """A rank's folder as the recorder leaves it on a GPU."""
    write_run_info(folder, {"run_id": "it", "world_size": 4, "start_ns": OFFSET})
    writer = RankWriter(folder, job.rank)
    rows = job.rows()
    count = len(job.calls)
    writer.append(
        "collectives",
        {
            **{name: rows[name] for name in ("group", "op", "in_bytes", "out_bytes", "peer")},
            "event": np.arange(count) + 10,
            "group_desc": (rows["group"][0], [group["desc"] for group in job.groups]),
            "seq": np.arange(count),
            "dtype": (np.zeros(count, np.int64), DTYPES),
            "group_size": np.full(count, 4),
            "issued_ns": rows["issued_ns"] + OFFSET,
            "started_ns": np.full(count, MISSING),
            "completed_ns": np.full(count, MISSING),
            "source": (np.zeros(count, np.int64), SOURCES),
            "timing": (np.zeros(count, np.int64), [timing]),
        },
    )
    about = {"groups": job.groups, "pid": 42, "clock": {"wall_offset_ns": OFFSET}, "world_size": 4}
    writer.write_info({"run_id": "it", "rank": job.rank, **about})
    return writer


def written(job: Job) -> Written:
    log = Written(pid=42)
    log.communicator(0, id=0xABC, ranks=4, rank=1, name="", table=6)
    for communicator, op, size, peer, time in job.operations:
        log.add(
            operation(
                communicator, op, size, peer, enqueued_ns=time, before_ns=time - 50, start=time + 500, end=time + 5000
            )
        )
    return log


def recorded_with_log(folder: Path, count: int, pid: int = 42) -> Job:
    """Rank 1, whose process is 42, with `count` collectives; beside it the log of a process."""
    job = Job([WORLD])
    mixed(job, random.Random(1), count, {0: 0})
    recorded(folder, job).close()
    written(job).save(folder / "rank-00001" / f"nccl-node-{pid}.events")
    return job


def test_a_recorded_rank_gets_device_times(tmp_path: Path) -> None:
    job = recorded_with_log(tmp_path, 30)
    rank = open_run(tmp_path).ranks[1]
    table = rank.table("collectives")
    assert set(table.column("timing").to_pylist()) == {"device"}
    expected = [each[4] + OFFSET for each in job.operations]
    assert max(abs(a - b - 500) for a, b in zip(table.column("started_ns").to_pylist(), expected, strict=True)) < 600
    operations = rank.table("device_ops")
    assert operations.column("event").to_pylist() == table.column("event").to_pylist()
    assert rank.device_times is not None
    assert (rank.device_times.asked, rank.device_times.matched) == (30, 30)
    assert rank.device_times.note == "device times of 30 of 30 collectives, from 30 operations of NCCL"
    assert rank.trace_bytes > 30 * layout.RECORD_BYTES


def test_a_report_of_a_recorded_rank_knows_what_nccl_did(tmp_path: Path) -> None:
    """A collective of two operations, one of one, and what a graph replayed."""
    job = Job([WORLD])
    for size in (400, 300):
        job.ran(0, 0, "all_reduce", size)
    job.time = 0
    job.call(0, "all_reduce", 700, 700)
    job.time = 3_000_000
    job.ran(job.call(0, "all_gather", 100, 400), 0, "all_gather", 100)
    job.ran(MISSING, 0, "all_gather", 100)
    recorded(tmp_path, job).close()
    log = written(job)
    last = np.frombuffer(log.records.pop(), layout.OPERATION_RECORD).copy()
    last["flags"] |= layout.CAPTURED
    log._add(last[0])
    log.save(tmp_path / "rank-00001" / "nccl-node-42.events")
    report = analyze(open_run(tmp_path))
    found = {line.op: line.nccl for line in report.collectives}
    assert {op: (nccl.operations, nccl.channels, nccl.graph) for op, nccl in found.items() if nccl is not None} == {
        "all_reduce": (2, 2, 0),
        "all_gather": (1, 2, 1),
    }
    (replayed,) = report.nccl_replays
    assert (replayed.op, replayed.bytes, replayed.operations, replayed.per) == ("all_gather", 400, 1, "recording")
    assert replayed.device_ms == 0.0045
    cover = report.coverage.device_times
    assert cover is not None
    assert (cover.collectives, cover.by_plugin, cover.operations, cover.replayed) == (2, 2, 4, 1)
    assert cover.error_us_p50 is not None
    assert report.nccl_waits == ()  # no proxies on one node


def test_operations_are_there_whichever_table_is_read_first(tmp_path: Path) -> None:
    recorded_with_log(tmp_path, 5)
    assert open_run(tmp_path).ranks[1].table("device_ops").num_rows == 5


def test_in_a_pack_they_are_the_same(tmp_path: Path) -> None:
    recorded_with_log(tmp_path, 30)
    tables = ("collectives", "device_ops")
    before = [open_run(tmp_path).ranks[1].table(name).to_pylist() for name in tables]
    write_pack(tmp_path, [1], tmp_path / "node-00001.zip")
    shutil.rmtree(tmp_path / "rank-00001")
    rank = open_run(tmp_path).ranks[1]
    assert rank.columns("collectives", ["completed_ns"])["completed_ns"].size == 30
    assert [rank.table(name).to_pylist() for name in tables] == before
    assert rank.trace_bytes > 30 * layout.RECORD_BYTES


def test_another_processs_file_and_a_damaged_one_change_nothing(tmp_path: Path) -> None:
    recorded_with_log(tmp_path, 5, pid=43)
    rank = open_run(tmp_path).ranks[1]
    assert set(rank.table("collectives").column("timing").to_pylist()) == {"enqueue_only"}
    assert rank.device_times is None
    (tmp_path / "rank-00001" / "nccl-node-42.events").write_bytes(b"COMMLNCC")
    rank = open_run(tmp_path).ranks[1]
    assert set(rank.table("collectives").column("timing").to_pylist()) == {"enqueue_only"}
    assert rank.device_times is not None
    assert "ends within its header" in rank.device_times.note
