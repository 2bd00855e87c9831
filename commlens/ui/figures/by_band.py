"""Where the step of many ranks goes: in bands of equally many, those that stand still longest first."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from commlens.analyzers import Report
from commlens.analyzers.at_scale.many import is_many
from commlens.analyzers.at_scale.rank_sets import RankSet, all_ranks, by_quantile, rank_set, singled_out
from commlens.render.words import counted, milliseconds
from commlens.ui import palette
from commlens.ui.figures import by_rank
from commlens.ui.figures.frame import Trace, axis, bars, figure, named, saying

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PARTS: Final = {
    palette.COMPUTE: "compute",
    palette.WAIT: "wait",
    palette.TRANSFER: "transfer",
    palette.UNSPLIT: "unsplit",
    palette.OTHER: "other",
}
_WHOLE: Final = {palette.COMPUTE: "compute", palette.EXPOSED: "exposed", palette.OTHER: "other"}


def rank_budgets(report: Report, among: Collection[int] | None = None) -> Figure:
    """Where the step of each rank goes; of many ranks of bands of them, and of the two worst.

    Args:
        report: of the run.
        among: only these ranks, a bar each; None for all.
    """
    return bands(report) if among is None and is_many(report) else by_rank.rank_budgets(report, among)


def bands(report: Report) -> Figure:
    """Stacked bars of ten bands, means over the ranks of each of their medians over steps, ms."""
    known = [rank for rank in all_ranks(report) if rank[0].exposed_ms is not None]
    if not known:
        return saying(report, "no rank has a time budget", "time-budget", "steps")
    sets = [*(rank_set(f"rank {rank[0].rank}", [rank]) for rank in singled_out(known)), *by_quantile(report)]
    return figure(
        _traces(sets),
        f"Stacked bars of the step of {len(known):,} ranks in bands, those that stand still longest first.",
        320,
        barmode="stack",
        bargap=0.25,
        showlegend=True,
        xaxis=axis(
            "who causes most waiting, who works longest, then bands of ranks: those that stand still longest first",
            showgrid=False,
            zeroline=False,
            **named(range(len(sets)), [own.name for own in sets]),
        ),
        yaxis=axis("ms per step, means of medians", rangemode="tozero"),
    )


def _traces(sets: list[RankSet]) -> list[Trace]:
    split = any("wait" in own.means and "transfer" in own.means for own in sets)
    said = [
        f"{own.name}, {counted(len(own.ranks), 'rank')}: step {milliseconds(own.means.get('step'))} ms" for own in sets
    ]
    found = []
    for kind, what in (_PARTS if split else _WHOLE).items():
        values = [own.means.get(what) for own in sets]
        if any(values):
            template = f"%{{customdata}}<br>{palette.NAMES[kind]}: %{{y:.4~g}} ms<extra></extra>"
            found.append(bars(kind, values, range(len(sets)), customdata=said, hovertemplate=template))
    return found
