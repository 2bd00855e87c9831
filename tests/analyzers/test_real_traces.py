"""Real traces against their reference answers, and where ours differ from HTA's on purpose, why."""

from __future__ import annotations

import gzip
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commlens import Report, analyze, open_run
from commlens.analyzers.across.joined import Joined, join
from commlens.analyzers.ranks import RankFacts, rank_facts

TRACES = Path(__file__).parents[3] / "shared" / "traces"
pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason="the real traces are not beside this repository")

TORCHREC = [f"torchrec-dlrm-v100x4-{name}" for name in ("opt2-slow", "opt2-fast", "opt5", "qcomm", "sleep")]
SETS = [
    *TORCHREC,
    "megatron-tp8-a100",
    "hta-sampled-a100-2of128",
    "hta-nccl-args-a100-rank0of2",
    "hta-ddp-v100-rank1of2-2020allreduce",
    "hta-trace-diff-control-a100-rank3of8",
    "tracelens-b200-rank0of8",
]


@cache
def reference(name: str) -> dict[str, Any]:
    """hta_reference.json of a set, its files by rank."""
    whole = json.loads((TRACES / name / "hta_reference.json").read_text())
    return {"by_rank": {each["rank"]: each for each in whole["independent_check"]["files"].values()}, **whole}


@cache
def stages(name: str) -> tuple[list[RankFacts], Joined]:
    run = open_run(TRACES / name / "*.gz")
    ranks = [rank_facts(rank) for rank in run.ranks.values()]
    return ranks, join(ranks)


@cache
def report_of(name: str) -> Report:
    return analyze(open_run(TRACES / name / "*.gz"))


@pytest.mark.parametrize("name", SETS)
def test_whole_trace_overlap_is_interval_arithmetic(name: str) -> None:
    """HTA's own numbers differ by up to 6 points: it drops the last step, and kernels launched before the trace."""
    for budget in report_of(name).time_budget.per_rank:
        expected = reference(name)["by_rank"][budget.rank]["overlap_pct_of_comm"]
        assert budget.overlap_whole_trace is not None
        assert 100 * budget.overlap_whole_trace == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("name", [name for name in SETS if name != "tracelens-b200-rank0of8"])
def test_lanes_are_interval_arithmetic(name: str) -> None:
    """The b200 set is left out: its reference takes 73 custom all-reduce kernels for compute."""
    for lane in report_of(name).device_lanes:
        expected = reference(name)["by_rank"][lane.rank]
        assert 1e3 * lane.communication_ms == pytest.approx(expected["comm_busy_us"], abs=1)
        assert 1e3 * lane.compute_ms == pytest.approx(expected["compute_busy_us"], abs=1)
        assert 1e3 * lane.exposed_ms == pytest.approx(expected["exposed_comm_us"], abs=1)
        busy = lane.span_ms - lane.gaps_ms - lane.host_bound_ms
        # Copies that nothing else hides, which the reference leaves out of "any": at most those.
        assert 1e3 * (busy - lane.copies_ms) == pytest.approx(
            expected["comm_busy_us"] + expected["compute_busy_us"] - expected["comm_compute_overlap_us"], abs=1
        )


@pytest.mark.parametrize("name", SETS)
def test_every_kernel_and_step_is_kept(name: str) -> None:
    ranks, _ = stages(name)
    for facts in ranks:
        expected = reference(name)["by_rank"][facts.rank]
        kinds = facts.columns.kernel_words["kind"]
        kernels = kinds.codes.size - int(kinds.equals("copy").sum())
        assert kernels == expected["gpu_kernels"]
        assert facts.steps.count == len(expected["profiler_steps"])
        assert facts.steps.index.size == facts.steps.count  # HTA drops the last


@pytest.mark.parametrize("name", SETS)
def test_a_wait_never_exceeds_the_collectives_own_time(name: str) -> None:
    ranks, joined = stages(name)
    for facts, waits in zip(ranks, joined.waits, strict=True):
        rows = facts.columns.collectives
        known = waits.wait_ns >= 0
        assert (waits.wait_ns[known] <= (rows["completed_ns"] - rows["started_ns"])[known]).all()


@pytest.mark.parametrize(
    ("name", "most_ms"),
    [
        ("torchrec-dlrm-v100x4-opt2-slow", 3137),
        ("torchrec-dlrm-v100x4-opt2-fast", 180.7),
        ("torchrec-dlrm-v100x4-sleep", 3033),
        ("torchrec-dlrm-v100x4-opt5", 166.3),
        ("torchrec-dlrm-v100x4-qcomm", 149.9),
        ("megatron-tp8-a100", 445.1),
    ],
)
def test_waiting_of_the_rank_that_waits_most(name: str, most_ms: float) -> None:
    """Two to ten times as much by index from each file's start, as others match."""
    _, joined = stages(name)
    most = max(float(np.maximum(waits.wait_ns, 0).sum()) for waits in joined.waits) / 1e6
    assert most == pytest.approx(most_ms, rel=1e-3)


@pytest.mark.parametrize("name", TORCHREC)
def test_the_sleeping_host_is_on_the_critical_path(name: str) -> None:
    """By HTA's critical paths, one a rank, guilty and victim look alike."""
    path = report_of(name).critical_path
    assert path is not None
    idle = {part.rank: part.ms for part in path.parts if part.kind == "host-bound"}
    assert max(idle, key=lambda rank: idle[rank]) == 2
    assert sum(part.ms for part in path.parts) == pytest.approx(path.step_ms, abs=1e-3)


def test_all_ranks_of_megatron_share_one_critical_path() -> None:
    path = report_of("megatron-tp8-a100").critical_path
    assert path is not None
    assert sum(path.by_rank[rank] for rank in ("0", "6")) > 0.85 * path.step_ms
    assert path.by_kind["transfer"] == pytest.approx(50.1, abs=0.5)  # the shortest part of every all-reduce


def test_launches_that_hold_up_a_device_are_named_with_their_time() -> None:
    """65.8 of 625 ms with nothing launched, 9.7 more launched and not begun: above a tenth of the step."""
    (found,) = (each for each in report_of("megatron-tp8-a100").considered if each.id == "hidden-syncs")
    assert found.verdict == "explained" and "65.8 ms a step with nothing launched" in found.reason


def test_slowed_compute_is_the_same_on_three_ranks() -> None:
    line = report_of("torchrec-dlrm-v100x4-opt5").contention[0]
    assert (line.name, line.ranks) == ("volta_sgemm_128x32_sliced1x4_nt", 3)
    assert line.slowdown == pytest.approx(1.14, abs=0.01)


def test_busbw_is_in_units_of_nccl_tests() -> None:
    """TraceLens prints 14.93 for this all-gather: GiB/s, labelled GB/s."""
    line = next(line for line in report_of("tracelens-b200-rank0of8").collectives if line.op == "all_gather")
    assert line.busbw_gb_s == pytest.approx(16.03, abs=0.01)
    assert line.bandwidth_basis == "duration including wait"


@pytest.mark.parametrize("name", [name for name in SETS if "rank" in name])
def test_one_rank_of_many_is_compared_with_nobody(name: str) -> None:
    report = report_of(name)
    assert all(line.arrives_last is None for line in report.ranks)
    assert {each.analysis for each in report.abstentions} >= {"stragglers", "wait-transfer-split", "missing-ranks"}


def test_two_ranks_of_128_are_refused() -> None:
    report = report_of("hta-sampled-a100-2of128")
    assert "matched by order" in (report.coverage.clock.refusal or "")
    assert {each.analysis for each in report.abstentions} >= {"stragglers", "critical-path", "wait-transfer-split"}
    assert report.time_budget.exposed_ms is not None  # what each rank tells by itself is answered


EDGES = TRACES / "hta-edge-cases"


@pytest.mark.parametrize("file", ["distributed_info_not_found", "rank_not_found", "rank_non_gpu"])
def test_a_trace_without_a_device_abstains(file: str) -> None:
    report = analyze(open_run(EDGES / f"{file}.json.gz"))
    assert report.run.ranks_present == (0,)
    assert report.time_budget.exposed_ms is None
    assert "no collective was recorded" in {each.reason for each in report.abstentions}


def test_a_gloo_rank_of_300_shows_its_collectives() -> None:
    report = analyze(open_run(EDGES / "rank-34.Jul_15_10_52_41.1074.pt.trace.json.gz"))
    assert (report.run.ranks_present, report.run.world_size, report.run.backend) == ((34,), 300, "gloo")
    assert report.coverage.collectives_seen == 10
    assert report.time_budget.exposed_ms is None


def test_one_gpu_without_communication_has_a_budget() -> None:
    report = analyze(open_run(EDGES / "mi250_minitoy_train_ROCm6_2_kineto.json.gz"))
    assert report.time_budget.exposed_ms == 0
    assert report.time_budget.overlap is None
    assert report.coverage.kernels_unclassified == 0


@pytest.mark.parametrize("seconds", [0.0005, 3.0, -40.0])
def test_clocks_of_hosts_that_the_files_do_not_name(seconds: float, tmp_path: Path) -> None:
    """A rank whose clock is off: the offset is seen, and who waits for whom stays."""
    for path in (TRACES / "megatron-tp8-a100").glob("*.gz"):
        if path.name == "megatron_kineto_3.json.gz":
            trace = json.loads(gzip.decompress(path.read_bytes()))
            for event in trace["traceEvents"]:
                event["ts"] += seconds * 1e6
            (tmp_path / path.name).write_text(json.dumps(trace))
        else:
            shutil.copy(path, tmp_path)
    report = analyze(open_run(tmp_path))
    assert report.coverage.clock.refusal is None
    assert report.coverage.clock.method.startswith("collectives")
    truth = {line.rank: line.wait_ms_per_step for line in report_of("megatron-tp8-a100").ranks}
    assert report.coverage.clock.uncertainty_us is not None
    assert report.coverage.clock.uncertainty_us < 600
    for line in report.ranks:
        assert line.wait_ms_per_step == pytest.approx(truth[line.rank], abs=3)
    assert report.findings[0].ranks == (0, 6)
