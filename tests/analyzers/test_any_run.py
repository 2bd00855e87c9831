"""Whatever a trace says, the report is made, adds up, and is JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from any_run import ranks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import RankTruth, write_run

from commlens import analyze, open_run


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.integers(0, 4), ranks(), max_size=4))
def test_a_report_is_made_of_anything(truths: dict[int, RankTruth]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = analyze(open_run(write_run(Path(folder), truths, world_size=5)))
    whole = report.to_dict()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    if report.critical_path is not None:
        path = report.critical_path
        assert sum(part.ms for part in path.parts) == pytest.approx(path.step_ms, abs=1e-5)
    for rank in report.time_budget.per_rank:
        for name in ("exposed_wait_ms", "exposed_transfer_ms", "exposed_unsplit_ms"):
            assert (getattr(rank, name) or 0) >= 0
