"""COMMLENS_RANKS and COMMLENS_QUOTA in a real job: who is left out, and that nothing is lost where full rows end."""

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
