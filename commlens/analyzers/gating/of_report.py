"""Judges conditions on one report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from commlens.analyzers.abstentions import name_ranks
from commlens.analyzers.findings.looked_for import FINDINGS, HANG, LINKS, looked_for
from commlens.analyzers.gating.conditions import ABSTENTION, ANY, COUNTS, FINDING, SIGNS, TIMES, Condition
from commlens.analyzers.gating.outcome import NO_BUDGET, PASSED, TRIPPED, UNJUDGED, Outcome
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Report
from commlens.analyzers.unseen import unseen

# With these, collectives may have cost more than the report says.
_LOWER_BOUND: Final = ("unknown-ends", "unseen-collectives", "graph-replays")


def judge_report(conditions: Sequence[Condition], report: Report) -> tuple[Outcome, ...]:
    """What became of each condition, in their order."""
    return tuple(_judge(condition, report) for condition in conditions)


def _judge(condition: Condition, report: Report) -> Outcome:
    if condition.metric == ABSTENTION:
        return _abstained(condition, report)
    if condition.metric == FINDING:
        return _found(condition, report)
    return _limited(condition, report)


def _limited(condition: Condition, report: Report) -> Outcome:
    value = _value(condition, report)
    if value is None:
        return Outcome(condition.text, UNJUDGED, _unknown(condition, report), unit=condition.unit)
    trips = SIGNS[condition.sign](value, condition.limit)
    said = f"{condition.metric} is {_number(value, condition.unit)}{_of_step(condition, report)}"
    gap = None if trips or condition.metric in COUNTS else _gap(condition, report)
    if gap is not None:
        return Outcome(condition.text, UNJUDGED, f"{said} in what was seen, but {gap}", round(value, 6), condition.unit)
    return Outcome(condition.text, TRIPPED if trips else PASSED, said, round(value, 6), condition.unit)


def _value(condition: Condition, report: Report) -> float | None:
    """In the condition's unit, None where not known."""
    budget, coverage, metric = report.time_budget, report.coverage, condition.metric
    if metric in COUNTS:
        counts = (report.run.steps.analyzed, len(report.run.ranks_present), coverage.dropped)
        return float(counts[COUNTS.index(metric)])
    if metric == "overlap":
        return None if budget.overlap is None else 100 * budget.overlap
    if metric == "matched":
        seen = coverage.collectives_seen
        return 100 * coverage.collectives_matched / seen if seen else None
    ms: float | None = getattr(budget, TIMES[metric])
    if condition.unit == "ms" or ms is None:
        return ms
    return 100 * ms / budget.step_ms if budget.step_ms else None


def _unknown(condition: Condition, report: Report) -> str:
    """Why there is no number."""
    if condition.metric == "overlap" and report.time_budget.exposed_ms is not None:
        return "no communication was seen in the analysed steps, so there is no overlap"
    if condition.metric == "matched":
        return "no collective was seen"
    for each in report.abstentions:
        if each.analysis in ("time-budget", "steps"):
            return each.reason
    if report.time_budget.exposed_ms is not None:
        why = next((each.reason for each in report.abstentions if each.analysis == "wait-transfer-split"), None)
        return why or "how much of the exposed time is waiting is not known"
    return NO_BUDGET


def _gap(condition: Condition, report: Report) -> str | None:
    """Why a limit that was not passed may have been."""
    if unknown := unseen(report.run):
        return unknown
    blind = [each.rank for each in report.time_budget.per_rank if each.exposed_ms is None]
    if blind and condition.metric in TIMES and condition.metric != "step":
        return f"there is no time budget of {name_ranks(blind)}"
    if condition.metric in ("step", "matched"):
        return None
    return next((each.reason for each in report.abstentions if each.analysis in _LOWER_BOUND), None)


def _of_step(condition: Condition, report: Report) -> str:
    if condition.metric not in TIMES or condition.unit != "%":
        return ""
    ms, step_ms = getattr(report.time_budget, TIMES[condition.metric]), report.time_budget.step_ms
    return f" of a step ({plain(ms)} of {plain(step_ms)} ms)" if step_ms else ""


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if not unit else f"{plain(value)} {unit}"


def _abstained(condition: Condition, report: Report) -> Outcome:
    found = [each for each in report.abstentions if condition.name in (ANY, each.analysis)]
    if not found:
        return Outcome(condition.text, PASSED, "nothing of the kind was left open")
    said = "; ".join(f"{each.analysis}: {each.reason}" for each in found)
    return Outcome(condition.text, TRIPPED, said, float(len(found)))


def _found(condition: Condition, report: Report) -> Outcome:
    found = [each for each in report.findings if condition.name in (ANY, each.id)]
    if found:
        said = "; ".join(each.title if condition.name == each.id else f"{each.id}: {each.title}" for each in found)
        return Outcome(condition.text, TRIPPED, said, float(len(found)))
    if gap := unseen(report.run):
        return Outcome(condition.text, UNJUDGED, f"not found in what was seen, but {gap}")
    obstacle = _blind(report) if condition.name == ANY else _not_looked_for(condition.name, report)
    if obstacle is not None:
        return Outcome(condition.text, UNJUDGED, f"it could not be looked for: {obstacle}")
    return Outcome(condition.text, PASSED, f"none was found{_left_out(report) if condition.name == ANY else ''}")


def _blind(report: Report) -> str | None:
    """Why nothing could be found at all."""
    if all(obstacle is not None for _, obstacle in looked_for(report)):
        return "nothing could be compared"
    return NO_BUDGET if report.time_budget.exposed_ms is None else None


def _not_looked_for(name: str, report: Report) -> str | None:
    """Why a finding could not have been made, None where it could."""
    kind, seen = FINDINGS[name], dict(looked_for(report))
    if kind is None:
        if report.time_budget.exposed_ms is None:
            return NO_BUDGET
        return "compute kernels were not recorded" if name == "contention" and not report.device_lanes else None
    if kind == HANG and kind not in seen:
        return "the files do not tell what never ended"
    if kind == LINKS and not report.run.hosts:
        return "the files do not tell the ranks' hosts"
    return seen.get(kind)  # absent: there is none of the kind in the job


def _left_out(report: Report) -> str:
    """What a search for anything did not cover."""
    unseen = [f"{name} ({obstacle})" for name, obstacle in looked_for(report) if obstacle is not None]
    return f"; not looked for: {', '.join(unseen)}" if unseen else ""
