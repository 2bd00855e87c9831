"""What charts are made of adds up to what the report says."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic import Collective, RankTruth, training_rank, write_run

from commlens.analyzers.by_step import MOST, step_lines
from commlens.analyzers.overlap_lines import overlap_lines
from commlens.analyzers.stages import Examined, examine
from commlens.analyzers.views.heat import find_heat
from commlens.trace import open_run

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from big_run import make_run, straggler


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    folder = tmp_path_factory.mktemp("runs") / "run"
    make_run(folder, 16, 14, 60, seed=5)
    return examine(open_run(folder))


def test_parts_of_each_step_add_up_to_it(examined: Examined) -> None:
    lines = examined.report.by_step
    assert [line.step for line in lines] == list(range(2, 14))
    for line in lines:
        assert line.exposed_wait_ms is not None and line.exposed_transfer_ms is not None
        exposed = line.exposed_wait_ms + line.exposed_transfer_ms + (line.exposed_unsplit_ms or 0)
        assert line.exposed_ms == pytest.approx(exposed, abs=1e-5)
        assert line.step_ms == pytest.approx(line.compute_ms + line.exposed_ms + line.other_ms, abs=1e-5)


def test_they_are_means_over_the_ranks(examined: Examined) -> None:
    steps = np.stack([facts.budget.step for facts in examined.ranks if facts.budget is not None]) / 1e6
    assert [line.step_ms for line in examined.report.by_step] == pytest.approx(steps.mean(axis=0), abs=1e-5)


def test_the_rank_that_works_longest_is_the_straggler(examined: Examined) -> None:
    named = [line.slowest for line in examined.report.by_step]
    assert named.count(straggler(16)) > len(named) / 2


def test_long_runs_are_told_in_stretches(tmp_path: Path) -> None:
    run = examine(open_run(write_run(tmp_path / "run", {rank: training_rank(MOST + 103) for rank in range(2)})))
    lines = run.report.by_step
    assert len(lines) <= MOST and sum(line.steps for line in lines) == MOST + 101
    assert [line.step for line in lines] == [2 + 2 * place for place in range(len(lines))]


def test_lines_of_overlap_add_up_to_what_is_exposed_and_hold_all_rows(examined: Examined) -> None:
    ranks, lines = examined.ranks, examined.report.overlaps
    exposed = sum(facts.exposed_ns.sum() for facts in ranks) / 1e6
    steps = {name: 0.0 for line in lines for name in [line.group]}
    for facts in ranks:
        words = facts.columns.words["group"]
        for name in {words.words[code] for code in words.codes[facts.analysed > 0]}:
            steps[name] += facts.steps.index.size
    assert sum(line.exposed_ms_per_step * steps[line.group] for line in lines) == pytest.approx(exposed, rel=1e-4)
    counted = sum(line.count_per_step * steps[line.group] for line in lines)
    assert counted == pytest.approx(sum(facts.analysed.sum() for facts in ranks), rel=1e-3)


def test_buckets_are_told_apart(examined: Examined) -> None:
    buckets = [line for line in examined.report.overlaps if line.bucket is not None]
    assert buckets and all(line.op == "all_reduce" for line in buckets)
    assert len({line.bucket for line in buckets}) > 1


def test_what_flies_beside_compute_is_hidden(tmp_path: Path) -> None:
    """One collective at a time: what lines say together is what the budget says."""
    run = examine(open_run(write_run(tmp_path / "run", {rank: training_rank(6) for rank in range(2)})))
    for line in run.report.overlaps:
        assert line.hidden_ms_per_step + line.exposed_ms_per_step > 0
    total = sum(line.exposed_ms_per_step for line in run.report.overlaps)
    assert total == pytest.approx(run.report.time_budget.exposed_ms, abs=1e-6)
    hidden = sum(line.hidden_ms_per_step for line in run.report.overlaps)
    assert hidden == pytest.approx(run.report.time_budget.hidden_ms, abs=1e-6)


def test_heat_adds_up_to_the_ranks_lines(examined: Examined) -> None:
    heat = find_heat(examined.ranks, examined.joined)
    assert heat is not None
    lines = examined.report.ranks
    assert heat.waited.mean(axis=1) == pytest.approx([line.wait_ms_per_step for line in lines], abs=1e-5)
    assert heat.caused.mean(axis=1) == pytest.approx([line.caused_wait_ms_per_step for line in lines], abs=1e-5)


def test_without_a_budget_there_is_nothing(tmp_path: Path) -> None:
    rows = [Collective(10, 20, 12, seq=number) for number in range(3)]
    run = examine(open_run(write_run(tmp_path / "run", {rank: RankTruth(rows) for rank in range(2)})))
    assert step_lines(run.ranks, run.joined) == () and overlap_lines(run.ranks, run.joined) == ()
    assert find_heat(run.ranks, run.joined) is None
