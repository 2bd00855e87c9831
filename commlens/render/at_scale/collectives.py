"""Collectives of many groups: one line for groups that are alike, the slowest named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.collective_kinds import CollectiveKind, collective_kinds
from commlens.analyzers.at_scale.spread import Spread
from commlens.analyzers.collective_line import CollectiveLine
from commlens.analyzers.collectives import BASIS
from commlens.render.at_scale.names import kind_name, median_of, whose
from commlens.render.columns import Column, fitted, note
from commlens.render.nccl import choices_note
from commlens.render.words import NOT_KNOWN, milliseconds, number, percent, size

TOP_KINDS: Final = 12
_MEANING: Final = (
    "A line is all groups of one description and size with that operation and message size. Times are of the groups'"
    " medians over their ranks' parts; worst, in: the group in which they are longest. exposed: ms per step, the sum"
    " over the groups, each a mean over all ranks."
)
_DURATIONS: Final = " Where no transfer is known they are durations, waiting included (<), and GB/s lower bounds."


def kinds_title(report: Report, most: int = TOP_KINDS) -> str:
    """The section's title: how many lines were put together, and what is not shown; `most` kinds are."""
    found = collective_kinds(report)
    groups = len({line.group for line in report.collectives})
    few = f", the {most} costliest of {len(found):,} kinds" if len(found) > most else ""
    return f"Collectives: {groups:,} groups, alike ones together{few}; single groups with --ranks group=NAME"


def kinds_section(report: Report, console: Console, most: int = TOP_KINDS) -> RenderableType | None:
    """The costliest kinds, at most `most`, and what NCCL chose for them; None where there are no collectives."""
    found = collective_kinds(report)[:most]
    if not found:
        return None
    chosen = choices_note([line for each in found for line in each.lines])
    durations = any(each.transfer_ms is None for each in found)
    told = note(_MEANING + _DURATIONS * durations)
    return Group(kinds_table(found, console), told, *([] if chosen is None else [chosen]))


def kinds_table(found: Sequence[CollectiveKind], console: Console) -> RenderableType:
    """One line a kind, in their order."""

    def column(head: str, value: Callable[[CollectiveKind], str], drop: int = 0, right: bool = True) -> Column:
        return Column(head, [value(each) for each in found], right=right, drop=drop)

    return fitted(
        console,
        [
            column("groups", lambda each: f"{kind_name(console, each.kind)} {_how_many(each)}", right=False),
            column("operation", lambda each: each.op, right=False),
            column("size", lambda each: ("~" if each.bytes_vary else "") + size(each.bytes)),
            column("per\nstep", lambda each: number(each.count_per_step), 4),
            column("median\nms", lambda each: _ms(each, "median"), 1),
            column("worst\nms", lambda each: _ms(each, "worst"), 1),
            column("in", lambda each: whose(console, _time(each)), 1, right=False),
            column("wait\nmean", lambda each: milliseconds(median_of(each.wait_ms)), 3),
            column("exposed\nms", lambda each: milliseconds(each.exposed_ms_per_step), 1),
            column("busbw\nGB/s", lambda each: _busbw(each, "median"), 2),
            column("lowest\nGB/s", lambda each: _busbw(each, "worst"), 5),
        ],
    )


def group_lines_table(lines: Sequence[CollectiveLine], console: Console) -> RenderableType:
    """Single groups, in their order: for those who drill down."""

    def column(head: str, value: Callable[[CollectiveLine], str], drop: int = 0, right: bool = True) -> Column:
        return Column(head, [value(line) for line in lines], right=right, drop=drop)

    return fitted(
        console,
        [
            column("group", lambda line: line.group, right=False),
            column("operation", lambda line: line.op, right=False),
            column("size", lambda line: ("~" if line.bytes_vary else "") + size(line.bytes)),
            column("per\nstep", lambda line: number(line.count_per_step), 4),
            column("transfer\np50 ms", lambda line: milliseconds(line.transfer_ms_p50), 1),
            column("transfer\np95 ms", lambda line: milliseconds(line.transfer_ms_p95), 4),
            column("duration\np50 ms", lambda line: milliseconds(line.duration_ms_p50), 3),
            column("wait\nmean", lambda line: milliseconds(line.wait_ms_mean), 1),
            column("exposed\nms/step", lambda line: milliseconds(line.exposed_ms_per_step), 1),
            column("busbw\nGB/s", _line_busbw, 1),
            column("of\npeak", lambda line: percent(line.efficiency), 3),
        ],
    )


def _how_many(each: CollectiveKind) -> str:
    return f"x {len({line.group for line in each.lines}):,}"


def _time(each: CollectiveKind) -> Spread | None:
    return each.transfer_ms or each.duration_ms


def _ms(each: CollectiveKind, field: str) -> str:
    """The transfer; where it is not known the duration, which it cannot exceed."""
    found = _time(each)
    mark = "<" if each.transfer_ms is None and found is not None else ""
    return mark + milliseconds(None if found is None else getattr(found, field))


def _busbw(each: CollectiveKind, field: str) -> str:
    if each.busbw_gb_s is None:
        return NOT_KNOWN
    return ">" * each.bound + number(getattr(each.busbw_gb_s, field))


def _line_busbw(line: CollectiveLine) -> str:
    return ">" * (line.bandwidth_basis == BASIS) + number(line.busbw_gb_s) if line.busbw_gb_s else NOT_KNOWN
