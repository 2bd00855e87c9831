"""Gates: the language of conditions, and that none passes without having looked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blocking_job import even_job, slower
from noisy_job import noisy_job, side_of
from synthetic import MS, training_rank, write_run

from commlens import analyze, open_run
from commlens.analyzers import Report
from commlens.analyzers.comparison import Comparison, compare
from commlens.analyzers.findings.looked_for import FINDINGS
from commlens.analyzers.gating import (
    PASSED,
    TRIPPED,
    UNJUDGED,
    Outcome,
    judge_comparison,
    judge_report,
    parse_condition,
    parse_regress,
)
from commlens.analyzers.gating.conditions import ABSTENTIONS
from commlens.analyzers.report import Abstention
from commlens.errors import UsageError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two ranks, steps of about 101 ms: 6 ms of transfer, hardly any waiting, nothing hidden."""
    return analyze(open_run(write_run(tmp_path_factory.mktemp("healthy"), even_job(ranks=2).truths())))


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Three ranks, of which rank 2 is late by 20 ms."""
    job = slower(even_job(ranks=3), 2, 20 * MS)
    return analyze(open_run(write_run(tmp_path_factory.mktemp("late"), job.truths())))


def judged(text: str, report: Report) -> Outcome:
    (found,) = judge_report([parse_condition(text)], report)
    assert found.gate == text.strip()
    return found


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("step>120ms", PASSED),
        ("step>90ms", TRIPPED),
        ("step <= 120 ms", TRIPPED),
        ("exposed>15%", PASSED),
        ("exposed>5%", TRIPPED),
        ("exposed>=5ms", TRIPPED),
        ("transfer>5.9ms", TRIPPED),
        ("wait>1ms", PASSED),
        ("compute<50%", PASSED),
        ("overlap<10%", TRIPPED),
        ("matched<99%", PASSED),
        ("dropped>0", PASSED),
        ("steps<20", PASSED),
        ("steps<21", TRIPPED),
        ("ranks<2", PASSED),
        ("finding:straggler-rank", PASSED),
        ("finding:expert-imbalance", PASSED),  # there is no all_to_all
        ("finding:bucket-size", PASSED),
        ("finding:any", PASSED),
        ("abstention:time-budget", PASSED),
    ],
)
def test_a_healthy_job(healthy: Report, text: str, state: str) -> None:
    assert judged(text, healthy).state == state


def test_what_was_measured_is_said_with_the_reports_numbers(healthy: Report) -> None:
    found = judged("exposed>5%", healthy)
    budget = healthy.time_budget
    assert budget.exposed_ms is not None
    assert budget.step_ms is not None
    assert found.value == pytest.approx(100 * budget.exposed_ms / budget.step_ms)
    assert found.said == (
        f"exposed is {found.value:.3g} % of a step ({budget.exposed_ms:.3g} of {budget.step_ms:.3g} ms)"
    )


def test_findings_trip_by_name_and_as_any(late: Report) -> None:
    assert judged("finding:straggler-rank", late).state == TRIPPED
    assert "rank 2 is always late" in judged("finding:straggler-rank", late).said
    assert judged("finding:any", late).said.startswith("straggler-rank: rank 2")
    assert judged("finding:wire-dtype", late).state == PASSED


def test_what_any_did_not_look_for_is_said(healthy: Report) -> None:
    assert "not looked for: slow groups (" in judged("finding:any", healthy).said


@pytest.mark.parametrize("text", ["finding:slow-group", "finding:contention", "finding:slow-link"])
def test_what_could_not_be_looked_for_does_not_pass(healthy: Report, text: str) -> None:
    found = judged(text, healthy)
    assert (found.state, found.said.startswith("it could not be looked for: ")) == (UNJUDGED, True)


@pytest.mark.parametrize("text", ["exposed>15%", "wait>1ms", "overlap<10%", "finding:any", "finding:no-overlap"])
def test_without_a_budget_nothing_passes(tmp_path: Path, text: str) -> None:
    blind = replace(training_rank(14), collectives=())
    report = analyze(open_run(write_run(tmp_path, {0: blind, 1: blind})))
    assert judged(text, report).state == UNJUDGED
    assert judged("step>90ms", report).state == TRIPPED  # of that something is known


def test_one_rank_does_not_tell_waiting(tmp_path: Path) -> None:
    report = analyze(open_run(write_run(tmp_path, {0: training_rank(14)})))
    assert judged("exposed>50%", report).state == PASSED
    assert judged("wait>1ms", report) == Outcome(
        "wait>1ms", UNJUDGED, "only one rank was recorded, there is nothing to compare it with", unit="ms"
    )
    assert judged("finding:straggler-rank", report).state == UNJUDGED
    assert judged("abstention:any", report).state == TRIPPED


def test_missing_ranks_may_be_the_ones(late: Report, tmp_path: Path) -> None:
    truths = slower(even_job(ranks=3), 2, 20 * MS).truths()
    report = analyze(open_run(write_run(tmp_path, {rank: truths[rank] for rank in (0, 1)}, world_size=3)))
    for text in ("wait>50ms", "finding:straggler-rank", "finding:any", "step>1000ms"):
        assert judged(text, report).state == UNJUDGED, text
        assert "nothing is known of rank 2" in judged(text, report).said
    assert judged("exposed>5%", report).state == TRIPPED
    assert judged("ranks<3", report).state == TRIPPED


def test_lower_bounds_trip_but_do_not_pass(healthy: Report) -> None:
    bound = replace(healthy, abstentions=(Abstention("unknown-ends", "9 of 10 have no known end", "waits"),))
    assert judged("exposed>5%", bound).state == TRIPPED
    assert judged("exposed>15%", bound).state == UNJUDGED
    assert judged("step>120ms", bound).state == PASSED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it takes METRIC>NUMBER"),
        ("exposed", "it takes METRIC>NUMBER"),
        ("speed>3ms", "METRIC one of step, compute, exposed, wait"),
        ("exposed>15", "exposed takes % or ms, as in exposed>15%"),
        ("step>15%", "step takes ms, as in step>15ms"),
        ("steps<15ms", "steps takes no unit"),
        ("overlap<15ms", "overlap takes %"),
        ("exposed>-3%", "cannot read"),
        ("exposed>nan%", "cannot read"),
        ("finding:nonsense", "no finding is called 'nonsense'; there are any, straggler-rank"),
        ("abstention:nonsense", "there are any, aggregated-steps, calibrated-links"),
        ("finding:any\nexposed>1%", "cannot read"),
    ],
)
def test_what_is_no_condition(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_condition(text)
    assert says in str(error.value)


def test_every_finding_of_the_documentation_can_be_a_gate() -> None:
    pages = {page.stem for page in (ROOT / "docs/findings").glob("*.md")} - {"index"}
    assert pages == set(FINDINGS)


def test_every_abstention_can_be_a_gate() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "commlens/analyzers").rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'Abstention\(\s*"([a-z-]+)"', text)}
    assert named | {"wait-transfer-split", "cost-model", "stragglers", "critical-path"} == set(ABSTENTIONS)


@pytest.mark.parametrize(
    ("text", "part", "limit", "unit"),
    [
        ("5%", "step", 5, "%"),
        ("5", "step", 5, "%"),
        ("5.5 %", "step", 5.5, "%"),
        ("3ms", "step", 3, "ms"),
        ("exposed = 10%", "exposed", 10, "%"),
        ("wait=.5ms", "wait", 0.5, "ms"),
    ],
)
def test_limits(text: str, part: str, limit: float, unit: str) -> None:
    found = parse_regress(text)
    assert (found.part, found.limit, found.unit) == (part, limit, unit)


@pytest.mark.parametrize("text", ["x", "-3%", "hidden=5%", "overlap=5%", "step>5%", "5%%", "", "step=", "inf%"])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(UsageError, match="PART one of step, compute, exposed"):
        parse_regress(text)


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """5 % more work."""
    path = tmp_path_factory.mktemp("longer")
    return compare(*(side_of(path / str(k), noisy_job(k, slower=1 + 0.05 * k)) for k in (0, 1)))


def judged_limit(text: str, found: Comparison, **how: Any) -> Outcome:
    return judge_comparison([parse_regress(text)], found, **how)[0]


def test_a_limit_is_of_the_middle_of_a_change_beyond_doubt(longer: Comparison) -> None:
    middle, high = longer.step.change_ms, longer.step.high_ms
    assert middle is not None
    assert high is not None
    assert judged_limit(f"{middle - 0.01:f}ms", longer).state == TRIPPED
    assert judged_limit(f"{middle + 0.01:f}ms", longer).state == PASSED
    assert judged_limit(f"{high - 0.01:f}ms", longer, strict=True).state == TRIPPED
    assert judged_limit(f"{high + 0.01:f}ms", longer, strict=True).state == PASSED
    found = judged_limit("1%", longer)
    assert (found.gate, found.value, found.unit) == ("--max-regress 1%", longer.step.change_percent, "%")
    assert "step changed from 9" in found.said


def test_runs_that_are_not_alike_are_not_judged(longer: Comparison) -> None:
    refused = replace(longer, refusals=("different models",))
    assert judged_limit("90%", refused) == Outcome("--max-regress 90%", UNJUDGED, "different models", unit="%")
    assert judged_limit("90%", refused, force=True).state == PASSED
    grown = replace(longer, after=replace(longer.after, world_size=4))
    assert "world sizes differ (2 and 4)" in judged_limit("90%", grown).said
    partly = replace(longer, after=replace(longer.after, ranks=1))
    assert judged_limit("90%", partly).state == PASSED  # every rank has the step
    assert "only 1 of 2 ranks" in judged_limit("compute=90%", partly).said


def test_a_change_without_an_interval_or_a_percentage_is_not_judged(longer: Comparison) -> None:
    bare = replace(longer, step=replace(longer.step, low_ms=None, high_ms=None, verdict=None))
    assert judged_limit("90%", bare).said.endswith("the length of each single step is not known in both runs")
    few = replace(bare, after=replace(bare.after, steps=7))
    assert judged_limit("90%", few).said.endswith("the second run has 7 steps, 10 are needed")
    alike = replace(bare, alike_runs=1)
    assert judged_limit("90%", alike).said.endswith("the further runs of the first job do not tell its step")
    absent = replace(longer, step=replace(longer.step, before_ms=None))
    assert judged_limit("90%", absent).said == "step is not known in both runs"
    zero = replace(longer, step=replace(longer.step, before_ms=0.0))
    assert "step=2ms sets a limit" in judged_limit("90%", zero).said
    assert judged_limit("2ms", zero).state == TRIPPED


def test_waiting_that_could_not_be_split_off_is_not_judged(longer: Comparison) -> None:
    exposed = longer.parts["exposed_ms"]
    assert exposed.before_ms is not None
    unsplit = replace(longer.parts["exposed_unsplit_ms"], before_ms=0.3 * exposed.before_ms)
    partly = replace(longer, parts={**longer.parts, "exposed_unsplit_ms": unsplit})
    for part in ("wait", "transfer"):
        outcome = judged_limit(f"{part}=50%", partly, force=True)
        assert outcome.state == UNJUDGED and "30 % of the exposed time" in outcome.said
    assert judged_limit("50%", partly, force=True).state == PASSED
