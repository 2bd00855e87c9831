"""What fixes the step's end: the critical path by kind and its longest parts."""

from __future__ import annotations

from collections import defaultdict

from rich.console import Console, Group, RenderableType
from rich.table import Table

from commlens.analyzers import Report
from commlens.analyzers.across.critical_path import TRANSFER
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.path_hosts import path_hosts
from commlens.analyzers.own_work import GAPS, HOST_BOUND
from commlens.analyzers.path_lines import CriticalPath
from commlens.render.columns import INDENT, PROSE, clipped, note
from commlens.render.words import bar, counted, milliseconds, percent

TOP_PARTS = 6
TOP_HOSTS = 4
BAR = 30
_KINDS = {HOST_BOUND: "idle: nothing launched", GAPS: "idle: launched, not begun"}
_FIGURES = 24  # columns that ms and % take
_MEANING = (
    "The chain of work and transfers that ends last: time saved elsewhere does not shorten the step. Waiting is"
    " never on it, what was waited for is."
)
_MEANS = " Means: a few long steps weigh more here than in the medians above."
_APART = 0.1  # of the usual step
_LEAST = 0.01  # of the step, below which a part is not listed


def path_title(report: Report) -> str:
    """The section's title: over how many steps."""
    if report.critical_path is None:
        return ""
    path = report.critical_path
    return f"What fixes the step's end (mean of {counted(path.steps, 'step')} of {milliseconds(path.step_ms)} ms)"


def path_section(report: Report, console: Console) -> RenderableType | None:
    """Kinds with bars, then the longest parts; None where the path is not known."""
    path = report.critical_path
    if path is None or not path.step_ms:
        return None
    usual = report.time_budget.step_ms
    longer = _MEANS if usual and abs(path.step_ms - usual) >= _APART * usual else ""
    by_host: list[RenderableType] = ["", _hosts(report, path, console)] if is_many(report) else []
    return Group(_kinds(path, console), "", _parts(path, console), *by_host, note(_MEANING + longer))


def _hosts(report: Report, path: CriticalPath, console: Console) -> Table:
    """The hosts whose work is longest on the path, with the rank of each that works most."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    hosts = path_hosts(report)
    for each in hosts[:TOP_HOSTS]:
        most = f"{each.host}: rank {each.ranks[0]}" + f" and {len(each.ranks) - 1} more" * (len(each.ranks) > 1)
        name = clipped(console, most, min(console.width, PROSE) - INDENT - _FIGURES)
        table.add_row(name, f"{milliseconds(each.ms)} ms", percent(each.ms, path.step_ms))
    rest = hosts[TOP_HOSTS:]
    if rest:
        ms = sum(each.ms for each in rest)
        table.add_row(f"{len(rest)} more hosts", f"{milliseconds(ms)} ms", percent(ms, path.step_ms))
    return table


def kind_name(kind: str) -> str:
    """What a kind of time on the path is called."""
    return _KINDS.get(kind, kind)


def _kinds(path: CriticalPath, console: Console) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(no_wrap=True, overflow="crop")
    for kind, ms in path.by_kind.items():
        share = ms / path.step_ms
        table.add_row(kind_name(kind), f"{milliseconds(ms)} ms", percent(share), bar(console, share, BAR))
    return table


def _parts(path: CriticalPath, console: Console) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    most = min(console.width, PROSE) - INDENT - _FIGURES
    parts = named_parts(path)
    shown = [(name, ms) for name, ms in parts[:TOP_PARTS] if ms >= _LEAST * path.step_ms]
    rest = parts[len(shown) :]
    last = [(f"{len(rest)} more", sum(ms for _, ms in rest))] if rest else []
    for name, ms in [*shown, *last]:
        table.add_row(clipped(console, name, most), f"{milliseconds(ms)} ms", percent(ms, path.step_ms))
    return table


def named_parts(path: CriticalPath) -> list[tuple[str, float]]:
    """Parts with the rank that worked, ms per step, the longest first.

    A transfer stands there once, over all ranks: through which one it was walked says nothing.
    """
    named: defaultdict[str, float] = defaultdict(float)
    for part in path.parts:
        rank = "" if part.kind == TRANSFER else f"rank {part.rank}"
        name = part.name if part.name != part.kind else ""
        named[", ".join(word for word in (kind_name(part.kind), rank, name) if word)] += part.ms
    return sorted(named.items(), key=lambda item: -item[1])
