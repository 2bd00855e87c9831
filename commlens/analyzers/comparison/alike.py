"""Whether numbers of two runs may stand side by side at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from commlens.analyzers.abstentions import left_out_words, name_ranks
from commlens.analyzers.comparison.noise import FEWEST_STEPS
from commlens.analyzers.comparison.side import Side
from commlens.analyzers.numerals import counted
from commlens.analyzers.report import Report
from commlens.trace.models import model_signature

_FEW_STEPS = 20  # as noise with a memory would have it, intervals of fewer are too narrow


def find_refusals(before: Side, after: Side, second: str = "second") -> tuple[str, ...]:
    """Why a comparison would be a lie, one line each.

    Args:
        before: the first run.
        after: the other one.
        second: what that is called.
    """
    return tuple(_refusals(before, after, second))


def find_warnings(before: Side, after: Side) -> tuple[str, ...]:
    """What to bear in mind with the numbers, one line each."""
    return tuple(_warnings(before, after))


def _refusals(before: Side, after: Side, second: str) -> Iterator[str]:
    models = [_model(side) for side in (before, after)]
    if None not in models and models[0] != models[1]:
        yield "different models: their parameters are not the same"
    for which, side in (("first", before), (second, after)):
        if side.report.time_budget.step_ms is None:
            yield f"the {which} run has no step that could be analysed"
    steps = [side.report.run.steps for side in (before, after)]
    if all(each.analyzed for each in steps) and steps[0].how != steps[1].how:
        yield f"a step means something else: {steps[0].how} in the first run, {steps[1].how} in the {second}"
    clocks = [_timed(side.report) for side in (before, after)]
    if None not in clocks and clocks[0] != clocks[1]:
        yield f"exposed time means something else: {clocks[0]} in the first run, {clocks[1]} in the {second}"


def _model(side: Side) -> str | None:
    return next((name for info in side.infos.values() if (name := model_signature(info))), None)


def _timed(report: Report) -> str | None:
    """Whose standstill it is, None where it is not known: then there is no number to mistake."""
    if report.time_budget.exposed_ms is None:
        return None
    return "of the training thread" if report.time_budget.other_parts_ms is None else "of the devices"


def _warnings(before: Side, after: Side) -> Iterator[str]:
    one, other = before.report.run, after.report.run
    if one.world_size != other.world_size:
        yield (
            f"different world sizes, {one.world_size} and {other.world_size}: a step is another piece of work"
            " unless each rank has as much to do as before"
        )
    for what, pair in (("versions of torch", (one.torch, other.torch)), ("backends", (one.backend, other.backend))):
        if None not in pair and pair[0] != pair[1]:
            yield f"different {what}: {pair[0]} and {pair[1]}"
    if one.hosts and other.hosts and one.hosts != other.hosts:
        yield "different hosts: what machines differ by is part of the change"
    for which, side in (("first", before), ("second", after)):
        yield from (f"the {which} run {said}" for said in _shortcomings(side.report))
    yield from _parts_unknown(before.report, after.report)


def _shortcomings(report: Report) -> Iterator[str]:
    run, coverage = report.run, report.coverage
    if run.ranks_missing:
        yield f"lacks {name_ranks(run.ranks_missing)}: means are over the others"
    if run.steps.analyzed and run.steps.analyzed < FEWEST_STEPS:
        few = counted(run.steps.analyzed, "step")
        yield f"has {few}: at least {FEWEST_STEPS} are needed to tell a change from noise"
    elif run.steps.analyzed and run.steps.analyzed < _FEW_STEPS:
        yield f"has {run.steps.analyzed} steps: below {_FEW_STEPS} intervals may be too narrow"
    if run.ranks_sampled_out:
        out = left_out_words(len(run.ranks_sampled_out), run.world_size, run.sampled_ranks)
        yield f"is sampled: {out}; means are over the others"
    if coverage.dropped:
        yield f"lacks {counted(coverage.dropped, 'collective')} that the recorder had no room for"
    if coverage.truncated or coverage.damaged_ranks:
        ranks = {*coverage.damaged_ranks, *(each.rank for each in coverage.truncated)}
        yield f"is damaged: {name_ranks(ranks)}"


def _parts_unknown(before: Report, after: Report) -> Iterator[str]:
    """Parts that only one of the runs knows."""
    words: Mapping[str, Any] = {"exposed_ms": "exposed time", "exposed_wait_ms": "what of it is waiting"}
    for part, what in words.items():
        known = [getattr(report.time_budget, part) is not None for report in (before, after)]
        if known[0] != known[1]:
            yield f"the {'second' if known[0] else 'first'} run does not tell {what}"
            return
