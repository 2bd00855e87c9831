"""Which ranks a view shows, and in what order: with many of them the worst, or their hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.report import Report

MOST: Final = 64  # lines that can be told apart on a screen
BY_RANK, BY_WORST, BY_HOST = "rank", "worst", "host"
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


def pick_lines(report: Report, order: str = BY_RANK, most: int = MOST) -> Lines:
    """Choose lines: ranks ascending, ranks or hosts that cause or suffer most waiting first.

    Where there are more ranks than lines, the worst are taken, ascending in `BY_RANK`.
    """
    ranks = report.ranks
    if order == BY_HOST:
        lines = _hosts(ranks)
        what = "hosts"
    else:
        worst = _worst(ranks)
        chosen = worst[:most] if order == BY_WORST else sorted(worst[:most])
        lines = [Line(f"rank {ranks[position].rank}", (position,)) for position in chosen]
        what = "ranks"
    total = len(lines) if order == BY_HOST else len(ranks)
    shown = min(most, total)
    left = "" if shown == total else f"{shown} of {total:,} {what}: those that cause or suffer most waiting"
    return Lines(tuple(lines[:most]), left)


def _worst(ranks: Sequence[RankLine]) -> list[int]:
    """Positions, those that cause most and those that wait most in turns."""
    places = range(len(ranks))
    causing = sorted(places, key=lambda place: -(ranks[place].caused_wait_ms_per_step or 0))
    waiting = sorted(places, key=lambda place: -(ranks[place].wait_ms_per_step or 0))
    return list(dict.fromkeys(place for pair in zip(causing, waiting, strict=True) for place in pair))


def _hosts(ranks: Sequence[RankLine]) -> list[Line]:
    """Hosts, the one whose ranks cause most first."""
    found: dict[str, list[int]] = {}
    for position, line in enumerate(ranks):
        found.setdefault(line.host or "host not known", []).append(position)
    cost = {host: sum(ranks[place].caused_wait_ms_per_step or 0 for place in own) for host, own in found.items()}
    return [Line(host, tuple(found[host])) for host in sorted(found, key=lambda host: -cost[host])]
