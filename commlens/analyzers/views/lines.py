"""Which ranks a view shows, and in what order: with many of them the worst, or their hosts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.at_scale.many import MANY, is_many
from commlens.analyzers.at_scale.rank_sets import UNKNOWN_HOST, by_group
from commlens.analyzers.report import Report

MOST: Final = MANY
BY_RANK, BY_WORST, BY_HOST, BY_GROUP = "rank", "worst", "host", "group"
ORDERS: Final = (BY_RANK, BY_WORST, BY_HOST)


@dataclass(frozen=True)
class Line:
    """One line of a view.

    Attributes:
        name: "rank 3", or of a host.
        positions: of the ranks it stands for, among those analysed.
    """

    name: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Lines:
    """The lines of a view; `left_out` says what is not shown, "" where all is."""

    lines: tuple[Line, ...]
    left_out: str


def orders(report: Report) -> tuple[str, ...]:
    """The orders there are, the first is the one that is meant where none is chosen: of many ranks the worst."""
    return (BY_WORST, BY_HOST, BY_GROUP, BY_RANK) if is_many(report) else ORDERS


def pick_lines(report: Report, order: str = BY_RANK, most: int = MOST, among: Collection[int] | None = None) -> Lines:
    """Choose lines: ranks ascending, ranks, hosts or groups that cause or suffer most waiting first.

    Where there are more ranks than lines, the worst are taken, ascending in `BY_RANK`.

    Args:
        report: of the run.
        order: one of `orders`.
        most: lines.
        among: only these ranks; None for all.
    """
    ranks = report.ranks
    places = [place for place, line in enumerate(ranks) if among is None or line.rank in among]
    if order == BY_HOST:
        lines, what = _hosts(ranks, places), "hosts"
    elif order == BY_GROUP:
        lines, what = _groups(report, places), "process groups"
    else:
        worst = _worst(ranks, places)
        chosen = worst[:most] if order == BY_WORST else sorted(worst[:most])
        lines, what = [Line(f"rank {ranks[position].rank}", (position,)) for position in chosen], "ranks"
    total = len(lines) if order in (BY_HOST, BY_GROUP) else len(places)
    shown = min(most, total)
    which = "cause or suffer most waiting, or work longest" if len(ranks) > MANY else "cause or suffer most waiting"
    of = "" if among is None else " that were chosen"
    left = "" if shown == total else f"{shown} of {total:,} {what}{of}: those that {which}"
    return Lines(tuple(lines[:most]), left)


def _worst(ranks: Sequence[RankLine], places: Sequence[int]) -> list[int]:
    """Positions, those that cause most and those that wait most in turns; of many also those that work longest."""
    causing = sorted(places, key=lambda place: -(ranks[place].caused_wait_ms_per_step or 0))
    waiting = sorted(places, key=lambda place: -(ranks[place].wait_ms_per_step or 0))
    working = sorted(places, key=lambda place: -(ranks[place].imbalance_ms_per_step or 0))
    turns = (causing, working, waiting) if len(ranks) > MANY else (causing, waiting)
    return list(dict.fromkeys(place for turn in zip(*turns, strict=True) for place in turn))


def _groups(report: Report, places: Collection[int]) -> list[Line]:
    """Process groups, the one whose ranks cause most on average first."""
    position = {report.ranks[place].rank: place for place in places}
    found = ((each.name, tuple(position[r] for r in each.ranks if r in position)) for each in by_group(report))
    return [Line(f"group {name}", own) for name, own in found if own]


def _hosts(ranks: Sequence[RankLine], places: Sequence[int]) -> list[Line]:
    """Hosts, the one whose ranks cause most first; of many in turns with those whose ranks work longest."""
    found: dict[str, list[int]] = {}
    for position in places:
        found.setdefault(ranks[position].host or UNKNOWN_HOST, []).append(position)
    cost = {host: sum(ranks[place].caused_wait_ms_per_step or 0 for place in own) for host, own in found.items()}
    order = sorted(found, key=lambda host: -cost[host])
    if len(ranks) > MANY:
        work = {host: sum(ranks[place].imbalance_ms_per_step or 0 for place in own) for host, own in found.items()}
        working = sorted(found, key=lambda host: -work[host] / len(found[host]))
        order = list(dict.fromkeys(host for pair in zip(order, working, strict=True) for host in pair))
    return [Line(host, tuple(found[host])) for host in order]
