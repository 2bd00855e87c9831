"""All findings of a run, the most recoverable time first."""

from __future__ import annotations

from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.experts import find_expert_imbalance
from commlens.analyzers.findings.links import find_slow_links
from commlens.analyzers.findings.messages import find_small_collectives
from commlens.analyzers.findings.slowed_compute import find_slowed_compute
from commlens.analyzers.findings.stragglers import find_stragglers
from commlens.analyzers.report import Finding


def find_findings(context: Context) -> tuple[Finding, ...]:
    """Findings worth at least `context.LEAST_SHARE` of a step, by their ceilings."""
    late = find_stragglers(context)
    uneven = find_expert_imbalance(context, late)
    explained = {rank for each in uneven for rank in each.ranks}
    found = [
        *(each for each in late if each.id != "straggler-rank" or not set(each.ranks) <= explained),
        *find_slow_links(context),
        *find_small_collectives(context),
        *find_slowed_compute(context),
        *uneven,
    ]
    return tuple(sorted(found, key=lambda each: -(each.ceiling_ms or 0)))
