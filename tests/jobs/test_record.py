"""`commlens.record()`: recording without the environment variable."""

from pathlib import Path

import pytest
from job_runs import Launch

from commlens.trace import open_run

JOB = """
import sys
import commlens
{before}
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
{after}
for _ in range(5):
    dist.all_reduce(torch.ones(4))
dist.destroy_process_group()
"""


@pytest.mark.job
@pytest.mark.parametrize("place", ["before", "after"])
def test_record_works_before_and_after_init(launch: Launch, tmp_path: Path, place: str) -> None:
    lines = {"before": "", "after": "", place: "commlens.record(sys.argv[1])"}
    job = launch(JOB.format(**lines), 2, str(tmp_path / "out"))
    assert (job.rc, job.warnings) == (0, [])
    run = open_run(tmp_path / "out")
    assert {rank: rows.table("collectives").num_rows for rank, rows in run.ranks.items()} == {0: 5, 1: 5}
