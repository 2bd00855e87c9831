"""What is hidden behind compute, and what stands in the way."""

from __future__ import annotations

from typing import Any, Final

from dash import Dash, html

from commlens.analyzers import Report
from commlens.render.words import milliseconds, number, percent, size
from commlens.ui import figures
from commlens.ui.dashboard.address import Query
from commlens.ui.dashboard.components import chart, nothing, question, table
from commlens.ui.dashboard.runs import Runs, View

NAME, TITLE = "overlap", "Overlap"
_MOST: Final = 40  # lines: a browser takes seconds for hundreds
QUESTION = "Is communication hidden behind compute, by step, group and bucket?"


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """Exposed and hidden, by collective and by step."""
    report = view.examined.report
    return [
        question(TITLE, QUESTION, _answer(report)),
        chart(figures.overlap(report)),
        chart(figures.steps(report)),
        _lines(report),
    ]


def _answer(report: Report) -> str:
    budget = report.time_budget
    if budget.overlap is None or budget.exposed_ms is None:
        return "How much is hidden cannot be told: see the figure's words."
    return (
        f"{percent(budget.overlap)} of the communication is hidden: {milliseconds(budget.hidden_ms)} ms a step beside"
        f" compute, {milliseconds(budget.exposed_ms)} ms exposed."
    )


def _lines(report: Report) -> Any:
    if not report.overlaps:
        return nothing("No collective was issued in an analysed step.")
    head = ["group", "operation", "bucket", "size", "a step", "exposed ms", "of it wait ms", "hidden ms", "overlap"]
    rows = [
        [
            line.group,
            line.op,
            "-" if line.bucket is None else str(line.bucket),
            size(line.bytes),
            number(line.count_per_step),
            milliseconds(line.exposed_ms_per_step),
            milliseconds(line.exposed_wait_ms_per_step),
            milliseconds(line.hidden_ms_per_step),
            percent(line.overlap),
        ]
        for line in report.overlaps[:_MOST]
    ]
    more = len(report.overlaps) - _MOST
    left = f"The {_MOST} longest exposed of {len(report.overlaps)}; all of them with commlens report --format json."
    return html.Div([table(head, rows, [False, False, *[True] * 7]), *([nothing(left)] if more > 0 else [])])


def register(app: Dash, runs: Runs) -> None:
    """Nothing moves here."""
