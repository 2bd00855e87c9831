"""Costs of messages in many groups: one line for groups that are alike, the slowest named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rich.console import Console, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.cost_kinds import CostKind, cost_kinds
from commlens.render.at_scale.names import kind_name, median_of, whose, worst_of
from commlens.render.columns import Column, fitted
from commlens.render.words import NOT_KNOWN, number

TOP_KINDS: Final = 8


def kinds_title(report: Report) -> str:
    """The section's title, with what is not shown."""
    count = len(cost_kinds(report))
    few = f": {TOP_KINDS} of {count:,} kinds, those of most groups" if count > TOP_KINDS else ""
    return f"Cost of a message: alpha + bytes / bandwidth, alike groups together{few}"


def kinds_table(report: Report, console: Console) -> RenderableType | None:
    """Kinds of which something is known; None where there is none."""
    found = cost_kinds(report)[:TOP_KINDS]
    if not found:
        return None

    def column(head: str, value: Callable[[CostKind], str], drop: int = 0, right: bool = True) -> Column:
        return Column(head, [value(each) for each in found], right=right, drop=drop)

    return fitted(
        console,
        [
            column("groups", lambda each: kind_name(console, each.kind), right=False),
            column("", lambda each: f"{len(each.lines):,} of {each.count:,}", 2),
            column("operation", lambda each: each.op, right=False),
            column("scope", lambda each: each.scope or NOT_KNOWN, 3, right=False),
            column("alpha us\nmedian", lambda each: number(median_of(each.alpha_us))),
            column("highest\nus", lambda each: number(worst_of(each.alpha_us)), 2),
            column("GB/s\nmedian", lambda each: number(median_of(each.bandwidth_gb_s))),
            column("lowest\nGB/s", lambda each: number(worst_of(each.bandwidth_gb_s)), 1),
            column("in", lambda each: whose(console, each.bandwidth_gb_s), 1, right=False),
        ],
    )
