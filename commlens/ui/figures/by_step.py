"""The parts of each step, one bar a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from commlens.analyzers import Report
from commlens.analyzers.by_step import StepLine
from commlens.render.words import milliseconds
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, bars, figure, named, saying

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LABELS = 24  # steps named along the axis
_SPLIT: dict[str, Callable[[StepLine], float | None]] = {
    palette.COMPUTE: lambda line: line.compute_ms,
    palette.WAIT: lambda line: line.exposed_wait_ms,
    palette.TRANSFER: lambda line: line.exposed_transfer_ms,
    palette.UNSPLIT: lambda line: line.exposed_unsplit_ms,
    palette.OTHER: lambda line: line.other_ms,
}
_WHOLE: dict[str, Callable[[StepLine], float | None]] = {
    palette.COMPUTE: lambda line: line.compute_ms,
    palette.EXPOSED: lambda line: line.exposed_ms,
    palette.OTHER: lambda line: line.other_ms,
}


def steps(report: Report) -> Figure:
    """Means over the ranks of each analysed step, ms; of stretches of steps where there are many."""
    lines = report.by_step
    if not lines:
        return saying(report, "no steps are known", "time-budget", "steps")
    split = all(line.exposed_wait_ms is not None for line in lines)
    traces = [
        _bars(kind, [value(line) for line in lines], lines)
        for kind, value in (_SPLIT if split else _WHOLE).items()
        if any(value(line) for line in lines)
    ]
    if any(line.hidden_ms for line in lines):
        traces.append(_hidden(lines))
    most = max(line.steps for line in lines)
    title = "step" if most == 1 else f"step (a bar is up to {most} steps)"
    return figure(
        traces,
        f"Bars of the parts of {sum(line.steps for line in lines)} steps, and what was hidden in each.",
        330,
        barmode="stack",
        bargap=0.1 if len(lines) <= 60 else 0,
        showlegend=True,
        hovermode="closest",
        xaxis=axis(title, showgrid=False, zeroline=False, **_ticks(lines)),
        yaxis=axis("ms", rangemode="tozero"),
    )


def _ticks(lines: Sequence[StepLine]) -> dict[str, object]:
    """Whole steps."""
    if len(lines) > _LABELS:
        return {"tickformat": "d"}
    return named([_middle(line) for line in lines], [str(line.step) for line in lines])


def _bars(kind: str, values: Sequence[float | None], lines: Sequence[StepLine]) -> Trace:
    return bars(
        kind,
        values,
        [_middle(line) for line in lines],
        width=[line.steps * (0.9 if len(lines) <= 60 else 1) for line in lines],
        customdata=[_said(line) for line in lines],
        hovertemplate=f"%{{customdata}}<br>{palette.NAMES[kind]}: %{{y:.4~g}} ms<extra></extra>",
    )


def _hidden(lines: Sequence[StepLine]) -> Trace:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(lines) <= 60 else "lines",
        "name": "hidden (beside the step)",
        "x": [_middle(line) for line in lines],
        "y": [line.hidden_ms for line in lines],
        "line": {"color": palette.COLOURS[palette.HIDDEN], "width": 2},
        "customdata": [_said(line) for line in lines],
        "hovertemplate": "%{customdata}<br>hidden: %{y:.4~g} ms<extra></extra>",
    }


def _middle(line: StepLine) -> float:
    return line.step + (line.steps - 1) / 2


def _said(line: StepLine) -> str:
    which = f"step {line.step}" if line.steps == 1 else f"steps {line.step}-{line.step + line.steps - 1}"
    slowest = "" if line.slowest is None else f"; rank {line.slowest} worked longest"
    return f"{which}: {milliseconds(line.step_ms)} ms{slowest}"
