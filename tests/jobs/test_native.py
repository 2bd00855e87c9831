"""The native recorder: what it knows beyond Python's, and that it holds under threads, failures and endings."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from job_runs import Launch, execute

from commlens.trace import open_run

pytestmark = pytest.mark.job

# Three threads, each with its own groups, keep both workers of every group busy; sizes name the group and the call.
THREADS = """
import threading
import torch
import torch.distributed as dist

store = dist.HashStore()
dist.init_process_group("gloo", store=store, rank=0, world_size=1)
groups = [dist.new_group([0], group_desc=f"group {number}") for number in range(6)]


def issue(mine):
    for round in range(300):
        works = []
        for group in mine:
            for size in (1 + round, 5000 + round, 20000 + round):
                works.append(dist.all_reduce(torch.ones(size), group=group, async_op=True))
                dist.reduce_scatter_tensor(torch.ones(size), torch.ones(size), group=group)
        for work in works:
            work.wait()


threads = [threading.Thread(target=issue, args=(groups[2 * number : 2 * number + 2],)) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def _alone(script: str, folder: Path, env: dict[str, str]) -> Any:
    (folder / "job.py").write_text(script)
    job = execute([sys.executable, str(folder / "job.py")], {"COMMLENS": str(folder / "runs"), **env}, folder)
    assert job.rc == 0, job.stderr
    return job


def test_spans_belong_to_their_collectives_whoever_issues_them(tmp_path: Path, built: dict[str, str]) -> None:
    job = _alone(THREADS, tmp_path, built)
    assert job.warnings == []
    rank = open_run(tmp_path / "runs").ranks[0]
    rows = [row for row in rank.table("collectives").to_pylist() if row["group_desc"].startswith("group ")]
    assert len(rows) == 6 * 300 * 6
    running = defaultdict(list)
    for row in rows:
        assert row["timing"] == "host" and row["source"] == "native"
        assert row["issued_ns"] <= row["started_ns"] <= row["completed_ns"] <= row["waited_ns"] + row["blocked_ns"], row
        running[row["group"]] += [(row["started_ns"], 1), (row["completed_ns"], -1)]
    assert len({row["thread"] for row in rows}) == 3
    for edges in running.values():  # two workers execute a group's queue: a span given to another would overlap
        at_once = most = 0
        for _, change in sorted(edges):
            at_once += change
            most = max(most, at_once)
        assert 1 <= most <= 2
    for name in running:
        numbers = [row["seq"] for row in rows if row["group"] == name]
        assert numbers == list(range(len(numbers)))


def test_sums_hold_every_collective_once_whoever_issues_them(tmp_path: Path, built: dict[str, str]) -> None:
    job = _alone(THREADS, tmp_path, {**built, "COMMLENS_QUOTA": "0"})
    assert job.warnings == []
    rank = open_run(tmp_path / "runs").ranks[0]
    rows = rank.table("aggregates").to_pylist()
    told = {desc["name"]: desc["desc"] for desc in rank.info["groups"]}
    rows = [row for row in rows if row["group"] is not None and told[row["group"]].startswith("group ")]
    assert rank.table("collectives").num_rows == 0
    for name in ("count", "ended", "started"):
        assert sum(row[name] for row in rows) == 6 * 300 * 6
    assert sum(row["waits"] for row in rows) == 6 * 300 * 6
    assert all(row["executed_ns"] <= row["duration_ns"] for row in rows)
    assert sum(rank.columns("aggregate_bins", ["count"])["count"]) >= 6 * 300 * 6


def test_starts_are_those_of_the_queue(tmp_path: Path, built: dict[str, str]) -> None:
    script = """
import torch
import torch.distributed as dist

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
works = [dist.all_reduce(torch.ones(8_000_000), async_op=True) for _ in range(8)]
for work in works:
    work.wait()
"""
    _alone(script, tmp_path, built)
    rows = open_run(tmp_path / "runs").ranks[0].table("collectives").to_pylist()
    starts, ends = [row["started_ns"] for row in rows], [row["completed_ns"] for row in rows]
    assert len(rows) == 8
    for place in range(2, 8):  # with two workers the i-th begins when one of those before it has ended
        assert starts[place] >= sorted(ends[:place])[place - 2]


def test_a_failure_is_the_jobs_own_and_has_no_end(launch: Launch, tmp_path: Path, built: dict[str, str]) -> None:
    script = """
    import datetime, os, time
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=2))
    dist.all_reduce(torch.ones(10))
    if dist.get_rank() == 1:
        time.sleep(1)
    work = dist.all_reduce(torch.ones(20), async_op=True)
    try:
        work.wait(timeout=datetime.timedelta(seconds=0.1 if dist.get_rank() == 0 else 100))
    except Exception as error:
        print("raised", type(error).__name__, str(error)[:40], flush=True)
        work.wait()
    if dist.get_rank() == 0:
        second = datetime.timedelta(seconds=1)
        later = lambda: dist.all_reduce(torch.ones(3), async_op=True).wait(timeout=second)
        for call in (lambda: dist.all_reduce(torch.ones(10)), later):
            try:
                call()
            except Exception as error:
                print("raised", type(error).__name__, str(error)[:40], flush=True)
    else:
        time.sleep(6)
    os._exit(0) if os.environ.get("COMMLENS") is None else None
    import sys
    from commlens.profiler import recorder
    recorder.finish()
    os._exit(0)
    """
    plain = launch(script)
    job = launch(script, env={"COMMLENS": str(tmp_path / "runs"), **built})
    assert job.rc == plain.rc == 0, job.stderr
    assert job.said("raised") == plain.said("raised") and len(job.said("raised")) == 3
    rows = open_run(tmp_path / "runs").ranks[0].table("collectives").to_pylist()
    assert [row["completed_ns"] is not None for row in rows] == [True, True, False, False]
    assert [row["waited_ns"] is not None for row in rows] == [True, True, False, False]


def test_what_a_synchronous_call_returns_is_unchanged(tmp_path: Path, built: dict[str, str]) -> None:
    script = """
import json, torch
import torch.distributed as dist
from torch._C._distributed_c10d import Work

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
work = dist.all_reduce(torch.ones(4), async_op=True)
answers = [work.wait(), Work.wait.__name__, bool(Work.wait.__doc__)]
answers.append(dist.barrier(async_op=True).wait(timeout=__import__("datetime").timedelta(seconds=3)))
answers.append(dist.all_reduce(torch.ones(2)))
answers.append(work.get_future().wait()[0].tolist())
print("answers", json.dumps(answers))
"""
    plain = execute([sys.executable, "-c", script], {}, tmp_path)
    job = _alone(script, tmp_path, built)
    assert job.said("answers") == plain.said("answers") and len(job.said("answers")) == 1


ODD = """
import threading, time
import torch
import torch.distributed as dist
from commlens.profiler import live
from commlens.profiler.groups import Groups
from commlens.profiler.native_log import NativeLog

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
log = live.recorder.collectives


def group(name):
    return dist.new_group([0], group_desc=name)


def on_a_thread(act):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


# Several spans for one call: no end is awaited that does not come, nor fewer than none.
many, inputs = group("several spans"), [torch.ones(10) for _ in range(3)]
many.allgather_into_tensor_coalesced([torch.ones(10) for _ in range(3)], inputs).wait()

# No span at all.
quiet = group("no spans")
torch._C._autograd._enable_record_function(False)
work = dist.all_reduce(torch.ones(10), group=quiet, async_op=True)
torch._C._autograd._enable_record_function(True)
work.wait()
dist.all_reduce(torch.empty(10, device="meta"), group=quiet, async_op=True)
patience = time.monotonic() + 10
while log.in_flight and time.monotonic() < patience:  # what sees the end may run after the wait has returned
    time.sleep(0.001)
print("in flight", log.in_flight)

# Works of synchronous calls that nobody waits for leave their addresses to others.
unwaited, options = group("unwaited"), dist.AllreduceOptions()
options.asyncOp = False
later = group("later")
for _ in range(20):
    unwaited.allreduce([torch.ones(10)], options)
    dist.all_reduce(torch.ones(10), group=later, async_op=True).wait()

# A model that is gone takes its buckets with it.
bucket = group("bucket")
dist.all_reduce(torch.ones(10), group=bucket)
name = live.recorder.groups.of(bucket).name
for layouts in ({name: [[40]]}, {}):
    log.buckets.lay_out(layouts)
    log.buckets.begin()
    dist.all_reduce(torch.ones(10), group=bucket)
    log.buckets.end()

# Each recording numbers threads anew.
again = NativeLog(log._native, Groups(lambda: None), live.recorder.phases)
on_a_thread(lambda: print("thread", again.thread()))
live.recorder.phases.on_step = log._log.set_step
"""


def test_odd_jobs(tmp_path: Path, built: dict[str, str]) -> None:
    job = _alone(ODD, tmp_path, built)
    assert job.warnings == []
    rows: dict[str, list[Any]] = defaultdict(list)
    for row in open_run(tmp_path / "runs").ranks[0].table("collectives").to_pylist():
        rows[row["group_desc"]].append(row)
    assert job.said("in flight") == ["0"]
    (several,) = rows["several spans"]
    assert several["timing"] == "host" and several["issued_ns"] <= several["started_ns"] <= several["completed_ns"]
    assert [(row["timing"], row["completed_ns"] is not None) for row in rows["no spans"]] == [("host", True)] * 2
    assert [row["waited_ns"] for row in rows["unwaited"]] == [None] * 20
    assert all(row["waited_ns"] is not None for row in rows["later"]) and len(rows["later"]) == 20
    assert [row["bucket"] for row in rows["bucket"]] == [None, 0, None]
    assert job.said("thread") == ["1"]


@pytest.mark.parametrize("recorder", ["python", "native"])
def test_threads_that_meet_a_group_at_once_share_its_numbers(
    tmp_path: Path, built: dict[str, str], recorder: str
) -> None:
    script = """
import threading, time
import torch
import torch.distributed as dist
from commlens.profiler import groups

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
asked = groups._gloo_workers


def slowly(process_group):  # others run meanwhile
    time.sleep(0.2)
    return asked(process_group)


groups._gloo_workers = slowly
group = dist.new_group([0], group_desc="new")
together = threading.Barrier(3)


def issue():
    together.wait()
    for _ in range(5):
        dist.all_reduce(torch.ones(10), group=group)


threads = [threading.Thread(target=issue) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    _alone(script, tmp_path, {**built, "COMMLENS_RECORDER": recorder})
    rank = open_run(tmp_path / "runs").ranks[0]
    rows = [row for row in rank.table("collectives").to_pylist() if row["group_desc"] == "new"]
    assert len({row["group"] for row in rows}) == 1
    assert sorted(row["seq"] for row in rows) == list(range(15))


def test_a_full_table_is_counted_and_the_job_goes_on(tmp_path: Path, built: dict[str, str]) -> None:
    script = """
import torch
import torch.distributed as dist
from commlens.profiler import live, native_log
native_log.CAPACITY = 100

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
for _ in range(5000):
    dist.all_reduce(torch.ones(1))
"""
    _alone(script, tmp_path, built)
    rank = open_run(tmp_path / "runs").ranks[0]
    dropped = sum(rank.columns("overhead", ["dropped"])["dropped"].tolist())
    assert dropped > 0
    assert rank.table("collectives").num_rows + dropped == 5000


def test_a_broken_library_costs_one_line(tmp_path: Path, built: dict[str, str]) -> None:
    cache = tmp_path / "cache"
    (library,) = Path(built["COMMLENS_CACHE"]).rglob("commlens_native.so")
    copy = cache / library.relative_to(built["COMMLENS_CACHE"])
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"not a library")
    script = "import torch.distributed as d\nd.init_process_group('gloo', store=d.HashStore(), rank=0, world_size=1)"
    job = _alone(script, tmp_path, {"COMMLENS_CACHE": str(cache), "COMMLENS_RECORDER": ""})
    (line,) = job.warnings
    assert "the native recorder cannot be used" in line and "commlens build" in line
    assert open_run(tmp_path / "runs").ranks[0].info["hooks"]["recorder"] == "dispatcher"


def test_what_others_may_write_is_not_loaded(tmp_path: Path, built: dict[str, str]) -> None:
    (library,) = Path(built["COMMLENS_CACHE"]).rglob("commlens_native.so")
    mode = library.stat().st_mode
    script = "import torch.distributed as d\nd.init_process_group('gloo', store=d.HashStore(), rank=0, world_size=1)"
    library.chmod(mode | stat.S_IWOTH)
    try:
        _alone(script, tmp_path, built)
    finally:
        library.chmod(mode)
    assert open_run(tmp_path / "runs").ranks[0].info["hooks"]["recorder"] == "dispatcher"


def test_what_breaks_inside_a_hook_costs_one_line(tmp_path: Path, built: dict[str, str]) -> None:
    script = """
import torch
import torch.distributed as dist
from commlens.profiler.groups import Groups

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
dist.all_reduce(torch.ones(1))
Groups.of = lambda self, group: 1 / 0
other = dist.new_group([0])
tensor = torch.ones(3)
dist.all_reduce(tensor, group=other)
dist.all_reduce(tensor)
print("sum", tensor.sum().item())
"""
    job = _alone(script, tmp_path, built)
    (line,) = job.warnings
    assert "ZeroDivisionError" in line
    assert job.said("sum") == ["3.0"]
    assert open_run(tmp_path / "runs").ranks[0].table("collectives").num_rows == 1


def test_a_forked_child_records_nothing(tmp_path: Path, built: dict[str, str]) -> None:
    script = """
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
dist.all_reduce(torch.ones(1))
child = os.fork()
if child == 0:
    from commlens.profiler import live
    print("child", live.recorder is None, flush=True)
    os._exit(0)
os.waitpid(child, 0)
dist.all_reduce(torch.ones(1))
"""
    job = _alone(script, tmp_path, built)
    assert job.said("child") == ["True"]
    assert open_run(tmp_path / "runs").ranks[0].table("collectives").num_rows == 2


def test_without_a_compiler_building_says_so(tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "CXX": None, "CC": None, "COMMLENS_CACHE": str(tmp_path / "cache")}
    job = execute([sys.executable, "-m", "commlens", "build", "--format", "json"], env, tmp_path)
    answers = json.loads(job.stdout)
    assert job.rc == 1
    assert [answers[part]["ok"] for part in ("native", "nccl_plugin")] == [False, False]
    assert all("no compiler" in line and "jobs go on without it" in line for line in job.stderr.strip().splitlines())
    assert not os.path.exists(tmp_path / "cache")  # noqa: PTH110
