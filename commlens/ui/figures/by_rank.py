"""Ranks beside one another: what each waits and makes others wait, and where its step goes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from commlens.analyzers import Report
from commlens.analyzers.across.rank_lines import RankLine
from commlens.analyzers.at_scale.many import MANY
from commlens.analyzers.at_scale.rank_sets import Ranked, all_ranks, worst_ranks
from commlens.render.words import milliseconds, percent
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, bars, figure, named, note, saying, shown
from commlens.ui.figures.time_budget import parts

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_RANKS = MANY
_LABELS = 32  # ranks named along the axis
_HOSTS = 8  # that have room for their names
_ROOM = 1.15  # of the highest bar, with names of hosts above it


def ranks(report: Report, among: Collection[int] | None = None) -> Figure:
    """What each rank waits for others, and each other rank for it on average; ms per step, means over steps.

    Args:
        report: of the run.
        among: only these ranks; None for all.
    """
    known = [rank for rank in all_ranks(report, among) if rank[1].wait_ms_per_step is not None]
    if not known:
        return saying(report, "waits are not known", "wait-transfer-split", "stragglers", "time-budget")
    many = len(known) > MANY
    worst = worst_ranks(known, MOST_RANKS) if many else _worst(known, _trouble)
    which = "that wait, work or cause most" if many else "that wait or cause most"
    lines = [line for _, line in worst]
    per = "ms per step, means" if report.run.steps.analyzed else "ms over the whole trace"
    said = [_said(line) for line in lines]
    traces = [
        _of(palette.WAIT, "waits for others", [line.wait_ms_per_step for line in lines], said),
        _of(palette.CAUSED, "others wait for it (caused)", [line.caused_wait_ms_per_step for line in lines], said),
    ]
    return figure(
        traces,
        f"Bars: what each of {len(lines)} ranks waits for others, and what the others wait for it.",
        320,
        barmode="group",
        bargap=0.25,
        showlegend=True,
        **_by_rank(worst, len(known), per, which, max(_trouble(rank) for rank in worst)),
    )


def rank_budgets(report: Report, among: Collection[int] | None = None) -> Figure:
    """Where the step of each rank goes, medians over its steps, ms.

    Args:
        report: of the run.
        among: only these ranks; None for all.
    """
    known = [rank for rank in all_ranks(report, among) if rank[0].exposed_ms is not None]
    if not known:
        return saying(report, "no rank has a time budget", "time-budget", "steps")
    worst = _worst(known, lambda rank: rank[0].exposed_ms or 0.0)
    told = [dict(parts(budget)) for budget, _ in worst]
    said = [f"{_who(line)}: step {milliseconds(budget.step_ms)} ms" for budget, line in worst]
    traces = []
    for kind in (palette.COMPUTE, palette.WAIT, palette.TRANSFER, palette.UNSPLIT, palette.EXPOSED, palette.OTHER):
        values = [own.get(kind) for own in told]
        if any(values):
            traces.append(_of(kind, palette.NAMES[kind], values, said))
    highest = max(sum(value or 0.0 for value in own.values()) for own in told)
    return figure(
        traces,
        f"Stacked bars of the step of each of {len(worst)} ranks.",
        320,
        barmode="stack",
        bargap=0.25,
        showlegend=True,
        **_by_rank(worst, len(known), "ms per step, medians", "with most exposed communication", highest),
    )


def _trouble(rank: Ranked) -> float:
    return max(rank[1].wait_ms_per_step or 0.0, rank[1].caused_wait_ms_per_step or 0.0)


def _worst(known: Sequence[Ranked], trouble: Any) -> list[Ranked]:
    """Those with most trouble, by number."""
    chosen = sorted(known, key=trouble, reverse=True)[:MOST_RANKS]
    return sorted(chosen, key=lambda rank: rank[0].rank)


def _of(kind: str, name: str, values: Sequence[float | None], said: Sequence[str]) -> Trace:
    template = f"%{{customdata}}<br>{name}: %{{y:.4~g}} ms<extra></extra>"
    return bars(kind, values, range(len(values)), name=name, customdata=list(said), hovertemplate=template)


def _by_rank(worst: Sequence[Ranked], count: int, unit: str, which: str, highest: float) -> dict[str, Any]:
    """Layout with a place for each rank, and what is not shown."""
    names = [str(budget.rank) for budget, _ in worst]
    places = named(range(len(names)), names, _LABELS)
    edges = [-0.6, max(len(names), 8) - 0.4]  # few bars are not as wide as the page
    layout: dict[str, Any] = {
        "xaxis": axis("rank", showgrid=False, range=edges, zeroline=False, **places),
        "yaxis": axis(unit, rangemode="tozero"),
    }
    hosts = _hosts(worst)
    if hosts and highest:
        layout["yaxis"]["range"] = [0, _ROOM * highest]
    layout["shapes"] = [_edge(place) for place, _ in hosts[1:]]
    layout["annotations"] = [_host(place, host) for place, host in hosts]
    if count > len(worst):
        layout["annotations"].append(_some(f"{len(worst)} of {count:,} ranks: those {which}"))
    return layout


def _hosts(worst: Sequence[Ranked]) -> list[tuple[int, str]]:
    """Where the ranks of each host begin; nothing where there is one, or too many to be named, or they are mixed."""
    names = [line.host or "" for _, line in worst]
    starts = [(place, host) for place, host in enumerate(names) if not place or names[place - 1] != host]
    return starts if 1 < len(starts) <= _HOSTS and len({host for _, host in starts}) == len(starts) else []


def _edge(place: int) -> dict[str, Any]:
    line = {"color": palette.LINE, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": place - 0.5, "x1": place - 0.5, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _host(place: int, host: str) -> dict[str, Any]:
    """The name of a host within the plot, over its first rank."""
    return note(shown(host, 18), x=place - 0.45, y=1, xref="x", yanchor="top", size=11)


def _some(text: str) -> dict[str, Any]:
    return note(text, x=1, xanchor="right", align="right")


def _said(line: RankLine) -> str:
    last = "" if line.arrives_last_share is None else f"; last in {percent(line.arrives_last_share)}"
    return _who(line) + last


def _who(line: RankLine) -> str:
    return f"rank {line.rank}" + (f" on {shown(line.host)}" if line.host else "")
