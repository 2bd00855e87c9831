"""The time budget of a run: medians over steps, means over ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.joined import Joined
from commlens.analyzers.held import each
from commlens.analyzers.intervals import Ints
from commlens.analyzers.ranks import RankFacts


@dataclass(frozen=True)
class RankBudget:
    """One rank's step, medians over its analysed steps in ms; None where not known.

    Each step's own parts add up exactly; their medians need not.
    """

    rank: int
    step_ms: float | None
    compute_ms: float | None
    exposed_ms: float | None
    exposed_transfer_ms: float | None
    exposed_wait_ms: float | None
    exposed_unsplit_ms: float | None
    other_ms: float | None
    hidden_ms: float | None
    overlap: float | None
    overlap_whole_trace: float | None
    other_parts_ms: dict[str, float] | None


@dataclass(frozen=True)
class TimeBudget:
    """Means over the ranks that have a budget of their medians over steps, ms per step.

    `exposed_ms` is exposed transfer, exposed wait and what could not be split (collectives without a
    counterpart on other ranks) together; None where no rank could tell. The parts are None where ranks
    are not joined. `other_parts_ms` is what devices did in `other_ms` (see `Lanes.parts`), None where they
    were not recorded.
    """

    step_ms: float | None
    compute_ms: float | None
    exposed_ms: float | None
    exposed_transfer_ms: float | None
    exposed_wait_ms: float | None
    exposed_unsplit_ms: float | None
    other_ms: float | None
    hidden_ms: float | None
    overlap: float | None
    other_parts_ms: dict[str, float] | None
    per_rank: tuple[RankBudget, ...]


def time_budget(ranks: Sequence[RankFacts], joined: Joined) -> TimeBudget:
    """Summarise the budgets of all ranks; `joined` is of the same ranks in the same order."""
    split = joined.exposed if joined.clocks.refusal is None and len(ranks) > 1 else [None] * len(ranks)
    per_rank = tuple(each(_rank_budget, ranks, split))
    return TimeBudget(
        step_ms=_mean([r.step_ms for r in per_rank]),
        compute_ms=_mean([r.compute_ms for r in per_rank]),
        exposed_ms=_mean([r.exposed_ms for r in per_rank]),
        exposed_transfer_ms=_mean([r.exposed_transfer_ms for r in per_rank]),
        exposed_wait_ms=_mean([r.exposed_wait_ms for r in per_rank]),
        exposed_unsplit_ms=_mean([r.exposed_unsplit_ms for r in per_rank]),
        other_ms=_mean([r.other_ms for r in per_rank]),
        hidden_ms=_mean([r.hidden_ms for r in per_rank]),
        overlap=_mean([r.overlap for r in per_rank]),
        other_parts_ms=_mean_parts([r.other_parts_ms for r in per_rank]),
        per_rank=per_rank,
    )


def _rank_budget(facts: RankFacts, parts: Exposed | None) -> RankBudget:
    budget, steps = facts.budget, facts.steps
    split = parts if budget else None
    return RankBudget(
        rank=facts.rank,
        step_ms=_median_ms(steps.end_ns - steps.start_ns),
        compute_ms=_median_ms(budget.compute) if budget else None,
        exposed_ms=_median_ms(budget.exposed) if budget else None,
        exposed_transfer_ms=_median_ms(split.transfer) if split else None,
        exposed_wait_ms=_median_ms(split.wait) if split else None,
        exposed_unsplit_ms=_median_ms(split.unsplit) if split else None,
        other_ms=_median_ms(budget.other) if budget else None,
        hidden_ms=_median_ms(budget.hidden) if budget else None,
        overlap=_rounded(budget.overlap) if budget else None,
        overlap_whole_trace=_rounded(facts.overlap_whole_trace),
        other_parts_ms=_parts_ms(budget.other_parts) if budget else None,
    )


def _parts_ms(parts: dict[str, Ints] | None) -> dict[str, float] | None:
    if parts is None:
        return None
    return {name: round(float(np.median(ns)) / 1e6, 6) for name, ns in parts.items()}


def _mean_parts(parts: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    known = [each for each in parts if each is not None]
    return {name: round(sum(each[name] for each in known) / len(known), 6) for name in known[0]} if known else None


def _median_ms(values: Ints) -> float | None:
    return _rounded(float(np.median(values)) / 1e6) if values.size else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(sum(known) / len(known)) if known else None


def _rounded(value: float | None) -> float | None:
    """To a millionth: of a millisecond that is the clock's own nanosecond."""
    return None if value is None else round(value, 6)
