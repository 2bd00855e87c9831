"""Many ranks: how each of their numbers is spread, and hosts, process groups or bands of them, the worst first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType

from commlens.analyzers import Report
from commlens.analyzers.at_scale.rank_sets import GROUP, HOST, QUANTILE, Ranked, RankSet, by_host, spreads
from commlens.render.columns import Column, clipped, fitted, note
from commlens.render.words import NOT_KNOWN, milliseconds, percent

TOP_HOSTS: Final = 6
HEADS: Final = {HOST: "host", GROUP: "group", QUANTILE: "ranks"}
_BANDS_MEAN: Final = "Means over the ranks of each; worst: the rank of it that causes most waiting, and what."
_NAME: Final = 20
_SPREAD: Final = ("step", "compute", "exposed", "wait", "transfer", "other", "last", "caused", "extra")
_COLUMNS: Final = {  # and which is left out first
    "step": 1,
    "compute": 1,
    "wait": 1,
    "transfer": 1,
    "other": 3,
    "hidden": 4,
    "last": 5,
    "extra": 1,
    "caused": 1,
}
_EXTRA: Final = " extra: own work (compute and other) beyond the mean of all ranks."
_SPREAD_MEANS: Final = f"Over all ranks: nine in ten are below 90 %, one in ten below 10 %.{_EXTRA}"
_SETS_MEAN: Final = (
    "Means over the ranks of each, those first that cause most waiting or work longest; worst: the rank of it that"
    " causes most waiting, and what."
)


def spread_table(ranks: Sequence[Ranked], console: Console) -> RenderableType:
    """One line a number: the worst rank, the bulk, the best."""
    found = {what: each for what, each in spreads(ranks).items() if what in _SPREAD and each.worst}
    if "wait" in found:
        found.pop("exposed", None)

    def column(head: str, field: str, drop: int = 0) -> Column:
        return Column(head, [_said(what, getattr(each, field)) for what, each in found.items()], drop=drop)

    table = fitted(
        console,
        [
            Column(f"of {len(ranks):,} ranks", list(found), right=False),
            column("worst", "worst"),
            Column("", [each.whose for each in found.values()], right=False),
            column("90 %", "bad", 1),
            column("median", "median"),
            column("10 %", "good", 1),
            column("best", "best", 2),
        ],
    )
    return Group(table, note(_SPREAD_MEANS))


def hosts_table(report: Report, console: Console) -> RenderableType:
    """The worst hosts, and how many others there are."""
    hosts = by_host(report)
    more = len(hosts) - TOP_HOSTS
    left = f" {more:,} more hosts with --by host." if more > 0 else ""
    return Group(sets_table(hosts[:TOP_HOSTS], HOST, console), note(_SETS_MEAN + left))


def sets_table(sets: Sequence[RankSet], way: str, console: Console) -> RenderableType:
    """One line a set of ranks, in their order.

    Args:
        sets: hosts, groups or bands.
        way: one of `WAYS`: what they are.
        console: tables fit it.
    """

    def column(what: str) -> Column:
        cells = [_said(what, own.means.get(what)) for own in sets]
        return Column(what, cells, drop=_COLUMNS[what])

    return fitted(
        console,
        [
            Column(HEADS[way], [clipped(console, own.name, _NAME) for own in sets], right=False),
            Column("ranks" if way != QUANTILE else "count", [f"{len(own.ranks):,}" for own in sets], drop=2),
            *(column(what) for what in _COLUMNS),
            Column("worst", [NOT_KNOWN if own.worst is None else f"rank {own.worst}" for own in sets], drop=1),
            Column("causes", [milliseconds(own.worst_caused_ms) for own in sets], drop=1),
        ],
    )


def sets_section(sets: Sequence[RankSet], way: str, console: Console) -> RenderableType:
    """All of them, with what the columns mean."""
    return Group(sets_table(sets, way, console), note(_BANDS_MEAN if way == QUANTILE else _SETS_MEAN))


def _said(what: str, value: float | None) -> str:
    return percent(value) if what == "last" else milliseconds(value)
