"""Ranks joined: what is matched, who waited how long, and that no clock can change what needs none."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocking_job import BlockingJob, even_job, slower
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import MS, START, US, Collective, Phase, RankTruth, write_run

from commlens import Report, analyze, open_run
from commlens.analyzers.across.joined import Joined, join
from commlens.analyzers.ranks import RankFacts, rank_facts
from commlens.trace.schema import MISSING


def joined(path: Path, truths: dict[int, RankTruth], world_size: int | None = None) -> tuple[list[RankFacts], Joined]:
    run = open_run(write_run(path, truths, world_size))
    ranks = [rank_facts(run.ranks[number]) for number in sorted(run.ranks)]
    return ranks, join(ranks)


def report_of(path: Path, truths: dict[int, RankTruth], world_size: int | None = None) -> Report:
    return analyze(open_run(write_run(path, truths, world_size)))


def table(found: Joined, name: str, job: BlockingJob) -> np.ndarray:
    return np.array([getattr(own, name) for own in found.waits]).reshape(job.work.shape)


def test_waits_and_transfers_are_exact_on_one_host(tmp_path: Path) -> None:
    job = slower(even_job(), 2, 9 * MS)
    ranks, found = joined(tmp_path, job.truths())
    assert found.clocks.refusal is None
    assert found.clocks.uncertainty_ns == found.unmatched == 0
    assert np.array_equal(table(found, "wait_ns", job), job.wait)
    assert np.all(table(found, "transfer_ns", job) == job.transfer)
    assert np.all(table(found, "shortest_ns", job) == job.transfer)
    assert np.array_equal(table(found, "last", job)[0], job.issued.argmax(axis=0))
    for own, facts, truth in zip(found.exposed, ranks, job.wait[:, 2:].sum(axis=2), strict=True):
        assert np.array_equal(own.wait, truth)
        assert facts.budget is not None
        assert np.array_equal(own.wait + own.transfer + own.unsplit, facts.budget.exposed)


def test_a_wall_clock_that_was_stepped_between_the_starts_of_two_ranks_is_no_offset(tmp_path: Path) -> None:
    job = even_job(ranks=2, offset=(0, 40 * MS))
    truths = job.truths()
    for rank, truth in truths.items():
        truth.info["clock"] = {"wall_offset_ns": START + job.offset[rank]}
    _, found = joined(tmp_path, truths)
    assert np.array_equal(table(found, "wait_ns", job), job.wait)


def test_ranks_of_one_host_that_contradict_each_other_are_not_joined(tmp_path: Path) -> None:
    report = report_of(tmp_path, even_job(ranks=2, offset=(0, 40 * MS)).truths())
    assert report.coverage.clock.refusal is not None
    assert "matched wrongly" in report.coverage.clock.refusal
    assert report.time_budget.exposed_wait_ms is None
    assert report.time_budget.exposed_ms is not None
    assert {"wait-transfer-split", "stragglers", "critical-path"} <= {each.analysis for each in report.abstentions}
    assert report.findings == ()


HOSTS = ("a", "a", "b", "b")


@settings(max_examples=25, deadline=None)
@given(st.integers(-3 * 10**9, 3 * 10**9), st.floats(-1e-4, 1e-4), st.integers(0, 100), st.booleans())
def test_any_clock_leaves_clock_free_results_alone_and_is_recovered(
    offset: int, drift: float, seed: int, late: bool
) -> None:
    plain = even_job(seed=seed, steps=30, hosts=HOSTS)
    plain = slower(plain, 3, 6 * MS) if late else plain
    skewed = replace(plain, offset=(0, 0, offset, offset), drift=(0, 0, drift, drift))
    with tempfile.TemporaryDirectory() as folder:
        _, one = joined(Path(folder, "plain"), plain.truths())
        _, two = joined(Path(folder, "skewed"), skewed.truths())
    assert two.clocks.refusal is None
    bound = two.clocks.uncertainty_ns
    # A wait is a difference of two ranks' times, each read on a clock that may also run 1e-4 too fast.
    error = np.abs(table(two, "wait_ns", skewed) - plain.wait)
    assert error.max() <= bound + 1e-4 * plain.wait.max() + 10
    same = np.abs(table(two, "shortest_ns", skewed) - table(one, "shortest_ns", plain))
    assert same.max() <= 1e-4 * plain.transfer.max() + 10


@pytest.mark.parametrize("seconds", [0.0, 3.0, -2.5])
def test_the_straggler_is_found_whatever_the_clocks(tmp_path: Path, seconds: float) -> None:
    job = slower(even_job(hosts=HOSTS, offset=(0, 0, *[int(seconds * 1e9)] * 2)), 2, 5 * MS)
    report = report_of(tmp_path, job.truths())
    (finding,) = report.findings
    assert (finding.id, finding.ranks) == ("straggler-rank", (2,))
    assert finding.ceiling_ms == pytest.approx(5, abs=0.3)


def test_two_hosts_that_never_meet_are_not_compared(tmp_path: Path) -> None:
    truths = even_job(ranks=2).truths()
    for rank, truth in truths.items():
        truth.info.update({"boot_id": f"boot {rank}", "groups": [{"name": "0", "ranks": [rank], "size": 1}]})
    report = report_of(tmp_path, truths)
    assert report.coverage.clock.refusal is not None
    assert "no collective joins" in report.coverage.clock.refusal


def without(truth: RankTruth, rows: slice) -> RankTruth:
    kept = list(truth.collectives)
    del kept[rows]
    return replace(truth, collectives=kept)


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("lost", [slice(0, 2), slice(-3, None), slice(20, 24)])
def test_lost_rows_leave_the_others_matched(tmp_path: Path, numbered: bool, lost: slice) -> None:
    job = slower(even_job(numbered=numbered), 1, 4 * MS)
    truths = job.truths()
    truths[1] = without(truths[1], lost)
    _, found = joined(tmp_path, truths)
    count = len(range(*lost.indices(job.work[0].size)))
    assert found.unmatched == 3 * count
    assert found.clocks.refusal is None
    wait = found.waits[0].wait_ns
    truth = job.wait[0].ravel()
    assert (wait == MISSING).sum() == count
    assert np.array_equal(wait[wait != MISSING], np.delete(truth, lost))


def test_a_missing_rank_never_raises_and_its_absence_is_no_transfer(tmp_path: Path) -> None:
    truths = slower(even_job(), 1, 9 * MS).truths()
    del truths[1]
    report = report_of(tmp_path, truths, world_size=4)
    assert report.run.ranks_missing == (1,)
    assert all(line.transfer_ms_p50 is None for line in report.collectives)
    assert report.cost_model == ()
    assert report.findings == ()


def test_the_parts_of_the_path_tile_the_steps_and_blame_the_late_rank(tmp_path: Path) -> None:
    job = slower(even_job(), 2, 20 * MS)
    path = report_of(tmp_path, job.truths()).critical_path
    assert path is not None
    assert sum(part.ms for part in path.parts) == pytest.approx(path.step_ms, abs=1e-3)
    assert sum(path.by_kind.values()) == pytest.approx(path.step_ms, abs=1e-3)
    assert sum(path.by_rank.values()) == pytest.approx(path.step_ms, abs=1e-3)
    assert path.by_kind["transfer"] == pytest.approx(job.transfer.sum() / 1e6, abs=1e-3)
    longest = job.work[:, 3:].max(axis=0).sum(axis=1).mean() / 1e6
    assert path.by_kind["compute"] == pytest.approx(longest + job.optimizer_ns / 1e6, rel=0.01)
    assert path.by_rank["2"] > 0.4 * path.step_ms


def test_a_stall_behind_a_queue_is_charged_to_what_the_group_is_doing(tmp_path: Path) -> None:
    """Three asynchronous collectives on two workers; the thread waits for the third, queued behind the first."""
    rows = {0: [], 1: []}  # type: dict[int, list[Collective]]
    phases = {0: [], 1: []}  # type: dict[int, list[Phase]]
    for step in range(6):
        t = START + step * 100 * MS
        for rank, late in ((0, 0), (1, 10 * MS)):  # rank 1 issues all three 10 ms later
            ends = [t + 20 * MS, t + 40 * MS, t + 50 * MS]
            begin = t + late
            for k, end in enumerate(ends):
                stands = {"waited_ns": begin + 3 * US, "blocked_ns": end - begin - 3 * US} if k == 2 else {}
                rows[rank].append(Collective(begin + k * US, end, seq=3 * step + k, **stands))
            phases[rank].append(Phase("optimizer", t + 60 * MS, t + 70 * MS, "AdamW"))
    group = {"name": "0", "ranks": [0, 1], "size": 2, "workers": 2}
    truths = {r: RankTruth(rows[r], phases[r], info={"groups": [group], "boot_id": "x"}) for r in rows}
    _, found = joined(tmp_path, truths)
    # Rank 0 stands still from 0 to 50 ms: until 10 both running collectives wait for rank 1; then bytes move.
    assert np.abs(found.exposed[0].wait / MS - 10).max() < 0.01
    assert np.abs(found.exposed[0].transfer / MS - 40).max() < 0.01
    assert np.abs(found.exposed[1].wait / MS).max() < 0.01


def test_a_receiver_waits_for_its_sender(tmp_path: Path) -> None:
    rows = {0: [], 1: []}  # type: dict[int, list[Collective]]
    for k in range(5):
        t = START + k * 50 * MS
        rows[0].append(Collective(t + 20 * MS, t + 22 * MS, op="send", seq=k))
        rows[1].append(Collective(t, t + 23 * MS, op="recv", seq=k))
    truths = {
        0: RankTruth([replace(row, peer=1) for row in rows[0]]),
        1: RankTruth([replace(row, peer=0) for row in rows[1]]),
    }
    _, found = joined(tmp_path, truths)
    assert found.unmatched == 0
    assert set(found.waits[1].wait_ns.tolist()) == {20 * MS}
    assert set(found.waits[1].transfer_ns.tolist()) == {3 * MS}
    assert set(found.waits[0].wait_ns.tolist()) == {0}


def test_only_the_root_of_a_reduce_waits_and_only_the_others_of_a_broadcast(tmp_path: Path) -> None:
    def rows(late: int, end: int) -> list[Collective]:
        return [
            Collective(START + late, START + end, op="reduce", seq=0, peer=0),
            Collective(START + 100 * MS + late, START + 100 * MS + end, op="broadcast", seq=1, peer=0),
        ]

    group = {"groups": [{"name": "0", "ranks": [0, 1], "size": 2}], "boot_id": "x"}
    truths = {0: RankTruth(rows(0, 12 * MS), info=group), 1: RankTruth(rows(10 * MS, 13 * MS), info=group)}
    _, found = joined(tmp_path, truths)
    assert found.waits[0].wait_ns.tolist() == [10 * MS, 0]
    assert found.waits[1].wait_ns.tolist() == [0, 0]


@pytest.mark.parametrize("numbered", [True, False])
def test_collectives_that_nobody_ends_contradict_nothing(tmp_path: Path, numbered: bool) -> None:
    truths = even_job(steps=6, numbered=numbered).truths()
    for rank, truth in truths.items():
        hung = replace(truth.collectives[-1], completed_ns=MISSING, waited_ns=MISSING, blocked_ns=MISSING)
        truths[rank] = replace(truth, collectives=[*truth.collectives[:-1], hung])
    _, found = joined(tmp_path, truths)
    assert found.clocks.refusal is None


def test_what_may_be_waiting_for_a_missing_rank_is_not_called_transfer(tmp_path: Path) -> None:
    work = np.full((3, 6, 1), 10 * MS)
    work[1], work[2] = 14 * MS, 30 * MS
    job = BlockingJob(work, np.array([4 * MS]))
    truths = {rank: truth for rank, truth in job.truths().items() if rank != 2}
    budget = analyze(open_run(write_run(tmp_path / "run", truths, world_size=3))).time_budget
    # Rank 0 surely waits 4 ms for rank 1. The 20 ms that follow are 16 of waiting for rank 2 and 4 of transfer.
    assert budget.per_rank[0].exposed_wait_ms == pytest.approx(4)
    assert budget.per_rank[0].exposed_unsplit_ms == pytest.approx(20)
    assert budget.exposed_transfer_ms == 0
