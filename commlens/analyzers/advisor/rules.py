"""Conditions that many techniques share, as rules."""

from __future__ import annotations

from collections.abc import Callable

from commlens.analyzers.advisor.job import Job
from commlens.analyzers.advisor.technique import No, Rule, Seen, Told, Trial, Unknown, Verdict
from commlens.trace.changes import Change, parse


def told(reason: str) -> Rule:
    """A technique that is explained only."""
    return lambda job: Told(reason)


def trial(reason: Callable[[Job], str], *changes: str) -> Rule:
    """Always worth a simulation.

    Args:
        reason: the symptom.
        changes: each by itself, as `trace.changes.parse` reads them.
    """
    sets: list[tuple[Change, ...]] = [(parse(each),) for each in changes]
    return lambda job: Trial(reason(job), sets)


def found(*ids: str, otherwise: Rule) -> Rule:
    """The symptom is one of these findings; without it the other rule decides."""

    def rule(job: Job) -> Verdict:
        finding = job.finding(*ids)
        if finding is None:
            return otherwise(job)
        fix = next((action.fix for action in finding.actions if action.fix is not None), None)
        predicted = next((action.predicted for action in finding.actions if action.predicted is not None), None)
        return Seen(finding.title, finding.ceiling_ms, fix, predicted)

    return rule


def no(reason: Callable[[Job], str]) -> Rule:
    """The symptom is absent."""
    return lambda job: No(reason(job))


def on_gpus(rule: Rule) -> Rule:
    """Only where tensors lie on GPUs."""
    return lambda job: rule(job) if job.on_gpus else No(f"no GPU communicates in this job: {_backend(job)}")


def with_nccl(rule: Rule) -> Rule:
    """Only over NCCL."""
    return lambda job: rule(job) if "nccl" in job.backends else No(f"the job does not use NCCL: {_backend(job)}")


def between_hosts(rule: Rule) -> Rule:
    """Only where several hosts take part."""
    return lambda job: rule(job) if job.hosts > 1 else No(f"the job runs on {job.hosts or 'an unknown number of'} host")


def of_model(kinds: tuple[str, ...], rule: Rule) -> Rule:
    """Only where a model of one of these kinds was seen."""

    def checked(job: Job) -> Verdict:
        if job.model(*kinds) is not None:
            return rule(job)
        seen = ", ".join(sorted({str(model.get("kind")) for model in job.models}))
        wanted = " or ".join(kinds)
        return (
            No(f"no {wanted} model was seen, but {seen}") if seen else Unknown(f"no model was seen, {wanted} or other")
        )

    return checked


def with_op(ops: tuple[str, ...], rule: Rule) -> Rule:
    """Only where the job has such collectives."""

    def checked(job: Job) -> Verdict:
        return rule(job) if job.share(*ops).count else No(f"the job has no {' or '.join(ops)}")

    return checked


def needs(what: str) -> Rule:
    """Cannot be told from a recording."""
    return lambda job: Unknown(f"it takes {what}, which no recording has")


def _backend(job: Job) -> str:
    return ", ".join(sorted(job.backends)) or "backend not known"
