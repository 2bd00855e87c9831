"""Who waits and who is waited for, step by step: a cell a rank (or host) and step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from commlens.analyzers import Report
from commlens.analyzers.views.heat import Heat
from commlens.analyzers.views.lines import Line
from commlens.ui import palette
from commlens.ui.figures.frame import axis, figure, named, saying, shown

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CAUSED, WAITED = "caused", "waited"
_COLUMNS: Final = 200
_TITLES: Final = {CAUSED: "waiting it caused", WAITED: "waiting it suffered"}


def heat(report: Report, found: Heat | None, lines: Sequence[Line], what: str = CAUSED) -> Figure:
    """Waiting caused or suffered, ms a step.

    Args:
        report: says why there is none.
        found: of the run, None where it cannot be told.
        lines: which ranks, from above; of several on a line the mean.
        what: CAUSED or WAITED.
    """
    if found is None or not found.steps.size or not lines:
        return saying(report, "waiting cannot be told", "waits", "time-budget", "clocks")
    values = found.caused if what == CAUSED else found.waited
    rows = np.stack([_mean(values[list(line.positions)], axis=0) for line in lines])
    steps, rows = _in_stretches(found.steps.astype(float), rows)
    names = [shown(line.name, 20) for line in lines]
    colour = palette.COLOURS[palette.CAUSED if what == CAUSED else palette.WAIT]
    return figure(
        [
            {
                "type": "heatmap",
                "x": steps,
                "y": np.arange(len(lines)),
                "z": np.round(rows, 4),
                "text": names,
                "zmin": 0,
                "colorscale": [[0, "rgba(128, 128, 128, 0.10)"], [1, colour]],
                "colorbar": {"title": {"text": "ms"}, "thickness": 12, "outlinewidth": 0},
                "hovertemplate": f"%{{y}}, step %{{x:.0f}}<br>{_TITLES[what]}: %{{z:.3~f}} ms<extra></extra>",
                "hoverongaps": False,
            }
        ],
        f"{_TITLES[what].capitalize()}, {len(lines)} lines over {found.steps.size} steps.",
        max(220, 110 + 18 * len(lines)),
        hovermode="closest",
        xaxis=axis("step", showgrid=False, tickformat="d"),
        yaxis=axis("", range=[len(lines) - 0.5, -0.5], showgrid=False, zeroline=False, fixedrange=True)
        | named(range(len(lines)), names),
    )


def _in_stretches(
    steps: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most `_COLUMNS` columns: means of as many steps as it takes."""
    width = -(-steps.size // _COLUMNS)
    if width == 1:
        return steps, rows
    starts = range(0, steps.size, width)
    means = np.stack([_mean(rows[:, start : start + width], axis=1) for start in starts], axis=1)
    return np.array([steps[start : start + width].mean() for start in starts]), means


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Without what is not known; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis))
