"""All findings of a run, the most recoverable time first."""

from __future__ import annotations

from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.links import find_slow_links
from commlens.analyzers.findings.messages import find_expert_imbalance, find_small_collectives
from commlens.analyzers.findings.stragglers import find_stragglers
from commlens.analyzers.report import Finding


def find_findings(context: Context) -> tuple[Finding, ...]:
    """Findings worth at least `context.LEAST_SHARE` of a step, by their ceilings; broken runs first."""
    found = [
        *find_stragglers(context),
        *find_slow_links(context),
        *find_small_collectives(context),
        *find_expert_imbalance(context),
    ]
    return tuple(sorted(found, key=lambda each: -(each.ceiling_ms or 0)))
