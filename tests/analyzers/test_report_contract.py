"""The report as a whole: its JSON contract, and that nothing makes it fail."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import RankTruth, training_rank, without_phases, write_run

from commlens import analyze, open_run
from commlens.analyzers import Report
from commlens.analyzers.abstentions import name_ranks

PARTS = {
    "run": "path world_size ranks_present ranks_missing hosts backend sources steps",
    "coverage": "collectives_seen collectives_matched collectives_unmatched kernels_unclassified match_key",
    "time_budget": "step_ms compute_ms exposed_transfer_ms exposed_wait_ms other_ms hidden_ms per_rank",
    "overhead": "us_per_collective percent_of_step trace_bytes",
}
LISTS = ("collectives", "cost_model", "ranks", "links", "findings", "abstentions")
PER_RANK = "rank step_ms compute_ms exposed_transfer_ms exposed_wait_ms other_ms hidden_ms overlap overlap_whole_trace"
RANK = "rank host arrives_last wait_ms_per_step caused_wait_ms_per_step"
COST = "group op scope alpha_us bandwidth_gb_s samples residual"
LINE = (
    "group op bytes count_per_step transfer_ms_p50 transfer_ms_p95 wait_ms_p50 wait_ms_p95 algbw_gb_s"
    " busbw_gb_s regime exposed_ms_per_step timing"
)


def report_of(path: Path, ranks: dict[int, RankTruth], world_size: int | None = None) -> Report:
    return analyze(open_run(write_run(path, ranks, world_size)))


def reasons(report: Report) -> dict[str, str]:
    return {each.analysis: each.reason for each in report.abstentions}


def test_every_key_of_the_contract(tmp_path: Path) -> None:
    whole = report_of(tmp_path, {rank: training_rank(6) for rank in range(2)}).to_dict()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert whole["schema_version"] == 1
    assert whole["producer"].startswith("commlens ")
    assert "critical_path" in whole
    for part, keys in PARTS.items():
        assert set(keys.split()) <= whole[part].keys()
    assert all(isinstance(whole[name], list) for name in LISTS)
    assert set(PER_RANK.split()) <= whole["time_budget"]["per_rank"][0].keys()
    assert set(LINE.split()) <= whole["collectives"][0].keys()
    assert whole["run"]["steps"].keys() == {"count", "analyzed", "how", "sampled_out", "sampled_steps"}
    clock = {"method": "one clock: all ranks are on one host", "uncertainty_us": 0, "refusal": None}
    assert whole["coverage"]["clock"] == clock
    assert whole["coverage"]["match_key"] == "group members and sequence number"
    assert set(RANK.split()) <= whole["ranks"][0].keys()
    assert set(COST.split()) <= whole["cost_model"][0].keys()
    assert whole["critical_path"].keys() == {"steps", "step_ms", "parts", "by_kind", "by_rank"}
    assert whole["critical_path"]["parts"][0].keys() == {"kind", "rank", "name", "ms"}


def test_absent_answers_are_null_and_explained(tmp_path: Path) -> None:
    report = report_of(tmp_path, {0: training_rank(6)})
    assert report.time_budget.exposed_wait_ms is report.time_budget.exposed_transfer_ms is None
    names = {"wait-transfer-split", "cost-model", "stragglers", "critical-path", "links"}
    assert reasons(report).keys() == names


def test_no_forward_is_said(tmp_path: Path) -> None:
    report = report_of(tmp_path, {0: training_rank(6), 1: training_rank(6, forward=False)})
    assert "counts as other" in reasons(report)["forward-phase"]
    assert "(rank 1)" in reasons(report)["forward-phase"]


def test_inferred_steps_are_said(tmp_path: Path) -> None:
    report = report_of(tmp_path, {0: without_phases(training_rank(10))})
    assert "inferred" in reasons(report)["step-boundaries"]
    assert report.time_budget.exposed_ms is None


def test_missing_and_empty_ranks_never_raise(tmp_path: Path) -> None:
    report = report_of(tmp_path, {0: training_rank(6), 3: RankTruth()}, world_size=5)
    assert report.run.ranks_missing == (1, 2, 4)
    assert reasons(report)["missing-ranks"] == "nothing is known of ranks 1-2, 4"
    assert "no collective was recorded (rank 3)" in reasons(report)["time-budget"]
    assert report.time_budget.exposed_ms == 45


def test_a_run_without_ranks(tmp_path: Path) -> None:
    report = report_of(tmp_path, {}, world_size=2)
    json.dumps(report.to_dict(), allow_nan=False)
    assert "no rank" in reasons(report)["time-budget"]


def test_own_cost(tmp_path: Path) -> None:
    cost = report_of(tmp_path, {rank: training_rank(6) for rank in range(2)}).overhead
    assert cost.us_per_collective == 4.0  # 3 us in hooks, 1 us the call into Python
    assert cost.percent_of_step == pytest.approx(100 * 2 * 4e-6 / 0.1)
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.arrows"))
    assert (cost.trace_bytes, cost.trampoline_known) == (on_disk, True)


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(4)), st.sets(st.integers(0, 3), max_size=3), st.integers(0, 40))
def test_rank_order_is_irrelevant_and_dropping_ranks_never_raises(
    order: list[int], dropped: set[int], cut: int
) -> None:
    truths = {rank: training_rank(4 + rank, collectives=rank + 1) for rank in range(4)}
    truths[2] = RankTruth(truths[2].collectives[:cut], truths[2].phases[:cut], ddp=True)
    with tempfile.TemporaryDirectory() as folder:
        kept = {rank: truths[rank] for rank in order if rank not in dropped}
        run = open_run(write_run(Path(folder), kept, world_size=4))
        report = analyze(run)
        run.ranks = {rank: run.ranks[rank] for rank in kept}
        assert analyze(run) == report
    assert set(report.run.ranks_present) == set(range(4)) - dropped


def test_ranks_in_words() -> None:
    assert name_ranks([3]) == "rank 3"
    assert name_ranks(np.array([5, 0, 1, 2]).tolist()) == "ranks 0-2, 5"
