"""Where steps begin and end."""

from __future__ import annotations

from pathlib import Path

from synthetic import MS, START, Collective, Phase, RankTruth, training_rank, without_phases, write_run

from commlens import open_run
from commlens.analyzers.columns import read_columns
from commlens.analyzers.steps import FROM_OPTIMIZER, INFERRED, NONE, Steps, find_steps


def steps_of(tmp_path: Path, truth: RankTruth) -> Steps:
    return find_steps(read_columns(open_run(write_run(tmp_path, {0: truth})).ranks[0]))


def test_from_the_second_optimizer_end_to_the_last(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, training_rank(5))
    assert steps.how == FROM_OPTIMIZER
    assert steps.count == 5
    assert steps.index.tolist() == [2, 3, 4]
    assert ((steps.start_ns - START) // MS).tolist() == [200, 300, 400]
    assert ((steps.end_ns - START) // MS).tolist() == [300, 400, 500]


def test_the_optimizer_that_steps_first_is_the_primary_one(tmp_path: Path) -> None:
    phases = []
    for k in range(4):
        t = START + k * 100
        phases += [Phase("optimizer", t + 10, t + 20, "SGD"), Phase("optimizer", t + 30, t + 40, "Adam")]
    steps = steps_of(tmp_path, RankTruth(phases=phases))
    assert (steps.end_ns - START).tolist() == [220, 320]


def test_two_optimizer_steps_leave_nothing_to_analyse(tmp_path: Path) -> None:
    assert steps_of(tmp_path, training_rank(2)).index.size == 0


def test_inferred_from_the_signature_where_no_optimizer_was_seen(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, without_phases(training_rank(10)))
    assert steps.how == INFERRED
    assert steps.index.tolist() == list(range(2, 9))
    assert set((steps.end_ns - steps.start_ns).tolist()) == {100 * MS}


def test_no_steps_without_optimizer_or_repetition(tmp_path: Path) -> None:
    rows = [Collective(START + k, START + k + 1, in_bytes=k + 1) for k in range(9)]
    steps = steps_of(tmp_path, RankTruth(rows))
    assert (steps.how, steps.count, steps.index.size) == (NONE, 0, 0)
