"""Whether a technique need be looked at: what it could shorten must be worth it."""

from __future__ import annotations

from dataclasses import dataclass

from commlens.analyzers.advisor.job import Job
from commlens.analyzers.advisor.technique import MORE, TRANSFER, No, Technique, Unknown
from commlens.trace.changes import Change

LEAST = 0.03  # of the step: what a technique could shorten at most must be worth this
SMALL = 0.02  # of the step: what it is likely to gain must be worth this
IDLE = 0.1  # of the step that devices stand still without communication: launches come first
MORE_LEFT = 0.2  # of the step: communication left after all else, from which on more than 16 bits' loss is considered
MORE_GAIN = 0.05  # of the step, beyond the best of what loses less


@dataclass(frozen=True)
class Base:
    """What a lossy technique is compared with: the best of what loses less.

    Attributes:
        changes: that are advised already.
        gain_ms: what they are simulated to gain.
    """

    changes: tuple[Change, ...] = ()
    gain_ms: float = 0.0


def gate(job: Job, technique: Technique, base: Base) -> No | Unknown | None:
    """Why a technique need not be looked at, None where it may be worth it."""
    if technique.shortens is None:
        return None
    if not job.step_ms:
        return Unknown("no steps were seen")
    of_bytes = technique.shortens == TRANSFER
    what, name = (job.exposed_ms, "exposed communication") if of_bytes else (job.wait_ms, "waiting")
    if what is None:
        return Unknown(f"{name} is not known")
    if what < LEAST * job.step_ms:
        return No(f"{name} is {job.percent(what)}, less than {100 * LEAST:.0f} %")
    if not of_bytes:
        return None
    if job.idle > IDLE:
        return No(f"devices stand still {100 * job.idle:.0f} % of the step without communication: launches come first")
    return _missing(job, technique) or _too_lossy(job, technique, what, base)


def _missing(job: Job, technique: Technique) -> No | Unknown | None:
    """What the job's torch lacks."""
    # Setters are FSDP2's, arguments DDP's; of a job without such a model the rule has more to say.
    kind = "FSDP2" if technique.accepts.startswith("set_") else "DDP"
    if not technique.accepts or job.model(kind) is None:
        return None
    has = job.accepts(kind, technique.accepts)
    if has is None:
        return Unknown(f"whether the job's torch has {technique.accepts} was not recorded")
    return None if has else No(f"torch {job.report.run.torch} has no {technique.accepts}")


def _too_lossy(job: Job, technique: Technique, exposed_ms: float, base: Base) -> No | None:
    if not technique.loses:
        return None
    if (job.wait_ms or 0.0) > exposed_ms:
        return No(f"late ranks cost {job.percent(job.wait_ms or 0.0)}, bytes {job.percent(exposed_ms)}: those first")
    left = max(exposed_ms - base.gain_ms, 0.0)
    least = MORE_LEFT if technique.loses == MORE else LEAST
    if left < least * job.step_ms:
        return No(f"{job.percent(left)} of communication is left after what loses less, below {100 * least:.0f} %")
    return None
