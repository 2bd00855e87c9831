"""Real jobs that hang, disagree, or are ended: what is said of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from job_runs import Launch

from commlens.analyzers.across import stands
from commlens.analyzers.across.communicators import find_communicators
from commlens.analyzers.across.matching import match
from commlens.analyzers.findings.hangs import find_hangs
from commlens.analyzers.ranks import rank_facts
from commlens.analyzers.report import Abstention, Finding
from commlens.trace import open_run

pytestmark = pytest.mark.job

TRAIN = """
import os, signal, sys, time
from datetime import timedelta
import torch, torch.distributed as dist

dist.init_process_group("gloo")
rank = dist.get_rank()
world, groups = dist.group.WORLD, [dist.new_group([0, 1, 2]) for _ in range(2)]
parameter = torch.nn.Parameter(torch.ones(8))
optimizer = torch.optim.SGD([parameter], 0.1)

def step(*without):
    parameter.sum().backward()
    for size in (1000, 2000):
        dist.all_reduce(torch.ones(size))
    if "broadcast" not in without:
        dist.broadcast(torch.ones(50), 0)
    dist.all_gather([torch.ones(10) for _ in range(3)], torch.ones(10))
    optimizer.step()

for _ in range(40):
    step()
    time.sleep(0.01)
for group in (world, *groups):  # Gloo gives up after so long, and the rank ends
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=5), group)
"""


@pytest.fixture
def short_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these jobs need not stand as long as a hang lasts at least, also on a machine with hiccups."""
    monkeypatch.setattr(stands, "FLOOR_S", 3.0)
    monkeypatch.setattr(stands, "TIMES_NORMAL", 1.0)


def run(launch: Launch, path: Path, script: str) -> tuple[tuple[Finding, ...], tuple[Abstention, ...]]:
    """Findings and abstentions about a job of three ranks that ends one way or another."""
    job = launch(TRAIN + script, 3, env={"COMMLENS": str(path / "runs")})
    assert job.warnings == []
    opened = open_run(path / "runs")
    ranks = [rank_facts(opened.ranks[number]) for number in sorted(opened.ranks)]
    matched = [match(each, ranks) for each in find_communicators(ranks)]
    findings, progress, abstentions = find_hangs(ranks, matched, {n: rank.info for n, rank in opened.ranks.items()})
    assert {each.group for each in progress} >= {"0"}
    return findings, abstentions


def test_a_rank_that_skips_one_collective(launch: Launch, tmp_path: Path) -> None:
    script = """
step(*(["broadcast"] if rank == 2 else []))
step()
"""
    findings, abstentions = run(launch, tmp_path, script)
    assert len(findings) == 1, abstentions
    finding = findings[0]
    assert (finding.id, finding.ranks, finding.steps) == ("desync", (2,), (40,))
    assert finding.title.startswith("rank 2 seems to have skipped broadcast of 200 B float32, sequence 162 of group 0")


def test_other_dtypes_and_sizes(launch: Launch, tmp_path: Path) -> None:
    # torch says nothing of the first: the sums are wrong. The second leaves ranks 0 and 1 with a wrong sum too.
    script = """
dist.all_reduce(torch.ones(10, dtype=torch.int32 if rank == 2 else torch.float32), group=groups[0])
dist.all_reduce(torch.ones(4 if rank == 2 else 2))
step()
"""
    findings, _ = run(launch, tmp_path, script)
    assert [(each.id, each.ranks) for each in findings] == [("desync", (2,)), ("desync", (2,))]
    titles = sorted(each.title.split(": ", 1)[1] for each in findings)
    assert [title.split(" (step")[0] for title in titles] == [
        "rank 2: all_reduce of 16 B float32; ranks 0-1: all_reduce of 8 B float32",
        "rank 2: all_reduce of 40 B int32; ranks 0-1: all_reduce of 40 B float32",
    ]


@pytest.mark.usefixtures("short_floor")
def test_a_rank_that_has_one_fewer_of_alike_collectives(launch: Launch, tmp_path: Path) -> None:
    script = """
for k in range(50):
    if not (rank == 2 and k == 20):
        dist.all_reduce(torch.ones(500))
time.sleep(60)
"""
    findings, abstentions = run(launch, tmp_path, script)
    assert len(findings) == 1, abstentions
    finding = findings[0]
    assert (finding.id, finding.ranks) == ("hang", (2,))
    assert finding.title.startswith("rank 2 ")
    assert "ranks 0-1 waited 5." in finding.title
    assert "in all_reduce of 2.0 kB float32 (sequence 209 of group 0" in finding.title


@pytest.mark.usefixtures("short_floor")
def test_groups_entered_in_opposite_order(launch: Launch, tmp_path: Path) -> None:
    script = """
for group in groups if rank == 0 else reversed(groups):
    dist.all_reduce(torch.ones(5), group=group)
"""
    findings, abstentions = run(launch, tmp_path, script)
    assert len(findings) == 1, abstentions
    finding = findings[0]
    assert (finding.id, finding.ranks) == ("hang", (0, 1, 2))
    assert finding.title.startswith("deadlock: ")
    assert "rank 0 waits for ranks 1-2 in all_reduce of 20 B float32 (sequence 0 of group " in finding.title
    assert "ranks 1-2 wait for rank 0 in all_reduce of 20 B float32 (sequence 0 of group " in finding.title


ENDS = {
    "kill one": "rank == 2 and os.kill(os.getpid(), signal.SIGKILL)",
    "kill all": "os.kill(os.getpid(), signal.SIGKILL)",
    "Ctrl-C": "rank == 0 and [os.kill(pid, signal.SIGINT) for pid in (os.getppid(), *pids)]",
    "raise": "rank == 2 and 1 / 0",
}


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_is_ended_does_not_hang(launch: Launch, tmp_path: Path, end: str) -> None:
    script = f"""
pids = [None] * 3
dist.all_gather_object(pids, os.getpid())
until = time.monotonic() + 1.5
while True:
    step()
    if time.monotonic() > until:
        {ENDS[end]}
"""
    findings, abstentions = run(launch, tmp_path, script)
    if end == "raise" or findings:  # of a kill the others tell, where the launcher leaves them the time
        (finding,) = findings
        assert (finding.id, abstentions) == ("exception", ())
        assert finding.ranks == (2,) if end == "raise" else "rank 2 wrote no end" in finding.title
        assert end in ("raise", "kill one")
        return
    (abstention,) = abstentions
    assert abstention.analysis == "hang"
    assert ("no end (killed, or still running)" in abstention.reason) or ("too short to call" in abstention.reason)
