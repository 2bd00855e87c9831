"""The GPU proof pack, as far as it goes without a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from job_runs import execute

pytestmark = pytest.mark.job
SCRIPT = Path(__file__).parents[2] / "bench" / "gpu_check.py"


def test_the_pack_runs_on_gloo(tmp_path: Path, built: dict[str, str]) -> None:
    answer = tmp_path / "answer.json"
    options = ["--device", "cpu", "--quick", "--cache", built["COMMLENS_CACHE"], "-o", str(answer)]
    job = execute([sys.executable, str(SCRIPT), *options], {}, tmp_path, 300)
    checks = json.loads(answer.read_text())
    summary = json.loads(job.stdout.strip().splitlines()[-1])
    assert job.rc == 0 and summary["failed"] == 0, job.stdout
    assert checks["ddp-2"]["recorder"] == "native"
    assert checks["ddp-2"]["timing"] == {"host": checks["ddp-2"]["rows"]}
    assert checks["calls"]["rows"] == checks["calls"]["with_an_end"]
