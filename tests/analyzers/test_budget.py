"""Where a step's time goes, and the law that it adds up."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import MS, START, Collective, Phase, RankTruth, training_rank, without_phases, write_run

from commlens import open_run
from commlens.analyzers.ranks import RankFacts, rank_facts

TIMES = st.integers(0, 400)


def facts_of(path: Path, truth: RankTruth) -> RankFacts:
    return rank_facts(open_run(write_run(path, {0: truth})).ranks[0])


def test_the_chosen_truth(tmp_path: Path) -> None:
    budget = facts_of(tmp_path, training_rank(5)).budget
    assert budget is not None
    assert budget.step.tolist() == [100 * MS] * 3
    assert budget.compute.tolist() == [45 * MS] * 3
    assert budget.exposed.tolist() == [45 * MS] * 3
    assert budget.other.tolist() == [10 * MS] * 3
    assert budget.hidden.tolist() == [0] * 3


def test_hidden_is_in_flight_while_the_thread_works(tmp_path: Path) -> None:
    phases = [Phase("optimizer", 90 + 100 * k, 100 + 100 * k) for k in range(4)]
    rows = [Collective(210, 250, started_ns=220, waited_ns=240, blocked_ns=10)]
    facts = facts_of(tmp_path, RankTruth(rows, phases))
    budget = facts.budget
    assert budget is not None
    assert (budget.exposed.tolist(), budget.hidden.tolist()) == ([10, 0], [20, 0])
    assert budget.overlap == facts.overlap_whole_trace == 20 / 30


@st.composite
def anything(draw: st.DrawFn) -> RankTruth:
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        issued = draw(TIMES)
        wait = draw(st.booleans())
        done = draw(st.one_of(st.just(-1), st.integers(issued, 500)))
        row = Collective(issued, done, issued, issued + draw(TIMES) if wait else -1, draw(TIMES) if wait else -1)
        rows.append(row)
    phases = [Phase("optimizer", end - 3, end) for end in (20, 60, 150, 280, 400)]
    for _ in range(draw(st.integers(0, 6))):
        start = draw(TIMES)
        phases.append(Phase(draw(st.sampled_from(["forward", "backward"])), start, start + draw(TIMES)))
    return RankTruth(rows, phases, ddp=draw(st.booleans()))


@settings(max_examples=80, deadline=None)
@given(anything())
def test_the_parts_add_up_to_the_nanosecond(truth: RankTruth) -> None:
    with tempfile.TemporaryDirectory() as folder:
        facts = facts_of(Path(folder), truth)
    budget = facts.budget
    if budget is None:
        assert facts.refusal
        return
    assert np.array_equal(budget.compute + budget.exposed + budget.other, budget.step)
    for part in (budget.compute, budget.exposed, budget.other, budget.hidden):
        assert part.min() >= 0
    assert np.all(budget.hidden + budget.exposed <= budget.step)


def refusal_of(path: Path, truth: RankTruth) -> str:
    facts = facts_of(path, truth)
    assert facts.budget is None
    assert facts.refusal is not None
    return facts.refusal


def test_ends_that_nobody_saw_are_refused_not_zero(tmp_path: Path) -> None:
    phases = training_rank(5).phases
    rows = [Collective(START + k * MS) for k in range(500)]
    assert "known end" in refusal_of(tmp_path, RankTruth(rows, phases))


def test_cuda_without_device_times_is_refused(tmp_path: Path) -> None:
    phases = training_rank(5).phases
    waits = {"waited_ns": START + 2, "blocked_ns": 5, "timing": "enqueue_only"}
    assert "device" in refusal_of(tmp_path, RankTruth([Collective(START, **waits)], phases))  # type: ignore[arg-type]


def test_a_rank_without_phases_is_refused(tmp_path: Path) -> None:
    assert "backward" in refusal_of(tmp_path, without_phases(training_rank(10)))


def test_too_few_steps_are_refused(tmp_path: Path) -> None:
    assert "first two" in refusal_of(tmp_path, training_rank(2))


def test_a_recorder_that_could_not_see_waits_is_believed(tmp_path: Path) -> None:
    truth = training_rank(5, hooks={"waits": "Work.wait is built in"})
    assert "Work.wait is built in" in refusal_of(tmp_path, truth)
