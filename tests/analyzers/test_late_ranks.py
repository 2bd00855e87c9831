"""Findings about ranks that are waited for: the right rank, the right cause, and nothing where nothing is wrong."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocking_job import BlockingJob, even_job, slower
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import MS, US, Phase, without_phases, write_run

from commlens import Finding, analyze, open_run
from commlens.analyzers.across.lateness import STEP, Lateness
from commlens.analyzers.across.stragglers import find_rotating


def findings(job: BlockingJob) -> tuple[Finding, ...]:
    with tempfile.TemporaryDirectory() as folder:
        return analyze(open_run(write_run(Path(folder), job.truths()))).findings


def evidence(finding: Finding) -> dict[str, float]:
    return {each.name: each.value for each in finding.evidence}


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), st.integers(0, 1000))
def test_an_even_job_has_no_finding(ranks: int, seed: int) -> None:
    assert findings(even_job(ranks, seed=seed)) == ()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 8), st.data(), st.floats(0.03, 0.6), st.integers(0, 1000))
def test_a_slow_rank_is_named_with_its_cost(ranks: int, data: st.DataObject, share: float, seed: int) -> None:
    rank, extra = data.draw(st.integers(0, ranks - 1)), int(share * 101 * MS)
    (finding,) = findings(slower(even_job(ranks, seed=seed), rank, extra))
    assert (finding.id, finding.ranks) == ("straggler-rank", (rank,))
    assert finding.title.startswith(f"rank {rank} is always late: longer compute in backward")
    assert finding.ceiling_ms == pytest.approx(extra / MS, abs=0.6)
    assert evidence(finding)["longer compute in backward"] == pytest.approx(extra / MS, abs=0.6)


def test_below_two_percent_there_is_no_finding() -> None:
    assert findings(slower(even_job(), 1, int(0.012 * 101 * MS))) == ()


@pytest.mark.parametrize("seed", range(5))
def test_ranks_that_take_turns_are_a_rotating_imbalance(seed: int) -> None:
    job = even_job(seed=seed, steps=30)
    work = job.work.copy()
    turn = np.random.default_rng(seed).integers(0, 4, 30)
    work[turn, np.arange(30), 1] += 8 * MS
    (finding,) = findings(replace(job, work=work))
    assert finding.id == "rotating-imbalance"
    assert finding.ceiling_ms == pytest.approx(8 * 3 / 4, abs=0.6)


def test_a_rank_that_is_late_in_most_steps_is_named_however_late_others_are_in_the_rest() -> None:
    job = even_job(steps=30)
    work = job.work.copy()
    others = np.arange(1, 30, 5)
    work[2, np.setdiff1d(np.arange(30), others), 1] += 20 * MS
    work[1, others, 1] += 90 * MS  # as long in a fifth of the steps as rank 2 in the others
    (finding,) = findings(replace(job, work=work))
    assert (finding.id, finding.ranks, finding.confidence) == ("straggler-rank", (2,), "medium")
    assert finding.title.startswith("rank 2 is late in most steps: longer compute in backward")
    assert evidence(finding)["steps in which it is last (waits least)"] == pytest.approx(80, abs=4)
    assert finding.ceiling_ms == pytest.approx(20, abs=0.6)


def test_a_rank_that_is_last_in_half_of_the_steps_does_not_just_take_its_turn() -> None:
    job = even_job(steps=30)
    work = job.work.copy()
    turn = np.where(np.arange(30) % 2, 3, np.arange(30) // 2 % 3)
    work[turn, np.arange(30), 1] += 20 * MS
    (finding,) = findings(replace(job, work=work))
    assert finding.title.startswith("now rank 3 is late, now another (longer compute in backward)")
    assert evidence(finding)["steps in which rank 3 is last (waits least); none is more often"] == pytest.approx(
        50, abs=2
    )


def test_a_rank_that_waits_as_little_as_another_is_not_called_last() -> None:
    wait = np.array([[0, 0, 0, 5, 5, 0], [5, 0, 5, 0, 5, 0], [5, 5, 5, 5, 0, 5]]) * float(MS)
    late = find_rotating(Lateness(STEP, np.arange(6), wait, True, False, 100.0 * MS, 1.0), np.arange(6))
    assert late is not None
    assert (late.foremost, late.share) == (0, pytest.approx(2 / 6))


def test_what_is_longer_before_forward_is_not_called_input(tmp_path: Path) -> None:
    truths = slower(even_job(steps=20), 1, 15 * MS).truths()
    for rank, truth in truths.items():
        load = 20 * MS if rank == 1 else 5 * MS
        backwards = [each for each in truth.phases if each.phase == "backward"]
        forwards = [Phase("forward", each.start_ns + load, each.start_ns + load + 9 * MS) for each in backwards]
        later = [replace(each, start_ns=each.start_ns + load + 9 * MS) for each in backwards]
        others = [each for each in truth.phases if each.phase != "backward"]
        phases = sorted([*forwards, *later, *others], key=lambda each: each.end_ns)
        truths[rank] = replace(truth, phases=phases)
    (finding,) = analyze(open_run(write_run(tmp_path, truths))).findings
    assert finding.title == "rank 1 is always late: longer before forward, 15 ms more than on the others"
    assert evidence(finding)["longer before forward"] == pytest.approx(15, abs=0.6)
    assert "input" not in "".join(evidence(finding))


@pytest.mark.parametrize("rank", [0, 3])
def test_a_rank_that_pauses_now_and_then_is_a_stall(rank: int) -> None:
    job = even_job(steps=34)
    work = job.work.copy()
    work[rank, 4::7, 2] += 120 * MS
    (finding,) = findings(replace(job, work=work))
    assert (finding.id, finding.ranks) == ("host-stall", (rank,))
    assert finding.steps == (4, 11, 18, 25, 32)


def test_one_pause_is_told_as_one() -> None:
    job = even_job(steps=34)
    work = job.work.copy()
    work[1, 20, 2] += 2000 * MS
    (finding,) = findings(replace(job, work=work))
    assert finding.title.startswith("rank 1 pauses now and then (once, 1500 ms): ")


def test_a_slow_host_is_named_as_one() -> None:
    job = even_job(hosts=("a", "a", "b", "b"))
    (finding,) = findings(slower(slower(job, 2, 12 * MS), 3, 12 * MS))
    assert (finding.id, finding.ranks) == ("straggler-rank", (2, 3))
    assert finding.title.startswith("host b (ranks 2-3) is always late")


def test_waiting_that_may_be_hidden_has_a_rank_but_no_price() -> None:
    def found(job: BlockingJob) -> tuple[Finding, ...]:
        with tempfile.TemporaryDirectory() as folder:
            truths = {rank: without_phases(truth) for rank, truth in job.truths().items()}
            return analyze(open_run(write_run(Path(folder), truths))).findings

    even = replace(even_job(steps=30), bytes=(4096, 8192, 12288))
    work = even.work.copy()
    work[np.arange(30) % 4, np.arange(30), 1] += 20 * MS
    assert found(replace(even, work=work)) == ()
    (finding,) = found(slower(even, 2, 20 * MS))
    assert (finding.id, finding.ranks, finding.ceiling_ms) == ("straggler-rank", (2,), None)


def test_one_rank_or_few_steps_give_no_verdict() -> None:
    assert findings(slower(even_job(steps=6), 1, 20 * MS)) == ()


def test_small_messages_that_pay_latency_are_found() -> None:
    count = 40
    work = np.full((2, 20, count), 200 * US) + np.random.default_rng(0).integers(0, 20 * US, (2, 20, count))
    transfer = np.where(np.arange(count) < count - 1, 900 * US, 10 * MS)
    sizes = [256] * (count - 1) + [64 << 20]
    (finding,) = findings(BlockingJob(work, transfer, bytes=sizes))
    assert finding.id == "small-collectives"
    (whole,) = (name for name in evidence(finding) if name.startswith("all_reduce of 256 B in group 0"))
    assert whole.endswith(", transfer of the usual collective (median over its ranks)")
    assert evidence(finding)[whole] == pytest.approx(0.9, rel=0.05)
    assert evidence(finding)["such collectives per step"] == count - 1
    assert finding.ceiling_ms == pytest.approx(0.9 * (count - 2), rel=0.05)
