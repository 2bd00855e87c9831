"""Findings that counters of links tell: full, damaged, bypassed, idle, congested and shared links."""

from __future__ import annotations

from collections.abc import Sequence

from commlens.analyzers.findings.congested import find_congestion
from commlens.analyzers.findings.context import Context
from commlens.analyzers.findings.full_links import find_full_links
from commlens.analyzers.findings.interference import find_interference
from commlens.analyzers.findings.nics import find_one_nic
from commlens.analyzers.findings.transports import find_transport_fallback
from commlens.analyzers.findings.wired import wired
from commlens.analyzers.report import Finding


def find_on_links(context: Context, slow: Sequence[Finding]) -> list[Finding]:
    """What counters tell of a run's links, a cause once: one that says why a link is full stands for that.

    Args:
        context: the run.
        slow: findings slow-link and slow-group by transfers, which come back with what counters add to them.
    """
    hosts = wired(context)
    wrong_way = find_transport_fallback(context, hosts)
    others = find_interference(context, hosts)
    alone = [] if wrong_way else find_one_nic(context, hosts)
    causes = [*wrong_way, *others, *alone]
    explained = {rank for each in causes for rank in each.ranks}
    full = find_full_links(context, hosts, slow)
    known = [each for each in full if each in slow or not set(each.ranks) <= explained or each.group is not None]
    jammed = [each for each in find_congestion(context, hosts) if not set(each.ranks) <= explained]
    return [*causes, *jammed, *known]
