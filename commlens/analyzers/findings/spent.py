"""What chosen collectives cost a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.across.exposed import Exposed
from commlens.analyzers.across.waits import Waits
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.placed import Which
from commlens.analyzers.held import each
from commlens.analyzers.pooled import step_of
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_FREAK = 3.0  # medians of a step: one so long is no measure of what a change would gain in the others


def exposed_ms(context: Context, rows: Sequence[Which]) -> float:
    """Exposed transfer of rows of each rank, ms a step, mean over ranks and over steps without freaks."""
    return _mean(exposed_of_each(context, rows))


def exposed_of_each(context: Context, rows: Sequence[Which]) -> list[float]:
    """The same of each rank."""
    return each(_exposed_ms, context.ranks, context.joined.exposed, rows)


def _exposed_ms(facts: RankFacts, own: Exposed, chosen: Which) -> float:
    usual, steps = _usual(facts)
    moving = (facts.exposed_ns - own.row_wait - own.row_unsplit)[chosen & usual]
    return float(moving.sum()) / max(steps, 1) / 1e6


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _usual(facts: RankFacts) -> tuple[Which, int]:
    """Rows that were not issued in a freak of a step, shape (rows,), and how many steps are none."""
    length = facts.steps.end_ns - facts.steps.start_ns
    count = facts.exposed_ns.size
    if not length.size:
        return np.ones(count, bool), 0
    usual = length <= _FREAK * np.median(length)
    return np.asarray(usual[step_of(facts, np.arange(count))]), int(usual.sum())


def transfer_ms(context: Context, rows: Sequence[Which]) -> float:
    """Transfer of rows of each rank in analysed steps, hidden or not, ms a step, mean over ranks."""
    return _mean(each(_transfer_ms, context.ranks, context.joined.waits, rows))


def _transfer_ms(facts: RankFacts, own: Waits, chosen: Which) -> float:
    known = chosen & (facts.analysed > 0) & (own.transfer_ns != MISSING)
    return float(own.transfer_ns[known].sum()) / max(facts.steps.index.size, 1) / 1e6
