"""What chosen collectives cost a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.placed import Which
from commlens.analyzers.pooled import step_of
from commlens.analyzers.ranks import RankFacts
from commlens.trace.schema import MISSING

_FREAK = 3.0  # medians of a step: one so long is no measure of what a change would gain in the others


def exposed_ms(context: Context, rows: Sequence[Which]) -> float:
    """Exposed transfer of rows of each rank, ms a step, mean over ranks and over steps without freaks."""
    total = []
    for facts, own, chosen in zip(context.ranks, context.joined.exposed, rows, strict=True):
        usual, steps = _usual(facts)
        moving = (facts.exposed_ns - own.row_wait - own.row_unsplit)[chosen & usual]
        total.append(float(moving.sum()) / max(steps, 1) / 1e6)
    return float(np.mean(total)) if total else 0.0


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
    total = []
    for facts, own, chosen in zip(context.ranks, context.joined.waits, rows, strict=True):
        known = chosen & (facts.analysed > 0) & (own.transfer_ns != MISSING)
        total.append(float(own.transfer_ns[known].sum()) / max(facts.steps.index.size, 1) / 1e6)
    return float(np.mean(total)) if total else 0.0
