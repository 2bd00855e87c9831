"""Whatever a trace says, the report is made, adds up, and is JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import UNNUMBERED, Collective, Phase, RankTruth, write_run

from commlens import analyze, open_run
from commlens.trace.schema import OPS, TIMINGS

TIMES = st.integers(0, 400)
MAYBE = st.one_of(st.just(-1), TIMES)


@st.composite
def rows(draw: st.DrawFn) -> Collective:
    return Collective(
        issued_ns=draw(TIMES),
        completed_ns=draw(MAYBE),
        started_ns=draw(MAYBE),
        waited_ns=draw(MAYBE),
        blocked_ns=draw(MAYBE),
        op=draw(st.sampled_from(OPS)),
        group=draw(st.sampled_from(["0", "1"])),
        in_bytes=draw(st.sampled_from([-1, 0, 8, 4096])),
        out_bytes=draw(st.sampled_from([-1, 0, 8, 4096])),
        seq=draw(st.sampled_from([UNNUMBERED, 0, 1, 2, 3])),
        timing=draw(st.sampled_from(TIMINGS)),
        group_size=draw(st.integers(-1, 4)),
        thread=draw(st.integers(0, 1)),
        peer=draw(st.integers(-1, 4)),
    )


@st.composite
def ranks(draw: st.DrawFn) -> RankTruth:
    phases = [Phase("optimizer", end - 3, end) for end in draw(st.sampled_from([(), (20, 60, 150, 280, 400)]))]
    for _ in range(draw(st.integers(0, 4))):
        start = draw(TIMES)
        phases.append(Phase(draw(st.sampled_from(["forward", "backward"])), start, start + draw(TIMES)))
    members = st.lists(st.integers(0, 4), max_size=4, unique=True)
    groups = [{"name": name, "ranks": draw(members), "workers": draw(st.sampled_from([None, 1, 2]))} for name in "01"]
    info = {"boot_id": draw(st.sampled_from(["a", "b", None])), "groups": draw(st.sampled_from([groups, [], None]))}
    return RankTruth(draw(st.lists(rows(), max_size=10)), phases, ddp=draw(st.booleans()), info=info)


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
