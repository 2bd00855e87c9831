"""Links of many hosts: one line for the same device on all of them, then the worst single ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console, RenderableType

from commlens.analyzers.at_scale.link_kinds import LinkKind, link_kinds
from commlens.analyzers.counted.link_lines import CARRIED, LinkLine
from commlens.render.at_scale.names import median_of, whose, worst_of
from commlens.render.columns import Column, clipped, fitted
from commlens.render.words import number, percent

TOP_KINDS: Final = 12
_NAME: Final = 14


def kinds_table(lines: Sequence[LinkLine], name: Callable[[LinkLine], str], console: Console) -> RenderableType:
    """One line a device.

    Args:
        lines: of all hosts.
        name: of a link's kind.
        console: the table fits it.
    """
    found = link_kinds(lines)[:TOP_KINDS]

    def column(head: str, value: Callable[[LinkKind], str], drop: int = 0, right: bool = True) -> Column:
        return Column(head, [value(each) for each in found], right=right, drop=drop)

    return fitted(
        console,
        [
            column("link", lambda each: clipped(console, each.device, _NAME), right=False),
            column("hosts", lambda each: f"{len(each.lines):,}"),
            column("kind", lambda each: name(each.lines[0]), 5, right=False),
            column("peak", lambda each: number(each.peak_gb_s), 2),
            column("used\nmedian", lambda each: number(median_of(each.used_gb_s)), 1),
            column("most\nused", lambda each: number(worst_of(each.used_gb_s)), 1),
            column("on", lambda each: whose(console, each.used_gb_s), 1, right=False),
            column("of peak\nat most", lambda each: percent(worst_of(each.share_of_peak)), 3),
            column("GB moved\nmedian", lambda each: number(median_of(each.moved_gb)), 4),
            column("errors", _errors, 3),
            column("", _states, 4, right=False),
        ],
    )


def _errors(each: LinkKind) -> str:
    return f"{each.errors:,} on {each.with_errors:,}" if each.errors else ""


def _states(each: LinkKind) -> str:
    """How many are in another state than carrying."""
    return ", ".join(f"{count:,} {state}" for state, count in each.states.items() if state != CARRIED)
