"""The door: every technique of the catalogue, judged for one job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

from commlens.analyzers.advisor import compression, overlap, placement, sharding, synchronisation
from commlens.analyzers.advisor.job import Job
from commlens.analyzers.advisor.prices import best_of, likely_gain_ms
from commlens.analyzers.advisor.suggested import with_suggestions
from commlens.analyzers.advisor.technique import (
    ADVISED,
    EXPLAINED,
    LOSSES,
    MORE,
    REJECTED,
    UNKNOWN,
    No,
    Seen,
    Technique,
    Told,
    Trial,
    Unknown,
    Verdict,
)
from commlens.analyzers.advisor.worth import MORE_GAIN, SMALL, Base, gate
from commlens.analyzers.findings.context import Context
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Action, Considered, Finding, Predicted, Report
from commlens.analyzers.whatif.asked import Simulator
from commlens.trace.changes import applicable, joined, parse, parse_all

TECHNIQUES: tuple[Technique, ...] = (
    *synchronisation.TECHNIQUES,
    *overlap.TECHNIQUES,
    *sharding.TECHNIQUES,
    *compression.TECHNIQUES,
    *placement.TECHNIQUES,
)


def advise(report: Report, context: Context, simulator: Callable[[], Simulator]) -> Report:
    """The report with predictions in its findings' actions, and with every technique that was considered.

    What loses nothing is judged first, then 16 bits on the wire, then what loses more: each on top of what was
    advised before it.

    Args:
        report: without either.
        context: what its findings rest on.
        simulator: makes that of the run, where there is something to simulate.
    """
    job = Job(report, context, cache(simulator))
    if job.step_ms:
        job = replace(job, report=replace(report, findings=tuple(_priced(job, each) for each in report.findings)))
    base, judged = Base(), dict[str, Considered]()
    for loss in LOSSES:
        here = {each.id: _considered(job, each, base) for each in TECHNIQUES if each.loses == loss}
        judged |= here
        base = _with(base, list(here.values()))
    considered = tuple(judged[each.id] for each in TECHNIQUES)
    losses = {each.id: LOSSES.index(each.loses) for each in TECHNIQUES}
    return replace(job.report, findings=with_suggestions(job, considered, losses), considered=considered)


def _considered(job: Job, technique: Technique, base: Base) -> Considered:
    if refusal := gate(job, technique, base):
        return technique.considered(UNKNOWN if isinstance(refusal, Unknown) else REJECTED, refusal.reason)
    verdict = technique.rule(job)
    if isinstance(verdict, Trial):
        return _tried(job, technique, verdict, base)
    if isinstance(verdict, Seen):
        return seen(job, technique, verdict)
    return technique.considered(_WORDS[type(verdict)], verdict.reason)


def seen(job: Job, technique: Technique, verdict: Seen) -> Considered:
    """What a finding has seen, unless the simulator knows that its change gains next to nothing."""
    word, reason, predicted = ADVISED, verdict.reason, verdict.predicted
    if predicted is not None and (likely := likely_gain_ms(predicted)) <= (least := SMALL * job.step_ms):
        word, reason = REJECTED, f"{verdict.reason}; {_too_little(predicted, Base(), likely, least)}"
    return technique.considered(
        word,
        reason,
        set=tuple(map(str, parse_all(verdict.fix))) if verdict.fix is not None and predicted is not None else (),
        fix=verdict.fix,
        predicted=predicted,
        ceiling_ms=verdict.ceiling_ms,
    )


_WORDS: dict[type[Verdict], str] = {No: REJECTED, Unknown: UNKNOWN, Told: EXPLAINED}


def _tried(job: Job, technique: Technique, trial: Trial, base: Base) -> Considered:
    """The best of a trial's sets, on top of what loses less where it loses something itself."""
    below = base if technique.loses else Base()
    best = best_of(job.simulator, trial.sets, below.changes)
    if isinstance(best, str):
        return technique.considered(UNKNOWN, f"{trial.reason}; not simulated: {best}")
    likely = likely_gain_ms(best.predicted) - below.gain_ms
    least = (MORE_GAIN if technique.loses == MORE else SMALL) * job.step_ms
    reason = trial.reason if likely > least else f"{trial.reason}; {_too_little(best.predicted, below, likely, least)}"
    return technique.considered(
        ADVISED if likely > least else REJECTED,
        reason,
        set=tuple(map(str, best.changes)),
        fix=joined(best.changes) if all(applicable(each, job.report.run.backend) for each in best.changes) else None,
        predicted=best.predicted,
        ceiling_ms=best.ceiling_ms,
    )


def _too_little(predicted: Predicted, below: Base, likely_ms: float, least_ms: float) -> str:
    """The gain, and that it is not sure enough to be worth it."""
    more = " beyond what loses less" if below.changes else ""
    gain = predicted.gain_ms - below.gain_ms
    sure = f"at least {plain(likely_ms)} ms in four cases of five" if likely_ms > 0 else "perhaps nothing"
    return f"predicted to gain {plain(gain)} ms{more}, but {sure}, and {plain(least_ms)} ms are asked for advice"


def _with(base: Base, judged: list[Considered]) -> Base:
    """The base, with the best of these that can be simulated."""
    best = base
    for each in judged:
        simulated = each.verdict == ADVISED and each.predicted is not None and each.fix is not None
        if simulated and each.predicted and each.predicted.gain_ms > best.gain_ms:
            best = Base(tuple(map(parse, each.set)), each.predicted.gain_ms)
    return best


def _priced(job: Job, finding: Finding) -> Finding:
    """The finding with predictions in the actions that the simulator knows."""
    return replace(finding, actions=tuple(_predicted(job, each) for each in finding.actions))


def _predicted(job: Job, action: Action) -> Action:
    if action.fix is None or action.predicted is not None:
        return action
    best = best_of(job.simulator, [parse_all(action.fix)])
    return action if isinstance(best, str) else replace(action, predicted=best.predicted)
