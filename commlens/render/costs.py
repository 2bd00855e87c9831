"""The cost model of a report: what a message costs in each group."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.across.transfers import CostLine
from commlens.analyzers.at_scale.many import is_many
from commlens.render.at_scale.costs import kinds_table, kinds_title
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import NOT_KNOWN, number

TOP_COSTS = 6
TOP_REASONS = 2
_GROUP = 14


def costs_title(report: Report) -> str:
    """The section's title, with what is not shown."""
    if is_many(report):
        return kinds_title(report)
    count = sum(_fitted(line) for line in report.cost_model)
    few = f"; {TOP_COSTS} of {count}" if count > TOP_COSTS else ""
    return f"Cost of a message: alpha + bytes / bandwidth (95 % intervals){few}"


def costs_section(report: Report, console: Console) -> RenderableType | None:
    """Fits, and why the others are none; None where nothing was measured."""
    if not report.cost_model:
        return None
    lines = [line for line in report.cost_model if _fitted(line)][:TOP_COSTS]
    reasons = _reasons(report)
    if not lines:
        return note(f"not known: {reasons[0]}")
    table = (kinds_table(report, console) if is_many(report) else None) or fitted(
        console,
        [
            Column("group", [clipped(console, line.group, _GROUP) for line in lines], right=False),
            Column("operation", [_op(line) for line in lines], right=False),
            Column("scope", [line.scope or NOT_KNOWN for line in lines], right=False, drop=3),
            Column("alpha us", [_alpha(line) for line in lines]),
            Column("bandwidth GB/s", [_bandwidth(line) for line in lines]),
            Column("samples", [number(line.samples) for line in lines], drop=2),
            Column("sizes", [number(line.sizes) for line in lines], drop=4),
        ],
    )
    notes = [note(f"not known: {reason}") for reason in reasons[:TOP_REASONS]]
    return Group(table, *notes) if notes else table


def _fitted(line: CostLine) -> bool:
    return line.alpha_us is not None or line.bandwidth_gb_s is not None


def _reasons(report: Report) -> list[str]:
    """Why alpha or bandwidth are not known, each reason once with where it is so first."""
    first: dict[str, str] = {}
    for line in report.cost_model:
        if line.reason is not None:
            first.setdefault(line.reason, f"{_op(line)} in group {line.group}: {line.reason}")
    return list(first.values())


def _op(line: CostLine) -> str:
    between = f" {line.ranks[0]} to {line.ranks[1]}" if line.op in ("send", "recv") and len(line.ranks) == 2 else ""
    return line.op + between


def _alpha(line: CostLine) -> str:
    if line.alpha_us is None:
        return f"<{number(line.alpha_high_us)}"
    return f"{number(line.alpha_us)} ({number(line.alpha_low_us)}..{number(line.alpha_high_us)})"


def _bandwidth(line: CostLine) -> str:
    if line.bandwidth_gb_s is None:
        return f">{number(line.bandwidth_low_gb_s)}" if line.bandwidth_low_gb_s >= 0.001 else NOT_KNOWN
    most = "?" if line.bandwidth_high_gb_s is None else number(line.bandwidth_high_gb_s)
    return f"{number(line.bandwidth_gb_s)} ({number(line.bandwidth_low_gb_s)}..{most})"
