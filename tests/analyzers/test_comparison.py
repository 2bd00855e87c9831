"""Two runs side by side: what is matched with what, and the contract."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blocking_job import even_job, slower
from noisy_job import side_of
from synthetic import MS, RankTruth, write_run

from commlens import Report, analyze, open_run
from commlens.analyzers.comparison import Comparison, Side, compare, side
from commlens.analyzers.comparison.difference import LONGER, NOT_TOLD, Difference
from commlens.analyzers.stages import examine


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    """A healthy job of four ranks, and the same with rank 2 late by 20 ms and other message sizes."""
    even = even_job()
    late = replace(slower(even_job(seed=1), 2, 20 * MS), bytes=[4096, 8192, 8192])
    path = tmp_path_factory.mktemp("runs")
    return side_of(path / "even", even), side_of(path / "late", late)


@pytest.fixture(scope="module")
def compared(sides: tuple[Side, Side]) -> Comparison:
    return compare(*sides)


def test_a_difference() -> None:
    assert (Difference(80.0, 100.0).change_ms, Difference(80.0, 100.0).change_percent) == (20.0, 25.0)
    assert (Difference(None, 1.0).change_ms, Difference(0.0, 1.0).change_percent) == (None, None)


def test_what_became_longer(compared: Comparison) -> None:
    assert compared.step.change_ms == pytest.approx(20, abs=1)
    assert compared.step.verdict == LONGER
    assert compared.parts["compute_ms"].change_ms == pytest.approx(5, abs=1)  # one rank's 20 ms, mean over four
    assert compared.parts["exposed_wait_ms"].change_ms == pytest.approx(15, abs=1)
    assert compared.parts["exposed_wait_ms"].verdict == LONGER
    assert compared.parts["exposed_transfer_ms"].change_ms == pytest.approx(0, abs=0.1)
    assert compared.parts["exposed_transfer_ms"].verdict == NOT_TOLD
    assert (compared.refusals, compared.warnings, compared.changed) == ((), (), ())


def test_collectives_are_matched_by_group_operation_and_size(compared: Comparison) -> None:
    sizes = {each.bytes: each for each in compared.collectives}
    assert {size: each.count_per_step for size, each in sizes.items()} == {4096: (3, 1), 8192: (None, 2)}
    assert sizes[4096].exposed.verdict is not None
    assert sizes[8192].transfer == Difference(None, pytest.approx(2.0, abs=0.01))


def test_groups_are_the_sums_of_their_lines(compared: Comparison, sides: tuple[Side, Side]) -> None:
    for place, value in enumerate((compared.groups[0].exposed.before_ms, compared.groups[0].exposed.after_ms)):
        assert value == pytest.approx(sum(line.exposed_ms_per_step for line in sides[place].report.collectives))
    assert [each.group for each in compared.groups] == ["0"]


def test_ranks_and_findings(compared: Comparison) -> None:
    caused = [each.caused_wait.change_ms for each in compared.ranks]
    assert np.argmax(caused) == 2
    assert caused[2] == pytest.approx(20, abs=1)
    assert [each.compute.verdict == LONGER for each in compared.ranks] == [False, False, True, False]
    assert [each.wait.verdict == LONGER for each in compared.ranks] == [True, True, False, True]
    assert [(each.id, each.ranks) for each in compared.appeared] == [("straggler-rank", (2,))]
    assert (compared.gone, compared.stayed) == ((), ())


def test_the_other_way_round_what_was_found_is_gone(sides: tuple[Side, Side]) -> None:
    back = compare(sides[1], sides[0])
    assert [each.id for each in back.gone] == ["straggler-rank"]
    assert back.appeared == ()
    assert back.step.change_percent is not None
    assert back.step.change_percent < 0


def test_a_finding_that_stays_has_its_cost_in_both(sides: tuple[Side, Side], tmp_path: Path) -> None:
    worse = side_of(tmp_path / "worse", slower(even_job(), 2, 50 * MS))
    stayed = compare(sides[1], worse).stayed
    assert [(each.finding.id, each.finding.ranks) for each in stayed] == [("straggler-rank", (2,))]
    assert stayed[0].ceiling.change_ms == pytest.approx(30, abs=2)


def test_a_run_beside_itself_has_not_changed(sides: tuple[Side, Side]) -> None:
    same = compare(sides[1], sides[1])
    every = [same.step, *same.parts.values(), *(each.exposed for each in same.collectives)]
    assert {(each.change_ms, each.verdict) for each in every} <= {(0.0, NOT_TOLD), (None, None)}
    assert (same.appeared, same.gone) == ((), ())


def test_reports_alone_tell_intervals_of_the_budget(sides: tuple[Side, Side], compared: Comparison) -> None:
    found = compare(sides[0].report, sides[1].report)
    assert found.step.change_ms == compared.step.change_ms
    assert (found.step.verdict, found.parts["exposed_wait_ms"].verdict) == (LONGER, LONGER)
    assert found.parts["exposed_transfer_ms"].verdict == NOT_TOLD
    assert {each.exposed.verdict for each in found.collectives} == {None}
    assert {each.wait.verdict for each in found.ranks} == {None}


def test_few_steps_tell_no_interval(tmp_path: Path) -> None:
    few = side_of(tmp_path, even_job(ranks=2, steps=11))
    found = compare(few, few)
    assert (found.step.change_ms, found.step.low_ms, found.step.verdict) == (0.0, None, None)
    assert found.warnings[0].startswith("the first run has 9 steps: at least 10")


def test_one_rank_and_missing_ranks(sides: tuple[Side, Side], tmp_path: Path) -> None:
    """What ranks tell only together is unknown on that side, and nothing is made of it."""
    truths = even_job().truths()
    one = side(examine(open_run(write_run(tmp_path / "one", {1: truths[1]}, world_size=4))))
    two = side(examine(open_run(write_run(tmp_path / "two", {1: truths[1], 2: truths[2]}, world_size=4))))
    found = compare(sides[0], one)
    assert found.step.verdict == NOT_TOLD
    assert found.parts["exposed_wait_ms"].verdict is None
    assert [each.compute.verdict for each in found.ranks] == [None, NOT_TOLD, None, None]
    assert found.warnings == (
        "the second run lacks ranks 0, 2-3: means are over the others",
        "the second run does not tell what of it is waiting",
    )
    assert compare(sides[0], two).ranks[2].wait.change_ms is not None


def test_reports_that_know_nothing(tmp_path: Path) -> None:
    empty: Report = analyze(open_run(write_run(tmp_path / "empty", {0: RankTruth()})))
    found = compare(empty, empty)
    assert found.step == Difference(None, None)
    assert found.refusals == (
        "the first run has no step that could be analysed",
        "the second run has no step that could be analysed",
    )
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_contract(compared: Comparison) -> None:
    whole = compared.to_dict()
    assert json.loads(json.dumps(whole, allow_nan=False)) == whole
    assert whole["step"].keys() == {
        *("before_ms", "after_ms", "change_ms", "change_percent", "low_ms", "high_ms", "verdict")
    }
    assert whole["findings"].keys() == {"appeared", "gone", "stayed"}
    assert whole["before"]["steps"] == 20
    assert whole["ranks"][2].keys() == {"rank", "step", "compute", "exposed", "wait", "caused_wait"}
    assert whole["collectives"][0].keys() == {"group", "op", "bytes", "count_per_step", "exposed", "transfer"}
