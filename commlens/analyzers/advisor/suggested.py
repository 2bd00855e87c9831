"""Advised techniques as findings: what no rule of its own saw, or a better action for what one saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from commlens.analyzers.advisor.job import Job
from commlens.analyzers.advisor.technique import ADVISED
from commlens.analyzers.advisor.worth import SMALL
from commlens.analyzers.findings.build import fixing, severity
from commlens.analyzers.numerals import plain
from commlens.analyzers.report import Action, Considered, Evidence, Finding
from commlens.analyzers.whatif.optimum import CAPS
from commlens.trace.change_kinds import EXACT, LOSSY

# Which finding a technique's gain belongs to. What needs a person, or a purchase, is no finding.
_FINDINGS = {
    "larger-buckets": "bucket-size",
    "bucket-list": "bucket-size",
    "smaller-buckets": "bucket-size",
    "small-last-bucket": "last-bucket-tail",
    "bucket-view": "bucket-size",
    "fsdp-keep": "fsdp-reshard",
    "fsdp-prefetch": "fsdp-prefetch",
    "fsdp-merge": "fsdp-unit-size",
    "hybrid-sharding": "hybrid-shard",
    "no-buffer-broadcast": "buffer-broadcast",
    "static-graph": "find-unused",
    "half-gradients": "wire-dtype",
    "reduce-dtype": "wire-dtype",
    "powersgd": "compression",
    "quantized-gradients": "compression",
    "local-sgd": "communicate-less",
}
_STUCK = ("hang", "desync", "exception")  # the job went no further: before anything that costs time


def with_suggestions(
    job: Job, considered: Iterable[Considered], loses: Mapping[str, int] = MappingProxyType({})
) -> tuple[Finding, ...]:
    """The job's findings with what is advised, by their ceilings; what is only advised and loses something comes last.

    An action for a finding that is there stands before its others, unless the finding says the same already.

    Args:
        job: with its report.
        considered: every technique, judged.
        loses: of each, by its id: 0 nothing, 1 some digits, 2 more; 0 where it is not told.
    """
    considered = tuple(considered)
    findings, lossy = list(job.report.findings), dict[str, int]()
    extra: dict[str, list[Considered]] = {}
    for each in considered:
        wanted = each.verdict == ADVISED and each.predicted is not None and each.risk in (EXACT, LOSSY)
        if wanted and each.set and each.id in _FINDINGS:
            extra.setdefault(_FINDINGS[each.id], []).append(each)
    for id, those in extra.items():
        those.sort(key=lambda each: -(each.predicted.gain_ms if each.predicted else 0.0))
        there = next((place for place, each in enumerate(findings) if each.id == id), None)
        if there is None:
            findings.append(_new(job, id, those, _without(those[0], considered, loses)))
            lossy[id] = (those[0].risk == LOSSY) * max(loses.get(those[0].id, 0), 1)
        else:
            findings[there] = _with_actions(job, findings[there], those)
    stuck = [each for each in findings if each.id in _STUCK]
    rest = [each for each in findings if each.id not in _STUCK]
    return (*stuck, *sorted(rest, key=lambda each: (lossy.get(each.id, 0), -(each.ceiling_ms or 0))))


def _with_actions(job: Job, finding: Finding, those: list[Considered]) -> Finding:
    new = [_action(job, each) for each in those]
    settings = {_setting(action.fix) for action in new if action.fix is not None}
    kept = [action for action in finding.actions if not action.fix or _setting(action.fix) not in settings]
    kept = [action for action in kept if not _useless(action)]
    return replace(finding, actions=tuple(sorted([*new, *kept], key=lambda action: _rank(job, action))))


def _setting(fix: str) -> str:
    """What a fix sets: of values of one setting the simulator has found the best."""
    return ",".join(each.partition("=")[0] for each in fix.split(","))


def _useless(action: Action) -> bool:
    """The simulator knows the change, and that it gains nothing."""
    return action.predicted is not None and action.predicted.gain_ms <= 0


def _without(each: Considered, considered: Sequence[Considered], loses: Mapping[str, int]) -> float:
    """What would be gained without the change that is added to those that lose less, or stands for one of them, ms."""
    gains = [
        other.predicted.gain_ms
        for other in considered
        if other.predicted is not None and other.verdict == ADVISED and other.set and _builds_on(each, other, loses)
    ]
    return max(gains, default=0.0)


def _builds_on(each: Considered, other: Considered, loses: Mapping[str, int]) -> bool:
    """Whether its changes are the other's and more, or the other's with values that lose more, such as another hook."""
    more_lossy = loses.get(other.id, 0) < loses.get(each.id, 0)
    return set(other.set) < set(each.set) or (more_lossy and _names(other) <= _names(each))


def _names(each: Considered) -> set[str]:
    return {change.partition("=")[0] for change in each.set}


def _rank(job: Job, action: Action) -> tuple[bool, float]:
    """What loses nothing first, then what gains more; a list of caps must be worth its upkeep."""
    gain = action.predicted.gain_ms if action.predicted else 0.0
    upkeep = SMALL * job.step_ms if action.fix is not None and action.fix.startswith(CAPS) else 0.0
    return action.risk != EXACT, upkeep - gain


def _new(job: Job, id: str, those: list[Considered], without_ms: float) -> Finding:
    """A finding of its own; `without_ms` is what is gained before its change is added."""
    best = those[0]
    assert best.predicted is not None
    gain, exposed = best.predicted.gain_ms - without_ms, job.exposed_ms or 0.0
    more = " more" if without_ms else ""
    return Finding(
        id=id,
        title=f"{best.technique} would save {plain(gain)} ms{more} of each {plain(job.step_ms)} ms step",
        layer=best.layer,
        severity=severity(job.context, gain),
        confidence="medium",
        ranks=(),
        group=None,
        steps=(),
        evidence=(
            Evidence("communication that compute does not hide, per step, mean over ranks", round(exposed, 3), "ms"),
            Evidence(f"predicted gain of {', '.join(best.set)}", round(best.predicted.gain_ms, 3), "ms"),
        ),
        ceiling_ms=round(max(gain, 0.0), 3),
        actions=tuple(sorted((_action(job, each) for each in those), key=lambda action: _rank(job, action))),
        could_be_wrong_if=(*(f"{best.not_for}",) * bool(best.not_for), *job.context.caveats),
    )


def _action(job: Job, each: Considered) -> Action:
    text = f"{each.technique}: {', '.join(each.set)}"
    action = fixing(job.context, each.set[-1], text, change=each.change)
    if each.fix is not None and action.verify is not None:
        action = replace(action, fix=each.fix, verify=action.verify.replace(each.set[-1], each.fix))
    return replace(action, risk=each.risk, predicted=each.predicted)
