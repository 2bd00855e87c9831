"""COMMLENS_RANKS, COMMLENS_STEPS and COMMLENS_QUOTA in a real job: who and what is left out, and that nothing is lost
where full rows end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from job_runs import FIRST, LAST, Launch

from commlens import analyze, open_run

pytestmark = pytest.mark.job

STEPS = 400
# What a rank that is left out must be without is looked for in the rank itself.
JOB = f"""
{FIRST}
import sys, time
dist.init_process_group("gloo")
rank = dist.get_rank()
model = torch.nn.Linear(32, 32)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range({STEPS}):
    if rank == 2:
        time.sleep(0.006)
    model(torch.ones(8, 32)).sum().backward()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
    optimizer.step()
    optimizer.zero_grad()
loaded = sorted(name for name in sys.modules if name.startswith(("commlens.profiler.recorder", "pyarrow")))
hooked = "commlens" in dist.Work.wait.__code__.co_filename if hasattr(dist.Work.wait, "__code__") else False
sys.stdout.write(f"loaded {{rank}} {{len(loaded) > 0}} {{hooked}}\\n")  # in one piece: ranks print at once
{LAST}
"""


def test_a_rank_left_out_costs_nothing_and_the_others_keep_all(launch: Launch, tmp_path: Path) -> None:
    env = {"COMMLENS": str(tmp_path / "runs"), "COMMLENS_RANKS": "0:3:2", "COMMLENS_QUOTA": "25kB"}
    job = launch(JOB, 3, env=env)
    assert (job.rc, job.warnings) == (0, []), job.stderr
    assert job.said("loaded") == ["0 True True", "1 False False", "2 True True"]
    run = open_run(tmp_path / "runs")
    assert (list(run.ranks), run.missing, run.sampled_out) == ([0, 2], [], [1])
    for rank in run.ranks.values():
        first = rank.info["aggregates"]["from_step"]
        assert 0 < first < STEPS
        full, sums = (
            rank.columns("collectives", ["step"])["step"],
            rank.columns("aggregates", ["group", "count", "ended"]),
        )
        own = sums["group"] >= 0
        assert full.size == 2 * first and full.max() == first - 1
        assert full.size + sums["count"][own].sum() == 2 * STEPS
        assert np.array_equal(sums["count"], sums["ended"])
        assert rank.columns("phases", ["step"])["step"].max() == first - 1
        assert rank.columns("overhead", ["events"])["events"].sum() == 2 * STEPS
    report = analyze(run)
    assert report.run.ranks_sampled_out == (1,)
    assert report.aggregates is not None and report.aggregates.steps > 50
    waits = {each.rank: each.wait_ms_per_step_at_least for each in report.aggregates.per_rank}
    assert waits[0] is not None and waits[2] is not None and waits[0] > waits[2]


# What NCCL's plugin is told is noted, with the step in which it is.
TOLD = f"""
{FIRST}
import sys, time
from commlens.profiler import live, nccl_plugin
told = []
def note(what):
    told.append(f"{{what}}@{{live.recorder.phases.step if live.recorder else 0}}")
nccl_plugin.pause, nccl_plugin.resume = (lambda: note("pause")), (lambda: note("resume"))
{JOB.split("import sys, time")[1].replace("rank == 2", "rank == 1").split("loaded =")[0]}
sys.stdout.write(f"told {{rank}} {{' '.join(told)}}\\n")
{LAST}
"""


def test_chosen_steps_are_written_and_all_are_summed(launch: Launch, tmp_path: Path) -> None:
    choice = {"COMMLENS_STEPS": "20:400:20", "COMMLENS_QUOTA": "11kB", "COMMLENS_COUNTERS": "0"}
    job = launch(TOLD, 2, env={"COMMLENS": str(tmp_path / "runs"), **choice})
    assert (job.rc, job.warnings) == (0, []), job.stderr
    run = open_run(tmp_path / "runs")
    assert run.info["sampled_steps"] == choice["COMMLENS_STEPS"]
    ends = [rank.info["aggregates"]["from_step"] for rank in run.ranks.values()]
    for said, first, (number, rank) in zip(job.said("told"), ends, run.ranks.items(), strict=True):
        assert 20 < first < STEPS
        chosen = list(range(20, first, 20))
        steps, counts = np.unique(rank.columns("collectives", ["step"])["step"], return_counts=True)
        full = dict(zip(steps.tolist(), counts.tolist(), strict=True))
        assert {step: full.pop(step) for step in chosen} == dict.fromkeys(chosen, 2)
        assert full.keys() <= {*(step - 1 for step in chosen), first - 1}
        sums = rank.columns("aggregates", ["group", "count"])
        assert sums["count"][sums["group"] >= 0].sum() == 2 * (STEPS - first)
        assert rank.columns("phases", ["step"])["step"].max() == first - 1
        assert rank.columns("overhead", ["events"])["events"].sum() == 2 * STEPS
        paused = [f"{what}@{step}" for each in chosen for what, step in (("resume", each), ("pause", each + 1))]
        assert said.split()[: 2 + len(paused)] == [str(number), "pause@0", *paused]
        assert rank.columns("gradients", ["step"])["step"][:1].tolist() == [20]
    report = analyze(run)
    assert report.run.steps.analyzed == min(len(range(20, first, 20)) for first in ends)
    assert report.aggregates is not None and report.aggregates.steps > 20
