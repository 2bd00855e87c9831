"""Deep windows joined with a light recording.

No recording of a GPU job is at hand, so one is made of a real trace: the recorder's rows are what it would have seen of
the same collectives (when they were issued, nothing of the device), the trace itself is the window. What is then told
of the window's steps must be what is told of the trace.
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commlens import Report, analyze, open_run
from commlens.trace import Rank, RankWriter, Run, write_run_info
from commlens.trace.columns import Integers
from commlens.trace.schema import MISSING, STEP_MARK

TRACES = Path(__file__).parents[3] / "shared" / "traces"
SETS = [
    "torchrec-dlrm-v100x4-opt2-slow",
    "torchrec-dlrm-v100x4-qcomm",
    "hta-nccl-args-a100-rank0of2",
    "megatron-tp8-a100",
]
AFTER = 40  # light steps after the window
SECOND = 1_000_000_000
WALL = 7_000_000_000  # the wall clock was set forward by that much between the start of the recording and the window
real = pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not beside this repository")


@pytest.fixture(autouse=True)
def cache_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMLENS_CACHE", str(tmp_path / "cache"))


@dataclass
class Light:
    """What the recorder saw of a rank whose trace is given; times are of its own clock."""

    rank: Rank
    clock_ns: int

    @property
    def marks(self) -> tuple[list[int], Integers]:
        """Numbers of the trace's steps, and their bounds."""
        phases = self.rank.columns("phases", ["phase", "name", "start_ns", "end_ns"])
        kind, names = self.rank.vocabulary("phases", "phase"), self.rank.vocabulary("phases", "name")
        rows = np.flatnonzero(phases["phase"] == kind.index(STEP_MARK))
        rows = rows[np.argsort(phases["start_ns"][rows])]
        numbers = [int(names[phases["name"][row]].split("#")[1]) for row in rows]
        return numbers, np.append(phases["start_ns"][rows], phases["end_ns"][rows[-1]]) + self.clock_ns

    def collectives(self) -> dict[str, Any]:
        """The trace's collectives without what a device tells, and of steps like its last one after it."""
        numbers = ["in_bytes", "out_bytes", "group_size", "peer", "issued_ns"]
        raw = self.rank.columns("collectives", [*numbers, "group", "op", "dtype"])
        order = np.argsort(raw["issued_ns"], kind="stable")
        early = np.random.default_rng(0).integers(2_000, 30_000, order.size)  # before the launch
        issued = np.empty_like(raw["issued_ns"])
        issued[order] = np.maximum.accumulate(raw["issued_ns"][order] + self.clock_ns - early)
        steps, bounds = self.marks
        last = order[(issued[order] >= bounds[-2]) & (issued[order] < bounds[-1])]
        again = np.concatenate([last] * AFTER) if last.size else last
        shift = np.repeat(np.arange(1, AFTER + 1), last.size) * (bounds[-1] - bounds[-2])
        rows = np.concatenate([order, again]).astype(np.intp)
        step = np.searchsorted(bounds, issued[order], side="right") + steps[0] - 1
        columns: dict[str, Any] = {name: raw[name][rows] for name in numbers}
        columns |= {
            name: (raw[name][rows].astype(np.int64), self.rank.vocabulary("collectives", name))
            for name in ("group", "op", "dtype")
        }
        columns["issued_ns"] = np.concatenate([issued[order], issued[again] + shift])
        columns["event"] = np.arange(rows.size)
        columns["seq"] = _numbers(columns["group"][0], order.size)
        columns["step"] = np.concatenate([step, np.repeat(np.arange(1, AFTER + 1), last.size) + steps[-1]])
        columns["thread"] = np.zeros(rows.size, np.int64)
        columns["source"] = (np.zeros(rows.size, np.int64), ["dispatcher"])
        columns["timing"] = (np.zeros(rows.size, np.int64), ["enqueue_only"])
        return columns

    def phases(self) -> dict[str, Any]:
        """An optimizer's step at the end of every step, from the one before the window on."""
        steps, bounds = self.marks
        further = bounds[-1] + np.arange(1, AFTER + 1) * (bounds[-1] - bounds[-2])
        ends = np.concatenate([bounds, further])
        return {
            "phase": (np.zeros(ends.size, np.int64), ["optimizer"]),
            "name": (np.zeros(ends.size, np.int64), ["AdamW"]),
            "start_ns": ends - 1000,
            "end_ns": ends,
            "step": np.arange(ends.size) + steps[0] - 1,
            "thread": np.zeros(ends.size, np.int64),
        }

    def window(self, state: str = "done") -> dict[str, Any]:
        steps, bounds = self.marks
        first = steps[0]
        return {
            "first_step": first,
            "steps": len(steps),
            "state": state,
            "why": None,
            "file": f"window-{first}.kineto.json.gz",
            "start_ns": int(bounds[0]) - SECOND,
            "end_ns": int(bounds[-1]) + SECOND,
            "clear_step": steps[-1] + 2,
            "stop_ns": 2_000_000,
            "export_ns": 1_000_000,
            "bytes": 1,
            "wall_offset_ns": WALL,
        }


def _numbers(groups: Integers, traced: int) -> Integers:
    """The number of each row in its group: the traces of the ranks end in the same step, they begin anywhere."""
    numbers = np.zeros(groups.size, np.int64)
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        numbers[own] = np.arange(own.size) - np.count_nonzero(own < traced) + 100_000
    return numbers


def recorded(path: Path, traces: Run) -> Path:
    """A recording of the job that the traces are of."""
    write_run_info(path, {"run_id": "made", "world_size": traces.world_size, "backend": "nccl"})
    for number, rank in traces.ranks.items():
        light = Light(rank, -WALL)
        writer = RankWriter(path, number)
        window = light.window()
        info = {
            **{key: rank.info.get(key) for key in ("host", "groups")},
            "rank": number,
            "run_id": "made",
            "clock": {"wall_offset_ns": 0},
            "windows": [window],
        }
        writer.write_info(info)
        writer.append("collectives", light.collectives())
        writer.append("phases", light.phases())
        writer.close()
        shutil.copy(rank.info["source"], writer.path / window["file"])
    return path


def budgets(report: Report) -> list[dict[str, Any]]:
    same = ("step_ms", "compute_ms", "exposed_ms", "exposed_wait_ms", "exposed_transfer_ms", "other_ms", "hidden_ms")
    return [{name: getattr(each, name) for name in same} for each in report.time_budget.per_rank]


@real
@pytest.mark.parametrize("name", SETS)
def test_windows_tell_of_their_steps_what_the_trace_tells(tmp_path: Path, name: str) -> None:
    traces = open_run(TRACES / name / "*.gz")
    whole, joined = analyze(traces), analyze(open_run(recorded(tmp_path / "run", traces)))
    assert whole.run.steps.analyzed > 0
    assert joined.run.steps.analyzed == whole.run.steps.analyzed
    assert joined.run.steps.count > AFTER
    for ours, theirs in zip(budgets(joined), budgets(whole), strict=True):
        # The clocks of the ranks of a trace are aligned anew, from readings of the issue that differ by microseconds.
        assert ours == pytest.approx(theirs, abs=0.1)
        assert {part: ours[part] for part in ("step_ms", "compute_ms", "exposed_ms")} == {
            part: theirs[part] for part in ("step_ms", "compute_ms", "exposed_ms")
        }
    (outside,) = [each for each in joined.abstentions if each.analysis == "outside-windows"]
    assert outside.reason.startswith(f"{whole.run.steps.analyzed} of {joined.run.steps.count} steps")


@real
def test_between_two_windows_nothing_is_known_of_the_device(tmp_path: Path) -> None:
    """The second window is the first once more, later by as much as the clock was set forward."""
    traces = open_run(TRACES / "hta-nccl-args-a100-rank0of2" / "*.gz")
    path = recorded(tmp_path / "run", traces)
    once = analyze(open_run(path))
    (folder,) = path.glob("rank-*")
    info = json.loads((folder / "rank.json").read_text())
    (first,) = info["windows"]
    later, step = 10 * SECOND, first["first_step"] + first["steps"] + 5
    again = {**first, "first_step": step, "file": f"window-{step}.kineto.json.gz", "wall_offset_ns": WALL - later}
    again |= {name: first[name] + later for name in ("start_ns", "end_ns")}
    shutil.copy(folder / first["file"], folder / again["file"])
    (folder / "rank.json").write_text(json.dumps({**info, "windows": [first, again]}))
    (line,), (whole,) = analyze(open_run(path)).device_lanes, once.device_lanes
    for name in ("span_ms", "compute_ms", "communication_ms", "exposed_ms", "host_bound_ms", "kernels"):
        assert getattr(line, name) == pytest.approx(2 * getattr(whole, name), abs=0.001)


@real
@pytest.mark.parametrize("name", SETS)
def test_every_collective_finds_its_own(tmp_path: Path, name: str) -> None:
    traces = open_run(TRACES / name / "*.gz")
    run = open_run(recorded(tmp_path / "run", traces))
    for number, rank in run.ranks.items():
        theirs = traces.ranks[number].columns("collectives", ["started_ns", "completed_ns", "op"])
        ours = rank.columns("collectives", ["started_ns", "completed_ns", "timing"])
        device = ours["timing"] == rank.vocabulary("collectives", "timing").index("device")
        found = ours["started_ns"][device] + WALL
        assert np.isin(found, theirs["started_ns"]).all()
        left = theirs["started_ns"].size - np.count_nonzero(device)
        assert left <= 2  # the trace begins within one, whose issue it does not have
        assert (ours["completed_ns"][~device] == MISSING).all()
        assert len(rank.notes) == (1 if left else 0)


def host_trace(path: Path, issues: list[float], begin_us: float = 10.0) -> None:
    """A trace of all-reduces on Gloo: issued at these times, us, begun 50 us and ended 450 us later."""
    events = [
        {"ph": "X", "cat": "cpu_op", "name": "c10d::allreduce_", "pid": 1, "tid": 1, "ts": t, "dur": 5} for t in issues
    ]
    events += [
        {"ph": "X", "cat": "user_annotation", "name": "gloo:all_reduce", "pid": 1, "tid": 2, "ts": t + 50, "dur": 400}
        for t in issues
    ]
    with gzip.open(path, "wt") as file:
        json.dump({"schemaVersion": 1, "traceEvents": events, "baseTimeNanoseconds": 0}, file)


def host_run(path: Path, issues: list[int], steps: list[int] | None = None, **window: Any) -> Rank:
    """A rank whose all-reduces on Gloo were issued at these times, ns, with a window of some of them."""
    count = len(issues)
    write_run_info(path, {"run_id": "made", "world_size": 1, "backend": "gloo"})
    writer = RankWriter(path, 0)
    described = {"first_step": 5, "steps": 3, "state": "done", "file": "window-5.kineto.json.gz", **window}
    writer.write_info({"rank": 0, "run_id": "made", "windows": [described]})
    writer.append(
        "collectives",
        {
            "event": np.arange(count),
            "op": (np.zeros(count, np.int64), ["all_reduce"]),
            "group": (np.zeros(count, np.int64), ["0"]),
            "issued_ns": np.array(issues),
            "step": np.array(steps or [MISSING] * count),
            "completed_ns": np.array(issues) + 460_000,
            "timing": (np.zeros(count, np.int64), ["host"]),
        },
    )
    writer.close()
    return open_run(path).ranks[0]


def test_on_gloo_a_window_tells_when_the_worker_began(tmp_path: Path) -> None:
    issues = [1_000_000 * at for at in range(1, 31)]
    rank = host_run(tmp_path / "run", issues, start_ns=10_000_000, end_ns=20_000_000)
    host_trace(rank.path / "window-5.kineto.json.gz", [at / 1e3 - 12 for at in issues[9:20]])
    rows = rank.columns("collectives", ["issued_ns", "started_ns", "completed_ns", "timing"])
    later = rows["started_ns"] - rows["issued_ns"]
    assert later[9:20].tolist() == [38_000] * 11
    assert (np.delete(later, range(9, 20)) == 0).all()  # of the others it is estimated
    assert (rows["completed_ns"] - rows["issued_ns"] == 460_000).all()
    assert rank.vocabulary("collectives", "timing")[rows["timing"][9]] == "host"
    assert rank.notes == []


@pytest.mark.parametrize("late", [[9], [19], [9, 10], [14, 15], [9, 19]])
def test_a_thread_that_lost_its_core_is_found_by_the_order(tmp_path: Path, late: list[int]) -> None:
    """It lost it between the two readings of an issue: the collective was issued later than the profiler says."""
    issues = [1_000_000 * at for at in range(1, 31)]
    steps = [4] * 9 + [5] * 4 + [6] * 4 + [7] * 3 + [8] * 10
    seen = [at / 1e3 - (700 if place in late else 0) for place, at in enumerate(issues)][9:20]
    rank = host_run(tmp_path / "run", issues, steps, start_ns=10_000_000, end_ns=20_000_000)
    host_trace(rank.path / "window-5.kineto.json.gz", seen)
    rank.table("collectives")
    assert rank.notes == []


def test_a_collective_that_the_recorder_dropped_takes_no_others_place(tmp_path: Path) -> None:
    issues = [1_000_000 * at + 40_000 * (at % 3) for at in range(1, 31)]
    rank = host_run(tmp_path / "run", issues[:14] + issues[15:], start_ns=10_000_000, end_ns=20_000_000)
    host_trace(rank.path / "window-5.kineto.json.gz", [at / 1e3 for at in issues[9:20]])
    rows = rank.columns("collectives", ["issued_ns", "started_ns"])
    found = rows["issued_ns"][rows["started_ns"] - rows["issued_ns"] == 50_000]
    assert set(found.tolist()) <= set(issues[9:20])
    assert found.size >= 5
    assert "were not found among those recorded" in rank.notes[0]


@pytest.mark.parametrize("what", ["missing", "cut off", "garbage"])
def test_a_window_that_cannot_be_read_leaves_the_rest(tmp_path: Path, what: str) -> None:
    issues = [1_000_000 * at for at in range(1, 31)]
    rank = host_run(tmp_path / "run", issues, start_ns=10_000_000, end_ns=20_000_000)
    path = rank.path / "window-5.kineto.json.gz"
    host_trace(path, [at / 1e3 for at in issues[9:20]])
    if what == "missing":
        path.unlink()
    elif what == "cut off":
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.write_bytes(b"no trace at all")
    assert rank.table("collectives").num_rows == 30
    if what != "cut off":
        assert len(rank.notes) == 1
        assert "rank 0" in rank.notes[0]


def test_the_imported_window_is_kept(tmp_path: Path) -> None:
    issues = [1_000_000 * at for at in range(1, 31)]
    rank = host_run(tmp_path / "run", issues, start_ns=10_000_000, end_ns=20_000_000)
    host_trace(rank.path / "window-5.kineto.json.gz", [at / 1e3 for at in issues[9:20]])
    rank.table("collectives")
    (kept,) = (tmp_path / "cache").iterdir()
    before = kept.stat().st_ino
    assert open_run(tmp_path / "run").ranks[0].table("collectives").num_rows == 30
    assert [each.stat().st_ino for each in (tmp_path / "cache").iterdir()] == [before]
