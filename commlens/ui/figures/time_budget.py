"""Where a step goes: one bar of its parts, and what was hidden beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from commlens.analyzers import Report
from commlens.analyzers.summary import RankBudget, TimeBudget
from commlens.render.words import milliseconds, percent
from commlens.ui import palette
from commlens.ui.figures.frame import Trace, axis, bars, figure, legend, saying

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_STEP, _HIDDEN = "step", "beside it"


def budget(report: Report) -> Figure:
    """The parts of a step, ms: medians over steps, means over ranks, which need not add up to the step."""
    told = report.time_budget
    if not told.step_ms or told.exposed_ms is None:
        return saying(report, "no rank has a time budget", "time-budget", "steps")
    known = [(kind, value) for kind, value in parts(told) if value]
    traces = [_bar(kind, value, _STEP, told.step_ms) for kind, value in known]
    if told.hidden_ms:
        traces.append(_bar(palette.HIDDEN, told.hidden_ms, _HIDDEN, told.step_ms))
    return figure(
        traces,
        _alt(told),
        190,
        barmode="stack",
        bargap=0.25,
        uniformtext={"mode": "hide", "minsize": 11},  # a number that does not fit is not shown
        showlegend=legend(traces),
        xaxis=axis("ms per step", rangemode="tozero", fixedrange=True),
        yaxis=axis(type="category", autorange="reversed", showgrid=False, fixedrange=True),
        shapes=[_end(told.step_ms)],
    )


def parts(told: TimeBudget | RankBudget) -> Iterator[tuple[str, float | None]]:
    """Kinds of time of a step in the order of the text report, ms, as far as they are told apart."""
    yield palette.COMPUTE, told.compute_ms
    if told.exposed_wait_ms is None:
        yield palette.EXPOSED, told.exposed_ms
    else:
        yield palette.WAIT, told.exposed_wait_ms
        yield palette.TRANSFER, told.exposed_transfer_ms
        yield palette.UNSPLIT, told.exposed_unsplit_ms
    yield palette.OTHER, told.other_ms


def _bar(kind: str, value: float, place: str, step: float) -> Trace:
    said = f"{palette.NAMES[kind]}: {milliseconds(value)} ms, {percent(value, step)} of the step"
    return bars(
        kind,
        [value],
        [place],
        flat=True,
        text=[f"{milliseconds(value)} ms"],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        insidetextfont={"color": palette.on(palette.COLOURS[kind])},
        hovertemplate=f"{said}<extra></extra>",
    )


def _end(step: float) -> dict[str, object]:
    """A line where the step ends."""
    line = {"color": palette.LINE, "width": 2, "dash": "dot"}
    label = {"text": f"step {milliseconds(step)} ms", "textposition": "end", "textangle": 0, "xanchor": "right"}
    return {"type": "line", "x0": step, "x1": step, "y0": 0, "y1": 1, "yref": "paper", "line": line, "label": label}


def _alt(told: TimeBudget) -> str:
    known = [*parts(told), (palette.HIDDEN, told.hidden_ms)]
    words = ", ".join(f"{palette.NAMES[kind]} {milliseconds(value)} ms" for kind, value in known if value)
    return f"Bar: of a step of {milliseconds(told.step_ms)} ms, {words}."
