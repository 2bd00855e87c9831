"""Planted changes are found, noise is not: runs whose steps scatter by known amounts."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest
from noisy_job import noisy_job, scattered, side_of
from numpy.typing import NDArray
from synthetic import without_phases, write_run

from commlens.analyzers import Report
from commlens.analyzers.comparison import compare, side
from commlens.analyzers.comparison.difference import LEVEL, LONGER, NOT_TOLD, SHORTER, Known, difference
from commlens.analyzers.gating import PASSED, TRIPPED, judge_comparison, parse_regress
from commlens.analyzers.stages import examine
from commlens.analyzers.steps import INFERRED
from commlens.trace import open_run

_SEEDS = 200


def report_of(like: Report, steps: NDArray[np.float64]) -> Report:
    """A report whose steps took these times, ms; all of them computing."""
    lines = [replace(like.by_step[0], step=k, step_ms=ms, compute_ms=ms) for k, ms in enumerate(steps.tolist())]
    median = float(np.median(steps))
    return replace(like, by_step=tuple(lines), time_budget=replace(like.time_budget, step_ms=median, compute_ms=median))


@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_equal_runs_are_called_longer_no_more_often_than_the_level_says(tmp_path: Path, kept: float) -> None:
    """200 pairs of runs of one job with 40 steps; the level is of both directions."""
    like = side_of(tmp_path, noisy_job(0)).report
    random = np.random.default_rng(7)
    told = 0
    for _ in range(_SEEDS):
        pair = [report_of(like, 100 + scattered(random, 40, kept)) for _ in range(2)]
        told += compare(*pair).step.told
    assert told <= (1 - LEVEL) * _SEEDS


def chance_allows(count: int, share: float) -> int:
    """How many of `count` events of probability `share` happen at most, but for one time in a thousand."""
    left, most = 1.0, -1
    while left > 0.001:
        most += 1
        left -= comb(count, most) * share**most * (1 - share) ** (count - most)
    return most


def test_the_level_holds_for_all_lines_of_a_table_together(tmp_path: Path) -> None:
    wrong = {"parts": 0, "collectives": 0, "compute": 0, "waits": 0}
    for seed in range(16):
        found = compare(*(side_of(tmp_path / f"{seed}-{k}", noisy_job(2 * seed + k)) for k in (0, 1)))
        wrong["parts"] += any(each.told for each in found.parts.values())
        wrong["collectives"] += any(each.exposed.told or each.transfer.told for each in found.collectives)
        wrong["compute"] += any(each.compute.told for each in found.ranks)
        wrong["waits"] += any(each.wait.told for each in found.ranks)
    assert max(wrong.values()) <= chance_allows(16, 1 - LEVEL)


def test_a_step_five_percent_longer_in_noise_of_one_percent_is_found(tmp_path: Path) -> None:
    inside = 0
    for seed in range(10):
        before, after = (
            side_of(tmp_path / f"{seed}-{k}", noisy_job(2 * seed + k, slower=slower))
            for k, slower in enumerate((1.0, 1.05))
        )
        found = compare(before, after)
        assert found.step.verdict == LONGER
        assert found.step.low_ms is not None
        assert found.step.high_ms is not None
        inside += found.step.low_ms < 2 * 40 * 0.05 < found.step.high_ms
        assert found.parts["compute_ms"].verdict == LONGER
        assert found.parts["exposed_transfer_ms"].verdict == NOT_TOLD
        assert [each.compute.verdict for each in found.ranks] == [LONGER, LONGER]
        assert {each.transfer.verdict for each in found.collectives} == {NOT_TOLD}
        assert compare(after, before).step.verdict == SHORTER
        gates = [parse_regress(text) for text in ("2%", "7%", "compute=2%", "transfer=2ms")]
        states = [each.state for each in judge_comparison(gates, found)]
        assert states == [TRIPPED, PASSED, TRIPPED, PASSED]
    assert inside >= 9  # the interval is of 95 %


def test_steps_without_a_budget_tell_how_sure_their_length_is(tmp_path: Path) -> None:
    """Inferred from the signature: nothing of a job without an optimizer is known but when its collectives were."""
    sides = []
    for place, slower in enumerate((1.0, 1.05)):
        truths = noisy_job(place, slower=slower).truths()
        bare = {rank: without_phases(truth) for rank, truth in truths.items()}
        sides.append(side(examine(open_run(write_run(tmp_path / str(place), bare)))))
    assert [each.report.run.steps.how for each in sides] == [INFERRED, INFERRED]
    found = compare(*sides)
    assert (found.parts["compute_ms"].before_ms, found.step.verdict) == (None, LONGER)
    assert found.step.low_ms is not None
    assert found.step.high_ms is not None
    assert found.step.low_ms < 2 * 40 * 0.05 < found.step.high_ms
    assert [each.step.verdict for each in found.ranks] == [LONGER, LONGER]
    assert {each.wait.verdict for each in found.ranks} == {None}
    assert {each.transfer.verdict for each in found.collectives} == {NOT_TOLD}
    gates = [parse_regress(text) for text in ("2%", "7%")]
    assert [each.state for each in judge_comparison(gates, found)] == [TRIPPED, PASSED]


def test_noise_hides_small_changes_and_strictness_does_not_let_them_pass(tmp_path: Path) -> None:
    """6 % more work in noise of 30 %."""
    jobs = noisy_job(0, noise=0.3), noisy_job(1, noise=0.3, slower=1.06)
    found = compare(*(side_of(tmp_path / str(k), job) for k, job in enumerate(jobs)))
    assert found.step.verdict == NOT_TOLD
    limit = [parse_regress("2%")]
    assert [each.state for each in judge_comparison(limit, found)] == [PASSED]
    assert [each.state for each in judge_comparison(limit, found, strict=True)] == [TRIPPED]


def test_a_line_that_became_slow_is_told_from_those_that_did_not(tmp_path: Path) -> None:
    job = noisy_job(0)
    slow = replace(noisy_job(1), transfer=job.transfer + np.array([0, 2_000_000]))
    found = compare(side_of(tmp_path / "one", job), side_of(tmp_path / "other", slow))
    assert [(each.bytes, each.exposed.verdict, each.transfer.verdict) for each in found.collectives] == [
        (8192, LONGER, LONGER),
        (4096, NOT_TOLD, NOT_TOLD),
    ]
    assert found.collectives[0].transfer.change_ms == pytest.approx(2.0, abs=0.01)
    assert found.groups[0].exposed.verdict == LONGER


def test_what_runs_of_one_job_differ_by_widens_every_interval(tmp_path: Path) -> None:
    """Runs of this job differ by several percent: so does the second run, which is then nothing to speak of."""
    before, *alike, after = (
        side_of(tmp_path / str(k), noisy_job(k, slower=slower))
        for k, slower in enumerate((1.0, 1.05, 0.96, 1.03, 1.04))
    )
    alone, among = compare(before, after), compare(before, after, alike)
    assert (alone.step.verdict, among.step.verdict) == (LONGER, NOT_TOLD)
    assert (alone.alike_runs, among.alike_runs) == (0, 3)
    assert alone.step.change_ms == among.step.change_ms
    assert alone.step.low_ms is not None
    assert among.step.low_ms is not None
    assert among.step.low_ms < alone.step.low_ms


def test_runs_alike_never_make_an_interval_narrower() -> None:
    before, after = Known(10.0, 1.0, 9), Known(20.0, 1.0, 9)
    alone = difference(before, after, 0.9)
    assert difference(before, after, 0.9, [10.0, 10.0, 10.0]) == alone
    assert difference(before, after, 0.9, [10.0]).verdict is None  # the others do not know it


def test_the_interval_is_students(tmp_path: Path) -> None:
    """Welch's degrees of freedom are 18 for equal errors with 9 each; 1.7341 is the t of 18 at 95 %."""
    found = difference(Known(10.0, 1.0, 9), Known(20.0, 1.0, 9), 0.9)
    assert (found.low_ms, found.high_ms) == pytest.approx((10 - 1.7341 * 2**0.5, 10 + 1.7341 * 2**0.5), abs=1e-4)
    assert found.verdict == LONGER
