"""What NCCL's proxies waited for on many ranks: one line for groups that are alike, before the longest single ones."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.wait_kinds import wait_kinds
from commlens.analyzers.device_operations import WAITS
from commlens.render.at_scale.names import kind_name, median_of
from commlens.render.columns import Column, fitted
from commlens.render.words import milliseconds


def kinds_table(report: Report, heads: Mapping[str, int], console: Console) -> RenderableType:
    """Medians over the ranks of each kind of groups.

    Args:
        report: with lines of `nccl_waits`.
        heads: of `WAITS` in their order, and which is left out first.
        console: the table fits it.
    """
    found = wait_kinds(report)
    columns = [
        Column("groups", [kind_name(console, each.kind) for each in found], right=False),
        Column("", [f"x {each.groups:,}" for each in found]),
        Column("ranks", [f"{each.ranks:,}" for each in found], drop=3),
    ]
    for (head, drop), name in zip(heads.items(), WAITS, strict=True):
        cells = [milliseconds(median_of(each.waits_ms[name])) for each in found]
        columns.append(Column(f"{head}\nmedian", cells, drop=drop))
    return fitted(console, columns)
