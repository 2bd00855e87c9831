"""The time budgets of two runs, one above the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from commlens.analyzers.comparison import Comparison
from commlens.ui import palette
from commlens.ui.figures.frame import axis, bars, figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_PARTS = {
    palette.COMPUTE: "compute_ms",
    palette.WAIT: "exposed_wait_ms",
    palette.TRANSFER: "exposed_transfer_ms",
    palette.UNSPLIT: "exposed_unsplit_ms",
    palette.OTHER: "other_ms",
}
_WHOLE = {palette.COMPUTE: "compute_ms", palette.EXPOSED: "exposed_ms", palette.OTHER: "other_ms"}
_SIDES = ["before", "after"]


def compared(result: Comparison) -> Figure:
    """Where a step goes in both runs, ms; without the split of what is exposed where one of them has none."""
    split = all(
        value is not None
        for name in ("exposed_wait_ms", "exposed_transfer_ms")
        for value in (result.parts[name].before_ms, result.parts[name].after_ms)
    )
    traces = []
    for kind, name in (_PARTS if split else _WHOLE).items():
        pair = result.parts[name]
        if pair.before_ms or pair.after_ms:
            said = f"{palette.NAMES[kind]}: %{{x:.4~g}} ms<extra></extra>"
            traces.append(bars(kind, [pair.before_ms, pair.after_ms], _SIDES, flat=True, hovertemplate=said))
    return figure(
        traces,
        "Bars of the parts of a step, before and after.",
        210,
        barmode="stack",
        showlegend=True,
        xaxis=axis("ms per step", rangemode="tozero"),
        yaxis=axis("", autorange="reversed", showgrid=False),
    )
