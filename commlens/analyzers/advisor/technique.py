"""A technique of the surveys' catalogue, and what became of it for one job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from commlens.analyzers.advisor.written import written
from commlens.analyzers.report import Considered, Predicted

if TYPE_CHECKING:
    from commlens.analyzers.advisor.job import Job
    from commlens.trace.changes import Change

# What a technique can shorten: bytes that compute does not hide, or standing still for late ranks.
TRANSFER, WAIT = "transfer", "wait"
# What is lost of gradients and weights. What loses more is judged on top of all that loses less.
NOTHING, HALF, MORE = LOSSES = (0, 1, 2)
ADVISED, REJECTED, UNKNOWN, EXPLAINED = VERDICTS = ("advised", "rejected", "not known", "explained")


@dataclass(frozen=True)
class Trial:
    """The condition holds: these changes are worth a simulation, of which the best counts.

    Attributes:
        reason: the symptom, with its number.
        sets: changes to simulate, each by itself.
    """

    reason: str
    sets: Sequence[Sequence[Change]]


@dataclass(frozen=True)
class Seen:
    """The condition holds, and a finding says what it costs; the simulator need not.

    Attributes:
        reason: the symptom, with its number.
        ceiling_ms: the most that can be gained, None where it is not known.
        fix: what COMMLENS_FIX could apply, None where the code has to be changed.
        predicted: of the finding's own action, None where it has none.
    """

    reason: str
    ceiling_ms: float | None
    fix: str | None = None
    predicted: Predicted | None = None


@dataclass(frozen=True)
class No:
    """The condition does not hold: which number says so."""

    reason: str


@dataclass(frozen=True)
class Unknown:
    """Whether the condition holds cannot be told: what it would need."""

    reason: str


@dataclass(frozen=True)
class Told:
    """No condition: what it is for, and why there is nothing to do with it today."""

    reason: str


Verdict: TypeAlias = Trial | Seen | No | Unknown | Told
Rule: TypeAlias = "Callable[[Job], Verdict]"


@dataclass(frozen=True)
class Technique:
    """One row of the catalogue.

    Attributes:
        row: its number there, "O2".
        id: for people and files, "larger-buckets".
        name: as the field says.
        layer: strategy, ccl, network or host.
        risk: one of `trace.change_kinds.RISKS`.
        change: exactly what to write, "" where nothing in the job changes.
        price: what it costs.
        not_for: where not to use it.
        rule: whether this job has the symptom.
        shortens: TRANSFER or WAIT, which must be worth it; None where the rule itself says what it gains.
        loses: NOTHING, HALF (32 to 16 bits) or MORE.
        accepts: the argument of torch's that the job's torch must have, "" where none is needed.
    """

    row: str
    id: str
    name: str
    layer: str
    risk: str
    change: str
    price: str
    not_for: str
    rule: Rule
    shortens: str | None = TRANSFER
    loses: int = NOTHING
    accepts: str = ""

    def considered(
        self,
        verdict: str,
        reason: str,
        *,
        set: tuple[str, ...] = (),
        fix: str | None = None,
        predicted: Predicted | None = None,
        ceiling_ms: float | None = None,
    ) -> Considered:
        """What became of it."""
        return Considered(
            row=self.row,
            id=self.id,
            technique=self.name,
            layer=self.layer,
            risk=self.risk,
            verdict=verdict,
            reason=reason,
            change=written(set, self.change),
            set=set,
            fix=fix,
            predicted=predicted,
            ceiling_ms=ceiling_ms,
            price=self.price,
            not_for=self.not_for,
        )
