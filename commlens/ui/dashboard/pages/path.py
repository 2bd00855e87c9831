"""What fixes the end of a step."""

from __future__ import annotations

from typing import Any

from dash import Dash

from commlens.analyzers import Report
from commlens.render.path import named_parts
from commlens.render.report import sections
from commlens.render.words import milliseconds, percent
from commlens.ui import figures
from commlens.ui.blocks import wide_console
from commlens.ui.dashboard.address import Query
from commlens.ui.dashboard.components import chart, question, section
from commlens.ui.dashboard.runs import Runs, View

NAME, TITLE = "path", "Critical path"
QUESTION = "Which chain of work and transfers fixes the end of a step?"


def layout(view: View, query: Query, runs: Runs) -> list[Any]:
    """The path's parts."""
    report = view.examined.report
    parts = [part for part in sections(report, wide_console()) if part.key in ("path", "lanes")]
    return [
        question(TITLE, QUESTION, _answer(report)),
        chart(figures.critical_path(report)),
        *(section(part) for part in parts),
    ]


def _answer(report: Report) -> str:
    path = report.critical_path
    if path is None or not path.parts:
        return "The critical path is not known: see the figure's words."
    what, ms = named_parts(path)[0]
    return (
        f"Of {milliseconds(path.step_ms)} ms a step the longest part is {what}:"
        f" {milliseconds(ms)} ms ({percent(ms, path.step_ms)})."
    )


def register(app: Dash, runs: Runs) -> None:
    """Nothing moves here."""
