"""What chosen collectives cost a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.placed import Which
from commlens.trace.schema import MISSING


def exposed_ms(context: Context, rows: Sequence[Which]) -> float:
    """Exposed transfer of rows of each rank, ms a step, mean over ranks."""
    total = []
    for facts, own, chosen in zip(context.ranks, context.joined.exposed, rows, strict=True):
        moving = (facts.exposed_ns - own.row_wait - own.row_unsplit)[chosen]
        total.append(float(moving.sum()) / max(facts.steps.index.size, 1) / 1e6)
    return float(np.mean(total)) if total else 0.0


def transfer_ms(context: Context, rows: Sequence[Which]) -> float:
    """Transfer of rows of each rank in analysed steps, hidden or not, ms a step, mean over ranks."""
    total = []
    for facts, own, chosen in zip(context.ranks, context.joined.waits, rows, strict=True):
        known = chosen & (facts.analysed > 0) & (own.transfer_ns != MISSING)
        total.append(float(own.transfer_ns[known].sum()) / max(facts.steps.index.size, 1) / 1e6)
    return float(np.mean(total)) if total else 0.0
